from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from causeway.api import ClusterList, ConferenceView
from causeway.client import ControlClient
from lab.launcher.observer import Observer
from lab.launcher.processes import Region

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLUSTER: dict[str, Any] = {
    "id": "lab-eu-west",
    "region": "eu-west",
    "driver": "owt",
    "state": "online",
    "state_since": "2026-01-01T00:00:00Z",
    "state_reason": "registered",
    "rest_url": "http://127.0.0.1:1",
    "instance": "d1",
    "modules": [],
    "capacity": {},
    "load": {},
    "limits": {},
    "labels": {},
    "cost": 0,
    "ping_url": None,
    "location": None,
    "probed": False,
    "epoch": 1,
    "last_seen_at": "2026-01-01T00:00:00Z",
    "lease_expires_at": "2026-01-01T00:00:06Z",
}
CONFERENCE: dict[str, Any] = {
    "id": "c",
    "state": "active",
    "created_at": "2026-01-01T00:00:00Z",
    "type": "default",
    "template_version": 1,
    "metadata": {},
    "locked": False,
    "participant_limit": -1,
    "empty_ttl": 86400,
    "empty_since": None,
    "expires_at": None,
    "placements": [],
    "links": [],
    "participants": [],
}
MISSING_PORT = 1


class World:
    """Control and one cluster behind one port; what they answer can be changed."""

    def __init__(self) -> None:
        self.ready = True
        self.broken = False
        self.stats: Any = {"rooms": []}
        self.authorised: set[str | None] = set()

    async def readyz(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    async def clusters(self, _request: web.Request) -> web.Response:
        return web.Response(status=500) if self.broken else web.json_response({"clusters": [CLUSTER]})

    async def conference(self, _request: web.Request) -> web.Response:
        return web.Response(status=500) if self.broken else web.json_response(CONFERENCE)

    async def lab_stats(self, request: web.Request) -> web.Response:
        self.authorised.add(request.headers.get("Authorization"))
        return web.Response(status=500) if self.broken else web.json_response(self.stats)


@asynccontextmanager
async def observing(world: World) -> AsyncIterator[tuple[Observer, Region]]:
    app = web.Application()
    app.router.add_get("/readyz", world.readyz)
    app.router.add_get("/v1/clusters", world.clusters)
    app.router.add_get("/v1/conferences/c", world.conference)
    app.router.add_get("/lab/stats", world.lab_stats)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    regions = [Region(name="eu-west", port=port), Region(name="us-east", port=MISSING_PORT)]
    url = f"http://127.0.0.1:{port}"
    async with ControlClient(url, "key") as client:
        observer = Observer(client, url, regions, interval=0.01)
        observer.conference = "c"
        task = asyncio.create_task(observer.run())
        try:
            async with asyncio.timeout(15):
                yield observer, regions[0]
        finally:
            task.cancel()
            await asyncio.wait({task})
            await runner.cleanup()


async def test_everything_that_answers_is_seen() -> None:
    world = World()
    async with observing(world) as (observer, region):
        await observer.until(lambda seen: seen.ready and bool(seen.clusters) and bool(seen.stats))
        seen = observer.seen
        assert seen.clusters["lab-eu-west"].state == "online"
        assert isinstance(seen.conference, ConferenceView)
        assert dict(seen.stats) == {"eu-west": {"rooms": []}}
        assert world.authorised == {f"Bearer {region.node_secret}"}


async def test_until_looks_again_before_it_believes() -> None:
    world = World()
    async with observing(world) as (observer, _):
        await observer.until(lambda seen: seen.ready)
        world.ready = False
        await observer.until(lambda seen: not seen.ready)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await observer.until(lambda seen: seen.ready)


async def test_what_fails_keeps_its_last_known_state() -> None:
    world = World()
    async with observing(world) as (observer, _):
        await observer.until(lambda seen: bool(seen.stats) and seen.conference is not None)
        world.broken = True
        await observer.until(lambda seen: not seen.stats)
        assert "lab-eu-west" in observer.seen.clusters
        assert observer.seen.conference is not None


def test_the_canned_answers_are_controls() -> None:
    # Otherwise the tests above would prove nothing: a wrong shape is "not reached".
    msgspec.convert({"clusters": [CLUSTER]}, ClusterList)
    msgspec.convert(CONFERENCE, ConferenceView)
