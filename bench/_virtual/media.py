"""Pictures and sound: what tracks are like, and what becomes of their frames on a QUIC stream for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioquic.quic.events import StreamDataReceived

from bridges.media.own.sending import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.peer import Peer
    from bench._virtual.world import World

__all__ = ["DEADLINE", "SOUND", "VIDEO", "FrameStreams", "Shown", "Track"]

DEADLINE: Final = 0.2
"""Seconds beyond the path's one-way delay in which a frame is in time."""


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
    """When it could be shown or heard."""


class FrameStreams:
    """Tracks from `begin` to `end`, each frame on a stream of its own; it is complete when that has ended."""

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
        self._world = world
        self._sender = sender
        self._end = end
        self._streams: dict[int, tuple[int, int]] = {}
        receiver.on_event = self._take
        receiver.quic._local_max_streams_uni.value = 1 << 20  # noqa: SLF001 - 128 would stop Reno's stream per frame
        for number, track in enumerate(tracks):
            self._later(number, track, 0, begin + number * 0.0037)

    def _later(self, number: int, track: Track, count: int, at: float) -> None:
        if at < self._end:
            self._world.at(at, lambda: self._capture(number, track, count))

    def _capture(self, number: int, track: Track, count: int) -> None:
        now, kind = self._world.now, track.kind(count, number * 23)
        size = track.key_size if kind is Kind.KEY else track.size
        self.shown[number, count] = Shown(kind, now)
        stream_id = self._sender.quic.get_next_available_stream_id(is_unidirectional=True)
        self._streams[stream_id] = (number, count)
        self._sender.quic.send_stream_data(stream_id, bytes(size), end_stream=True)
        self._sender.advance()
        self._later(number, track, count + 1, now + 1 / track.rate)

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            self.shown[self._streams[event.stream_id]].complete = self._world.now
