"""Placements: a conference on a cluster, from wanted to gone.

All functions work inside the caller's transaction. Racing writers are told apart by the state that they
expect to find; a write that finds another state does nothing and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from control.errors import ConferenceEndingError, ConferenceUnknownError
from control.registry import links, work
from control.registry.placement_epoch import epoch_of, made_at
from control.registry.tables import clusters, conferences, participants, placements, reservations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "Placed",
    "Standing",
    "created",
    "ensure",
    "failed",
    "forget",
    "give_up",
    "placed",
    "removed",
    "renew",
    "room_missing",
    "room_token",
    "standing",
    "vacate",
    "vacated",
]

_NOW: Final = func.clock_timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """How far a placement has come."""

    state: str
    room: str | None
    attempts: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A room that is thought to be there."""

    token: bytes | None = field(repr=False)
    """Sealed; None: it has not come to life yet."""


async def ensure(
    connection: AsyncConnection, conference: str, cluster: str, *, room: str | None = None
) -> None:
    """Have the conference placed on the cluster; the next ordinal is given to a new placement.

    With a `room` the cluster itself says that the room exists: the placement is ready. Marks the conference
    when something changed. Raises ConferenceUnknownError, and ConferenceEndingError for a new placement.
    """
    state = (
        await connection.scalars(
            select(conferences.c.state).where(conferences.c.id == conference).with_for_update(key_share=True)
        )
    ).one_or_none()
    if state is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    known = (
        await connection.execute(
            select(placements.c.state).where(
                placements.c.conference == conference, placements.c.cluster == cluster
            )
        )
    ).one_or_none()
    if known is None:
        if state == "ending" and room is None:
            raise ConferenceEndingError(f"conference {conference} is being deleted")
        last = select(func.coalesce(func.max(placements.c.ordinal), 0) + 1).where(
            placements.c.conference == conference
        )
        await connection.execute(
            insert(placements).values(
                conference=conference,
                cluster=cluster,
                ordinal=last.scalar_subquery(),
                state="wanted" if room is None else "ready",
                room=room,
                # Not when the transaction began, as it may have waited: later placements have larger epochs.
                created_at=_NOW,
            )
        )
    elif room is not None and known.state != "ready":
        await connection.execute(
            update(placements)
            .where(placements.c.conference == conference, placements.c.cluster == cluster)
            .values(state="ready", room=room, attempts=0, retry_at=None, error=None)
        )
    elif room is not None or known.state == "ready":
        return
    await work.mark(connection, conference)


async def placed(connection: AsyncConnection, conference: str, cluster: str) -> Placed | None:
    """Return how far the placement has come, None if there is none."""
    row = (
        await connection.execute(
            select(
                placements.c.state, placements.c.room, placements.c.attempts, placements.c.created_at
            ).where(placements.c.conference == conference, placements.c.cluster == cluster)
        )
    ).one_or_none()
    if row is None:
        return None
    return Placed(state=row.state, room=row.room, attempts=row.attempts, epoch=epoch_of(row.created_at))


async def created(
    connection: AsyncConnection, conference: str, cluster: str, *, incarnation: str, epoch: int, room: str
) -> bool:
    """Note that the room exists, unless it is no longer wanted or the cluster has started anew since.

    `epoch`: of the placement that the room was made for.
    """
    same = exists().where(clusters.c.id == cluster, clusters.c.incarnation == incarnation)
    done = await connection.execute(
        update(placements)
        .where(
            placements.c.conference == conference,
            placements.c.cluster == cluster,
            placements.c.state == "wanted",
            placements.c.created_at == made_at(epoch),
            same,
        )
        .values(state="ready", room=room, attempts=0, retry_at=None, error=None)
    )
    await work.announce(connection, conference)
    return done.rowcount > 0


async def failed(
    connection: AsyncConnection, conference: str, cluster: str, *, error: str, delay: float
) -> None:
    """Note that the room could not be made, or not be removed; it is tried again in `delay` seconds."""
    await connection.execute(
        update(placements)
        .where(placements.c.conference == conference, placements.c.cluster == cluster)
        .values(attempts=placements.c.attempts + 1, retry_at=_NOW + timedelta(seconds=delay), error=error)
    )
    await work.announce(connection, conference)


async def removed(connection: AsyncConnection, conference: str, cluster: str) -> None:
    """Forget the placement, with its participants and links."""
    await connection.execute(
        delete(placements).where(placements.c.conference == conference, placements.c.cluster == cluster)
    )


async def forget(connection: AsyncConnection, conference: str, cluster: str) -> None:
    """Forget a lost placement; one that has come back meanwhile stays."""
    await connection.execute(
        delete(placements).where(
            placements.c.conference == conference,
            placements.c.cluster == cluster,
            placements.c.state == "lost",
        )
    )


