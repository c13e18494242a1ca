"""What clusters report about their rooms: room tokens, and who has really joined.

Reports are idempotent. A room that a cluster reports for a conference that exists is its placement there,
whoever made it. All functions work inside the caller's transaction, after `clusters.require_lease`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Boolean, delete, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from control.registry import displaced, links, reservations, work
from control.registry import placements as _placements
from control.registry.placement_epoch import made_at
from control.registry.tables import participants, placements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_INSERTED: Final = literal_column("xmax = 0", Boolean)
"""Of a row just inserted or updated: which of the two it was."""

__all__ = ["participant_joined", "participant_left", "room_closed", "room_missing", "room_opened"]


async def room_opened(
    connection: AsyncConnection, conference: str, cluster: str, *, sealed_token: bytes
) -> bytes | None:
    """Keep the token of a room that has come to life; return the sealed one that was there before.

    Raises ConferenceUnknownError.
    """
    await _placements.ensure(connection, conference, cluster, room=conference)
    before = (
        await connection.scalars(
            select(placements.c.token)
            .where(placements.c.conference == conference, placements.c.cluster == cluster)
            .with_for_update(key_share=True)
        )
    ).one()
    await connection.execute(
        update(placements)
        .where(placements.c.conference == conference, placements.c.cluster == cluster)
        .values(token=sealed_token)
    )
    await work.mark(connection, conference)
    return before


async def room_closed(connection: AsyncConnection, conference: str, cluster: str) -> None:
    """Forget the token and everybody in the room; what was linked to it has to be linked anew."""
    closed = await connection.execute(
        update(placements)
        .where(placements.c.conference == conference, placements.c.cluster == cluster)
        .values(token=None)
    )
    if closed.rowcount == 0:
        return
    await connection.execute(
        delete(participants).where(participants.c.conference == conference, participants.c.cluster == cluster)
    )
    await links.want(connection, cluster, conference=conference)
    await work.mark(connection, conference)


async def room_missing(connection: AsyncConnection, conference: str, cluster: str, *, epoch: int) -> bool:
    """Want the room of that placement to be made again; return whether that was new.

    Who is in the room, and its token, stay what the cluster says of them: should there be one by now after
    all, making it again does nothing.
    """
    wanted = await connection.execute(
        update(placements)
        .where(
            placements.c.conference == conference,
            placements.c.cluster == cluster,
            placements.c.state == "ready",
            placements.c.created_at == made_at(epoch),
        )
        .values(state="wanted", room=None, attempts=0, retry_at=None, error=None)
    )
    if wanted.rowcount > 0:
        await work.mark(connection, conference)
    return wanted.rowcount > 0


async def participant_joined(
    connection: AsyncConnection, conference: str, cluster: str, participant: str, *, user: str, role: str
) -> None:
    """Note that somebody is in the room. Raises ConferenceUnknownError."""
    await _placements.ensure(connection, conference, cluster, room=conference)
    row = insert(participants).values(
        conference=conference, cluster=cluster, id=participant, user_name=user, role=role
    )
    new = await connection.scalars(
        row.on_conflict_do_update(
            index_elements=[participants.c.conference, participants.c.cluster, participants.c.id],
            set_={"user_name": user, "role": role},
        ).returning(_INSERTED)
    )
    if new.one():
        await reservations.redeem(connection, conference, cluster, user)
        await displaced.found(connection, conference, user)
    await work.mark(connection, conference)


async def participant_left(
    connection: AsyncConnection, conference: str, cluster: str, participant: str
) -> None:
    """Note that somebody is no longer there."""
    left = await connection.execute(
        delete(participants).where(
            participants.c.conference == conference,
            participants.c.cluster == cluster,
            participants.c.id == participant,
        )
    )
    if left.rowcount > 0:
        await work.mark(connection, conference)
