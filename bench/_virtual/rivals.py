"""Flows that do not give way as Reno does: one goes by the bandwidth it has seen, one has a fixed rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.recovery import QuicPacketPacer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.packet_builder import QuicSentPacket

    from bench._virtual.world import World
    from tests.impairment.core import Impairment

__all__ = ["BANDWIDTH", "BandwidthFlow", "Constant", "pace"]

BANDWIDTH: Final = "bandwidth"
"""The name of BandwidthFlow in aioquic's registry."""

_STARTUP_GAIN: Final = 2.77
_WINDOW_GAIN: Final = 2.0
_CYCLE: Final = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_GROWTH: Final = 1.25
_FLAT_ROUNDS: Final = 3
_BANDWIDTH_ROUNDS: Final = 10
_TRIP_MEMORY: Final = 10.0
_PROBING: Final = 0.2
_LEAST_PACKETS: Final = 4
_LOSS_CAP: Final = 0.15
_FIRST_TRIP: Final = 0.1


class BandwidthFlow(QuicCongestionControl):
    """The outline of BBR (Cardwell and others, ACM Queue 2016): sends what was delivered, probes for more.

    Its window is twice the largest delivery rate of ten rounds times the smallest round trip of ten seconds.
    So it minds neither the queue nor most losses. For sources that always have more to send.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.gain = _STARTUP_GAIN
        self._packet = max_datagram_size
        self._starting = True
        self._delivered = 0
        self._delivered_at = 0.0
        self._under_way: dict[int, tuple[int, float]] = {}
        """What had been delivered, and when, as a packet was sent; by the packet's identity."""
        self._rates = [0.0] * _BANDWIDTH_ROUNDS
        self._trip = math.inf
        self._trip_at = 0.0
        self._probe_ends: float | None = None
        self._round_ends = 0
        self._best_before = 0.0
        self._flat = 0
        self._phase = 0
        self._phase_ends = 0.0
        self._lost = 0
        self._acked = 0

    @property
    def pacing_rate(self) -> float:
        """Bytes a second."""
        rate = max(self._rates)
        return self.gain * (rate or self.congestion_window / _FIRST_TRIP)

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Remember what had been delivered by then."""
        assert packet.sent_time is not None
        if not self.bytes_in_flight:
            self._delivered_at = packet.sent_time
        self.bytes_in_flight += packet.sent_bytes
        self._under_way[id(packet)] = (self._delivered, self._delivered_at)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Measure how fast the path delivers."""
        self.bytes_in_flight -= packet.sent_bytes
        self._acked += 1
        delivered, at = self._under_way.pop(id(packet))
        self._delivered += packet.sent_bytes
        self._delivered_at = now
        if now > at:
            self._rates[-1] = max(self._rates[-1], (self._delivered - delivered) / (now - at))
        if delivered >= self._round_ends:
            self._round_over()

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Forget packets."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            self._under_way.pop(id(packet), None)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Forget packets, and count them."""
        del now
        lost = list(packets)
        self._lost += len(lost)
        self.on_packets_expired(packets=lost)

    def on_persistent_congestion(self) -> None:
        """Do nothing."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Choose gain and window."""
        if rtt <= self._trip:
            self._trip, self._trip_at = rtt, now
        elif now - self._trip_at > _TRIP_MEMORY and self._probe_ends is None:
            self._probe_ends = now + _PROBING + rtt
            self._trip = math.inf
        if self._probe_ends is not None and now >= self._probe_ends:
            self._probe_ends, self._trip_at = None, now
        if not self._starting and now >= self._phase_ends:
            self._phase = (self._phase + 1) % len(_CYCLE)
            self._phase_ends = now + min(self._trip, rtt)
            self.gain = _CYCLE[self._phase]
        wanted = (_STARTUP_GAIN if self._starting else _WINDOW_GAIN) * max(self._rates) * min(self._trip, rtt)
        if self._probe_ends is not None:
            wanted = 0.0
        self.congestion_window = max(int(wanted), _LEAST_PACKETS * self._packet)

    def _round_over(self) -> None:
        self._round_ends = self._delivered + self.bytes_in_flight
        if self._lost > _LOSS_CAP * (self._lost + self._acked):
            self._starting = False
            self._rates = [each * (1 - _LOSS_CAP) for each in self._rates]
        self._lost = self._acked = 0
        best = max(self._rates)
        if self._starting:
            self._flat = 0 if best >= _GROWTH * self._best_before else self._flat + 1
            self._best_before = max(best, self._best_before)
            self._starting = self._flat < _FLAT_ROUNDS
        self._rates = [*self._rates[1:], 0.0]


register_congestion_control(BANDWIDTH, BandwidthFlow)


class _Pacer(QuicPacketPacer):
    """The library's, with the flow's own rate."""

    def __init__(self, flow: BandwidthFlow, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._flow = flow

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        del congestion_window
        super().update_rate(int(self._flow.pacing_rate * smoothed_rtt), smoothed_rtt)


def pace(quic: QuicConnection) -> None:
    """Let a connection that uses a BandwidthFlow send at its rate."""
    flow = quic._loss._cc  # noqa: SLF001 - there is no public way to it
    assert isinstance(flow, BandwidthFlow)
    quic._loss._pacer = _Pacer(flow, max_datagram_size=quic._max_datagram_size)  # noqa: SLF001


class Constant:
    """Datagrams of 1,200 bytes at a fixed rate (bits a second, with UDP and IP), whatever becomes of them."""

    _SIZE: Final = 1200
    _HEADERS: Final = 28

    def __init__(self, world: World, path: Impairment, rate: float, *, begin: float) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """When how many bytes arrived, in order of sending."""
        self._world = world
        self._path = path
        self._interval = 8 * (self._SIZE + self._HEADERS) / rate
        world.at(begin, self._send)

    def delivered(self, begin: float, end: float) -> int:
        """Return the bytes that arrived between two times."""
        return sum(size for at, size in self.arrivals if begin <= at < end)

    def _send(self) -> None:
        now = self._world.now
        self.arrivals += [(at, self._SIZE) for at in self._path.send(now, self._SIZE).arrivals]
        self._world.at(now + self._interval, self._send)
