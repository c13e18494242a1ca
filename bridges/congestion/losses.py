"""When losses are more than a bad line: a bound for the window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridges.congestion.tuning import Tuning

__all__ = ["LossCap"]


class LossCap:
    """Cuts the window by the share of losses when that is above what lines lose at random.

    `bound` is the window that a cut has left, in bytes. It is kept for a while, as a shallow queue loses
    packets before any delay is seen; then the flow feels its way beyond it. It rises while losses are few,
    and is forgotten when it lies far above the window.
    """

    __slots__ = ("_acked", "_before", "_held_until", "_lost", "_tuning", "bound")

    def __init__(self, tuning: Tuning) -> None:
        self.bound = math.inf
        self._tuning = tuning
        self._acked = self._lost = 0
        self._held_until = -math.inf
        self._before: tuple[float, float, int, float] | None = None
        """Window and bound before the last cut, packets lost, and how many may be: to take it back."""

    def acked(self) -> None:
        """Count a packet that arrived."""
        self._acked += 1

    def lost(self, packets: int) -> None:
        """Count packets that did not."""
        self._lost += packets

    def held(self, now: float) -> bool:
        """Return whether the bound is not to be touched yet."""
        return now < self._held_until

    def judge(self, now: float, window: float, *, hold: float, queue: float) -> float:
        """Return the window after a round, most often the same; a cut is kept for `hold` or longer.

        `queue`: how long it is, in seconds. Losses behind a long one are hardly by chance.
        """
        tuning = self._tuning
        judged = self._acked + self._lost
        if judged < tuning.loss_sample:
            return window
        share = self._lost / judged
        lost, self._acked, self._lost = self._lost, 0, 0
        bearable = tuning.loss_cap * judged
        if queue < tuning.loss_queue:
            bearable = max(bearable, self._by_chance(judged))
        if lost > bearable:
            self._before = (window, self.bound, lost, bearable)
            self.bound = window * (1 - share)
            self._held_until = now + max(hold, tuning.loss_hold)
            return self.bound
        if share < tuning.loss_fine and not self.held(now):
            self.bound *= 1.25
        if self.bound > 3 * window:
            self.bound = math.inf
        return window

    def _by_chance(self, judged: int) -> float:
        """Return how many of so many packets a bad line may lose."""
        likely = self._tuning.loss_fine * judged
        return likely + self._tuning.loss_deviations * math.sqrt(likely * (1 - self._tuning.loss_fine))

    def regained(self, window: float) -> float:
        """Take note that a packet counted as lost has arrived; return the window, restored if need be."""
        if self._lost > 0:
            self._lost -= 1
            self._acked += 1
        if self._before is None:
            return window
        before, bound, lost, bearable = self._before
        lost -= 1
        if lost > bearable:
            self._before = (before, bound, lost, bearable)
            return window
        self._before = None
        self.bound = bound
        self._held_until = -math.inf
        return max(window, before)
