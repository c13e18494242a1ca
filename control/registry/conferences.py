"""Conferences: made, shown, ended; and the view of one that planning works on.

All functions work inside the caller's transaction. `load` and `show` read several tables: give them a
repeatable-read connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import ConferenceView, LinkView, ParticipantView, PlacementView
from control.cascade.view import ClusterFacts, LinkFacts, PlacementFacts, View
from control.errors import ConferenceEndingError, ConferenceUnknownError
from control.registry import work
from control.registry.clusters import online
from control.registry.tables import clusters, conferences, links, participants, placements

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["LIST_LIMIT", "Snapshot", "create", "end", "forget", "list_active", "load", "show"]

LIST_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A conference as it was at `now`, by the database's clock."""

    view: View
    now: datetime


async def create(connection: AsyncConnection, conference: str) -> bool:
    """Make the conference; False if it is there already. Raises ConferenceEndingError."""
    made = await connection.execute(
        insert(conferences).values(id=conference).on_conflict_do_nothing().returning(conferences.c.id)
    )
    if made.one_or_none() is not None:
        return True
    state = (
        await connection.scalars(select(conferences.c.state).where(conferences.c.id == conference))
    ).one_or_none()
    if state != "active":
        raise ConferenceEndingError(f"conference {conference} is being deleted; wait until it is gone")
    return False


async def end(connection: AsyncConnection, conference: str) -> bool:
    """Have the conference deleted, rooms first. False if there is none."""
    known = await connection.execute(
        update(conferences).where(conferences.c.id == conference).values(state="ending")
    )
    if known.rowcount == 0:
        return False
    await work.mark(connection, conference)
    return True


async def forget(connection: AsyncConnection, conference: str) -> None:
    """Delete an ending conference with every row that hangs on it."""
    await connection.execute(
        delete(conferences).where(conferences.c.id == conference, conferences.c.state == "ending")
    )
    await work.announce(connection, conference)


async def list_active(connection: AsyncConnection) -> list[str]:
    """Return the ids of active conferences, oldest first, at most LIST_LIMIT."""
    found = await connection.scalars(
        select(conferences.c.id)
        .where(conferences.c.state == "active")
        .order_by(conferences.c.created_at, conferences.c.id)
        .limit(LIST_LIMIT)
    )
    return list(found.all())


async def show(connection: AsyncConnection, conference: str) -> ConferenceView:
    """Return the conference as applications see it; raises ConferenceUnknownError."""
    head = (
        await connection.execute(
            select(conferences.c.state, conferences.c.created_at).where(conferences.c.id == conference)
        )
    ).one_or_none()
    if head is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    people = (
        await connection.execute(
            select(
                participants.c.id,
                participants.c.user_name,
                participants.c.role,
                participants.c.cluster,
                participants.c.joined_at,
            )
            .where(participants.c.conference == conference)
            .order_by(participants.c.joined_at, participants.c.cluster, participants.c.id)
        )
    ).all()
    return ConferenceView(
        id=conference,
        state=cast("Any", head.state),
        created_at=head.created_at,
        placements=[
            PlacementView(
                cluster=row.cluster,
                region=row.region,
                ordinal=row.ordinal,
                state=cast("Any", row.state),
                room=row.room,
                participants=row.participants,
            )
            for row in await _placements(connection, conference)
        ],
        links=[
            LinkView(
                dialer=row.dialer,
                listener=row.listener,
                state=cast("Any", row.state),
                since=row.since,
                attempts=row.attempts,
                error=row.error,
            )
            for row in await _links(connection, conference)
        ],
        participants=[
            ParticipantView(
                id=row.id, user=row.user_name, role=row.role, cluster=row.cluster, joined_at=row.joined_at
            )
            for row in people
        ],
    )


async def load(connection: AsyncConnection, conference: str) -> Snapshot | None:
    """Return what planning needs to know, None if there is no such conference."""
    head = (
        await connection.execute(
            select(conferences.c.state, func.clock_timestamp().label("now")).where(
                conferences.c.id == conference
            )
        )
    ).one_or_none()
    if head is None:
        return None
    placed = await _placements(connection, conference)
    facts = (
        await connection.execute(
            select(clusters.c.id, online().label("live"), clusters.c.reports_links).where(
                clusters.c.id.in_([row.cluster for row in placed])
            )
        )
    ).all()
    view = View(
        conference=conference,
        state=cast("Any", head.state),
        placements=tuple(
            PlacementFacts(
                cluster=row.cluster,
                ordinal=row.ordinal,
                state=cast("Any", row.state),
                has_token=row.has_token,
                participants=row.participants,
                attempts=row.attempts,
                retry_at=row.retry_at,
            )
            for row in placed
        ),
        links=tuple(
            LinkFacts(
                dialer=row.dialer,
                listener=row.listener,
                state=cast("Any", row.state),
                since=row.since,
                attempts=row.attempts,
                retry_at=row.retry_at,
            )
            for row in await _links(connection, conference)
        ),
        clusters={
            row.id: ClusterFacts(id=row.id, online=row.live, reports_links=row.reports_links) for row in facts
        },
    )
    return Snapshot(view=view, now=head.now)


async def _placements(connection: AsyncConnection, conference: str) -> list[Any]:
    count = (
        select(func.count())
        .select_from(participants)
        .where(
            participants.c.conference == placements.c.conference,
            participants.c.cluster == placements.c.cluster,
        )
        .scalar_subquery()
    )
    rows = await connection.execute(
        select(
            placements.c.cluster,
            clusters.c.region,
            placements.c.ordinal,
            placements.c.state,
            placements.c.room,
            placements.c.token.is_not(None).label("has_token"),
            placements.c.attempts,
            placements.c.retry_at,
            count.label("participants"),
        )
        .join(clusters, clusters.c.id == placements.c.cluster)
        .where(placements.c.conference == conference)
        .order_by(placements.c.ordinal)
    )
    return list(rows.all())


async def _links(connection: AsyncConnection, conference: str) -> list[Any]:
    rows = await connection.execute(
        select(
            links.c.dialer,
            links.c.listener,
            links.c.state,
            links.c.since,
            links.c.attempts,
            links.c.retry_at,
            links.c.error,
        )
        .where(links.c.conference == conference)
        .order_by(links.c.dialer, links.c.listener)
    )
    return list(rows.all())
