"""What is on its way: callbacks at their times on an asyncio loop, those of the same time in their order."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Deliveries"]


class Deliveries:
    """At most `limit` deliveries at once; further ones are dropped and counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit: int) -> None:
        self.dropped = 0
        self._loop = loop
        self._limit = limit
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        """When each is due, how many were put before it, what is to be done."""
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, at: float, deliver: Callable[[], None]) -> None:
        """Have `deliver` called at `at`, on the loop's clock."""
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return
        self._count += 1
        heapq.heappush(self._waiting, (at, self._count, deliver))
        self._set_timer()

    def close(self) -> None:
        """Drop what is on its way."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            if self._waiting and self._timer.when() <= self._waiting[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._deliver_due)

    def _deliver_due(self) -> None:
        # The loop calls up to its clock's resolution too early.
        due = max(self._loop.time(), self._waiting[0][0]) if self._waiting else 0.0
        self._timer = None
        while self._waiting and self._waiting[0][0] <= due:
            heapq.heappop(self._waiting)[2]()
        self._set_timer()
