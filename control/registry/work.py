"""Which conferences need a look: marks, claims and the notice that wakes the replicas.

A mark says "something changed here"; it costs one row and one NOTIFY, delivered when the transaction commits.
A claim is a lease on a mark: the process that holds it works on the conference and renews it. When the
process dies, its claims are given back as soon as its own lease has run out (control.registry.replicas), at
the latest when they run out themselves. Marks are counted, so that one set during the work is seen.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, delete, func, null, or_, select, text, update
from sqlalchemy.dialects.postgresql import Insert, insert

from control.registry.tables import dirty_conferences as dirty
from control.registry.tables import placements

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "CHANNEL",
    "Claim",
    "Finish",
    "announce",
    "claim",
    "due_at",
    "finish",
    "finish_all",
    "mark",
    "mark_cluster",
    "mark_selected",
    "renew",
]

CHANNEL: Final = "causeway_conference"
"""NOTIFY channel; the payload is the conference's id: it was marked, or something in it changed."""

_NOW: Final = func.clock_timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on a conference, held since it was marked for the `version`th time."""

    conference: str
    id: uuid.UUID
    version: int


async def mark(connection: AsyncConnection, conference: str) -> None:
    """Have the conference looked at as soon as this transaction is committed."""
    await connection.execute(_marking(insert(dirty).values(conference=conference)))
    await announce(connection, conference)


async def mark_cluster(connection: AsyncConnection, cluster: str) -> None:
    """Mark every conference that is placed on the cluster."""
    await mark_selected(connection, select(placements.c.conference).where(placements.c.cluster == cluster))


async def mark_selected(connection: AsyncConnection, chosen: Select[str]) -> None:
    """Mark every conference that the query returns, each once."""
    # In one order everywhere, so that two of these do not wait for each other.
    ordered = chosen.order_by(chosen.selected_columns[0])
    marked = _marking(insert(dirty).from_select(["conference"], ordered)).returning(dirty.c.conference)
    for conference in (await connection.scalars(marked)).all():
        await announce(connection, conference)


async def announce(connection: AsyncConnection, conference: str) -> None:
    """Wake whoever waits for a change of the conference, in every replica, after the commit."""
    await connection.execute(select(func.pg_notify(CHANNEL, conference)))


async def claim(
    connection: AsyncConnection,
    *,
    limit: int,
    ttl: float,
    excluding: Collection[str] = (),
    replica: uuid.UUID | None = None,
) -> list[Claim]:
    """Claim up to `limit` due conferences that nobody else works on, for `ttl` seconds.

    `replica`: who claims; it must exclude those that it is still working on. None: somebody without a lease.
    """
    due = (
        select(dirty.c.conference)
        .where(
            dirty.c.due_at <= _NOW,
            or_(dirty.c.claimed_until.is_(None), dirty.c.claimed_until <= _NOW),
            dirty.c.conference.not_in(list(excluding)),
        )
        .order_by(dirty.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    mine = uuid.uuid4() if replica is None else replica
    rows = await connection.execute(
        update(dirty)
        .where(dirty.c.conference.in_(select(due.c.conference)))
        .values(claimed_by=mine, claimed_until=_NOW + timedelta(seconds=ttl))
        .returning(dirty.c.conference, dirty.c.version)
    )
    return [Claim(conference=row.conference, id=mine, version=row.version) for row in rows.all()]


async def renew(connection: AsyncConnection, held: Claim, *, ttl: float) -> int | None:
    """Hold the claim for `ttl` seconds more; return the marks' count now, None if the claim is gone."""
    version = await connection.execute(
        update(dirty)
        .where(_is(held))
        .values(claimed_until=_NOW + timedelta(seconds=ttl))
        .returning(dirty.c.version)
    )
    row = version.one_or_none()
    return None if row is None else int(row.version)


async def finish(connection: AsyncConnection, held: Claim, *, version: int, due_at: datetime | None) -> bool:
    """Give the claim back, having looked at everything up to mark `version`.

    Nothing more to do (`due_at` None): the mark goes; else it becomes due then. Returns False, and keeps the
    claim, when the conference was marked again in the meantime.
    """
    unchanged = and_(_is(held), dirty.c.version == version)
    if due_at is None:
        done = await connection.execute(delete(dirty).where(unchanged).returning(dirty.c.conference))
    else:
        done = await connection.execute(
            update(dirty)
            .where(unchanged)
            .values(claimed_by=null(), claimed_until=None, due_at=due_at)
            .returning(dirty.c.conference)
        )
    return done.one_or_none() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A claim to be given back; `version` and `due_at` as `finish` has them."""

    held: Claim
    version: int
    due_at: datetime | None


_FINISH: Final = text("""
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:conferences AS text[]), CAST(:ids AS uuid[]), CAST(:versions AS bigint[]),
            CAST(:dues AS timestamptz[])
        ) AS g (conference, id, version, due_at)
    ), mine AS MATERIALIZED (
        SELECT d.conference, g.due_at FROM dirty_conferences d JOIN given g
            ON d.conference = g.conference AND d.claimed_by = g.id AND d.version = g.version
        ORDER BY d.conference FOR UPDATE OF d
    ), gone AS (
        DELETE FROM dirty_conferences d USING mine
        WHERE d.conference = mine.conference AND mine.due_at IS NULL RETURNING d.conference
    ), kept AS (
        UPDATE dirty_conferences d SET claimed_by = NULL, claimed_until = NULL, due_at = mine.due_at
        FROM mine WHERE d.conference = mine.conference AND mine.due_at IS NOT NULL RETURNING d.conference
    )
    SELECT conference FROM gone UNION ALL SELECT conference FROM kept
""")


async def finish_all(connection: AsyncConnection, done: Sequence[Finish]) -> set[str]:
    """Do what `finish` does, for many at once, each conference once; return those that were given back."""
    found = await connection.scalars(
        _FINISH,
        {
            "conferences": [each.held.conference for each in done],
            "ids": [each.held.id for each in done],
            "versions": [each.version for each in done],
            "dues": [each.due_at for each in done],
        },
    )
    return set(found.all())


async def due_at(connection: AsyncConnection, conference: str) -> datetime | None:
    """Return when the conference is to be looked at, None if it is not marked."""
    found = await connection.scalars(select(dirty.c.due_at).where(dirty.c.conference == conference))
    return found.one_or_none()


def _is(held: Claim) -> ColumnElement[bool]:
    return and_(dirty.c.conference == held.conference, dirty.c.claimed_by == held.id)


def _marking(statement: Insert) -> Insert:
    return statement.on_conflict_do_update(
        index_elements=[dirty.c.conference],
        set_={"version": dirty.c.version + 1, "due_at": func.least(dirty.c.due_at, _NOW)},
    )
