"""Streams: what is published on each cluster of a conference, as the cluster reports it.

Triggers take a stream away with whoever published it, and with the room. All functions work inside the
caller's transaction; reports come after `clusters.require_lease`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from causeway.api import StreamView, Track
from control.registry import placements
from control.registry.tables import streams

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import StreamReport

__all__ = ["added", "of_conference", "removed"]


async def added(
    connection: AsyncConnection, conference: str, cluster: str, stream: str, report: StreamReport
) -> None:
    """Note that a stream is there, or what it is now. Raises ConferenceUnknownError."""
    await placements.ensure(connection, conference, cluster, room=conference)
    row = insert(streams).values(
        conference=conference,
        cluster=cluster,
        id=stream,
        participant=report.participant,
        tracks=msgspec.to_builtins(report.tracks),
    )
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[streams.c.conference, streams.c.cluster, streams.c.id],
            set_={"participant": row.excluded.participant, "tracks": row.excluded.tracks},
        )
    )


async def removed(connection: AsyncConnection, conference: str, cluster: str, stream: str) -> None:
    """Note that it is no longer there. Idempotent."""
    await connection.execute(
        delete(streams).where(
            streams.c.conference == conference, streams.c.cluster == cluster, streams.c.id == stream
        )
    )


async def of_conference(connection: AsyncConnection, conference: str) -> list[StreamView]:
    """Return every stream of the conference, on whichever cluster."""
    rows = await connection.execute(
        select(streams).where(streams.c.conference == conference).order_by(streams.c.cluster, streams.c.id)
    )
    return [
        StreamView(
            id=row.id,
            participant=row.participant,
            cluster=row.cluster,
            tracks=msgspec.convert(row.tracks, list[Track]),
            published_at=row.published_at,
        )
        for row in rows.all()
    ]
