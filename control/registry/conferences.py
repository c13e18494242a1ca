"""Conferences: made, shown, ended.

All functions work inside the caller's transaction. `show` reads several tables: give it a repeatable-read
connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import UNSET
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import (
    DEFAULT_TEMPLATE,
    UNLIMITED,
    ConferenceCreate,
    ConferenceHead,
    ConferenceView,
    LinkView,
    ParticipantView,
    PlacementView,
)
from control.errors import (
    ConferenceEndingError,
    ConferenceExistsError,
    ConferenceUnknownError,
    InvalidRequestError,
)
from control.registry import streams, templates, work
from control.registry.clusters import online
from control.registry.metadata import check_metadata, check_nesting, merged
from control.registry.tables import clusters, conferences, links, participants, placements, reservations

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import ConferencePatch
    from control.registry.templates import InUse

__all__ = [
    "change",
    "changeable",
    "create",
    "end",
    "expire",
    "forget",
    "head_columns",
    "show",
]

_ANYTHING: Final = ConferenceCreate()


async def create(
    connection: AsyncConnection,
    conference: str,
    wish: ConferenceCreate = _ANYTHING,
    *,
    max_metadata_bytes: int = 4096,
) -> bool:
    """Make the conference, with the newest version of its template; False if it is there already.

    Raises ConferenceEndingError, ConferenceExistsError when the one that is there is not what is wished for,
    TemplateUnknownError and InvalidRequestError.
    """
    if await _is_there(connection, conference, wish):
        return False
    chosen = await templates.current(connection, wish.type or DEFAULT_TEMPLATE)
    settings = _own(wish.participant_limit, wish.empty_ttl, chosen)
    check_metadata(wish.metadata or {}, max_metadata_bytes)
    made = await connection.execute(
        insert(conferences)
        .values(
            id=conference,
            template=chosen.name,
            template_version=chosen.version,
            metadata=wish.metadata or {},
            locked=bool(wish.locked),
            **settings,
        )
        .on_conflict_do_nothing()
        .returning(conferences.c.id)
    )
    if made.one_or_none() is not None:
        return True
    # Somebody else was faster. Should it be gone again by now, the caller's next look says so.
    await _is_there(connection, conference, wish)
    return False


async def change(
    connection: AsyncConnection,
    conference: str,
    patch: ConferencePatch,
    *,
    check: Callable[[object | None], None],
    max_metadata_bytes: int,
) -> ConferenceView:
    """Change what applications may change. `check` gets what `changeable` gives of it now, and may raise.

    Raises ConferenceUnknownError, ConferenceEndingError and InvalidRequestError.
    """
    query = _heads().where(conferences.c.id == conference).with_for_update(key_share=True)
    head = (await connection.execute(query)).one_or_none()
    if head is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    check(changeable(ConferenceHead(**head._asdict())))
    if head.state != "active":
        raise ConferenceEndingError(f"conference {conference} is being deleted")
    used = await templates.of_conference(connection, conference)
    own = {
        name: head._asdict()[name] if value is UNSET else value
        for name, value in (("participant_limit", patch.participant_limit), ("empty_ttl", patch.empty_ttl))
    }
    values: dict[str, Any] = _own(own["participant_limit"], own["empty_ttl"], used)
    if patch.locked is not UNSET:
        values["locked"] = patch.locked
    if patch.metadata is not UNSET:
        check_nesting(patch.metadata)
        values["metadata"] = {} if patch.metadata is None else merged(head.metadata, patch.metadata)
        check_metadata(values["metadata"], max_metadata_bytes)
    await connection.execute(update(conferences).where(conferences.c.id == conference).values(**values))
    return await show(connection, conference)


async def end(connection: AsyncConnection, conference: str) -> bool:
    """Have the conference deleted, rooms first. False if there is none."""
    known = await connection.execute(
        update(conferences).where(conferences.c.id == conference).values(state="ending")
    )
    if known.rowcount == 0:
        return False
    await work.mark(connection, conference)
    return True


async def forget(connection: AsyncConnection, conference: str) -> bool:
    """Delete an ending conference with every row that hangs on it; return whether it was.

    Not while it has a room that could be removed: its cluster may have come back since somebody looked.
    """
    within_reach = (
        exists()
        .where(placements.c.conference == conferences.c.id, placements.c.state != "lost")
        .where(clusters.c.id == placements.c.cluster, online())
    )
    gone = await connection.execute(
        delete(conferences).where(
            conferences.c.id == conference, conferences.c.state == "ending", ~within_reach
        )
    )
    await work.announce(connection, conference)
    return gone.rowcount > 0


async def expire(connection: AsyncConnection, *, limit: int) -> list[str]:
    """End up to `limit` conferences that were empty for their time; return them.

    One with a client on its way (a reservation) stays. One that is just being joined, or ended by another
    replica, is passed over: it is locked.
    """
    due = _due(limit).cte("due")
    ended = await connection.scalars(
        update(conferences)
        .where(conferences.c.id.in_(select(due.c.id)))
        .values(state="ending")
        .returning(conferences.c.id)
    )
    expired = sorted(ended.all())
    for conference in expired:
        await work.mark(connection, conference)
    return expired


async def show(connection: AsyncConnection, conference: str) -> ConferenceView:
    """Return the conference as applications see it; raises ConferenceUnknownError."""
    head = (await connection.execute(_heads().where(conferences.c.id == conference))).one_or_none()
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
        **head._asdict(),
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
        streams=await streams.of_conference(connection, conference),
    )


def _due(limit: int) -> Select[str]:
    # now() rather than clock_timestamp(), which an index cannot be searched for.
    someone = exists().where(participants.c.conference == conferences.c.id)
    expected = exists().where(
        reservations.c.conference == conferences.c.id, reservations.c.expires_at > func.now()
    )
    return (
        select(conferences.c.id)
        .where(conferences.c.state == "active", conferences.c.expires_at <= func.now(), ~someone, ~expected)
        .order_by(conferences.c.expires_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True, of=conferences)
    )


def changeable(head: ConferenceHead) -> object:
    """Return what the conference's ETag is made of: what a PATCH can change, and which conference it is."""
    return (
        head.id,
        head.created_at,
        head.state,
        head.metadata,
        head.locked,
        head.participant_limit,
        head.empty_ttl,
    )


