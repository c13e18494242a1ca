"""Everything that is read from aioquic's private attributes (1.7), each with a test of its own.

aioquic's public interface neither shows the peer's certificate nor how much of a stream waits for
acknowledgement, nor does it tell at once that a peer has closed. When a new version moves one of these,
tests/bridges/test_quic_inside_reads.py fails and this file is what to mend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.quic.roundtrip import RoundTrip

if TYPE_CHECKING:
    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.events import ConnectionTerminated
    from cryptography import x509

__all__ = [
    "datagram_bytes",
    "held_bytes",
    "may_open_stream",
    "peer_certificate",
    "received_bytes",
    "round_trip",
    "stream_exists",
    "termination",
    "unacknowledged",
]

_PACKET_OVERHEAD: Final = 1 + 20 + 4 + 16 + 3
"""Bytes that a packet has at most besides what its one DATAGRAM frame carries (RFC 9000, section 17.3; RFC
9221, section 4): first byte, connection id, packet number, the seal, the frame's type and length."""


def peer_certificate(quic: QuicConnection) -> x509.Certificate | None:
    """Return the certificate that the peer showed in the handshake."""
    return quic.tls._peer_certificate


def termination(quic: QuicConnection) -> ConnectionTerminated | None:
    """Return why the connection ends, as soon as it is known.

    The public event comes only after the draining period, three probe timeouts later.
    """
    return quic._close_event


def unacknowledged(quic: QuicConnection, stream_id: int) -> int:
    """Return how many bytes were written to a stream and not yet acknowledged; 0 for an unknown stream."""
    stream = quic._streams.get(stream_id)
    return 0 if stream is None else len(stream.sender._buffer)


def round_trip(quic: QuicConnection) -> RoundTrip | None:
    """Return the smoothed round trip; None before the first acknowledgement."""
    loss = quic._loss
    return RoundTrip(loss._rtt_smoothed, loss._rtt_variance) if loss._rtt_initialized else None


def stream_exists(quic: QuicConnection, stream_id: int) -> bool:
    """Return whether aioquic still keeps the stream's state: both halves finished means it does not."""
    return stream_id in quic._streams


def may_open_stream(quic: QuicConnection) -> bool:
    """Return whether the peer's stream limit admits one more of ours; beyond it aioquic queues silently."""
    next_ordinal = quic.get_next_available_stream_id() // 4
    return next_ordinal < quic._remote_max_streams_bidi


def received_bytes(quic: QuicConnection) -> int:
    """Return how many bytes all streams of the peer span, holes included, since the connection began."""
    return quic._local_max_data.used


def held_bytes(quic: QuicConnection, stream_id: int) -> int:
    """Return how many bytes a stream spans beyond what it has delivered."""
    stream = quic._streams.get(stream_id)
    return 0 if stream is None else stream.receiver.highest_offset - stream.receiver.starting_offset()


def datagram_bytes(quic: QuicConnection) -> int:
    """Return how many bytes a datagram may have for the peer to take it (RFC 9221); 0: it takes none."""
    taken = quic._remote_max_datagram_frame_size or 0
    return max(0, min(taken - 3, quic._max_datagram_size - _PACKET_OVERHEAD))