async def vacate(connection: AsyncConnection, conference: str, cluster: str) -> bool:
    """Want the room no longer to be as it is, if nobody is there and nobody is on the way; else False.

    Whoever comes from now on waits until it is made again: the placement is wanted. `renew` says then which
    room is to be removed, `vacated` ends it. The token stays what the cluster said last, until it says that
    the room is closed: should the room live on, as it could not be removed and somebody came, it will not say
    the token again.
    """
    await _hold(connection, conference)
    emptied = await connection.execute(
        update(placements)
        .where(_is_deserted(conference, cluster), placements.c.state != "lost")
        .values(state="wanted", room=None)
    )
    return emptied.rowcount > 0


async def renew(connection: AsyncConnection, conference: str, cluster: str) -> int | None:
    """Begin a new epoch of a placement that was vacated; return the former one, whose room is to be removed.

    None: there is no such placement, or somebody is there or on the way after all. An order to remove the
    room that is carried out late hits rooms of the former epoch only; who comes from now on gets a newer one.
    """
    await _hold(connection, conference)
    former = (
        await connection.scalars(
            select(placements.c.created_at).where(
                _is_deserted(conference, cluster), placements.c.state == "wanted"
            )
        )
    ).one_or_none()
    if former is None:
        return None
    await connection.execute(
        update(placements)
        .where(placements.c.conference == conference, placements.c.cluster == cluster)
        .values(created_at=_NOW)
    )
    return epoch_of(former)


async def vacated(connection: AsyncConnection, conference: str, cluster: str) -> bool:
    """Forget a placement whose room has been removed; False: somebody came meanwhile, and it stays wanted.

    Also if a report from just before the removal has made it ready: the room it spoke of is no more. To make
    one anew where there is one after all does no harm.
    """
    await _hold(connection, conference)
    gone = await connection.execute(
        delete(placements).where(_is_deserted(conference, cluster), placements.c.state == "wanted")
    )
    if gone.rowcount == 0:
        await connection.execute(
            update(placements)
            .where(
                placements.c.conference == conference,
                placements.c.cluster == cluster,
                placements.c.state == "ready",
            )
            .values(state="wanted", room=None, attempts=0, retry_at=None, error=None)
        )
        await work.mark(connection, conference)
    return gone.rowcount > 0


async def standing(
    connection: AsyncConnection, conference: str, cluster: str, *, room: str
) -> Standing | None:
    """Return what is known of a room that is thought to be there, None if it is not thought so."""
    row = (
        await connection.execute(
            select(placements.c.token).where(
                placements.c.conference == conference,
                placements.c.cluster == cluster,
                placements.c.state == "ready",
                placements.c.room == room,
            )
        )
    ).one_or_none()
    return None if row is None else Standing(token=row.token)


async def room_missing(
    connection: AsyncConnection, conference: str, cluster: str, *, room: str, token: bytes | None
) -> None:
    """Note that the cluster does not know the room any more: it is wanted again, and its links with it.

    `token`: the sealed one, as it was before the cluster was asked; with another one the room has come to
    life since, and stays.
    """
    gone = await connection.execute(
        update(placements)
        .where(
            placements.c.conference == conference,
            placements.c.cluster == cluster,
            placements.c.state == "ready",
            placements.c.room == room,
            placements.c.token.is_not_distinct_from(token),
        )
        .values(state="wanted", room=None, token=None, attempts=0, retry_at=None, error=None)
    )
    if gone.rowcount == 0:
        return
    await connection.execute(
        delete(participants).where(participants.c.conference == conference, participants.c.cluster == cluster)
    )
    await links.want(connection, cluster, conference=conference)
    await work.mark(connection, conference)


async def give_up(connection: AsyncConnection, conference: str, cluster: str) -> None:
    """Forget a placement that nobody got into: a join tries another cluster instead."""
    someone = exists().where(participants.c.conference == conference, participants.c.cluster == cluster)
    gone = await connection.execute(
        delete(placements).where(
            placements.c.conference == conference,
            placements.c.cluster == cluster,
            placements.c.state == "wanted",
            ~someone,
        )
    )
    if gone.rowcount > 0:
        await work.mark(connection, conference)


async def room_token(connection: AsyncConnection, conference: str, cluster: str) -> tuple[str, bytes] | None:
    """Return (room, sealed token) of a ready placement whose room has come to life, else None."""
    row = (
        await connection.execute(
            select(placements.c.room, placements.c.token).where(
                placements.c.conference == conference,
                placements.c.cluster == cluster,
                placements.c.state == "ready",
            )
        )
    ).one_or_none()
    if row is None or row.room is None or row.token is None:
        return None
    return row.room, row.token


async def _hold(connection: AsyncConnection, conference: str) -> None:
    """Let nobody be reported or placed in the conference until this transaction ends."""
    await connection.execute(
        select(conferences.c.id).where(conferences.c.id == conference).with_for_update(key_share=True)
    )


def _is_deserted(conference: str, cluster: str) -> ColumnElement[bool]:
    someone = exists().where(participants.c.conference == conference, participants.c.cluster == cluster)
    expected = exists().where(
        reservations.c.conference == conference,
        reservations.c.cluster == cluster,
        reservations.c.expires_at > _NOW,
    )
    return and_(placements.c.conference == conference, placements.c.cluster == cluster, ~someone, ~expected)
