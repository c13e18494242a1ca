"""Virtual time: calls in order of their time, as a loop that waits in whole milliseconds makes them."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["World"]

_RESOLUTION: Final = 1e-3
"""Seconds to which epoll rounds a wait up."""
_TURN: Final = 2e-5
"""Seconds that a turn of the loop takes at least: nothing happens just when it was asked for."""


class World:
    """The clock of one simulation."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the beginning."""
        self._order = count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call at `time`, exactly: what a network does."""
        heapq.heappush(self._calls, (max(time, self.now), next(self._order), call))

    def wake_at(self, time: float, call: Callable[[], None]) -> None:
        """Call at `time` or about a millisecond later: what asyncio does on epoll."""
        wait = max(0.0, time - self.now)
        self.at(self.now + math.ceil(wait / _RESOLUTION) * _RESOLUTION + _TURN, call)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = until
