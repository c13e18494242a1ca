"""Which rooms of a cluster no placement knows. All functions are one statement each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select, text

from control.registry.clusters import online
from control.registry.placement_epoch import made_at
from control.registry.tables import clusters

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["living", "unplaced"]


async def living(connection: AsyncConnection, drivers: Collection[str]) -> list[str]:
    """Return the clusters of these kinds whose registration holds."""
    found = await connection.scalars(
        select(clusters.c.id).where(clusters.c.driver.in_(drivers), online()).order_by(clusters.c.id)
    )
    return list(found.all())


_UNPLACED: Final = text(
    """
    SELECT there.room FROM unnest(CAST(:rooms AS text[]), CAST(:made AS timestamptz[])) AS there (room, made)
    WHERE there.made < clock_timestamp() - make_interval(secs => :min_age)
        AND NOT EXISTS (
            SELECT FROM placements WHERE conference = there.room AND cluster = :cluster
        )
    ORDER BY there.made
    """
)


async def unplaced(
    connection: AsyncConnection, cluster: str, rooms: Mapping[str, int], *, min_age: float
) -> list[tuple[str, int]]:
    """Return those of {room: epoch of its placement} that no placement there knows, the oldest first.

    What was made for a placement of the last `min_age` seconds is left out.
    """
    found = await connection.scalars(
        _UNPLACED,
        {
            "rooms": list(rooms),
            "made": [made_at(epoch) for epoch in rooms.values()],
            "min_age": min_age,
            "cluster": cluster,
        },
    )
    return [(room, rooms[room]) for room in found.all()]
