"""Asks who is in a room, at clusters that do not tell: an OWT cluster reports no participants.

A link is wanted once a client has really joined, so that has to be noticed soon. Whenever a token was given,
the room is asked about every half second or so, until everybody who was given one has come or a time is over.
However many tokens are given for a room, it is asked once at a time. All of it is bounded, and may be lost
with the process: the probes (control.probing) ask, too, more slowly.
"""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from control.drivers.base import DriverError, NotSupportedError, RoomNotFoundError
from control.errors import ConferenceUnknownError, DatabaseUnavailableError
from control.gathering import Gathering
from control.registry import clusters, probes, reports
from control.security.vault import SealError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from control.attendance_settings import AttendanceSettings
    from control.bell import Bell
    from control.drivers.base import ClusterDriver
    from control.fleet import Fleet
    from control.registry.clusters import ClusterAccess
    from control.registry.probes import Known
    from control.registry.store import Store

__all__ = ["Attendance", "take_attendance"]

_log: Final = structlog.get_logger(__name__)

_MOMENTS: Final = 10
"""In an interval, at which rooms are looked at."""
_TELLING: Final = frozenset({"causeway"})
"""Kinds of clusters that always tell by themselves."""


async def take_attendance(
    store: Store,
    bell: Bell | None,
    driver: ClusterDriver,
    *,
    conference: str,
    cluster: str,
    room: str,
    timeout: float,
    known: Known | None = None,
) -> bool:
    """Ask the cluster who is in the room and note it; return whether anybody is who belongs there.

    `known`: what was known a moment ago; if the cluster says the same, the database is left alone. A room
    that the cluster does not know any more is closed. Without a `bell` nobody is woken in this process
    but by the notice of the database. Raises DriverError, TimeoutError and DatabaseUnavailableError.
    """
    try:
        async with asyncio.timeout(timeout):
            people = await driver.list_participants(room)
    except RoomNotFoundError:
        if await store.read(probes.is_open, conference, cluster):
            await store.write(reports.room_closed, conference, cluster)
            _ring(bell, conference)
        return False
    if known is not None and known.agrees(people):
        return bool(known.here)
    with suppress(ConferenceUnknownError):  # deleted meanwhile
        if await store.write(probes.listed, conference, cluster, people):
            _ring(bell, conference)
    return await store.read(probes.is_inhabited, conference, cluster)


def _ring(bell: Bell | None, conference: str) -> None:
    if bell is not None:
        bell.ring(conference)


@dataclass(slots=True)
class _Watch:
    """A room that is asked about, until when by the loop's clock."""

    room: str
    until: float
    hinted: bool = False
    """Somebody is said to have come: to be asked about once more, whether anybody is expected or not."""


class Attendance:
    """Runs for the life of the process; `run` ends only by cancellation."""

    def __init__(self, store: Store, fleet: Fleet, bell: Bell, settings: AttendanceSettings) -> None:
        self._store = store
        self._fleet = fleet
        self._bell = bell
        self._settings = settings
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._new: list[tuple[str, str]] = []
        self._called = asyncio.Event()
        self._questions = asyncio.Semaphore(settings.max_at_once)
        self._looks = Gathering(self._look, lanes=1)

    def expect(self, conference: str, cluster: str, room: str, *, driver: str) -> None:
        """Take note that somebody was given a token for the room. Never waits, never fails.

        `driver`: the cluster's kind.
        """
        if driver not in _TELLING:
            self._watch(conference, cluster, room)

    def hint(self, conference: str, cluster: str, room: str) -> None:
        """Take note that somebody is said to have come. Never waits, never fails."""
        watch = self._watch(conference, cluster, room)
        if watch is not None:
            watch.hinted = True

    def _watch(self, conference: str, cluster: str, room: str) -> _Watch | None:
        """Ask about the room from now on, for a while; return None if that is too much, or switched off."""
        if self._settings.duration <= 0:
            return None
        until = asyncio.get_running_loop().time() + self._settings.duration
        watch = self._watches.get((conference, cluster))
        if watch is not None:
            watch.room, watch.until = room, until
        elif len(self._watches) < self._settings.max_rooms:
            watch = self._watches[conference, cluster] = _Watch(room, until)
            self._new.append((conference, cluster))
            self._called.set()
        return watch

    async def run(self) -> None:
        """Ask about whatever is expected, now and for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._looks.run())
            while True:
                await self._called.wait()
                self._called.clear()
                new, self._new = self._new, []
                for conference, cluster in new:
                    group.create_task(self._follow(conference, cluster))

    async def _follow(self, conference: str, cluster: str) -> None:
        """Ask about one room until nobody is expected there."""
        watch = self._watches[conference, cluster]
        now = asyncio.get_running_loop().time
        try:
            while now() < watch.until:
                if not watch.hinted:
                    await asyncio.sleep(self._pause(now()))
                until, watch.hinted, hinted = watch.until, False, watch.hinted
                known, access = await self._looks.ask((conference, cluster))
                again = (
                    (hinted or known.expected)
                    and access is not None
                    and await self._ask(conference, access, watch.room, known)
                )
                if not again and watch.until == until:
                    break
        except DatabaseUnavailableError as error:
            _log.warning("attendance.database_unavailable", conference=conference, error=error.detail)
        except Exception:  # noqa: BLE001 - one room's trouble must not end the asking about others; logged
            _log.exception("attendance.defect", conference=conference, cluster=cluster)
        finally:
            del self._watches[conference, cluster]

    def _pause(self, now: float) -> float:
        """Return how long to wait before a room is asked about.

        Drawn, so that rooms that were joined at once are not asked about at once for ever; and rounded up to
        one of ten moments in an interval, so that the database is asked for those of a moment together.
        """
        step = self._settings.interval / _MOMENTS
        then = now + self._settings.interval * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        return math.ceil(then / step) * step - now

    async def _look(self, rooms: Sequence[tuple[str, str]]) -> list[tuple[Known, ClusterAccess | None]]:
        """Return what is known of many rooms, and how to talk to their clusters."""
        known = await self._store.read(probes.known, rooms)
        accesses = await self._store.read(clusters.accesses, {cluster for _, cluster in rooms})
        return [(each, accesses.get(cluster)) for each, (_, cluster) in zip(known, rooms, strict=True)]

    async def _ask(self, conference: str, access: ClusterAccess, room: str, known: Known) -> bool:
        """Ask once; return whether it makes sense to ask again."""
        cluster = access.id
        try:
            driver = self._fleet.driver(cluster, access)
            async with self._questions:
                await take_attendance(
                    self._store,
                    self._bell,
                    driver,
                    conference=conference,
                    cluster=cluster,
                    room=room,
                    timeout=self._settings.timeout,
                    known=known,
                )
        except NotSupportedError:
            return False
        except (DriverError, SealError, TimeoutError) as error:
            code = getattr(error, "code", "cluster-timeout")
            _log.info("attendance.not_listed", conference=conference, cluster=cluster, error=code)
        return True
