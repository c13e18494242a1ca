"""Reservations: a seat in a cluster is taken in the decision, and given back if the client never shows up.

Seats are counted by the database (see tables.seats) and handed out under a lock on the cluster's count, so
that no cluster is given more than its limit, however many replicas decide at once.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from control.errors import (
    ConferenceEndingError,
    ConferenceFullError,
    ConferenceLockedError,
    ConferenceUnknownError,
)
from control.registry import placements as _placements
from control.registry.clusters import online
from control.registry.placement_epoch import made_at
from control.registry.tables import clusters, conferences, decisions, participants, placements, seats
from control.registry.tables import reservations as _reservations

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.registry.lane import Lane

__all__ = ["Seat", "Taken", "enter", "new_id", "prolong", "redeem", "release", "sweep", "take"]

_NOW: Final = func.clock_timestamp()


class Seat(Struct, frozen=True, kw_only=True):
    """A seat that a join wants; `decision` is what is stored with the conference.

    `epoch`: of the placement that it is in, None if it has none there yet.
    """

    conference: str
    cluster: str
    user: str
    id: int
    decision: bytes
    epoch: int | None = None


class Taken(Struct, frozen=True, kw_only=True):
    """What a cluster was found to be while seats there were taken."""

    cluster: str
    ids: frozenset[int]
    """The seats that were taken; the others did not fit, or had no ready placement any more."""
    participants: int
    """With those just taken."""
    conferences: int
    max_participants: int | None
    cpu: float
    streams: int


def new_id() -> int:
    """Draw the id of a reservation: no two alike, and no secret."""
    return random.getrandbits(63)


# --- the way of most joins: many at once, each into a placement that is ready -------------------

# One statement, its own transaction. The rows of `locked` are read after their locks were waited for, so that
# what others have just taken counts. What was remembered when the seats were chosen (the clusters, by the
# roster's version; each conference and its placement) is held against what is true here.
#
# A crash of the database may lose the last moment's seats where that breaks nothing: in clusters without a
# limit of participants a seat only says how busy the cluster is about to be. Where there is a limit, the
# commit waits for the disk, for all seats of the batch.
_TAKE: Final = """
    WITH wanted AS (
        SELECT *, row_number() OVER (PARTITION BY cluster ORDER BY n) AS nth
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::timestamptz[])
            WITH ORDINALITY AS w (conference, cluster, user_name, id, decision, made_at, n)
    ), now AS MATERIALIZED (
        SELECT version FROM roster
    ), locked AS MATERIALIZED (
        SELECT cluster, participants, reserved, conferences FROM seats
        WHERE cluster IN (SELECT cluster FROM wanted) ORDER BY cluster FOR UPDATE
    ), room AS (
        SELECT l.cluster, greatest(l.participants, c.load_participants) + l.reserved AS taken, l.conferences,
            c.limit_participants AS most, c.load_cpu, c.load_streams
        FROM locked l JOIN clusters c ON c.id = l.cluster
        WHERE c.state = 'online' AND c.lease_expires_at > clock_timestamp()
    ), quick AS MATERIALIZED (
        SELECT CASE WHEN EXISTS (SELECT FROM room WHERE most IS NOT NULL) THEN ''
            ELSE set_config('synchronous_commit', 'off', true) END AS done
    ), fits AS MATERIALIZED (
        SELECT w.* FROM wanted w
        JOIN room r ON r.cluster = w.cluster
        JOIN conferences k ON k.id = w.conference
        JOIN placements p ON p.conference = w.conference AND p.cluster = w.cluster
        WHERE (r.most IS NULL OR r.taken + w.nth <= r.most) AND p.state = 'ready' AND p.created_at = w.made_at
            AND k.state = 'active' AND NOT k.locked AND k.participant_limit < 0
            AND ($8::bigint IS NULL OR (SELECT version FROM now) = $8)
    ), made AS (
        INSERT INTO reservations (conference, cluster, user_name, id, expires_at)
        SELECT conference, cluster, user_name, id, clock_timestamp() + make_interval(secs => $7) FROM fits
    ), told AS (
        INSERT INTO decisions (conference, body) SELECT conference, decision FROM fits ORDER BY n
    )
    SELECT now.version, r.*, ARRAY(SELECT f.id FROM fits f WHERE f.cluster = r.cluster) AS ids
    FROM now JOIN quick ON quick.done IS NOT NULL LEFT JOIN room r ON true
