"""Which streams a connection has, until aioquic has forgotten them. No sockets, no aioquic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stream", "Streams", "is_unidirectional"]


def is_unidirectional(stream_id: int) -> bool:
    """Return what the second-lowest bit of a stream id says (RFC 9000 section 2.1)."""
    return bool(stream_id & 2)


class Stream:
    """A bidirectional stream: `dead` once either side has given it up, `ended_…` once a half has its end."""

    __slots__ = ("dead", "ended_in", "ended_out")

    def __init__(self) -> None:
        self.dead = False
        self.ended_in = False
        self.ended_out = False

    @property
    def over(self) -> bool:
        """Whether nothing more is delivered or taken."""
        return self.dead or (self.ended_in and self.ended_out)


class Streams:
    """The bidirectional streams of one connection, the peer's and ours."""

    def __init__(self) -> None:
        self.forgotten = 0
        """Streams that have come and gone."""
        self._streams: dict[int, Stream] = {}
        self._over: set[int] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, stream_id: int) -> Stream | None:
        """Return a stream that has not been given up."""
        stream = self._streams.get(stream_id)
        return None if stream is None or stream.dead else stream

    def arriving(self, stream_id: int) -> Stream | None:
        """Return the stream that something arrives on, which may be new; None when it was given up."""
        stream = self._streams.setdefault(stream_id, Stream())
        return None if stream.dead else stream

    def add(self, stream_id: int) -> None:
        """Add a stream that we open."""
        self._streams[stream_id] = Stream()

    def opened_like(self, stream_id: int) -> int:
        """Return how many streams exist that were opened by the same side as `stream_id`."""
        return sum(other % 4 == stream_id % 4 for other in self._streams)

    def note_over(self, stream_id: int, stream: Stream) -> None:
        """Remember to forget a stream, if it is over."""
        if stream.over:
            self._over.add(stream_id)

    def forget(self, exists: Callable[[int], bool]) -> None:
        """Drop the streams that are over and whose end the peer has acknowledged: `exists` says no."""
        for stream_id in [stream_id for stream_id in self._over if not exists(stream_id)]:
            self._over.discard(stream_id)
            del self._streams[stream_id]
            self.forgotten += 1
