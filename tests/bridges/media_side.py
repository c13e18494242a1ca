"""One cluster for tests of the media bridge: a scripted node, a real bridge, sources inside the cluster."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.media.bridge import MediaBridge
from bridges.media.settings import MediaSettings
from bridges.node.websocket import NodeSettings, WebSocketNode
from bridges.quic import Certificate, QuicSettings
from bridges.settings import BridgeSettings
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from tests.bridges.node_stub import SECRET, WAIT, NodeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridges.internal.listener import Source
    from bridges.wire.frame import Feedback

ROOM = "room-1"

QUICK = MediaSettings(redial_base=0.05, redial_cap=0.2, key_frame_interval=0.1)


def picture(number: int = 0, *, key: bool = False, size: int = 2000) -> MediaFrame:
    info = VideoInfo(width=640, height=480, key_frame=key)
    payload = (number.to_bytes(4, "big") * (size // 4 + 1))[:size]
    return MediaFrame.build(FrameFormat.VP8, timestamp=number * 3000, info=info, payload=payload)


def sound(number: int = 0, *, size: int = 120) -> MediaFrame:
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2)
    payload = (number.to_bytes(4, "big") * (size // 4 + 1))[:size]
    return MediaFrame.build(FrameFormat.OPUS, timestamp=number * 960, info=info, payload=payload)


class Changes:
    """Something that tests wait for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def note(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Taken:
    """An agent of the cluster that takes a track from the bridge's internal address."""

    def __init__(self) -> None:
        self.frames: list[MediaFrame] = []
        self.lost: list[str] = []
        self.changes = Changes()
        self.receiver: InternalReceiver | None = None

    @classmethod
    async def of(cls, side: Side, track: str) -> Taken:
        taken = cls()
        taken.receiver = await InternalReceiver.connect(
            "127.0.0.1",
            side.bridge.internal_port,
            track,
            on_frame=taken._frame,
            on_lost=taken._lost,
        )
        return taken

    def _frame(self, frame: MediaFrame) -> None:
        self.frames.append(frame)
        self.changes.note()

    def _lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changes.note()

    async def until(self, condition: Callable[[], object]) -> None:
        await self.changes.until(condition)

    def close(self) -> None:
        if self.receiver is not None:
            self.receiver.close()


class Side:
    """A cluster. Its node answers `subscribe` with `linkup` to the source `<stream>-<kind>` of `hub`."""

    def __init__(self, cluster: str, node: NodeStub, hub: InternalListener) -> None:
        self.cluster = cluster
        self.node = node
        self.hub = hub
        self.bridge: MediaBridge
        self.worker = ""
        self.subscribed: list[dict[str, Any]] = []
        self.unsubscribed: list[str] = []
        self.feedback: list[Feedback] = []
        self.changes = Changes()
        self.link_first = False
        """Whether linkup comes before the reply to subscribe."""
        self.linking = True
        self._later: list[asyncio.Task[Any]] = []
        node.handlers["subscribe"] = self._subscribe
        node.handlers["unsubscribe"] = self._unsubscribe

    async def _subscribe(self, to: str, args: list[Any]) -> str:
        assert to in {room.node_id for room in self.node.rooms.values()}
        admin, connection_id, options = args
        assert admin == "admin"
        self.subscribed.append(options)
        self.changes.note()
        if self.linking:
            linkup = asyncio.create_task(self.linkup(connection_id, options))
            self._later.append(linkup)
            if self.link_first:
                await linkup
        return "ok"

    async def linkup(self, connection_id: str, options: dict[str, Any]) -> None:
        (track,) = options["media"]["tracks"]
        address = {"id": f"{track['from']}-{track['type']}", "ip": "127.0.0.1", "port": self.hub.port}
        await self.call("linkup", connection_id, {track["type"]: address})

    async def _unsubscribe(self, to: str, args: list[Any]) -> str:
        del to
        self.unsubscribed.append(args[1])
        self.changes.note()
        return "ok"

    async def call(self, method: str, *args: Any) -> Any:
        return await self.node.call(self.worker, method, *args)

    async def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = await self.call("getStats")
        return stats

    def source(self, stream: str, kind: str) -> Source:
        """Offer a track of this cluster."""
        return self.hub.add_source(
            f"{stream}-{kind}",
            on_feedback=self._asked,
            on_joined=lambda _: self.changes.note(),
            on_left=lambda _: self.changes.note(),
        )

    def _asked(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)
        self.changes.note()

    async def cascade(
        self, other: Side, *, token: str = "room-token", room: str = ROOM, port: int | None = None
    ) -> None:
        """Order the bridge to dial the other side's, or `port` on the way to it."""
        info = await other.call("getInfo")
        options = {
            "room": room,
            "token": token,
            "selfCluster": self.cluster,
            "targetCluster": other.cluster,
            "evIP": "127.0.0.1",
            "evPort": 9,
            "mediaIP": info["ip"],
            "mediaPort": port or info["port"],
            "mediaFingerprint": info["fingerprint"],
        }
        assert await self.call("startCascading", options) == "ok"

    async def publish(self, session: str, origin: Side, *tracks: tuple[str, str, str]) -> None:
        """Ask for (id, type, stream) tracks of another cluster."""
        options = {
            "controller": "conference-0@stub_0",
            "type": "mediabridge",
            "originType": "webrtc",
            "cluster": origin.cluster,
            "room": ROOM,
            "pubArgs": [{"id": id_, "type": type_, "from": from_} for id_, type_, from_ in tracks],
            "media": {},
        }
        assert await self.call("publish", session, "mediabridge", options) == "ok"

    async def poll(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask for the figures until a condition holds; each answer is a round trip, so this does not spin."""
        async with asyncio.timeout(WAIT):
            while not condition(stats := await self.stats()):
                pass
        return stats

    async def stop(self) -> None:
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)


@asynccontextmanager
async def side(
    cluster: str, *, media: MediaSettings = QUICK, quic: QuicSettings | None = None
) -> AsyncIterator[Side]:
    """Run a cluster with its bridge."""
    async with NodeStub() as node:
        node.room(ROOM)
        hub = await InternalListener.start()
        own = Side(cluster, node, hub)
        settings = BridgeSettings(cluster=cluster, media=media, quic=quic or QuicSettings())
        client = WebSocketNode(
            node.url,
            secret=SECRET,
            purpose="mediabridge",
            host="127.0.0.1",
            settings=NodeSettings(retry_base=0.05, retry_cap=0.2),
        )
        own.bridge = MediaBridge(client, settings, Certificate.self_signed(cluster))
        await own.bridge.start()
        running = asyncio.create_task(own.bridge.run())
        connected = asyncio.create_task(client.run(own.bridge, info={"port": own.bridge.port}))
        try:
            own.worker = await node.joined("mediabridge")
            yield own
        finally:
            connected.cancel()
            running.cancel()
            results = await asyncio.gather(connected, running, return_exceptions=True)
            await own.stop()
            await hub.close()
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


@asynccontextmanager
async def two_sides(**settings: Any) -> AsyncIterator[tuple[Side, Side]]:
    """Run an earlier cluster and a later one that has dialled it."""
    async with side("east", **settings) as east, side("west", **settings) as west:
        await west.cascade(east)
        await east.poll(lambda stats: stats["links"])
        yield east, west
