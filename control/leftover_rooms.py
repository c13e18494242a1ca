"""Deletes rooms that no placement knows, at clusters whose rooms say what they were made for.

How there can be such: the order to make a room was carried out after control had given it up, or the cluster
could not be reached when its conference ended. A room that is being made is never taken for one of them: its
placement is in the registry before the cluster is asked. Nor does a room suffer that is made while this goes
on: the order to delete names the placement of the room that was listed, and a later one's stays. So it does
no harm either if two replicas do this at the same time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from control.drivers.base import DriverError
from control.drivers.kinds import KINDS
from control.errors import DatabaseUnavailableError
from control.registry import clusters, leftovers
from control.security.vault import SealError

if TYPE_CHECKING:
    from control.fleet import Fleet
    from control.registry.store import Store
    from control.room_settings import RoomSettings

__all__ = ["sweep_cluster", "sweep_rooms"]

_log: Final = structlog.get_logger(__name__)
_DRIVERS: Final = sorted(name for name, can in KINDS.items() if can.lists_rooms)


async def sweep_rooms(store: Store, *, fleet: Fleet, settings: RoomSettings) -> None:
    """Look at every cluster again and again, until cancelled."""
    while True:
        await asyncio.sleep(settings.interval)
        try:
            await _sweep_all(store, fleet, settings)
        except DatabaseUnavailableError as error:
            _log.warning("rooms.database_unavailable", error=error.detail)


async def _sweep_all(store: Store, fleet: Fleet, settings: RoomSettings) -> None:
    waiting = iter(await store.read(leftovers.living, _DRIVERS))
    failures: list[DatabaseUnavailableError] = []

    async def work() -> None:
        for cluster in waiting:  # one after the other, whichever worker comes first
            try:
                await sweep_cluster(store, fleet, cluster, settings)
            except DatabaseUnavailableError as error:
                failures.append(error)
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(settings.at_once):
            group.create_task(work())
    if failures:
        raise failures[0]


async def sweep_cluster(store: Store, fleet: Fleet, cluster: str, settings: RoomSettings) -> int:
    """Delete what is left over at one cluster; return how many rooms. Raises DatabaseUnavailableError."""
    deleted = 0
    try:
        async with asyncio.timeout(settings.timeout):
            access = await store.read(clusters.access, cluster)
            if access is None:
                return 0
            driver = fleet.driver(cluster, access)
            there = await driver.list_rooms(limit=settings.max_listed)
            found = await store.read(leftovers.unplaced, cluster, there, min_age=settings.min_age)
            for room, epoch in found[: settings.max_deleted]:
                await driver.delete_room(room, placement=epoch)
                deleted += 1
                _log.warning("room.left_over", conference=room, cluster=cluster)
    except (DriverError, SealError, TimeoutError) as error:
        code = getattr(error, "code", "cluster-timeout")
        _log.info("rooms.not_swept", cluster=cluster, error=code, deleted=deleted)
    return deleted
