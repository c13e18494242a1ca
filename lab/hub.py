"""Media inside the cluster: each wanted track is pulled once and fanned out to everybody who wants it.

A track's source is a publishing client or, for a stream of another cluster, the media bridge; both serve
OWT's internal TCP transport. Everybody who wants a track gets an own sink: an unguessable id to name at the
hub's internal address. The first sink starts the pull, the last one ends it; sinks that pause do not count,
and a muted track is not pulled. The hub knows tracks, their origins and sinks; rooms, clients and bridges are
none of its business.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import structlog
from msgspec import Struct

from bridges.internal.gate import Throttle
from bridges.internal.receiver import InternalReceiver, InternalUnavailableError
from bridges.internal.wishes import RateWishes
from bridges.wire.frame import Feedback, FeedbackCommand
from causeway.backoff import Backoff
from lab.room_outputs import TrackKey
from lab.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from bridges.internal.listener import InternalListener, Source
    from bridges.internal.settings import InternalSettings
    from bridges.wire.frame import MediaFrame

__all__ = ["Demand", "Hub", "Origin", "RoutedTrack", "TrackCounters"]

_log: Final = structlog.get_logger(__name__)


class Demand(Protocol):
    """Somebody who has to know which tracks are wanted."""

    def __call__(self, track: RoutedTrack, *, wanted: bool) -> None:
        """Take note."""


class RoutedTrack(Struct, frozen=True):
    """A track of a room; the same stream id may occur in two rooms."""

    room: str
    key: TrackKey


class Origin(Struct, frozen=True):
    """Where a track can be pulled: an internal address, and the id to name there."""

    host: str
    port: int
    id: str


@dataclass(frozen=True, eq=False)
class _Held:
    """An origin as it was set; compared by identity, so that setting the same again is a change."""

    origin: Origin
    on_lost: Callable[[], None] | None


class TrackCounters(Struct, frozen=True, kw_only=True):
    """What has flowed through one relay since its first sink came."""

    track: RoutedTrack
    pulling: bool
    sinks: int
    subscribers: int
    """Open connections over all sinks."""
    frames: int
    bytes: int
    dropped_frames: int
    """Summed over all subscribers."""
    key_frame_requests: int
    """Sent to the source."""


class Hub:
    """Routes tracks. An async context manager; every call belongs on the loop's thread.

    `on_demand` is called when a track gets its first sink (`wanted` is True), and when it has lost the last;
    sinks that pause do not count.
    """

    def __init__(
        self,
        listener: InternalListener,
        *,
        settings: InternalSettings,
        on_demand: Demand | None = None,
        key_frame_interval: float = 0.25,
        retry_base: float = 0.05,
        retry_cap: float = 1.0,
    ) -> None:
        """`key_frame_interval`: seconds between key-frame requests to one source; retries in seconds."""
        self.on_demand = on_demand
        self._listener = listener
        self._settings = settings
        self._key_frame_interval = key_frame_interval
        self._retry = (retry_base, retry_cap)
        self._tasks = Tasks()
        self._origins: dict[RoutedTrack, _Held] = {}
        self._muted: set[RoutedTrack] = set()
        self._relays: dict[RoutedTrack, _Relay] = {}
        self._sinks: dict[str, _Relay] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in list(self._sinks):
            self.detach(sink)
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        """The port where sinks are served."""
        return self._listener.port

    @property
    def counters(self) -> list[TrackCounters]:
        """Of every track that is wanted now."""
        return [relay.counters() for relay in self._relays.values()]

    # --- where tracks come from -----------------------------------------------------------------------

    def set_origin(
        self, track: RoutedTrack, origin: Origin, *, on_lost: Callable[[], None] | None = None
    ) -> None:
        """Say where `track` can be pulled from now on.

        A connection that breaks is made again, with backoff; but with `on_lost` the origin is forgotten then
        and the owner is told, to set another one.
        """
        self._origins[track] = _Held(origin, on_lost)
        if track in self._relays:
            self._relays[track].wake.set()

    def clear_origin(self, track: RoutedTrack) -> None:
        """Say that `track` cannot be pulled any more; its sinks stay, silent."""
        if self._origins.pop(track, None) is not None and track in self._relays:
            self._relays[track].wake.set()
        self._muted.discard(track)

    def set_muted(self, track: RoutedTrack, *, muted: bool) -> None:
        """Pull nothing of `track`, or again everything: what is not pulled is not even encoded."""
        if muted:
            self._muted.add(track)
        else:
            self._muted.discard(track)
        if track in self._relays:
            self._relays[track].wake.set()

    # --- who wants them -------------------------------------------------------------------------------

    def attach(self, track: RoutedTrack) -> str:
        """Return the id of a new sink for `track`; connections may name it at once."""
        relay = self._relays.get(track)
        if relay is None:
            relay = self._relays[track] = _Relay(track, self._key_frame_interval)
            relay.task = self._tasks.create_task(self._pull(relay))
        sink = secrets.token_hex(16)
        relay.sinks[sink] = self._listener.add_source(
            sink,
            on_feedback=lambda feedback: relay.feedback(feedback, sink),
            on_joined=lambda _count: relay.ask_key_frame(),
        )
        self._sinks[sink] = relay
        self._follow(relay)
        return sink

    def set_paused(self, sink: str, *, paused: bool) -> None:
        """Let nothing pass to a sink, or again everything; unknown ids are ignored."""
        relay = self._sinks.get(sink)
        if relay is None:
            return
        if paused:
            relay.paused.add(sink)
        else:
            relay.paused.discard(sink)
            relay.ask_key_frame()
        self._follow(relay)

    def detach(self, sink: str) -> None:
        """End a sink and its connections; unknown ids are ignored."""
        relay = self._sinks.pop(sink, None)
        if relay is None:
            return
        source = relay.sinks.pop(sink)
        relay.dropped_before += source.dropped
        source.close()
        relay.left(sink)
        if not relay.sinks:
            del self._relays[relay.track]
            relay.stop()
        self._follow(relay)

    def _follow(self, relay: _Relay) -> None:
        """Begin to pull, or stop, as sinks want the track."""
        wanted = relay.wanted
        if wanted == relay.demanded:
            return
        relay.demanded = wanted
        relay.wake.set()
        if self.on_demand is not None:
            self.on_demand(relay.track, wanted=wanted)

    # --- pulling --------------------------------------------------------------------------------------

    def _origin(self, relay: _Relay) -> _Held | None:
        """Return where a track is to be pulled from now; None: it is not."""
        if relay.track in self._muted or not relay.wanted:
            return None
        return self._origins.get(relay.track)

    async def _pull(self, relay: _Relay) -> None:
        """Keep `relay` connected to its track's origin, whichever that is; ends by being cancelled."""
        base, cap = self._retry
        backoff = Backoff(base=base, cap=cap)
        while True:
            relay.wake.clear()
            held = self._origin(relay)
            if held is None:
                await relay.wake.wait()
                continue
            frames = relay.frames
            try:
                await self._pull_from(held, relay)
            except InternalUnavailableError as error:
                _log.info("track.unreachable", stream=relay.track.key.stream, reason=str(error))
            if relay.frames > frames:
                backoff.reset()
            relay.wake.clear()
            if self._origin(relay) is not held:
                continue
            if held.on_lost is not None:
                del self._origins[relay.track]
                held.on_lost()
                continue
            try:
                async with asyncio.timeout(backoff.next_delay()):
                    await relay.wake.wait()
            except TimeoutError:
                continue

    async def _pull_from(self, held: _Held, relay: _Relay) -> None:
        """Pull until the connection is lost or another origin is set. Raises InternalUnavailableError."""
        receiver = await InternalReceiver.connect(
            held.origin.host,
            held.origin.port,
            held.origin.id,
            on_frame=relay.frame,
            on_lost=lambda _reason: relay.wake.set(),
            settings=self._settings,
        )
        relay.connected(receiver)
        try:
            relay.wake.clear()
            while not receiver.closed and self._origin(relay) is held:
                await relay.wake.wait()
                relay.wake.clear()
        finally:
            relay.receiver = None
            receiver.close()


