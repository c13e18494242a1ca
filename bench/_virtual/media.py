"""Pictures and sound over a connection, each frame with its deadline, and when they came out."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived

from bridges.media.own.sending import Frame, Kind, SendQueue
from bridges.quic.recovery import Recovery, replace_datagrams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.peer import Peer
    from bench._virtual.world import World

__all__ = ["DEADLINE", "SOUND", "VIDEO", "Media", "Shown", "Track"]

DEADLINE: Final = 0.2
"""Seconds beyond the path's one-way delay in which a frame is in time."""
_KEY_DEADLINE: Final = 1.0
_FRAGMENT: Final = 1150
_HEADER: Final = struct.Struct("!HIHH")
"""Track, frame, fragment, fragments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A source of frames: `rate` a second of `size` bytes, every `key_every`-th of them `key_size`."""

    sound: bool
    rate: float
    size: int
    key_every: int = 0
    key_size: int = 0

    def kind(self, count: int, phase: int) -> Kind:
        """Return what the frame with that number is; the first is a key frame, the later ones by `phase`."""
        if self.sound:
            return Kind.SOUND
        return Kind.KEY if not count or (count + phase) % self.key_every == 0 else Kind.DELTA


VIDEO: Final = Track(sound=False, rate=30, size=3500, key_every=60, key_size=30_000)
"""0.95 Mbit/s."""
SOUND: Final = Track(sound=True, rate=50, size=120)


@dataclass(slots=True)
class Shown:
    """What became of one frame."""

    kind: Kind
    captured: float
    complete: float = math.inf
    missing: int = 0


class _Source:
    """The send queue, as the connection takes datagrams from it."""

    def __init__(self, world: World, queue: SendQueue) -> None:
        self._world = world
        self._queue = queue

    def head(self) -> bytes | None:
        fragment = self._queue.head(self._world.now)
        return None if fragment is None else fragment.data

    def taken(self) -> Callable[[bool], None]:
        fragment = self._queue.pop()

        def outcome(arrived: bool) -> None:  # noqa: FBT001 - one thing, told once
            if not arrived:
                self._queue.lost(self._world.now, fragment)

        return outcome


class Media:
    """Tracks from `begin` to `end`: with our recovery as datagrams, repeated; else a stream per frame."""

    def __init__(
        self,
        world: World,
        sender: Peer,
        receiver: Peer,
        tracks: Iterable[Track],
        *,
        begin: float = 0.5,
        end: float = math.inf,
    ) -> None:
        self.shown: dict[tuple[int, int], Shown] = {}
        """By number of track and frame."""
        self.queue: Final = SendQueue()
        self._world = world
        self._sender = sender
        self._end = end
        recovery = sender.quic._loss  # noqa: SLF001 - there is no public way to it
        self._recovery = recovery if isinstance(recovery, Recovery) else None
        self._seen: set[tuple[int, int, int]] = set()
        self._streams: dict[int, tuple[int, int]] = {}
        receiver.on_event = self._take
        receiver.quic._local_max_streams_uni.value = 1 << 20  # noqa: SLF001 - 128 would stop Reno's stream per frame
        if self._recovery is not None:
            replace_datagrams(sender.quic, _Source(world, self.queue))
        for number, track in enumerate(tracks):
            self._later(number, track, 0, begin + number * 0.0037)

    def _later(self, number: int, track: Track, count: int, at: float) -> None:
        if at < self._end:
            self._world.at(at, lambda: self._capture(number, track, count))

    def _capture(self, number: int, track: Track, count: int) -> None:
        now, kind = self._world.now, track.kind(count, number * 23)
        size = track.key_size if kind is Kind.KEY else track.size
        total = math.ceil(size / _FRAGMENT)
        self.shown[number, count] = Shown(kind, now, missing=total)
        if self._recovery is None:
            stream_id = self._sender.quic.get_next_available_stream_id(is_unidirectional=True)
            self._streams[stream_id] = (number, count)
            self._sender.quic.send_stream_data(stream_id, bytes(size), end_stream=True)
        else:
            frame = Frame(number, kind, now + (_KEY_DEADLINE if kind is Kind.KEY else DEADLINE))
            each = math.ceil(size / total)
            fragments = [_HEADER.pack(number, count, index, total) + bytes(each) for index in range(total)]
            self.queue.offer(now, frame, fragments, rate=self._recovery.controller.rate)
        self._sender.advance()
        self._later(number, track, count + 1, now + 1 / track.rate)

    def _take(self, event: QuicEvent) -> None:
        match event:
            case DatagramFrameReceived():
                number, count, index, _ = _HEADER.unpack_from(event.data)
                if (number, count, index) not in self._seen:
                    self._seen.add((number, count, index))
                    self._arrived(self.shown[number, count])
            case StreamDataReceived() if event.end_stream:
                shown = self.shown[self._streams[event.stream_id]]
                shown.missing = 1
                self._arrived(shown)

    def _arrived(self, shown: Shown) -> None:
        shown.missing -= 1
        if not shown.missing:
            shown.complete = self._world.now
