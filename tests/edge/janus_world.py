"""Two regions with a Janus server each, joined by real bridges, and the central service: all in one loop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from bridges.agent import serve
from bridges.settings import BridgeSettings
from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings
from edge.janus.connector import Connector, running_connector
from edge.janus.messages import ListRooms
from edge.janus.settings import JanusSettings
from edge.settings import EdgeSettings, Settings
from lab.settings import LabSettings
from tests.control.service import Service, running, until
from tests.edge.janus_server import ADMIN_KEY, API_SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge.janus.messages import RoomId
    from tests.edge.janus_server import JanusServer

__all__ = ["World", "world"]

SECRET = "a secret of node and bridges"


class World:
    """`join` asks the central service for a place, in a region."""

    def __init__(self, service: Service, url: str) -> None:
        self.service = service
        self.url = url
        self.connectors: dict[str, Connector] = {}

    async def join(self, region: str, user: str, *, conference: str = "standup") -> dict[str, Any]:
        answer = await self.service.join(conference, user=user, region=region)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["region"] == region
        return found

    async def rooms_of(self, region: str) -> list[RoomId]:
        """Return the rooms that the region's server has."""
        client = self.connectors[region].client
        assert client is not None
        handle = await client.attach(on_news=lambda: None)
        view = await handle.ask(ListRooms(admin_key=ADMIN_KEY))
        await client.detach(handle)
        return [one.room for one in view.rooms]

    @asynccontextmanager
    async def region(self, name: str, janus: JanusServer) -> AsyncIterator[Connector]:
        """Run a region's connector and bridges."""
        settings = Settings(
            lab=LabSettings(
                cluster=f"janus-{name}",
                region=name,
                node_secret=SECRET,
                service_key=f"service key of {name}",
                control_url=self.url,
                enrolment_key=self.service.keys["enrolment"],
            ),
            edge=EdgeSettings(
                janus=JanusSettings(
                    url=janus.url,
                    api_secret=API_SECRET,
                    admin_key=ADMIN_KEY,
                    call_timeout=5.0,
                    keepalive_interval=1.0,
                    string_ids=janus.string_ids,
                )
            ),
        )
        stop = asyncio.Event()
        async with running_connector(settings) as connector:
            cluster = connector.cluster
            bridge = BridgeSettings(
                cluster=settings.lab.cluster,
                node_url=f"ws://127.0.0.1:{cluster.port}/node",
                node_secret=SECRET,
            )
            bridging = asyncio.create_task(serve(bridge, stop=stop))
            try:

                async def registered() -> bool:
                    return cluster.registrar is not None and cluster.registrar.lease is not None

                await until(registered, bool)
                self.connectors[name] = connector
                yield connector
            finally:
                stop.set()
                await bridging


@asynccontextmanager
async def world(database_url: str, **servers: JanusServer) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url))
        listening = bind("127.0.0.1", 0)
        stack.callback(listening.close)
        host, port = address_of(listening)
        server = make_server(service.control.app, HttpSettings(), stop_timeout=1)
        serving = asyncio.create_task(server.serve(sockets=[listening]))

        async def away() -> None:
            server.should_exit = True
            await serving

        stack.push_async_callback(away)
        there = World(service, f"http://{host}:{port}")
        await service.create("standup")
        for name, janus in servers.items():
            await stack.enter_async_context(there.region(name, janus))
        yield there
