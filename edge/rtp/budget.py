"""So many things in a second, and no more: a bucket of tokens. Pure."""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """Grants `per_second` things a second on average, and that many at once at most."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._left = per_second
        self._filled = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is granted at `now`, in seconds of any monotonic clock."""
        self._left = min(self._rate, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
