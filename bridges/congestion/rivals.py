"""Does somebody else fill the queue? Tested by asking the queue, not by watching it.

A flow that keeps a short queue starves beside one that fills it. Whether there is such a rival cannot be
seen in the queue's length alone: two careful flows, or one at a low rate, look the same. So the flow halves
what it sends for a moment: a queue of its own doing goes away, a rival's stays (an elasticity test, as Goyal
and others do it for Nimbus, SIGCOMM 2022).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridges.congestion.delay import Delay
    from bridges.congestion.tuning import Tuning

__all__ = ["Rivals"]


class Rivals:
    """Finds rivals, and says how eager to be."""

    __slots__ = (
        "_delay",
        "_eagerness",
        "_low_at",
        "_lowest",
        "_test_began",
        "_test_ends",
        "_tested_at",
        "_tuning",
        "competing",
    )

    def __init__(self, tuning: Tuning, delay: Delay) -> None:
        self.competing = False
        self._eagerness = tuning.eagerness
        self._tuning = tuning
        self._delay = delay
        self._low_at = -math.inf
        self._test_began = self._test_ends = -math.inf
        self._tested_at = -math.inf
        self._lowest = math.inf

    @property
    def eagerness(self) -> float:
        """Packets of our own that may stand in the queue."""
        return self._eagerness if self.competing else self._least

    @property
    def _least(self) -> float:
        tuning, base = self._tuning, self._delay.base
        length = (base - tuning.long_path) / tuning.long_path
        return tuning.eagerness + tuning.long_eagerness * min(max(length, 0.0), 1.0)

    @property
    def testing(self) -> bool:
        """Whether half the window is to be left unused just now."""
        return self._test_ends > -math.inf

    def measured(self, now: float, round_trip: float, rate: float) -> None:
        """Take note of a round trip; `rate` is what the window allows, in packets a second."""
        tuning, delay = self._tuning, self._delay
        if self._low_at == -math.inf or delay.queue < tuning.rival_queue:
            self._low_at = now
        if self.testing:
            if now >= (self._test_began + self._test_ends) / 2:
                self._lowest = min(self._lowest, round_trip - delay.base)
            if now >= self._test_ends:
                self._judge(now, rate)
            return
        if self.competing:
            due = now - self._tested_at > max(tuning.rival_recheck, 10 * delay.smoothed)
        else:
            due = now - self._low_at > max(tuning.rival_patience, 5 * delay.smoothed)
        if due:
            self._test_began, self._test_ends = now, now + 1.5 * delay.smoothed
            self._lowest = math.inf

    def round_over(self, *, lost: bool) -> None:
        """Be more eager after a round trip without loss, less after one with."""
        if not self.competing or self.testing:
            return
        wanted = self._eagerness / 2 if lost else self._eagerness + self._tuning.rival_step
        self._eagerness = self._bounded(wanted)

    def _judge(self, now: float, rate: float) -> None:
        tuning, delay = self._tuning, self._delay
        self._test_ends = -math.inf
        self._tested_at = self._low_at = now
        stays = self._lowest > tuning.rival_stays
        if stays and not self.competing:
            self._eagerness = self._bounded(rate * (delay.queue - delay.noise))
        self.competing = stays

    def _bounded(self, eagerness: float) -> float:
        return min(max(eagerness, self._least), self._tuning.max_eagerness)
