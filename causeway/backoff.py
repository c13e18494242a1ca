"""Exponential backoff with full jitter, as a value: no clock, no sleep.

After Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: the delay is drawn
uniformly from [0, min(cap, base · 2^attempt)], here with a floor so that a retry never spins.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays, in seconds, between tries of one thing; `reset` after a success."""

    def __init__(
        self,
        *,
        base: float = 0.2,
        cap: float = 10.0,
        floor: float = 0.05,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base = base
        self._cap = cap
        self._floor = floor
        self._uniform = uniform
        self.attempts = 0
        """Delays handed out since the last reset."""

    def next_delay(self) -> float:
        """Return how long to wait before the next try, in seconds: [floor, max(floor, cap)]."""
        # The exponent is bounded so that a peer that is gone for days does not overflow a float.
        ceiling = min(self._cap, self._base * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return max(self._floor, self._uniform(0.0, ceiling))

    def reset(self) -> None:
        """Forget the failures: the next delay is drawn from [0, base] again."""
        self.attempts = 0
