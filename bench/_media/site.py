"""A cluster in a process of its own: a real media bridge, the tracks of its own, and who takes others'."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter, deque
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from bench._frames import Delays
from bench._media.camera import Camera, shoot
from bench._media.direct import DirectListener, DirectReceiver, arrived, replaced
from bench._media.node import TOKEN, bridge
from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.internal.settings import InternalSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from structlog.typing import EventDict

    from bench._virtual.media import Track
    from bridges.media.bridge import MediaBridge

__all__ = ["ROOM", "Site"]

ROOM: Final = "room"
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_OURS: Final = {"aioquic", "bridges"}
_REST: Final = 20.0
"""Seconds in which everything that has ended must be gone."""
_PATIENCE: Final = InternalSettings(connect_timeout=30.0, source_wait=30.0)


class Site:
    """What is running of one cluster; every method that `handle` knows is called by whoever measures."""

    def __init__(
        self,
        cluster: str,
        hub: InternalListener | DirectListener,
        own: MediaBridge,
        tasks: asyncio.TaskGroup,
        receivers: type[InternalReceiver | DirectReceiver],
        *,
        clock: Callable[[], int],
    ) -> None:
        self._cluster = cluster
        self._hub = hub
        self._bridge = own
        self._tasks = tasks
        self._receivers = receivers
        self._rolling: dict[str, list[asyncio.Task[None]]] = {}
        self._cameras: dict[str, list[Camera]] = {}
        self._takers: dict[str, list[InternalReceiver | DirectReceiver]] = {}
        self._delays = Delays(clock)
        self._lost: list[str] = []
        self._complaints: deque[str] = deque(maxlen=100)
        self._joined = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, cluster: str, wire: str, core: int | None = None, *, direct: bool = False, yields: bool = False
    ) -> AsyncIterator[Site]:
        """Run until the end; on one core only, if it is said which; with `yields` while nobody else wants it.

        With `direct` there is no TCP between the bridge and those who send and take, and a frame has arrived
        when the kernel has it.
        """
        if core is not None:
            os.sched_setaffinity(0, {core})
        if yields:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with replaced() if direct else nullcontext():
            hub = await (DirectListener if direct else InternalListener).start()
            async with asyncio.TaskGroup() as tasks, bridge(cluster, hub.port, wire) as own:
                receivers, clock = (
                    (DirectReceiver, arrived) if direct else (InternalReceiver, time.monotonic_ns)
                )
                site = cls(cluster, hub, own, tasks, receivers, clock=clock)
                logs = structlog.get_config()
                structlog.configure(processors=[site._complain, *logs["processors"]])
                try:
                    yield site
                finally:
                    structlog.configure(**logs)
                    site._leave_all()
                    await hub.close()

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call."""
        return await getattr(self, f"on_{method}")(*args)

    # --- links and tracks -----------------------------------------------------------------------

    async def on_info(self) -> Any:
        """Return where the bridge is."""
        return await self._bridge.handle("getInfo", [])

    async def on_cascade(self, peer: str, info: dict[str, Any], room: str = ROOM) -> None:
        """Dial a peer's bridge for a room."""
        order = {
            "room": room,
            "token": TOKEN,
            "selfCluster": self._cluster,
            "targetCluster": peer,
            "evIP": "127.0.0.1",
            "evPort": 9,
            "mediaIP": info["ip"],
            "mediaPort": info["port"],
            "mediaFingerprint": info["fingerprint"],
        }
        await self._bridge.handle("startCascading", [order])

    async def on_uncascade(self, peer: str, room: str = ROOM) -> None:
        """Want no link to a peer any more."""
        self._bridge.stop_cascading(peer, room)

    async def on_relay(self, ways: dict[str, tuple[str, ...]], room: str = ROOM) -> None:
        """Pass on what the room's links bring."""
        self._bridge.set_relays(room, ways)

    async def on_forget_room(self, room: str = ROOM) -> None:
        """Take note that the room is gone."""
        await self._bridge.handle("destroyRoom", [room])

    async def on_offer(self, stream: str, tracks: list[Track]) -> None:
        """Have a stream of these tracks."""
        number = len(self._cameras)
        self._cameras[stream] = [
            Camera(self._hub, stream, track, on_joined=lambda _: self._joined.set(), phase=23 * number)
            for track in tracks
        ]

    async def on_roll(self, stream: str) -> None:
        """Let the cameras of a stream run until it is withdrawn."""
        self._rolling[stream] = [self._tasks.create_task(camera.roll()) for camera in self._cameras[stream]]

    async def on_withdraw(self, stream: str) -> None:
        """Have it no more."""
        for task in self._rolling.pop(stream, ()):
            task.cancel()
        for camera in self._cameras.pop(stream):
            camera.source.close()

    async def on_take(self, session: str, peer: str, stream: str, kinds: list[str], room: str = ROOM) -> None:
        """Pull tracks of a stream of a peer, and take them at our bridge's internal address."""
        tracks = [{"id": f"{session}-{kind}", "type": kind, "from": stream} for kind in kinds]
        order = {"cluster": peer, "room": room, "pubArgs": tracks}
        await self._bridge.handle("publish", [session, "mediabridge", order])
        for track in tracks:
            await self.on_join(session, track["id"])

    async def on_join(self, name: str, track: str) -> None:
        """Let somebody more, known by a name, take a track that is pulled."""
        receiver = await self._receivers.connect(
            "127.0.0.1",
            self._bridge.internal_port,
            track,
            on_frame=self._delays.take,
            on_lost=self._lost.append,
            settings=_PATIENCE,
        )
        self._takers.setdefault(name, []).append(receiver)

    async def on_leave(self, name: str) -> None:
        """Let somebody take no more."""
        for receiver in self._takers.pop(name):
            receiver.close()

    async def on_untake(self, session: str) -> None:
        """Pull tracks no more."""
        await self.on_leave(session)
        await self._bridge.handle("unpublish", [session])

    # --- frames ----------------------------------------------------------------------------------

    async def on_send(self, streams: list[str], seconds: float) -> dict[str, Any]:
        """Capture and send; return the stamps and the bytes of media (see Sent), and how long it took."""
        cameras = [camera for stream in streams for camera in self._cameras[stream]]
        began = time.monotonic()
        sent = await shoot(cameras, seconds)
        return {**asdict(sent), "seconds": time.monotonic() - began}

    async def on_subscribed(self, count: int) -> None:
        """Wait until so many tracks of ours are taken by somebody."""
        while self._subscribed < count:
            self._joined.clear()
            await self._joined.wait()

    @property
    def _subscribed(self) -> int:
        return sum(bool(camera.source.subscribers) for each in self._cameras.values() for camera in each)

    async def on_taken(self) -> dict[int, float]:
        """Return the delay of every frame by its stamp, and forget them."""
        delays = dict(self._delays.by_stamp)
        self._delays.clear()
        return delays

    async def on_count(self) -> int:
        """Return how many frames have come since they were forgotten, and forget them."""
        count = len(self._delays)
        self._delays.clear()
        return count

    async def on_lost(self) -> list[str]:
        """Return why tracks were lost that nobody had given up."""
        return self._lost

    # --- figures ---------------------------------------------------------------------------------

    async def on_complaints(self) -> list[str]:
        """Return what was logged as an error, at most 100, and forget it."""
        told = list(self._complaints)
        self._complaints.clear()
        return told

    async def on_at_rest(self) -> bool:
        """Wait until the bridge has no link and no track; return False if that takes too long."""
        try:
            async with asyncio.timeout(_REST):
                while (stats := await self.on_stats())["links"] or stats["tracks"]:  # noqa: ASYNC110 - only asking tells
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def on_stats(self) -> Any:
        """Return the bridge's figures."""
        return await self._bridge.handle("getStats", [])

    async def on_cpu(self) -> float:
        """Return the seconds of processor that this process has used."""
        return time.process_time()

    async def on_waited(self) -> float:
        """Return the seconds that this process was ready to run and others had the core."""
        return _waited()

    async def on_rest(self) -> tuple[int, dict[str, int]]:
        """Return the bytes when what is garbage is gone, and how many objects of each of our types there are.

        Under `all` are all that the collector knows.
        """
        gc.collect()
        held = gc.get_objects()
        types = Counter(type(each) for each in held)
        counts = {
            f"{kind.__module__}.{kind.__qualname__}": count
            for kind, count in types.items()
            if kind.__module__.partition(".")[0] in _OURS
        }
        counts["asyncio.Task"] = len(asyncio.all_tasks())
        return _resident(), {**counts, "all": len(held)}

    def _complain(self, _logger: object, level: str, event: EventDict) -> EventDict:
        if level in {"error", "critical", "exception"}:
            error = sys.exc_info()[1]
            self._complaints.append(str(event["event"]) if error is None else f"{event['event']}: {error!r}")
        raise structlog.DropEvent

    def _leave_all(self) -> None:
        for tasks in self._rolling.values():
            for task in tasks:
                task.cancel()
        for receivers in self._takers.values():
            for receiver in receivers:
                receiver.close()
        self._takers.clear()


def _waited() -> float:
    return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def _resident() -> int:
    return _PAGE * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
