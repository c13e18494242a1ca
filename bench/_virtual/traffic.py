"""What is sent over the connections: as much as goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aioquic.quic.events import StreamDataReceived

from bridges.quic.inside import reads

if TYPE_CHECKING:
    from aioquic.quic.events import QuicEvent

    from bench._virtual.peer import Peer
    from bench._virtual.world import World

__all__ = ["Bulk"]

_CHUNK: Final = bytes(16 << 10)


class Bulk:
    """A stream that always has more to send, from `begin` on."""

    def __init__(self, world: World, sender: Peer, receiver: Peer, *, begin: float = 0.0) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """When how many bytes of the stream arrived, in order."""
        self._world = world
        self._sender = sender
        self._stream_id = sender.quic.get_next_available_stream_id()
        receiver.on_event = self._take
        world.at(begin, self._begin)

    def delivered(self, begin: float, end: float) -> int:
        """Return the bytes that arrived between two times."""
        return sum(size for at, size in self.arrivals if begin <= at < end)

    def _begin(self) -> None:
        self._sender.on_turn = self._fill
        self._sender.advance()

    def _fill(self) -> None:
        window = self._sender.quic._loss.congestion_window  # noqa: SLF001 - there is no public way to it
        while reads.unacknowledged(self._sender.quic, self._stream_id) < 6 * window + len(_CHUNK):
            self._sender.quic.send_stream_data(self._stream_id, _CHUNK)

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.arrivals.append((self._world.now, len(event.data)))
