"""The queue on the way back, from the peer's clock.

A round trip does not tell which of its two ways was slow. A peer that says what its clock shows as it sends
tells it: the way back has a queue by as much as that is older on arrival than it was at least. What the clock
shows does not matter, only how it goes on. One that is wrong by one part in 10,000 shows as a millisecond in
ten seconds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from bridges.congestion.extreme import Extreme

__all__ = ["ReturnPath"]

_ROUND: Final = 2**32
"""Microseconds after which the peer's clock begins anew."""
_APART: Final = 0.005
"""Seconds between two stamps that count: however many a peer sends, so many are kept and no more."""
_FRESH: Final = 0.25
"""Seconds without a stamp after which nothing is known any more."""
_RECENT: Final = 0.03
"""Of what came within this time the least counts."""
_JITTER: Final = 0.004
"""Seconds by which stamps may come unevenly; what is more might be taken for a queue, and is not."""
_JUMP: Final = 2.0
"""Seconds by which no queue changes from one stamp to the next: one of the clocks was set, or stood still."""


class ReturnPath:
    """How long what comes back waits on its way; the least of `memory` seconds is the empty path's."""

    __slots__ = ("_age", "_base", "_heard_at", "_jitter", "_least", "_memory", "_recent", "_stamp", "_step")

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._heard_at = -math.inf
        self._stamp = 0
        self._age = 0.0
        """How old the last stamp was, beyond the first one."""
        self._step = 0.0
        """How much older that was than the one before it."""
        self._jitter = 0.0
        self._least = 0.0
        self._base = Extreme()
        self._recent: deque[tuple[float, float]] = deque()

    def heard(self, now: float, stamp: int) -> None:
        """Take note of the peer's clock (microseconds, modulo 2^32) as it sent what has come at `now`."""
        if now - self._heard_at < _APART:
            return
        ours = now - self._heard_at
        theirs = ((stamp - self._stamp + _ROUND // 2) % _ROUND - _ROUND // 2) * 1e-6
        self._heard_at, self._stamp = now, stamp
        step = ours - theirs
        if abs(step) > _JUMP:
            self._age = self._step = self._jitter = 0.0
            self._base = Extreme()
            self._recent.clear()
        else:
            self._age += step
            # A queue that grows or shrinks does so for longer than from one stamp to the next.
            self._jitter += (abs(step - self._step) / 2 - self._jitter) / 16
            self._step = step
        self._least = self._base.add(now, self._age, self._memory)
        self._recent.append((now, self._age))
        while self._recent[0][0] < now - _RECENT:
            self._recent.popleft()

    def queue(self, now: float) -> float:
        """Return for how long what came lately has waited, in seconds; 0 where that is not known."""
        if now - self._heard_at > _FRESH:
            return 0.0
        waited = min(age for _, age in self._recent) - self._least
        return max(0.0, waited - max(0.0, self._jitter - _JITTER))
