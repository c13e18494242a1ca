"""How much may be in flight, and how fast it may leave: one flow's congestion controller.

Made for media: it keeps the queue at the bottleneck short, does not mind losses as they come on long lines,
copes with a source that rarely uses what it may, and holds its own beside flows that fill the queue. The core
is the delay target of Copa (Arun and Balakrishnan, NSDI 2018); docs/congestion.md has what was added and why.

Pure: every call brings the time in seconds, from any clock that never goes back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bridges.congestion.delay import Delay
from bridges.congestion.extreme import Extreme
from bridges.congestion.losses import LossCap
from bridges.congestion.rivals import Rivals
from bridges.congestion.trains import Trains
from bridges.congestion.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Controller"]

_ROUNDS_BEFORE_VELOCITY = 3
_START_FORESIGHT = 8


class Controller:
    """The state of one flow. Sizes and windows are bytes, `packet` the largest size of one."""

    def __init__(self, packet: int, tuning: Tuning | None = None) -> None:
        self.in_flight = 0
        """Bytes sent and neither acknowledged nor given up."""
        self.tuning = tuning = tuning or Tuning()
        self.delay = Delay(tuning)
        self.trains = Trains(tuning)
        self.rivals = Rivals(tuning, self.delay)
        self.losses = LossCap(tuning)
        self._packet = packet
        self._window = float(tuning.initial_window * packet)
        self._starting = True
        self._doubts = 0
        self._doubted_at = -math.inf
        self._used = Extreme()
        self._limit = self._window
        self._acked = 0
        self._highest_flight = 0
        self._highest = 0.0
        # A round is the time in which everything that is in flight gets acknowledged.
        self._round_began = -math.inf
        self._round_lost = 0
        self._rising = True
        self._same_direction = 0
        self._velocity = 1.0
        self._timeouts = 0
        self._timed_out_at = -math.inf
        self._probe_window = 0
        self._excused_until = -math.inf
        """Losses of packets sent before this are not held against the path."""

    # --- what may be done -----------------------------------------------------------------------

    @property
    def window(self) -> int:
        """How much may be in flight now."""
        usable = self._window
        if self.rivals.testing:
            usable = max(usable / 2, 2 * self._packet)
        return max(int(usable), self._probe_window)

    @property
    def pacing_rate(self) -> float | None:
        """Bytes a second; None before the first measurement."""
        if not self.delay.smoothed:
            return None
        tuning = self.tuning
        gain = tuning.capped_gain if self._careful else tuning.pacing_gain
        own = gain * self._window / self.delay.standing
        return min(own, tuning.capacity_gain * self.trains.capacity)

    @property
    def rate(self) -> float | None:
        """Bytes a second that the path takes from this flow; None before the first measurement."""
        if not self.delay.smoothed:
            return None
        # The fast start has only begun to find out: three round trips later it may be eight times as much.
        gain = _START_FORESIGHT if self._starting else 1
        return min(gain * self._window / self.delay.standing, self.trains.capacity)

    @property
    def burst(self) -> int:
        """Bytes that may leave at once."""
        tuning = self.tuning
        packets = tuning.capped_burst if self._careful else tuning.burst
        return max(packets * self._packet, int((self.pacing_rate or 0) * tuning.burst_time))

    @property
    def _careful(self) -> bool:
        """Whether more than this is known to be too much."""
        return self._window >= self.tuning.capped_from * self.losses.bound

    # --- what happens ---------------------------------------------------------------------------

    def sent(self, now: float, size: int) -> None:
        """Take note of a packet that counts."""
        self.in_flight += size
        self._highest_flight = max(self._highest_flight, self.in_flight)
        self.trains.sent(now, size)

    def acked(self, now: float, sent_at: float, size: int, *, number: int) -> None:
        """Take note that a packet has arrived; measured() makes use of it. `number` is its place as sent."""
        if self._timeouts:
            self._answered(now)
        self.in_flight -= size
        self._acked += size
        self.losses.acked()
        self.trains.acked(now, sent_at, size, number=number)

    def measured(self, now: float, round_trip: float) -> None:
        """Take a round trip, and everything that was acknowledged since the last one, into account."""
        delay, packet = self.delay, self._packet
        delay.measured(now, round_trip)
        self._highest = -self._used.add(now, -self._highest_flight, self.tuning.used_memory)
        self._highest_flight = self.in_flight
        self._limit = max(self.tuning.initial_window * packet, self.tuning.used_factor * self._highest)
        acked, self._acked = self._acked, 0
        rate = self._window / packet / delay.standing
        self.rivals.measured(now, round_trip, rate, spacing=packet / self.trains.capacity)
        if not self.rivals.testing:
            self._steer(now, rate, acked)
        if now - round_trip >= self._round_began:
            self._round_over(now)
        self._clamp()

    def lost(self, packets: Iterable[tuple[float, int]]) -> None:
        """Take note of packets (sending time, size) that were declared lost."""
        counted = 0
        for sent_at, size in packets:
            self.in_flight -= size
            counted += sent_at > self._excused_until
        self.losses.lost(counted)
        self._round_lost += counted

    def regained(self, packets: Iterable[tuple[float, int]]) -> None:
        """Take back what was done because of packets (sending time, size) that were only late."""
        for sent_at, _ in packets:
            if sent_at > self._excused_until:
                self._round_lost = max(0, self._round_lost - 1)
                self._window = self.losses.regained(self._window)

    def dropped(self, size: int) -> None:
        """Take note that bytes in flight are no longer waited for, for no fault of the path's."""
        self.in_flight -= size

    def late(self, seconds: float) -> None:
        """Take note of how late this process came to a timer: its own doing is not the path's."""
        self.delay.late(seconds)

    def heard(self, now: float, stamp: int) -> None:
        """Take note of the peer's clock (microseconds, modulo 2^32) as it sent what has come now."""
        self.delay.returning.heard(now, stamp)

    def timed_out(self, now: float) -> None:
        """Take note of a probe timeout: some packets may leave whatever the window says.

        They are as many as left in the same time before, within narrow bounds: a hole is no reason to press.
        """
        tuning = self.tuning
        self._timeouts += 1
        packets: float = tuning.hole_least_packets
        if self._timeouts > 1 and self.delay.smoothed:
            before = self._highest / self.delay.standing * (now - self._timed_out_at)
            packets = min(max(before / self._packet, packets), tuning.hole_most_packets)
        self._timed_out_at = now
        self._probe_window = self.in_flight + int(packets * self._packet)

    # --- how it steers --------------------------------------------------------------------------

    def _steer(self, now: float, rate: float, acked: int) -> None:
        """Move the window towards the rate at which the queue would have the wanted length."""
        delay, packet = self.delay, self._packet
        # A rival makes the queue grow and shrink as it likes; alone, that is our own doing.
        noise = max(delay.noise, delay.deviation) if self.rivals.competing else delay.noise
        queue = delay.queue - noise
        rising = queue <= 0 or rate <= self.rivals.eagerness / queue
        if self._starting:
            if rising:
                self._doubts = 0
                self._window += acked
                return
            if not self._doubts:
                self._doubted_at = now
            self._doubts += 1
            if self._doubts < self.tuning.start_doubts and now - self._doubted_at < delay.smoothed:
                return
            self._starting = False
            self._window *= self.tuning.start_exit
        if rising != self._rising:
            self._rising = rising
            self._velocity, self._same_direction = 1.0, 0
        step = self._velocity * self.rivals.eagerness * packet * acked / self._window
        if not rising:
            self._window -= min(step, acked / 2)
        elif self._window >= self.losses.bound:
            if not self.losses.held(now):
                self._window += packet * acked / self._window
        else:
            self._window += step

    def _round_over(self, now: float) -> None:
        self._round_began = now
        self._same_direction += 1
        if self._window >= min(self._limit, self.losses.bound):
            self._velocity = 1.0
        elif self._same_direction > _ROUNDS_BEFORE_VELOCITY:
            self._velocity = min(2 * self._velocity, self.tuning.max_velocity)
        self.rivals.round_over(lost=self._round_lost > 0)
        hold = self.tuning.loss_hold_rounds * self.delay.smoothed
        judged = self.losses.judge(now, self._window, hold=hold, queue=self.delay.queue)
        self._starting = self._starting and judged == self._window
        self._window = judged
        self._round_lost = 0

    def _clamp(self) -> None:
        tuning = self.tuning
        floor: float = tuning.floor
        if self.losses.bound < math.inf:
            floor = min(max(tuning.floor_rate * self.delay.base, floor), tuning.floor_after_loss)
        self._window = max(min(self._window, self._limit), floor * self._packet)

    def _answered(self, now: float) -> None:
        """Leave a hole, or find that there was none."""
        if self._timeouts >= self.tuning.hole_timeouts:
            self._window *= self.tuning.hole_exit
            self._starting = True
            self._excused_until = now
            self._clamp()
        self._timeouts = self._probe_window = 0
