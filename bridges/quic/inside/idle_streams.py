"""Spare aioquic (1.7) a look at every stream for every packet: it is shown those that have something to do.

For each packet it goes through all streams three times, which is most of the work where a hundred tracks have
a stream each that says something once a minute. A stream has something to do after it was touched, after what
it has sent was acknowledged or lost, and until there is nothing to send, no limit to raise and nothing to
forget. What is replaced is a connection's table of streams, and what streams hear of their frames' fate;
tests/bridges/test_quic_inside_idle_streams.py fails when the library goes about it in another way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.stream import QuicStream

__all__ = ["pass_over_idle_streams"]


def pass_over_idle_streams(quic: QuicConnection) -> None:
    """Let a connection that has no streams yet look at busy ones only."""
    assert not quic._streams
    streams = _Streams(quic)
    quic._streams = streams
    told = quic._on_max_stream_data_delivery

    def on_max_stream_data_delivery(delivery: Any, stream: QuicStream) -> None:
        told(delivery, stream)
        streams.mark(stream)

    quic._on_max_stream_data_delivery = on_max_stream_data_delivery  # type: ignore[method-assign]


class _Streams(dict[int, "QuicStream"]):
    """All streams by id; `values` are the busy ones, which are those in the connection's queue."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__()
        self._quic = quic
        self._busy: set[int] = set()

    def mark(self, stream: QuicStream) -> None:
        """Take note that a stream may have something to do."""
        stream_id = stream.stream_id
        if stream_id is not None and stream_id not in self._busy and stream_id in self:
            self._busy.add(stream_id)
            self._quic._streams_queue.append(stream)

    def get(self, stream_id: int, default: Any = None) -> Any:
        """Return a stream, which whoever asks for it is about to touch."""
        stream = super().get(stream_id)
        if stream is None:
            return default
        self.mark(stream)
        return stream

    def __setitem__(self, stream_id: int, stream: QuicStream) -> None:
        super().__setitem__(stream_id, stream)
        self._busy.add(stream_id)  # and the library appends it to the queue
        for part, name in _fates(stream):
            setattr(part, name, partial(self._settled, stream, getattr(part, name)))

    def pop(self, stream_id: int, *default: Any) -> Any:
        """Forget a stream."""
        stream = super().pop(stream_id, *default)
        self._busy.discard(stream_id)
        for part, name in _fates(stream):
            delattr(part, name)  # they refer to each other
        return stream

    def values(self) -> Any:
        """Return the streams that have something to do: asked for once a packet, before the queue is."""
        queue = self._quic._streams_queue
        if queue:
            self._quic._streams_queue = queue = [stream for stream in queue if _is_busy(stream)]
            if len(queue) < len(self._busy):
                self._busy = {stream.stream_id for stream in queue if stream.stream_id is not None}
        return queue

    def _settled(self, stream: QuicStream, told: Callable[..., None], *fate: Any) -> None:
        told(*fate)
        self.mark(stream)


def _is_busy(stream: QuicStream) -> bool:
    sender, receiver, limit = stream.sender, stream.receiver, stream.max_stream_data_local
    return (
        not sender.buffer_is_empty
        or sender.reset_pending
        or receiver.stop_pending
        or stream.max_stream_data_local_sent != limit
        or receiver.highest_offset * 2 > limit > 0
        or (receiver.is_finished and sender.is_finished)
    )


def _fates(stream: QuicStream) -> list[tuple[Any, str]]:
    """Return by what a stream hears what became of its frames."""
    return [
        (stream.sender, "on_data_delivery"),
        (stream.sender, "on_reset_delivery"),
        (stream.receiver, "on_stop_sending_delivery"),
    ]
