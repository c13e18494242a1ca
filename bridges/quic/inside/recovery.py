"""What is replaced inside aioquic (1.7): loss detection, probes and pacing, for our congestion controller.

aioquic lets a controller be registered, but asks it for a window alone: the pacer takes its rate from the
window, packets are declared lost after three later ones, probes back off at once. replace_recovery() puts an
object of the same interface into a connection that has not begun. Each replacement has a test of its own in
tests/bridges/test_quic_inside_recovery.py, which fails when the library's internals change.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery

from bridges.congestion import Controller, Pacer, Reordering, Silence, Tail
from bridges.quic.inside.acks import acknowledge_rarely
from bridges.quic.inside.receiving import receive_shortly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.packet_builder import QuicSentPacket
    from aioquic.quic.rangeset import RangeSet
    from aioquic.quic.recovery import QuicPacketSpace

    from bridges.quic.path_mtu import PathMtu

__all__ = [
    "CONGESTION",
    "Path",
    "Recovery",
    "note_lateness",
    "note_peer_clock",
    "path",
    "replace_recovery",
    "steer",
]

CONGESTION: Final = "causeway"
"""The controller's name in aioquic's registry."""
_ACK_DELAY: Final = 0.025
"""Seconds that a peer may take to acknowledge, as RFC 9000, section 18.2, has it by default."""
_MOST_EXPIRED: Final = 16
"""Large packets that are remembered until something arrives; six are enough to tell a black hole."""
_MOMENT: Final = 0.001
"""For the pacer to let out what waits, in seconds."""


class Congestion(QuicCongestionControl):
    """Our controller, as aioquic calls one."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.controller: Final = Controller(max_datagram_size)
        self.peer_took = 0.0
        """Seconds that the peer says it took to acknowledge what came last."""
        self.path_mtu: PathMtu | None = None
        """Told what becomes of packets larger than its base."""
        self._expired: deque[float] = deque(maxlen=_MOST_EXPIRED)
        """When large packets were sent that probe timeouts took for lost, since something arrived."""
        self._shortest = math.inf

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None
        self.controller.sent(packet.sent_time, packet.sent_bytes)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None
        if self._expired:
            self._tell_expired(now, packet.sent_time)
        self.controller.acked(now, packet.sent_time, packet.sent_bytes, number=packet.packet_number)
        if self.path_mtu is not None and packet.sent_bytes > self.path_mtu.base:
            self.path_mtu.acked(packet.sent_time)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.controller.dropped(packet.sent_bytes)
            if self.path_mtu is not None and packet.sent_bytes > self.path_mtu.base:
                assert packet.sent_time is not None
                self._expired.append(packet.sent_time)

    def _tell_expired(self, now: float, arrived: float) -> None:
        """Tell who watches the path's MTU what was lost: something sent later, at `arrived`, has arrived."""
        assert self.path_mtu is not None
        while self._expired and self._expired[0] < arrived:
            self.path_mtu.lost(now, self._expired.popleft())

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        lost = [(packet.sent_time, packet.sent_bytes) for packet in packets if packet.sent_time is not None]
        self.controller.lost(lost)
        if self.path_mtu is not None:
            for sent_at, size in lost:
                if size > self.path_mtu.base:
                    self.path_mtu.lost(now, sent_at)

    def on_persistent_congestion(self) -> None:
        """Do nothing: what the controller does after a hole is enough."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        # RFC 9002, section 5.3: what a peer took to act upon something is no queue, unless it is so much that
        # the peer does not keep up: then less has to be sent, as where the path does not.
        self._shortest = min(self._shortest, rtt)
        self.controller.measured(now, max(rtt - min(self.peer_took, _ACK_DELAY), self._shortest))


register_congestion_control(CONGESTION, Congestion)


class _Pacer(QuicPacketPacer):
    """Our pacer, as aioquic calls one. Charges what a packet weighs as soon as that is known."""

    def __init__(self, controller: Controller, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.packet = max_datagram_size
        """Bytes of a whole packet, which is what each is charged at first."""
        self._controller = controller
        self._pacer = Pacer(controller.burst)
        self._unsettled = 0

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override] # aioquic returns None too
        return self._pacer.ready_at(now)

    def update_after_send(self, now: float) -> None:
        """Charge a whole packet: its size is known only once the datagram is complete."""
        del now
        self._pacer.spend(self.packet)
        self._unsettled += 1

    def settle(self, size: int) -> None:
        """Give back what a packet that was charged as a whole one did not weigh."""
        if self._unsettled:
            self._unsettled -= 1
            self._pacer.spend(size - self.packet)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Take the rate from the controller instead."""
        del congestion_window, smoothed_rtt
        self._pacer.rate = self._controller.pacing_rate
        self._pacer.burst = self._controller.burst


