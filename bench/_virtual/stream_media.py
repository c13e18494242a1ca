"""Pictures and sound with a QUIC stream per track, as OWT's wire has it."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from aioquic.quic.events import StreamDataReceived

from bench._virtual.media import Shown
from bridges.media.own.sending import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.media import Track
    from bench._virtual.peer import Peer
    from bench._virtual.world import World

__all__ = ["StreamMedia"]


class StreamMedia:
    """Tracks from `begin` to `end`; nothing is dropped, everything arrives in order or not at all."""

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
        self.media_bytes = 0
        self._world = world
        self._sender = sender
        self._end = end
        self._under_way: dict[int, deque[tuple[int, Shown]]] = {}
        """By stream: where each frame ends, in bytes."""
        self._written: dict[int, int] = {}
        self._arrived: dict[int, int] = {}
        receiver.on_event = self._take
        for number, track in enumerate(tracks):
            # A stream gets its number by being written to.
            stream_id = sender.quic.get_next_available_stream_id()
            sender.quic.send_stream_data(stream_id, b"")
            self._under_way[stream_id] = deque()
            self._written[stream_id] = self._arrived[stream_id] = 0
            self._later(number, stream_id, track, 0, begin + number * 0.0037)

    def _later(self, number: int, stream_id: int, track: Track, count: int, at: float) -> None:
        if at < self._end:
            self._world.at(at, lambda: self._capture(number, stream_id, track, count))

    def _capture(self, number: int, stream_id: int, track: Track, count: int) -> None:
        now, kind = self._world.now, track.kind(count, number * 23)
        size = track.key_size if kind is Kind.KEY else track.size
        shown = self.shown[number, count] = Shown(kind, now)
        self.media_bytes += size
        self._written[stream_id] += size
        self._under_way[stream_id].append((self._written[stream_id], shown))
        self._sender.quic.send_stream_data(stream_id, bytes(size))
        self._sender.advance()
        self._later(number, stream_id, track, count + 1, now + 1 / track.rate)

    def _take(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        self._arrived[event.stream_id] += len(event.data)
        under_way = self._under_way[event.stream_id]
        while under_way and under_way[0][0] <= self._arrived[event.stream_id]:
            under_way.popleft()[1].complete = self._world.now
