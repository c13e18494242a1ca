"""A conference as it stands, and the checkpoints that are left of days whose events are gone.

All functions work inside the caller's transaction; `standing` reads several tables: give it a repeatable-read
connection. What a conference was at some time is control.delivery.rebuilding's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert

from causeway.api import (
    ConferenceState,
    LinkStanding,
    ParticipantView,
    PlacementStanding,
)
from control.errors import ConferenceUnknownError
from control.registry import events, streams
from control.registry.tables import (
    clusters,
    conferences,
    links,
    participants,
    placements,
)
from control.registry.tables import conference_checkpoints as checkpoints
from control.registry.tables import conference_events as log
from control.registry.tables import conference_heads as heads

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["checkpoint", "concerned", "first_kept", "forget", "leave", "standing"]


async def standing(connection: AsyncConnection, conference: str) -> ConferenceState:
    """Return the conference as it is, and the number of the last event that this includes.

    Raises ConferenceUnknownError.
    """
    row = (
        await connection.execute(
            select(
                conferences.c.state,
                conferences.c.template,
                conferences.c.template_version,
                conferences.c.metadata,
                conferences.c.locked,
                conferences.c.participant_limit,
                conferences.c.empty_ttl,
            ).where(conferences.c.id == conference)
        )
    ).one_or_none()
    place = await events.head(connection, conference)
    if row is None or place is None or place.at is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    return ConferenceState(
        conference=conference,
        seq=place.seq,
        at=place.at,
        state=msgspec.convert(row.state, Any),
        type=row.template,
        template_version=row.template_version,
        metadata=row.metadata,
        locked=row.locked,
        participant_limit=row.participant_limit,
        empty_ttl=row.empty_ttl,
        placements=await _placements(connection, conference),
        links=await _links(connection, conference),
        participants=await _participants(connection, conference),
        streams=await streams.of_conference(connection, conference),
    )


# --- what is kept of what was -----------------------------------------------------------------


async def checkpoint(connection: AsyncConnection, conference: str, until: datetime) -> ConferenceState | None:
    """Return the newest checkpoint of that time or earlier."""
    row = (
        await connection.execute(
            select(checkpoints.c.body)
            .where(checkpoints.c.conference == conference, checkpoints.c.at <= until)
            .order_by(checkpoints.c.seq.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else msgspec.convert(row.body, ConferenceState)


async def leave(
    connection: AsyncConnection, conference: str, seq: int, state: ConferenceState | None
) -> None:
    """Leave a checkpoint after event `seq`, if there is anything to keep; those before it go."""
    if state is not None:
        row = insert(checkpoints).values(
            conference=conference, seq=seq, at=state.at, body=msgspec.to_builtins(state)
        )
        await connection.execute(row.on_conflict_do_nothing())
    await connection.execute(
        delete(checkpoints).where(checkpoints.c.conference == conference, checkpoints.c.seq < seq)
    )


async def concerned(connection: AsyncConnection, before: datetime, *, after: str, limit: int) -> list[str]:
    """Return up to `limit` conferences that have events before that time, by id, from `after` on."""
    old = (
        select(log.c.conference)
        .where(log.c.at < before, log.c.conference > after)
        .distinct()
        .order_by(log.c.conference)
        .limit(limit)
    )
    return list((await connection.scalars(old)).all())


async def forget(connection: AsyncConnection, before: datetime) -> None:
    """Forget how far conferences counted that are gone, and were before that time."""
    there = exists().where(conferences.c.id == heads.c.conference)
    await connection.execute(delete(heads).where(heads.c.at < before, ~there))


async def first_kept(connection: AsyncConnection, conference: str) -> int | None:
    """Return the number of the first event that is kept."""
    return (
        await connection.scalars(
            select(log.c.seq).where(log.c.conference == conference).order_by(log.c.seq).limit(1)
        )
    ).one_or_none()


# --- as it is now -----------------------------------------------------------------------------


async def _placements(connection: AsyncConnection, conference: str) -> list[PlacementStanding]:
    rows = await connection.execute(
        select(
            placements.c.cluster,
            clusters.c.region,
            placements.c.ordinal,
            placements.c.state,
            placements.c.created_at,
        )
        .join(clusters, clusters.c.id == placements.c.cluster)
        .where(placements.c.conference == conference)
        .order_by(placements.c.ordinal)
    )
    return [
        PlacementStanding(
            cluster=row.cluster,
            region=row.region,
            ordinal=row.ordinal,
            state=row.state,
            since=row.created_at,
        )
        for row in rows.all()
    ]


async def _links(connection: AsyncConnection, conference: str) -> list[LinkStanding]:
    rows = await connection.execute(
        select(links.c.dialer, links.c.listener, links.c.state, links.c.since)
        .where(links.c.conference == conference)
        .order_by(links.c.dialer, links.c.listener)
    )
    return [
        LinkStanding(dialer=row.dialer, listener=row.listener, state=row.state, since=row.since)
        for row in rows.all()
    ]


async def _participants(connection: AsyncConnection, conference: str) -> list[ParticipantView]:
    rows = await connection.execute(
        select(participants)
        .where(participants.c.conference == conference)
        .order_by(participants.c.joined_at, participants.c.cluster, participants.c.id)
    )
    return [
        ParticipantView(
            id=row.id, user=row.user_name, role=row.role, cluster=row.cluster, joined_at=row.joined_at
        )
        for row in rows.all()
    ]
