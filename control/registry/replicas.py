"""Replicas of control: a lease for each, and giving back what the dead among them held.

A replica renews its lease on a connection of its own and hears in the same breath who else is there, who does
which duty, and how often what it remembers has changed. Claims on work (conferences, probes, deliveries) name
the replica that made them; when its lease has run out, any other one gives them back. A replica that was only
frozen or cut off comes back with its next beat, and finds its claims gone.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, and_, delete, exists, func, null, or_, select, update

from causeway.api.replicas import ReplicaView
from control.registry import webhook_queue, work
from control.registry.tables import clusters, dirty_conferences, duties, replicas, webhook_lanes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.registry.lane import Lane

__all__ = ["CHANGED", "Heard", "Identity", "absence", "beat", "clear", "forget", "list_all", "stop"]

CHANGED: Final = "causeway_cache"
"""NOTIFY channel; the payload is the name of something that replicas remember and that has changed."""

_NOW: Final = func.clock_timestamp()
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A replica, as it describes itself."""

    id: uuid.UUID
    name: str
    version: str
    revision: str
    """The newest revision of the schema that it knows."""
    duties: tuple[str, ...]
    """Those that it can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a beat learns."""

    alive: Mapping[uuid.UUID, frozenset[str]]
    """The duties that each live replica can do."""
    uncleared: tuple[uuid.UUID, ...]
    """Replicas that are gone and may still have claims."""
    duties: Mapping[str, tuple[uuid.UUID | None, int]]
    """Holder and epoch of each duty."""
    caches: Mapping[str, int]


_BEAT: Final = """
    INSERT INTO replicas (id, name, version, revision, duties, lease_expires_at)
    VALUES ($1, $2, $3, $4, $5::text[], clock_timestamp() + $6::interval)
    ON CONFLICT (id) DO UPDATE
    SET last_seen_at = clock_timestamp(), lease_expires_at = excluded.lease_expires_at, cleared_at = NULL
"""
_HEARD: Final = """
    SELECT 'replica' AS what, NULL AS name, id, 0::bigint AS number, duties AS can,
        lease_expires_at > clock_timestamp() AS alive
    FROM replicas WHERE cleared_at IS NULL
    UNION ALL SELECT 'duty', name, holder, epoch, NULL, NULL FROM duties
    UNION ALL SELECT 'cache', name, NULL, version, NULL, NULL FROM caches
"""


async def beat(lane: Lane, me: Identity, *, ttl: float) -> Heard:
    """Let my lease hold for `ttl` seconds from now; return what is to be known."""
    await lane.fetch(_BEAT, me.id, me.name, me.version, me.revision, list(me.duties), timedelta(seconds=ttl))
    rows = await lane.fetch(_HEARD)
    return Heard(
        alive={_id(row["id"]): frozenset(row["can"]) for row in rows if row["alive"]},
        uncleared=tuple(_id(row["id"]) for row in rows if row["alive"] is False),
        duties={
            row["name"]: (None if row["id"] is None else _id(row["id"]), row["number"])
            for row in rows
            if row["what"] == "duty"
        },
        caches={row["name"]: row["number"] for row in rows if row["what"] == "cache"},
    )


async def clear(connection: AsyncConnection, gone: uuid.UUID) -> bool:
    """Give back the claims of a replica whose lease ran out; return whether that was all of them.

    Rows that somebody is working on are left for the next time: nobody shall wait here, for one who may
    be frozen in the middle of a transaction.
    """
    dead = exists().where(replicas.c.id == gone, replicas.c.lease_expires_at <= _NOW)
    free = (
        select(dirty_conferences.c.conference)
        .where(dirty_conferences.c.claimed_by == gone, dead)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True, of=dirty_conferences)
    )
    given_back = await connection.execute(
        update(dirty_conferences)
        .where(dirty_conferences.c.conference.in_(free.scalar_subquery()))
        .values(claimed_by=null(), claimed_until=None)
    )
    unasked = (
        select(clusters.c.id)
        .where(clusters.c.probe_by == gone, dead)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True, of=clusters)
    )
    await connection.execute(
        update(clusters)
        .where(clusters.c.id.in_(unasked.scalar_subquery()))
        .values(probe_by=null(), probe_due_at=func.least(clusters.c.probe_due_at, _NOW))
    )
    await webhook_queue.give_back(connection, gone, limit=_AT_ONCE)
    held = or_(
        exists().where(dirty_conferences.c.claimed_by == gone),
        exists().where(clusters.c.probe_by == gone),
        exists().where(webhook_lanes.c.replica == gone),
    )
    lying = select(replicas.c.id).where(replicas.c.id == gone, dead, ~held).with_for_update(skip_locked=True)
    cleared = await connection.execute(
        update(replicas)
        .where(replicas.c.id.in_(lying.scalar_subquery()))
        .values(cleared_at=_NOW)
        .returning(replicas.c.id)
    )
    if given_back.rowcount:  # wakes the dispatchers of all replicas
        await work.announce(connection, "")
    return cleared.one_or_none() is not None


async def stop(connection: AsyncConnection, me: uuid.UUID) -> None:
    """End my lease now: I am about to go."""
    await connection.execute(update(duties).where(duties.c.holder == me).values(holder=null(), since=None))
    await connection.execute(
        update(replicas).where(replicas.c.id == me).values(lease_expires_at=_NOW, stopped_at=_NOW)
    )
    await clear(connection, me)


async def forget(connection: AsyncConnection, *, after: float) -> int:
    """Delete replicas that have been gone for `after` seconds; return how many."""
    long_ago = _NOW - timedelta(seconds=after)
    old = and_(replicas.c.cleared_at.is_not(None), replicas.c.last_seen_at < long_ago)
    gone = await connection.execute(delete(replicas).where(old).returning(replicas.c.id))
    return len(gone.all())


async def absence(connection: AsyncConnection) -> float:
    """Return for how many seconds no replica has been alive; infinite if none ever was, 0 if one is."""
    found = await connection.scalars(
        select(func.extract("epoch", _NOW - func.max(replicas.c.lease_expires_at)).cast(Double))
    )
    seconds = found.one()
    return math.inf if seconds is None else max(0.0, seconds)


async def list_all(connection: AsyncConnection) -> list[ReplicaView]:
    """Return the replicas that are there, and those that were lately; the youngest first."""
    works_on = (
        select(func.count())
        .select_from(dirty_conferences)
        .where(dirty_conferences.c.claimed_by == replicas.c.id, dirty_conferences.c.claimed_until > _NOW)
        .scalar_subquery()
    )
    does = select(func.array_agg(duties.c.name)).where(duties.c.holder == replicas.c.id).scalar_subquery()
    rows = await connection.execute(
        select(
            replicas,
            (replicas.c.lease_expires_at > _NOW).label("alive"),
            works_on.label("conferences"),
            does.label("does"),
        ).order_by(replicas.c.started_at.desc(), replicas.c.id)
    )
    return [_view(row) for row in rows]


def _view(row: Any) -> ReplicaView:
    return ReplicaView(
        id=str(row.id),
        name=row.name,
        version=row.version,
        revision=row.revision,
        state="alive" if row.alive else "gone" if row.stopped_at is None else "stopped",
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
        duties=sorted(row.does or ()) if row.alive else [],
        conferences=row.conferences if row.alive else 0,
    )


def _id(value: Any) -> uuid.UUID:
    return uuid.UUID(int=value.int)  # asyncpg has a faster class of its own, which compares as ours
