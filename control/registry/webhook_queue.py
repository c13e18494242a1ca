"""What is to be delivered to webhooks, in lanes that are claimed, given back and ended by those who deliver.

Messages of one conference to one webhook make a lane, and go one after the other. A lane is claimed for a
while; the claim of a process that died runs out, and whoever takes it over sends the same message again.
Which lanes may be claimed is decided under a lock on their webhook, so that all processes together keep its
limit. All functions work inside the caller's transaction.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, exists, func, null, select, text, update

from control.registry.tables import replicas, webhooks
from control.registry.tables import webhook_lanes as lanes

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection


__all__ = [
    "CHANNEL",
    "Held",
    "claim",
    "end",
    "give_back",
    "let_go",
    "release",
    "release_all",
    "renew",
    "version_of",
]

CHANNEL: Final = "causeway_webhook"
"""NOTIFY channel: something was queued."""

_NOW: Final = func.clock_timestamp()
_UNCLAIMED: Final = {"claimed_by": null(), "claimed_until": null(), "replica": null()}
_FRESH: Final = timedelta(minutes=1)
"""How old `last_success_at` may be; so not every message rewrites the webhook's row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lane, claimed."""

    webhook: str
    conference: str
    claim: uuid.UUID


# --- claiming ---------------------------------------------------------------------------------

# A lane may be claimed when it is due and nobody holds it. statement_timestamp(), because an index can be
# asked for it; clock_timestamp() is another one for every row.
_FREE: Final = (
    "l.due_at <= statement_timestamp() "
    "AND (l.claimed_until IS NULL OR l.claimed_until <= statement_timestamp())"
)
_LOCK: Final = text(
    f"""
    SELECT w.id FROM webhooks AS w
    WHERE w.enabled AND (w.paused_until IS NULL OR w.paused_until <= statement_timestamp())
        AND EXISTS (SELECT FROM webhook_lanes AS l WHERE l.webhook = w.id AND {_FREE})
    ORDER BY random() LIMIT :most
    FOR NO KEY UPDATE SKIP LOCKED
    """  # noqa: S608 - a text of our own
)
# A circuit that is half-open lets one message try.
_CLAIM: Final = text(
    f"""
    WITH room AS (
        SELECT w.id, CASE WHEN w.paused_until IS NULL THEN :per_webhook ELSE 1 END - (
            SELECT count(*) FROM webhook_lanes AS held
            WHERE held.webhook = w.id AND held.claimed_until > statement_timestamp()
        ) AS free
        FROM webhooks AS w WHERE w.id = ANY (:locked)
    ), due AS (
        SELECT lane.webhook, lane.conference FROM room, LATERAL (
            SELECT l.webhook, l.conference FROM webhook_lanes AS l
            WHERE l.webhook = room.id AND {_FREE}
            ORDER BY l.due_at LIMIT greatest(room.free, 0) FOR UPDATE SKIP LOCKED
        ) AS lane
        LIMIT :most
    )
    UPDATE webhook_lanes AS l
    SET claimed_by = :claim, claimed_until = statement_timestamp() + CAST(:ttl AS interval),
        replica = :replica
    FROM due WHERE l.webhook = due.webhook AND l.conference = due.conference
    RETURNING l.webhook, l.conference
    """  # noqa: S608 - a text of our own
)


async def claim(
    connection: AsyncConnection, *, limit: int, per_webhook: int, ttl: float, replica: uuid.UUID | None = None
) -> list[Held]:
    """Claim up to `limit` due lanes, up to `per_webhook` of each webhook by all processes together.

    The claims hold for `ttl` seconds, or until `replica`, who makes them, is found to be gone.
    """
    if limit < 1:
        return []
    locked = (await connection.scalars(_LOCK, {"most": limit})).all()
    if not locked:
        return []
    # In a statement of its own: only now is everything seen that others claimed before we had the lock.
    mine = uuid.uuid4()
    rows = await connection.execute(
        _CLAIM,
        {
            "locked": list(locked),
            "per_webhook": per_webhook,
            "most": limit,
            "claim": mine,
            "replica": replica,
            "ttl": timedelta(seconds=ttl),
        },
    )
    return [Held(webhook=row.webhook, conference=row.conference, claim=mine) for row in rows]


