"""Who waits for a change of a conference, in this process. Rung by ourselves and by NOTIFY."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bell"]


class Bell:
    """Wakes waiters. A ring only says "look again", perhaps once too often; they also look now and then."""

    def __init__(self) -> None:
        self.any = asyncio.Event()
        """Set by every ring; cleared by its one waiter."""
        self._waiters: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listening(self, conference: str) -> Iterator[asyncio.Event]:
        """Give an event that every ring for the conference sets; the caller clears it before it looks."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(conference, set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters and self._waiters.get(conference) is waiters:
                del self._waiters[conference]

    def ring(self, conference: str) -> None:
        """Wake everybody who waits for this conference, and the dispatcher."""
        self.any.set()
        for event in self._waiters.get(conference, ()):
            event.set()

    def ring_all(self) -> None:
        """Wake everybody: notices may have been missed."""
        self.any.set()
        for waiters in self._waiters.values():
            for event in waiters:
                event.set()