class _Relay:
    """One wanted track: what is pulled goes to every sink."""

    def __init__(self, track: RoutedTrack, key_frame_interval: float) -> None:
        self._interval = key_frame_interval
        self._throttle = Throttle(key_frame_interval)
        self._late_request: asyncio.TimerHandle | None = None
        self.track = track
        self.sinks: dict[str, Source] = {}
        self.paused: set[str] = set()
        """Those of them that take nothing at present."""
        self.demanded = False
        """Whether it was told that somebody wants the track."""
        self._rates = RateWishes()
        self.task: asyncio.Task[None] | None = None
        self.receiver: InternalReceiver | None = None
        self.wake = asyncio.Event()
        """Set when the pull has to look again: the connection is lost, or the origin is another one."""
        self.frames = 0
        self.bytes = 0
        self.dropped_before = 0
        self.key_frame_requests = 0

    @property
    def wanted(self) -> bool:
        """Whether any sink takes what comes."""
        return len(self.sinks) > len(self.paused)

    def counters(self) -> TrackCounters:
        """Return what has flowed."""
        return TrackCounters(
            track=self.track,
            pulling=self.receiver is not None,
            sinks=len(self.sinks),
            subscribers=sum(source.subscribers for source in self.sinks.values()),
            frames=self.frames,
            bytes=self.bytes,
            dropped_frames=self.dropped_before + sum(source.dropped for source in self.sinks.values()),
            key_frame_requests=self.key_frame_requests,
        )

    def connected(self, receiver: InternalReceiver) -> None:
        """Take a new connection to the origin; a decoder has to start anew with what comes from it."""
        self.receiver = receiver
        self.ask_key_frame()
        self._ask_for(self._rates.least(asyncio.get_running_loop().time()))

    def frame(self, frame: MediaFrame) -> None:
        """Fan a frame out; each sink drops by itself what its subscriber does not take in time."""
        self.frames += 1
        self.bytes += len(frame.raw)
        if frame.key_frame:
            self._cancel_late_request()
        for sink, source in list(self.sinks.items()):
            if sink not in self.paused:
                source.write(frame)

    def left(self, sink: str) -> None:
        """Take note that a sink has ended."""
        self.paused.discard(sink)
        self._ask_for(self._rates.forget(asyncio.get_running_loop().time(), sink))

    def feedback(self, feedback: Feedback, sink: str) -> None:
        """Take what a subscriber asks of the source: key frames, and of rates the least."""
        if feedback.command is FeedbackCommand.REQUEST_KEY_FRAME:
            self.ask_key_frame()
        elif feedback.command is FeedbackCommand.SET_BITRATE:
            self._ask_for(self._rates.ask(asyncio.get_running_loop().time(), sink, feedback.kbps))

    def _ask_for(self, kbps: int | None) -> None:
        """Ask the source for a rate; None: nothing."""
        if kbps is not None and self.receiver is not None:
            self.receiver.send(Feedback.set_bitrate(kbps))

    def ask_key_frame(self) -> None:
        """Ask the source for a key frame: now, or as soon as the interval since the last request is over."""
        if self.track.key.kind != "video" or self.receiver is None:
            return  # Without a connection nothing is lost: the next one starts with a request.
        loop = asyncio.get_running_loop()
        if self._throttle.ready(loop.time()):
            self.key_frame_requests += 1
            self.receiver.request_key_frame()
        elif self._late_request is None:
            self._late_request = loop.call_later(self._interval, self._ask_late)

    def stop(self) -> None:
        """End the pull."""
        self._cancel_late_request()
        if self.task is not None:
            self.task.cancel()

    def _ask_late(self) -> None:
        self._late_request = None
        self.ask_key_frame()

    def _cancel_late_request(self) -> None:
        if self._late_request is not None:
            self._late_request.cancel()
            self._late_request = None