async def give_back(connection: AsyncConnection, replica: uuid.UUID, *, limit: int) -> int:
    """Let go of up to `limit` lanes that this replica has claimed, if its lease ran out; return how many."""
    gone = exists().where(replicas.c.id == replica, replicas.c.lease_expires_at <= _NOW)
    held = (
        select(lanes.c.webhook, lanes.c.conference)
        .where(lanes.c.replica == replica, gone)
        .limit(limit)
        .with_for_update(skip_locked=True, of=lanes)
        .cte("held")
    )
    freed = await connection.execute(
        update(lanes)
        .where(lanes.c.webhook == held.c.webhook, lanes.c.conference == held.c.conference)
        .values(**_UNCLAIMED)
    )
    if freed.rowcount:
        await connection.execute(select(func.pg_notify(CHANNEL, "")))
    return freed.rowcount


async def release(connection: AsyncConnection, webhook: str) -> int:
    """Make due at once what waits because of failures before the webhook's recovery; return how many lanes.

    Lanes that somebody works on are passed over: `release_all` finds them later.
    """
    late = (
        select(lanes.c.webhook, lanes.c.conference)
        .join(webhooks, webhooks.c.id == lanes.c.webhook)
        .where(lanes.c.webhook == webhook, lanes.c.due_at > _NOW, lanes.c.failed_at < webhooks.c.recovered_at)
        .with_for_update(skip_locked=True, of=lanes)
        .cte("late")
    )
    released = await connection.execute(
        update(lanes)
        .where(lanes.c.webhook == late.c.webhook, lanes.c.conference == late.c.conference)
        .values(due_at=_NOW)
    )
    return released.rowcount


async def release_all(connection: AsyncConnection) -> int:
    """Do what `release` does, for every webhook; return how many lanes."""
    found = await connection.scalars(
        select(webhooks.c.id).where(webhooks.c.enabled, webhooks.c.recovered_at.is_not(None))
    )
    return sum([await release(connection, webhook) for webhook in found.all()])


# --- lanes ------------------------------------------------------------------------------------


def is_held(held: Held) -> ColumnElement[bool]:
    """Return the condition that a lane is (still) held by this claim."""
    return and_(
        lanes.c.webhook == held.webhook,
        lanes.c.conference == held.conference,
        lanes.c.claimed_by == held.claim,
    )


async def version_of(connection: AsyncConnection, held: Held) -> int | None:
    """Return the lane's version, None if it is not ours any more."""
    return (await connection.scalars(select(lanes.c.version).where(is_held(held)))).one_or_none()


async def renew(connection: AsyncConnection, held: Held, *, ttl: float) -> None:
    """Hold the lane for `ttl` seconds more."""
    await connection.execute(
        update(lanes).where(is_held(held)).values(claimed_until=_NOW + timedelta(seconds=ttl))
    )


async def let_go(connection: AsyncConnection, held: Held, *, due_at: datetime | None = None) -> None:
    """Give the lane back; None: others shall have a turn, else a failure puts it off until then."""
    values: dict[str, Any] = dict(_UNCLAIMED)
    if due_at is not None:
        values |= {"due_at": due_at, "failed_at": _NOW}
    await connection.execute(update(lanes).where(is_held(held)).values(**values))


async def end(connection: AsyncConnection, held: Held, version: int) -> bool:
    """End the lane unless something was queued since it had this version; return whether it is ended."""
    ended = await connection.scalars(
        delete(lanes).where(is_held(held), lanes.c.version == version).returning(lanes.c.version)
    )
    return ended.one_or_none() is not None