"""


async def take(
    lane: Lane, wanted: Sequence[Seat], *, ttl: float, version: int | None
) -> tuple[int, dict[str, Taken]]:
    """Take as many of the seats as there is room for, in their order, each for `ttl` seconds.

    None is taken if a `version` is given and the roster is not at it any more, and none in a conference that
    is locked, ending, limited or no longer placed as the seat says. Returns the roster's version, and what
    was found, by cluster; a cluster that is missing holds no lease.
    """
    rows = await lane.fetch(
        _TAKE,
        [seat.conference for seat in wanted],
        [seat.cluster for seat in wanted],
        [seat.user for seat in wanted],
        [seat.id for seat in wanted],
        [seat.decision for seat in wanted],
        [None if seat.epoch is None else made_at(seat.epoch) for seat in wanted],
        ttl,
        version,
    )
    return rows[0]["version"], {
        row["cluster"]: Taken(
            cluster=row["cluster"],
            ids=frozenset(row["ids"]),
            participants=row["taken"] + len(row["ids"]),
            conferences=row["conferences"],
            max_participants=row["most"],
            cpu=row["load_cpu"],
            streams=row["load_streams"],
        )
        for row in rows
        if row["cluster"] is not None
    }


# --- the way of the others: one at a time, with everything that is to be checked ----------------


async def enter(
    connection: AsyncConnection,
    seat: Seat,
    *,
    ttl: float,
    solitary: Collection[str],
    returning: bool = False,
) -> str | None:
    """Take a seat, and have the conference placed there; return why not, None if it was done.

    `solitary`: clusters that cannot cascade. `returning`: whoever it is was in the conference before, so that
    a lock does not keep them out. Raises ConferenceUnknownError, ConferenceEndingError,
    ConferenceLockedError and ConferenceFullError.
    """
    await _admit(connection, seat.conference, returning=returning)
    placed = await _clusters_of(connection, seat.conference)
    reason = await _objection(connection, seat.cluster, new=seat.cluster not in placed)
    if reason is not None:
        return reason
    others = placed - {seat.cluster}
    if others and any(each in solitary for each in (seat.cluster, *others)):
        return "the conference must stay within one cluster"
    await _placements.ensure(connection, seat.conference, seat.cluster)
    await connection.execute(
        insert(_reservations).values(
            conference=seat.conference,
            cluster=seat.cluster,
            user_name=seat.user,
            id=seat.id,
            expires_at=_NOW + timedelta(seconds=ttl),
        )
    )
    await connection.execute(insert(decisions).values(conference=seat.conference, body=seat.decision))
    return None


async def _admit(connection: AsyncConnection, conference: str, *, returning: bool) -> None:
    """Hold the conference and make sure that one more may join it."""
    head = (
        await connection.execute(
            select(conferences.c.state, conferences.c.locked, conferences.c.participant_limit)
            .where(conferences.c.id == conference)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if head is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    if head.state == "ending":
        raise ConferenceEndingError(f"conference {conference} is being deleted")
    if head.locked and not returning:
        raise ConferenceLockedError(f"conference {conference} is locked")
    if head.participant_limit < 0:
        return
    here = select(func.count()).select_from(participants).where(participants.c.conference == conference)
    coming = (
        select(func.count())
        .select_from(_reservations)
        .where(_reservations.c.conference == conference, _reservations.c.expires_at > _NOW)
    )
    people = (
        await connection.execute(select((here.scalar_subquery() + coming.scalar_subquery()).label("n")))
    ).one()
    if people.n >= head.participant_limit:
        raise ConferenceFullError(
            f"conference {conference} has its {head.participant_limit} participants", retry_after=5
        )


async def _clusters_of(connection: AsyncConnection, conference: str) -> set[str]:
    found = await connection.scalars(
        select(placements.c.cluster).where(
            placements.c.conference == conference, placements.c.state != "lost"
        )
    )
    return set(found.all())


async def _objection(connection: AsyncConnection, cluster: str, *, new: bool) -> str | None:
    """Hold the cluster's count; return why nobody can be sent there, None if somebody can."""
    # The lock is waited for before the facts are read: what others have just taken counts.
    await connection.execute(select(seats.c.cluster).where(seats.c.cluster == cluster).with_for_update())
    row = (
        await connection.execute(
            select(
                (func.greatest(seats.c.participants, clusters.c.load_participants) + seats.c.reserved).label(
                    "taken"
                ),
                seats.c.conferences,
                clusters.c.limit_participants,
                clusters.c.limit_conferences,
                clusters.c.drain_since,
                clusters.c.blocked_at,
            )
            .join(clusters, clusters.c.id == seats.c.cluster)
            .where(seats.c.cluster == cluster, online())
        )
    ).one_or_none()
    if row is None:
        return "its lease ran out"
    if row.blocked_at is not None:
        return "an operator has blocked it"
    if row.limit_participants is not None and row.taken >= row.limit_participants:
        return f"it is full ({row.limit_participants} participants)"
    if new and row.drain_since is not None:
        return "it is draining"
    if new and row.limit_conferences is not None and row.conferences >= row.limit_conferences:
        return f"it is full ({row.limit_conferences} conferences)"
    return None


