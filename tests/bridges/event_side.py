"""A cluster with its event bridge, peers that knock by hand, and what both tell a test."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from bridges.event.bridge import EventBridge
from bridges.event.settings import EventSettings
from bridges.node.websocket import NodeSettings, WebSocketNode
from bridges.quic import Certificate, Connection, QuicSettings, dial
from bridges.settings import BridgeSettings
from bridges.wire import framing, messages
from tests.bridges.node_stub import SECRET, NodeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bridges.wire.messages import BridgeHello, ClusterHello, Event, Ready

WAIT = 10.0
QUIC = QuicSettings(alpn=("h3",), idle_timeout=0.6, keepalive=0.15, handshake_timeout=2.0)
EVENT = EventSettings(retry_base=0.02, retry_cap=0.2, node_call_timeout=0.5)
NODE = NodeSettings(retry_base=0.02, retry_cap=0.1, ping_interval=0.3, ping_timeout=0.6)

ALICE = {
    "id": "p1",
    "user": "alice",
    "role": "presenter",
    "origin": {"isp": "isp", "region": "region"},
    "futureField": [1, 2.5, None, {"ü": "ß"}],
}


class Site:
    """A cluster with its event bridge."""

    def __init__(self, cluster: str, node: NodeStub, settings: BridgeSettings) -> None:
        self.cluster = cluster
        self.node = node
        self.settings = settings
        self.certificate = Certificate.self_signed(cluster)
        self.carrier = WebSocketNode(
            node.url, secret=SECRET, purpose="eventbridge", host="127.0.0.1", settings=settings.node
        )
        self.bridge = EventBridge(self.carrier, settings, self.certificate)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.bridge.start()
        self._tasks = [
            asyncio.create_task(self.bridge.run()),
            asyncio.create_task(self.carrier.run(self.bridge, info={"port": self.bridge.port})),
        ]
        await self.node.joined("eventbridge")
        async with asyncio.timeout(WAIT):
            await self.carrier.wait_joined()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results

    async def call(self, method: str, *args: Any) -> Any:
        return await self.node.call(await self.node.joined("eventbridge"), method, *args)

    async def cascade(self, target: Site, room: str, **changes: Any) -> None:
        """Order this site to dial `target` for `room`."""
        info = await target.call("getInfo")
        options = {
            "room": room,
            "token": target.node.rooms[room].token if room in target.node.rooms else "none",
            "selfCluster": self.cluster,
            "targetCluster": target.cluster,
            "evIP": info["ip"],
            "evPort": info["port"],
            "evFingerprint": info["fingerprint"],
            "mediaIP": "127.0.0.1",
            "mediaPort": 1,
        }
        assert await self.call("startCascading", {**options, **changes}) == "ok"

    async def link(self, room: str) -> dict[str, Any] | None:
        """Return what getStats says of the link for `room`."""
        links: list[dict[str, Any]] = (await self.call("getStats"))["links"]
        return next((link for link in links if link["room"] == room), None)

    async def until_link(self, room: str, condition: Callable[[dict[str, Any] | None], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition(await self.link(room)):  # each turn is a call over a real socket
                pass


@asynccontextmanager
async def sites(
    *clusters: str,
    rooms: tuple[str, ...] = ("room-1",),
    event: EventSettings = EVENT,
    quic: QuicSettings = QUIC,
) -> AsyncIterator[list[Site]]:
    async with AsyncExitStack() as stack:
        made = []
        for cluster in clusters or ("west", "east"):
            node = await stack.enter_async_context(NodeStub())
            for room in rooms:
                node.room(room, token=f"{cluster}-{room}-token")
            settings = BridgeSettings(
                cluster=cluster,
                node_url=node.url,
                node_secret=SECRET,
                quic=quic,
                event=event,
                node=NODE,
            )
            site = Site(cluster, node, settings)
            stack.push_async_callback(site.stop)
            await site.start()
            made.append(site)
        yield made


async def initialized(site: Site, peer: Site, room: str = "room-1", *, times: int = 1) -> None:
    """Wait until a site's node has got the peer's state."""
    await site.node.until(lambda: site.node.rooms[room].types(peer.cluster).count("initialize") >= times)


def up(link: dict[str, Any] | None) -> bool:
    return link is not None and link["state"] == "up"


class Probe:
    """A handler for a dialer of the tests' own making."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.resets: dict[int, int] = {}
        self.data: dict[int, bytes] = {}
        self._changed = asyncio.Event()

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.data[stream_id] = self.data.get(stream_id, b"") + data
        self._changed.set()

    def stream_reset(self, stream_id: int, code: int) -> None:
        self.resets[stream_id] = code
        self._changed.set()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[Probe], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def reset_code(self, stream_id: int) -> int:
        await self.until(lambda probe: stream_id in probe.resets)
        return self.resets[stream_id]


async def knock(site: Site) -> tuple[Connection, Probe]:
    """Dial a site's bridge by hand, on OWT's wire."""
    connection = await dial(
        "127.0.0.1",
        site.bridge.port,
        fingerprint=site.certificate.fingerprint,
        settings=QUIC,
        alpn=("h3",),
    )
    probe = Probe()
    connection.handler = probe
    return connection, probe


def encoded(message: Ready | BridgeHello | ClusterHello | Event) -> bytes:
    return framing.encode(messages.encode(message))


def silence(connection: Connection) -> None:
    """Let a connection's datagrams go nowhere and none come in, as if its process had been killed."""

    class Nowhere:
        def __getattr__(self, name: str) -> Any:
            return getattr(endpoint, name)

        def send_datagrams(self, datagrams: Sequence[bytes], address: Any) -> None:
            pass

    endpoint = connection._endpoint
    connection._endpoint = Nowhere()
