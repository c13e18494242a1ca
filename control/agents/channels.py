"""The channels that this replica has open, and who wakes them: notices of the registry."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Channels", "Waker"]


class Waker:
    """What a channel waits on. Bounded: what is noted is a set of conferences, and "look at everything"."""

    _MOST = 1000
    """Conferences after which it is "look at everything"."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._conferences: set[str] = set()
        self._everything = False
        self._speaks = False

    def changed(self, conference: str) -> None:
        """Note that something of the conference has changed."""
        if not self._everything:
            self._conferences.add(conference)
            if len(self._conferences) > self._MOST:
                self.look_at_everything()
        self._event.set()

    def look_at_everything(self) -> None:
        """Note that anything may have changed."""
        self._everything = True
        self._conferences.clear()
        self._event.set()

    def look_whether_it_speaks(self) -> None:
        """Note that another channel may speak for the agent now, or none."""
        self._speaks = True
        self._event.set()

    async def wait(self, timeout: float) -> tuple[frozenset[str] | None, bool]:
        """Return the conferences to look at (None: all), and whether to look if the channel still speaks.

        After `timeout` seconds without a notice it is time to look at everything.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return None, True
        noted = None if self._everything else frozenset(self._conferences)
        speaks = self._speaks
        self._event.clear()
        self._conferences.clear()
        self._everything = self._speaks = False
        return noted, speaks


class Channels:
    """Wakers by agent."""

    def __init__(self) -> None:
        self._wakers: dict[str, set[Waker]] = {}

    def __len__(self) -> int:
        return sum(len(wakers) for wakers in self._wakers.values())

    @contextmanager
    def open(self, agent: str) -> Iterator[Waker]:
        """Give the waker of a new channel of this agent."""
        waker = Waker()
        wakers = self._wakers.setdefault(agent, set())
        wakers.add(waker)
        try:
            yield waker
        finally:
            wakers.discard(waker)
            if not wakers and self._wakers.get(agent) is wakers:
                del self._wakers[agent]

    def heard(self, notice: str) -> None:
        """Take a notice: `<agent> <conference>`, or an agent alone."""
        agent, _, conference = notice.partition(" ")
        for waker in self._wakers.get(agent, ()):
            if conference:
                waker.changed(conference)
            else:
                waker.look_whether_it_speaks()

    def missed(self) -> None:
        """Notices may have been missed."""
        for wakers in self._wakers.values():
            for waker in wakers:
                waker.look_whether_it_speaks()
                waker.look_at_everything()
