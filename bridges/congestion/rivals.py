"""Does somebody else fill the queue? Tested by asking the queue, not by watching it.

A flow that keeps a short queue starves beside one that fills it. Whether there is such a rival cannot be
seen in the queue's length alone: two careful flows, or one at a low rate, look the same. So the flow halves
what it sends for a moment: a queue of its own doing goes away, a rival's stays (an elasticity test, as Goyal
and others do it for Nimbus, SIGCOMM 2022).
Two things look like a rival and are none: on a short path half a long queue is still one, and with a handful
of packets in flight half of them is too little to take away.
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
        "_before",
        "_delay",
        "_eagerness",
        "_low_at",
        "_lowest",
        "_rate",
        "_spacing",
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
        self._before = self._rate = self._spacing = 0.0

    @property
    def eagerness(self) -> float:
        """Packets of our own that may stand in the queue."""
        return self._eagerness if self.competing else self._least

    @property
    def _least(self) -> float:
        tuning, base = self._tuning, self._delay.base
        length = min(max((base - tuning.long_path) / tuning.long_path, 0.0), 1.0)
        return tuning.eagerness + length * max(tuning.long_eagerness, tuning.long_queue * self._rate)

    @property
    def testing(self) -> bool:
        """Whether half the window is to be left unused just now."""
        return self._test_ends > -math.inf

    def measured(self, now: float, round_trip: float, rate: float, *, spacing: float = 0.0) -> None:
        """Take note of a round trip; `rate` is what the window allows, in packets a second.

        `spacing` is how long the bottleneck takes for a packet; 0 where it shows none.
        """
        tuning, delay = self._tuning, self._delay
        self._rate, self._spacing = rate, spacing
        if self._low_at == -math.inf or delay.queue < tuning.rival_queue:
            self._low_at = now
        if self.testing:
            if now >= (self._test_began + self._test_ends) / 2:
                self._lowest = min(self._lowest, delay.waited(round_trip))
            if now >= self._test_ends:
                self._judge(now)
            return
        if self.competing:
            due = now - self._tested_at > max(tuning.rival_recheck, 20 * delay.smoothed)
        else:
            due = now - self._low_at > max(tuning.rival_patience, 5 * delay.smoothed)
        if due:
            self._test_began, self._test_ends = now, now + 1.5 * delay.smoothed
            self._lowest = math.inf
            self._before = delay.base + delay.queue

    def round_over(self, *, lost: bool) -> None:
        """Be more eager after a round trip without loss, less after one with."""
        if not self.competing or self.testing:
            return
        wanted = self._eagerness / 2 if lost else self._eagerness + self._tuning.rival_step
        self._eagerness = self._bounded(wanted)

    def _judge(self, now: float) -> None:
        delay = self._delay
        self._test_ends = -math.inf
        self._tested_at = self._low_at = now
        stays = self._lowest > self._tolerated and not self._own_doing
        if stays and not self.competing:
            self._eagerness = self._bounded(self._rate * (delay.queue - delay.noise))
        self.competing = stays

    @property
    def _tolerated(self) -> float:
        """How much queue may stay without anybody filling it."""
        tuning, delay = self._tuning, self._delay
        if self._rate * delay.standing > tuning.rival_few:
            return tuning.rival_stays
        return min(max(tuning.rival_stays, tuning.rival_kept * self._spacing), tuning.rival_stays_most)

    @property
    def _own_doing(self) -> bool:
        """Whether half the window has halved the round trip: nobody else had a part in it."""
        left = (self._delay.base + self._lowest) / self._before
        return abs(left - 0.5) <= self._tuning.rival_halved

    def _bounded(self, eagerness: float) -> float:
        return min(max(eagerness, self._least), self._tuning.max_eagerness)