def _heads() -> Select[Any]:
    return select(*head_columns())


def head_columns() -> tuple[Any, ...]:
    """Return the columns that make a ConferenceHead, under the names of its fields."""
    return (
        conferences.c.id,
        conferences.c.template.label("type"),
        conferences.c.template_version,
        conferences.c.state,
        conferences.c.created_at,
        conferences.c.metadata,
        conferences.c.locked,
        conferences.c.participant_limit,
        conferences.c.empty_ttl,
        conferences.c.empty_since,
        conferences.c.expires_at,
    )


async def _is_there(connection: AsyncConnection, conference: str, wish: ConferenceCreate) -> bool:
    """Say whether there is such a conference, and refuse the wish if it is not that one."""
    head = (await connection.execute(_heads().where(conferences.c.id == conference))).one_or_none()
    if head is None:
        return False
    if head.state != "active":
        raise ConferenceEndingError(f"conference {conference} is being deleted; wait until it is gone")
    has = head._asdict()
    for name in ("type", "metadata", "locked", "participant_limit", "empty_ttl"):
        wished = getattr(wish, name)
        if wished is not None and wished != has[name]:
            raise ConferenceExistsError(f"conference {conference} is there, with another {name}")
    return True


def _own(participant_limit: int | None, empty_ttl: int | None, used: InUse) -> dict[str, Any]:
    """Return the limits in force: the conference's own, else its template's."""
    most = used.template.participant_limit
    limit = most if participant_limit is None else participant_limit
    if most != UNLIMITED and not 0 < limit <= most:
        raise InvalidRequestError(f"participant_limit: template {used.name} allows at most {most}")
    ttl = used.template.empty_ttl if empty_ttl is None else empty_ttl
    return {"participant_limit": limit, "empty_ttl": ttl}


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
