"""How aioquic (1.7) is brought to send a probe of the path's MTU, and packets of another size.

It takes the size of its packets once, from its configuration. A probe is a packet of its own that the library
makes and remembers as any other; only its loss is kept from the controller, as it says nothing of a queue
(RFC 9000 section 14.4). tests/bridges/test_quic_inside_probes.py fails when the library goes about it in
another way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.tls import Epoch

from bridges.quic.inside.recovery import Recovery
from bridges.quic.path_mtu import Fate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import NetworkAddress, QuicConnection
    from aioquic.quic.packet_builder import QuicSentPacket

    from bridges.quic.path_mtu import PathMtu

__all__ = ["datagram_size", "resize", "send_probe", "watch"]


class _Probe(QuicPacketBuilder):
    """Builds one packet that fills a datagram and does not count as in flight."""

    def start_packet(self, *args: Any, **options: Any) -> None:
        super().start_packet(*args, **options)
        self._datagram_needs_padding = True

    def flush(self) -> tuple[list[bytes], list[QuicSentPacket]]:
        datagrams, packets = super().flush()
        for packet in packets:
            packet.in_flight = False
        return datagrams, packets


def send_probe(
    quic: QuicConnection, size: int, now: float, settled: Callable[[Fate], None]
) -> list[tuple[bytes, NetworkAddress]]:
    """Return a datagram of `size` bytes with nothing but PING and PADDING, and where it is to go.

    `settled` hears what became of it. Something that the peer acknowledges should be sent right after it, for
    its loss to be noticed soon.
    """
    path = quic._network_paths[0]
    space = quic._spaces[Epoch.ONE_RTT]
    number = quic._packet_number

    def told(delivery: QuicDeliveryState) -> None:
        if delivery is QuicDeliveryState.ACKED:
            settled(Fate.ARRIVED)
        else:
            settled(Fate.LOST if space.largest_acked_packet > number else Fate.UNKNOWN)

    builder = _Probe(
        host_cid=quic.host_cid,
        is_client=quic._is_client,
        max_datagram_size=size,
        packet_number=number,
        peer_cid=quic._peer_cid.cid,
        spin_bit=quic._spin_bit,
        version=quic._version or 0,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
    builder.start_frame(QuicFrameType.PING, handler=told)
    return quic._flush_builder(builder=builder, network_path=path, peer_cid=quic._peer_cid.cid, now=now)


def datagram_size(quic: QuicConnection) -> int:
    """Return the most bytes of UDP payload that the connection sends in one datagram."""
    return quic._max_datagram_size


def resize(quic: QuicConnection, size: int) -> None:
    """Let packets have so many bytes from now on; for a connection with our recovery."""
    quic._max_datagram_size = size
    recovery = quic._loss
    assert isinstance(recovery, Recovery)
    recovery.resize(size)


def watch(quic: QuicConnection, path_mtu: PathMtu) -> bool:
    """Tell `path_mtu` what becomes of packets larger than its base; return False without our recovery."""
    recovery = quic._loss
    if not isinstance(recovery, Recovery):
        return False
    recovery.watch(path_mtu)
    return True
