"""Which moment a timestamp is, found from when frames come. Pure.

Frames carry no wall clock, so the tracks of a stream are played together by when they arrive: of the last
seconds the frame that took least time is the measure. What the two tracks' ways differ by is what they are
apart.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ArrivalClock"]

_WINDOW: Final = 5.0  # seconds, of which the present and the last are looked at


class ArrivalClock:
    """Maps time to timestamps of `rate` ticks a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._least = [float("inf"), float("inf")]
        self._turned: float | None = None

    def note(self, now: float, timestamp: int) -> None:
        """Take when a frame came; `timestamp` is without rounds of 2^32."""
        if self._turned is None:
            self._turned = now
        elif now - self._turned >= _WINDOW:
            self._least = [float("inf"), self._least[0]]
            self._turned = now
        self._least[0] = min(self._least[0], now - timestamp / self._rate)

    def at(self, now: float) -> int:
        """Return the timestamp of what comes at `now`, if it took least; at least one was noted."""
        return round((now - min(self._least)) * self._rate)
