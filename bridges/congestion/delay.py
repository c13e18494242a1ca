"""Round trips over time: the empty path's, the standing one, and how much they vary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.congestion.extreme import Extreme
from bridges.congestion.returning import ReturnPath

if TYPE_CHECKING:
    from bridges.congestion.tuning import Tuning

__all__ = ["Delay"]


class Delay:
    """What the round trips say about the path. All in seconds; valid after the first measurement."""

    __slots__ = (
        "_base",
        "_last",
        "_standing",
        "_tuning",
        "back",
        "base",
        "deviation",
        "jitter",
        "noise",
        "own",
        "returning",
        "smoothed",
        "standing",
    )

    def __init__(self, tuning: Tuning) -> None:
        self.base = 0.0
        """The smallest of a long time: nobody's packets waited."""
        self.standing = 0.0
        """The smallest of a short time: jitter is not in it, a queue that stands is."""
        self.smoothed = 0.0
        self.deviation = 0.0
        """Mean deviation from the smoothed round trip."""
        self.jitter = 0.0
        """Mean difference of one round trip from the one before: a queue that changes is hardly in it."""
        self.noise = tuning.noise
        """Queueing up to this means nothing."""
        self.own = 0.0
        """How late this process usually comes to what is due: no fault of the path's."""
        self.back = 0.0
        """For how long what comes back waits on its way: no fault of what is sent."""
        self.returning = ReturnPath(tuning.base_memory)
        self._tuning = tuning
        self._last = 0.0
        self._base = Extreme()
        self._standing = Extreme()

    @property
    def queue(self) -> float:
        """For how long a packet waits on the path because of packets before it."""
        return self.waited(self.standing) - self.own

    def waited(self, round_trip: float) -> float:
        """Return how much of a round trip of just now was waiting on the way there."""
        return round_trip - self.base - self.back

    def late(self, seconds: float) -> None:
        """Take note of how late a timer was."""
        self.own += (max(0.0, seconds - self._tuning.punctual) - self.own) / 8

    def measured(self, now: float, round_trip: float) -> None:
        """Take note of a round trip."""
        tuning = self._tuning
        if not self.smoothed:
            self.smoothed = round_trip
            self._last = round_trip
        self.jitter += (abs(round_trip - self._last) - self.jitter) / 16
        self._last = round_trip
        self.deviation += (abs(round_trip - self.smoothed) - self.deviation) / 4
        self.smoothed += (round_trip - self.smoothed) / 8
        self.noise = max(tuning.noise, self.jitter)
        self.base = self._base.add(now, round_trip, tuning.base_memory)
        self.back = self.returning.queue(now)
        self.standing = self._standing.add(now, round_trip, max(self.smoothed / 2, tuning.standing_memory))
