"""The smallest of what was seen lately."""

from __future__ import annotations

from collections import deque

__all__ = ["Extreme"]


class Extreme:
    """The smallest value of a window that moves with time (for the largest: negate)."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float, memory: float) -> float:
        """Add a value, forget what is older than `memory` seconds, return the smallest that is left."""
        values = self._values
        while values and values[-1][1] >= value:
            values.pop()
        values.append((now, value))
        while values[0][0] < now - memory:
            values.popleft()
        return values[0][1]
