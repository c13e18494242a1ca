"""Rooms that a cluster turns out not to have, though the registry says so: they are made again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from control.drivers.base import DriverError, RoomNotFoundError
from control.registry import placements

if TYPE_CHECKING:
    from control.drivers.base import ClusterDriver
    from control.registry.store import Store

__all__ = ["look_for_room"]

_log = structlog.get_logger(__name__)


async def look_for_room(
    store: Store, driver: ClusterDriver, conference: str, cluster: str, room: str, *, timeout: float
) -> None:
    """Have a room made again that the cluster has just said it does not know, if another call says so, too.

    What is known of the room is read before that call, and must still be so when it is given up: it may be
    there by now, and somebody in it. Raises DatabaseUnavailableError.
    """
    known = await store.read(placements.standing, conference, cluster, room=room)
    if known is None:
        return
    try:
        async with asyncio.timeout(timeout):
            await driver.list_participants(room)
    except RoomNotFoundError:
        _log.warning("room.missing", conference=conference, cluster=cluster)
        await store.write(placements.room_missing, conference, cluster, room=room, token=known.token)
    except (DriverError, TimeoutError):
        return  # nothing is known; whoever needs the room comes here again
