"""Which packets to believe lost, and taking it back when one arrives after all.

A packet is lost when a later one has arrived and so much time has passed that it would have come too
(RFC 9002 section 6.1.2). How much depends on the path: little on one that was never seen to change the order
(RFC 8985 section 6.2 allows for nothing at all there). Packets declared lost are remembered for a while, and
an acknowledgement that comes late for one widens what is allowed for (after RFC 8985 section 7.1).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Reordering"]

_TIME_THRESHOLD: Final = 9 / 8
_IN_ORDER: Final = 33 / 32
"""The same of a path that keeps the order."""
_PACKET_THRESHOLD: Final = 16
_GRANULARITY: Final = 0.001
_MAX_REMEMBERED: Final = 4096
_CALM: Final = 10.0
"""Seconds without a false loss after which the allowance is halved; without anything late, after which a path
is taken to keep the order."""


class Reordering:
    """The loss detection's patience. Packets are known by number, sending time (seconds) and size (bytes)."""

    __slots__ = ("_allowance", "_calm_since", "_remembered", "_swapped_until", "false_losses")

    def __init__(self) -> None:
        self.false_losses = 0
        """Packets declared lost that had only been late."""
        self._allowance = 0.0
        self._calm_since = 0.0
        self._swapped_until = -math.inf
        self._remembered: OrderedDict[int, tuple[float, int]] = OrderedDict()

    @property
    def packet_threshold(self) -> int | None:
        """How many numbers a packet may lie behind; None where time alone decides."""
        return None if self._allowance else _PACKET_THRESHOLD

    def swapped(self, now: float) -> None:
        """Take note that a packet has arrived behind a later one."""
        self._swapped_until = now + _CALM

    def patience(self, now: float, latest: float, smoothed: float) -> float:
        """Return how long after its sending a packet is still waited for; arguments are round trips."""
        if self._allowance and now - self._calm_since > _CALM:
            self._calm_since = now
            self._allowance = 0.0 if self._allowance < _GRANULARITY else self._allowance / 2
        threshold = _TIME_THRESHOLD if now < self._swapped_until else _IN_ORDER
        longest = max(latest, smoothed)
        return max(threshold * longest, longest + _GRANULARITY, smoothed + self._allowance)

    def lost(self, number: int, sent_at: float, size: int) -> None:
        """Remember a packet that was declared lost."""
        self._remembered[number] = (sent_at, size)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def acked(self, now: float, ranges: Iterable[range], smoothed: float) -> list[tuple[float, int]]:
        """Return sending time and size of the packets among `ranges` that had been declared lost."""
        remembered = self._remembered
        while remembered:
            number, (sent_at, _) = next(iter(remembered.items()))
            if now - sent_at <= 3 * smoothed + _GRANULARITY:
                break
            del remembered[number]
        if not remembered:
            return []
        first = next(iter(remembered))
        late = [
            remembered.pop(number)
            for each in ranges
            if each.stop > first
            for number in [number for number in remembered if number in each]
        ]
        for sent_at, _ in late:
            self.false_losses += 1
            self._calm_since = now
            self.swapped(now)
            self._allowance = min(max(self._allowance, 1.1 * (now - sent_at - smoothed)), smoothed)
        return late
