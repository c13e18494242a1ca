"""New events for whoever reads along: read once in each replica, however many readers a conference has.

A reader is a cursor, nothing is queued for it. One loop reads what is new in all conferences that have
readers into a short memory of each (`buffer` events); readers that keep up are served from there, a slow one
reads the database until it has caught up. NOTIFY wakes the loop, and it looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from causeway.backoff import Backoff
from control.errors import DatabaseUnavailableError, OverloadedError
from control.registry import events
from control.registry.events import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from causeway.api import ConferenceEvent
    from control.event_settings import EventSettings
    from control.registry.store import Store

__all__ = ["Feeds", "Reader"]

_log = structlog.get_logger(__name__)

_PAGE: Final = 200
"""Events of a conference read at a time."""
_BATCH: Final = 500
"""Conferences read at a time."""


class _Feed:
    """The newest events of one conference, and who waits for the next."""

    def __init__(self, buffer: int) -> None:
        self.tail: Cursor | None = None
        """How far the loop has read; None: not begun, everybody reads the database."""
        self.recent: deque[ConferenceEvent] = deque(maxlen=buffer)
        self.readers: set[asyncio.Event] = set()

    def after(self, seq: int) -> Sequence[ConferenceEvent] | None:
        """Return the events after this one that are there; None: the memory does not go back so far."""
        if self.tail is None:
            return None
        if seq >= self.tail.seq:
            return ()
        if self.recent and self.recent[0].seq <= seq + 1:
            return [event for event in self.recent if event.seq > seq]
        return None

    def extend(self, found: Sequence[ConferenceEvent]) -> None:
        """Remember what comes after the tail, and wake the readers."""
        for event in found:
            if self.tail is not None and event.seq > self.tail.seq + 1:
                self.recent.clear()  # what lies between was dropped: nobody may be led past it
            self.recent.append(event)
            self.tail = Cursor(event.seq, event.at)
        self.wake()

    def wake(self) -> None:
        """Have every reader look."""
        for reader in self.readers:
            reader.set()


class Feeds:
    """Every conference that somebody reads along with, in this process. `run` must run."""

    def __init__(self, store: Store, settings: EventSettings) -> None:
        self._store = store
        self._settings = settings
        self._feeds: dict[str, _Feed] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._open = 0
        self._closed = False

    # --- being told ---------------------------------------------------------------------------

    def notice(self, conference: str) -> None:
        """Look at a conference: something has happened in it."""
        if conference in self._feeds:
            self._due.add(conference)
            self._wake.set()

    def notice_all(self) -> None:
        """Look at every conference: notices may have been missed."""
        self._due.update(self._feeds)
        self._wake.set()

    def close(self) -> None:
        """Have every reader come to its end: the process stops."""
        self._closed = True
        for feed in self._feeds.values():
            feed.wake()

    # --- reading along ------------------------------------------------------------------------

    @contextmanager
    def reading(self, conference: str, after: Cursor) -> Iterator[Reader]:
        """Give a reader that goes on after that place. Raises OverloadedError when there are too many."""
        if self._open >= self._settings.max_streams:
            raise OverloadedError("too many event streams are open here", retry_after=5)
        self._open += 1
        feed = self._feeds.setdefault(conference, _Feed(self._settings.buffer))
        awaited = asyncio.Event()
        feed.readers.add(awaited)
        try:
            yield Reader(self, conference, after, awaited)
        finally:
            self._open -= 1
            feed.readers.discard(awaited)
            if not feed.readers and self._feeds.get(conference) is feed:
                del self._feeds[conference]
                self._due.discard(conference)

    @property
    def closed(self) -> bool:
        """Whether nobody shall wait any more."""
        return self._closed

    async def more(self, conference: str, after: Cursor) -> Sequence[ConferenceEvent]:
        """Return events after that place, none if there are none yet. Raises DatabaseUnavailableError."""
        feed = self._feeds[conference]
        remembered = feed.after(after.seq)
        if remembered is not None:
            return remembered
        found = await self._store.read(events.page, conference, after, limit=_PAGE)
        if not found and feed.tail is None:
            feed.tail = after
            self.notice(conference)  # for what came since
        return found

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what is new, for ever."""
        backoff = Backoff(base=0.1, cap=5.0)
        while True:
            try:
                await self._wait()
                while self._due:
                    await self._read()
                backoff.reset()
            except DatabaseUnavailableError as error:
                _log.warning("events.database_unavailable", error=error.detail)
                await asyncio.sleep(backoff.next_delay())
                self.notice_all()

    async def _wait(self) -> None:
        """Wait for a notice; without one, find out by itself where something has happened."""
        try:
            async with asyncio.timeout(self._settings.poll_interval):
                await self._wake.wait()
        except TimeoutError:
            begun = [name for name, feed in self._feeds.items() if feed.tail is not None]
            heads = await self._store.read(events.heads_of, begun) if begun else {}
            for conference, head in heads.items():
                feed = self._feeds.get(conference)
                if feed is not None and feed.tail is not None and head.seq > feed.tail.seq:
                    self._due.add(conference)
        self._wake.clear()

    async def _read(self) -> None:
        """Read the tails of some conferences that are due."""
        places: dict[str, Cursor] = {}
        while self._due and len(places) < _BATCH:
            conference = self._due.pop()
            feed = self._feeds.get(conference)
            if feed is not None and feed.tail is not None:
                places[conference] = feed.tail
        found: dict[str, list[ConferenceEvent]] = {}
        for event in await self._store.read(events.tails, places, limit=_PAGE) if places else ():
            found.setdefault(event.conference, []).append(event)
        for conference, new in found.items():
            feed = self._feeds.get(conference)
            if feed is not None and feed.tail == places[conference]:
                feed.extend(new)
            if len(new) == _PAGE:
                self._due.add(conference)


class Reader:
    """One reader's place in a conference's events."""

    def __init__(self, feeds: Feeds, conference: str, after: Cursor, awaited: asyncio.Event) -> None:
        self._feeds = feeds
        self._conference = conference
        self._after = after
        self._awaited = awaited

    @property
    def after(self) -> Cursor:
        """The last event that was read."""
        return self._after

    def move(self, place: Cursor) -> None:
        """Go on after that event instead."""
        self._after = place

    async def next(self, *, patience: float) -> Sequence[ConferenceEvent] | None:
        """Return the next events: none after `patience` seconds without any, None when no more are to come.

        Raises DatabaseUnavailableError.
        """
        deadline = asyncio.get_running_loop().time() + patience
        while not self._feeds.closed:
            self._awaited.clear()
            found = await self._feeds.more(self._conference, self._after)
            if found:
                self._after = Cursor(found[-1].seq, found[-1].at)
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await self._awaited.wait()
            except TimeoutError:
                return ()
        return None