# --- giving back ------------------------------------------------------------------------------


async def release(connection: AsyncConnection, seat: Seat) -> None:
    """Give a seat back: the client got no token for it."""
    await connection.execute(
        delete(_reservations).where(
            _reservations.c.conference == seat.conference,
            _reservations.c.cluster == seat.cluster,
            _reservations.c.user_name == seat.user,
            _reservations.c.id == seat.id,
        )
    )


async def prolong(connection: AsyncConnection, seat: Seat, *, ttl: float) -> bool:
    """Keep a seat for `ttl` seconds from now; False if it is gone."""
    kept = await connection.execute(
        update(_reservations)
        .where(
            _reservations.c.conference == seat.conference,
            _reservations.c.cluster == seat.cluster,
            _reservations.c.user_name == seat.user,
            _reservations.c.id == seat.id,
        )
        .values(expires_at=_NOW + timedelta(seconds=ttl))
    )
    return kept.rowcount > 0


async def redeem(connection: AsyncConnection, conference: str, cluster: str, user: str) -> None:
    """Note that the user has really joined: their oldest reservation there becomes the participant."""
    oldest = (
        select(_reservations.c.id)
        .where(
            _reservations.c.conference == conference,
            _reservations.c.cluster == cluster,
            _reservations.c.user_name == user,
        )
        .order_by(_reservations.c.made_at)
        .limit(1)
        .scalar_subquery()
    )
    await connection.execute(
        delete(_reservations).where(
            _reservations.c.conference == conference,
            _reservations.c.cluster == cluster,
            _reservations.c.user_name == user,
            _reservations.c.id == oldest,
        )
    )


# The commit waits for no disk: joins wait for the counts that it changes, and what a crash brings back is
# given back once more. (With the clock's volatile time the index would be read to its end.)
_EXPIRED: Final = text(
    """
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS done)
    DELETE FROM reservations USING quick WHERE quick.done IS NOT NULL AND reservations.ctid = ANY (ARRAY(
        SELECT ctid FROM reservations WHERE expires_at <= statement_timestamp()
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    """
)


async def sweep(connection: AsyncConnection, *, limit: int = 5000) -> int:
    """Give back what ran out, at most `limit`; return how many. One statement."""
    return int((await connection.execute(_EXPIRED, {"limit": limit})).rowcount)
