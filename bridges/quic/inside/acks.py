"""When aioquic (1.7) acknowledges: a millisecond after a packet came, unless told otherwise here.

The library notes with the packets that came when to acknowledge them; that time is set anew after each of
them (bridges.quic.acking knows to what). tests/bridges/test_quic_inside_acks.py fails when the library goes
about it in another way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.tls import Epoch

from bridges.quic.acking import Acking

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress, QuicConnection
    from aioquic.quic.recovery import QuicPacketSpace

__all__ = ["acknowledge_rarely"]


def acknowledge_rarely(quic: QuicConnection) -> None:
    """Let a connection acknowledge less often while much comes in order, once the handshake is done."""
    acking = Acking()
    take = quic.receive_datagram
    known: QuicPacketSpace | None = None

    def receive_datagram(data: bytes, addr: NetworkAddress, now: float) -> None:
        nonlocal known
        space = known
        if space is None:
            take(data, addr, now)
            if quic._handshake_complete:
                known = quic._spaces[Epoch.ONE_RTT]
            return
        before, due = space.largest_received_packet, space.ack_at
        take(data, addr, now)
        if space.ack_at is not None:
            in_order = space.largest_received_packet == before + 1
            space.ack_at = acking.due(now, due, in_order=in_order)

    quic.receive_datagram = receive_datagram  # type: ignore[method-assign]
