"""Rooms that a cluster reported before anything could be done with it: kept for a while, and not many.

All functions work inside the caller's transaction. Tokens are sealed as those of placements.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from control.registry.tables import conferences, early_rooms

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["forget", "keep", "prune", "take"]

_NOW: Final = func.clock_timestamp()


async def keep(
    connection: AsyncConnection, cluster: str, room: str, *, sealed_token: bytes, limit: int
) -> bool:
    """Keep the report; False, and nothing kept, if there are `limit` of the cluster's already."""
    count = (
        await connection.scalars(
            select(func.count()).where(early_rooms.c.cluster == cluster, early_rooms.c.room != room)
        )
    ).one()
    if count >= limit:
        return False
    told = {"token": sealed_token, "reported_at": _NOW}
    row = insert(early_rooms).values(cluster=cluster, room=room, **told)
    await connection.execute(
        row.on_conflict_do_update(index_elements=[early_rooms.c.cluster, early_rooms.c.room], set_=told)
    )
    return True


async def forget(connection: AsyncConnection, cluster: str, room: str | None = None) -> None:
    """Forget one room of the cluster, or all of them. Idempotent."""
    gone = delete(early_rooms).where(early_rooms.c.cluster == cluster)
    await connection.execute(gone if room is None else gone.where(early_rooms.c.room == room))


async def take(connection: AsyncConnection, cluster: str, *, unknown_too: bool) -> list[tuple[str, bytes]]:
    """Return (room, sealed token) of the cluster's kept reports, and forget these.

    Those of rooms that are no conferences stay, unless `unknown_too`.
    """
    taken = delete(early_rooms).where(early_rooms.c.cluster == cluster)
    if not unknown_too:
        taken = taken.where(exists().where(conferences.c.id == early_rooms.c.room))
    rows = await connection.execute(taken.returning(early_rooms.c.room, early_rooms.c.token))
    return [(row.room, row.token) for row in rows.all()]


async def prune(connection: AsyncConnection, *, after: float) -> int:
    """Forget what was reported more than `after` seconds ago; return how many."""
    gone = await connection.execute(
        delete(early_rooms).where(early_rooms.c.reported_at < _NOW - timedelta(seconds=after))
    )
    return gone.rowcount