class Recovery(QuicPacketRecovery):
    """aioquic's recovery with our controller, pacer, loss detection and probes."""

    def __init__(self, *, max_datagram_size: int, **options: Any) -> None:
        super().__init__(
            congestion_control_algorithm=CONGESTION, max_datagram_size=max_datagram_size, **options
        )
        assert isinstance(self._cc, Congestion)
        self.controller: Final = self._cc.controller
        self.reordering: Final = Reordering()
        self.knock: Callable[[], None] = _nothing
        """Called before packets are let out on a silent path."""
        self._congestion = self._cc
        self._silence = Silence()
        self._tail = Tail()
        self._pacer: _Pacer = _Pacer(self.controller, max_datagram_size=max_datagram_size)

    @property
    def bytes_in_flight(self) -> int:
        """What is on its way."""
        return self.controller.in_flight

    @property
    def congestion_window(self) -> int:
        """What the controller says, in whole packets: the library would fill a rest with a small one."""
        in_flight = self.controller.in_flight
        room = max(self.controller.window - in_flight, 0)
        return in_flight + room - room % self._pacer.packet

    def resize(self, size: int) -> None:
        """Take note that whole packets have so many bytes from now on; the controller's unit stays."""
        self._pacer.packet = size

    def watch(self, path_mtu: PathMtu) -> None:
        """Tell `path_mtu` what becomes of packets larger than its base."""
        self._congestion.path_mtu = path_mtu

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """Settle with the pacer what the packet weighs."""
        super().on_packet_sent(packet=packet, space=space)
        if space.is_application_data:
            self._pacer.settle(packet.sent_bytes)
            if packet.is_ack_eliciting:
                assert packet.sent_time is not None
                self._tail.sent(packet.sent_time, packet.sent_bytes)

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Take back losses that were none, then go on as usual."""
        self._congestion.peer_took = ack_delay
        if space.is_application_data:
            if _is_overtaken(space, ack_rangeset):
                self.reordering.swapped(now)
            late = self.reordering.acked(now, ack_rangeset, self._rtt_smoothed)
            if late:
                self.controller.regained(late)
        waiting = space.ack_eliciting_in_flight
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
        if space.ack_eliciting_in_flight < waiting:
            self._silence.broken()

    def get_loss_detection_time(self, *, amplification_limited: bool) -> float | None:
        """Return when to look for losses or to probe; probes are not backed off at once."""
        at = super().get_loss_detection_time(amplification_limited=amplification_limited)
        if at is None:
            return None
        if self._silence.timeouts and self._get_loss_space() is None:
            at = self._silence.probe_at(
                self._time_of_last_sent_ack_eliciting_packet, self.get_probe_timeout()
            )
        return min(at, self._tail.due)

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """Look for losses, or let probes out."""
        if now >= self._tail.due:
            self._probe_tail(now)
            return
        probing = self._get_loss_space() is None
        super().on_loss_detection_timeout(now=now)
        if probing and self.handshake_confirmed:
            self._silence.timed_out(now)
            self.controller.timed_out(now)
            if self._congestion.path_mtu is not None:
                self._congestion.path_mtu.silent(now, self._silence.lasts(now))
            self.knock()

    def _probe_tail(self, now: float) -> None:
        """Send something behind what was sent last, unless that waits to be let out."""
        ready_at = self._pacer.next_send_time(now)
        if ready_at is not None:
            self._tail.postpone(ready_at + _MOMENT)
            return
        self._tail.postpone()
        if self.congestion_window - self.bytes_in_flight >= self._pacer.packet:
            self._send_probe()

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        """Declare lost what is behind something that arrived, and overdue."""
        if not space.is_application_data or not self._rtt_initialized:
            super()._detect_loss(now=now, space=space)
            return
        patience = self.reordering.patience(now, self._rtt_latest, self._rtt_smoothed)
        threshold = self.reordering.packet_threshold
        far_behind = -1 if threshold is None else space.largest_acked_packet - threshold
        space.loss_time = None
        lost: list[QuicSentPacket] = []
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            assert packet.sent_time is not None
            if number <= far_behind or packet.sent_time + patience <= now:
                lost.append(packet)
                if packet.in_flight:  # a probe of the path's MTU is none of the controller's business
                    self.reordering.lost(number, packet.sent_time, packet.sent_bytes)
            elif space.loss_time is None:
                space.loss_time = packet.sent_time + patience
        if lost:
            self._tail.lost(now)
            self._on_packets_lost(now=now, packets=lost, space=space)


def _is_overtaken(space: QuicPacketSpace, acked: RangeSet) -> bool:
    """Return whether a packet is acknowledged only now that was sent before one acknowledged earlier."""
    largest = space.largest_acked_packet
    for number in space.sent_packets:
        if number >= largest:
            break
        if number in acked:
            return True
    return False


def _nothing() -> None:
    """Have nobody to tell."""


def steer(quic: QuicConnection, congestion: str) -> None:
    """Let the controller of that name decide; for a connection that has not begun.

    With ours, acknowledgements are fewer as well: those of the library know its controllers only.
    """
    if congestion == CONGESTION:
        replace_recovery(quic)
        receive_shortly(quic)
        acknowledge_rarely(quic)


class Path(NamedTuple):
    """What our controller says of a way."""

    rate: float
    """Bytes a second that it takes from this connection."""
    round_trip: float
    """Without a queue in it, in seconds."""


def path(quic: QuicConnection) -> Path | None:
    """Return what our controller has measured; None if there is another one, or before it has."""
    recovery = quic._loss
    if not isinstance(recovery, Recovery):
        return None
    rate = recovery.controller.rate
    return None if rate is None else Path(rate, recovery.controller.delay.base)


def note_lateness(quic: QuicConnection, seconds: float) -> None:
    """Tell a connection's controller how late the loop came to its timer."""
    recovery = quic._loss
    if isinstance(recovery, Recovery):
        recovery.controller.late(seconds)


def note_peer_clock(quic: QuicConnection, now: float, stamp: int) -> None:
    """Tell a controller what the peer's clock, in microseconds, showed as it sent what came at `now`."""
    recovery = quic._loss
    if isinstance(recovery, Recovery):
        recovery.controller.heard(now, stamp)


def replace_recovery(quic: QuicConnection) -> Recovery:
    """Put our recovery into a connection and return it. Raises ValueError once the connection has begun."""
    stock = quic._loss
    if stock.spaces:
        raise ValueError("the connection has begun")
    recovery = Recovery(
        initial_rtt=stock._rtt_initial,
        logger=stock._logger,
        max_datagram_size=quic._max_datagram_size,
        peer_completed_address_validation=stock.peer_completed_address_validation,
        quic_logger=stock._quic_logger,
        send_probe=stock._send_probe,
    )
    quic._loss = recovery
    return recovery
