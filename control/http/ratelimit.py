"""Token buckets: each name may do `rate` things a second, and `burst` at once after a quiet time.

Pure: the time is an argument, in seconds of any clock that does not go back. The table is bounded; who has
been quiet longest leaves first: that is whose bucket has had the most time to fill up again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Buckets", "Limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`rate`: things a second; `burst`: things at once, at least 1."""

    rate: float
    burst: float


class Buckets:
    """A bucket of tokens for every name; all buckets of one table may have different limits."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Name → tokens that were left, and when that was."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, limit: Limit, now: float) -> float:
        """Take one token; return 0.0, or if there is none the seconds until there is one."""
        tokens = self._tokens(name, limit, now)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / limit.rate
        self._buckets[name] = (tokens - 1 if wait == 0.0 else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return wait

    def wait(self, name: str, limit: Limit, now: float) -> float:
        """Return the seconds until there is a token, 0.0 if there is one; nothing is taken."""
        return max(0.0, (1 - self._tokens(name, limit, now)) / limit.rate)

    def _tokens(self, name: str, limit: Limit, now: float) -> float:
        tokens, at = self._buckets.get(name, (limit.burst, now))
        return min(limit.burst, tokens + (now - at) * limit.rate)
