"""Probes: which clusters are to be asked for a sign of life, and what came of it.

A cluster is claimed by moving its next probe, which becomes due again at once when the replica that claimed
it dies (control.registry.replicas). All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import and_, exists, func, select, text, update

from control import lifecycle
from control.registry import links, reports, work
from control.registry.clusters import online, return_rooms
from control.registry.tables import clusters, participants, placements

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.drivers.base import RoomParticipant, Survey

__all__ = [
    "Known",
    "Probe",
    "answered",
    "claim",
    "differing",
    "is_asked",
    "is_inhabited",
    "is_open",
    "known",
    "listed",
    "loaded",
    "rooms",
    "silent",
    "sole",
]

_NOW: Final = func.clock_timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A cluster to be asked, and the registration that the answer counts for."""

    cluster: str
    epoch: int


async def claim(
    connection: AsyncConnection, *, limit: int, hold: float, replica: uuid.UUID | None = None
) -> list[Probe]:
    """Claim up to `limit` due probes for a replica; nobody else gets them for `hold` seconds."""
    due = (
        select(clusters.c.id)
        .where(clusters.c.probe_due_at <= _NOW, clusters.c.state != "unregistered")
        .order_by(clusters.c.probe_due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("due")
    )
    rows = await connection.execute(
        update(clusters)
        .where(clusters.c.id.in_(select(due.c.id)))
        .values(probe_due_at=_NOW + timedelta(seconds=hold), probe_by=replica)
        .returning(clusters.c.id, clusters.c.epoch)
    )
    return [Probe(cluster=row.id, epoch=row.epoch) for row in rows.all()]


async def answered(
    connection: AsyncConnection, probe: Probe, *, ttl: float, next_in: float
) -> Literal["alive", "back", "outdated"]:
    """Note that the cluster answered: its lease holds for `ttl` seconds.

    `back`: it was lost, and now has the next epoch. `outdated`: it has registered anew or left meanwhile;
    nothing is changed.
    """
    row = (
        await connection.execute(
            select(clusters.c.state, clusters.c.epoch)
            .where(clusters.c.id == probe.cluster)
            .with_for_update(key_share=True)
        )
    ).one()
    if row.epoch != probe.epoch or row.state == "unregistered":
        return "outdated"
    values = {
        "lease_expires_at": _NOW + timedelta(seconds=ttl),
        "last_seen_at": _NOW,
        "probe_due_at": _NOW + timedelta(seconds=next_in),
        "probe_failures": 0,
        "probe_error": None,
        "probe_by": None,
    }
    back = row.state == "lost"
    if back:
        values |= {
            "state": lifecycle.NEXT["lost", "answer"],
            "state_since": _NOW,
            "state_reason": "it answers probes again",
            "epoch": clusters.c.epoch + 1,
        }
    await connection.execute(update(clusters).where(clusters.c.id == probe.cluster).values(**values))
    if back:
        await return_rooms(connection, probe.cluster)
        await links.want(connection, probe.cluster)
        await work.mark_cluster(connection, probe.cluster)
    return "back" if back else "alive"


async def silent(
    connection: AsyncConnection,
    probe: Probe,
    *,
    error: str,
    failures_to_lost: int,
    next_in: float,
    lost_next_in: float,
) -> int | None:
    """Note that the cluster did not answer as it should; return how often in a row, None if outdated.

    When that is too often its lease ends at once.
    """
    row = (
        await connection.execute(
            select(clusters.c.state, clusters.c.epoch, clusters.c.probe_failures)
            .where(clusters.c.id == probe.cluster)
            .with_for_update(key_share=True)
        )
    ).one()
    if row.epoch != probe.epoch or row.state == "unregistered":
        return None
    failures = int(row.probe_failures) + 1
    lost = row.state == "lost" or failures >= failures_to_lost
    values = {
        "probe_failures": failures,
        "probe_error": error,
        "probe_due_at": _NOW + timedelta(seconds=lost_next_in if lost else next_in),
        "probe_by": None,
    }
    if lost:
        values["lease_expires_at"] = func.least(clusters.c.lease_expires_at, _NOW)
    await connection.execute(update(clusters).where(clusters.c.id == probe.cluster).values(**values))
    return failures


async def rooms(connection: AsyncConnection, cluster: str, *, limit: int) -> list[tuple[str, str, bool]]:
    """Return (conference, room, whether it has a token) of up to `limit` rooms there, drawn by lot."""
    found = await connection.execute(
        select(placements.c.conference, placements.c.room, placements.c.token.is_not(None))
        .where(placements.c.cluster == cluster, placements.c.state == "ready", placements.c.room.is_not(None))
        .order_by(func.random())
        .limit(limit)
    )
    return [(row[0], row[1] or "", row[2]) for row in found]


async def loaded(connection: AsyncConnection, probe: Probe, survey: Survey) -> None:
    """Note how busy the cluster is, unless the probe is outdated."""
    await connection.execute(
        update(clusters)
        .where(clusters.c.id == probe.cluster, clusters.c.epoch == probe.epoch)
        .values(load_participants=survey.participants, load_streams=survey.streams, load_cpu=survey.cpu)
    )


async def differing(
    connection: AsyncConnection, cluster: str, survey: Survey, *, limit: int
) -> list[tuple[str, str]]:
    """Return (conference, room) of up to `limit` rooms there that have not those in them who are known."""
    known = func.array_agg(participants.c.id).filter(participants.c.id.is_not(None))
    rows = await connection.execute(
        select(placements.c.conference, placements.c.room, known)
        .outerjoin(
            participants,
            and_(
                participants.c.conference == placements.c.conference,
                participants.c.cluster == placements.c.cluster,
            ),
        )
        .where(placements.c.cluster == cluster, placements.c.state == "ready", placements.c.room.is_not(None))
        .group_by(placements.c.conference, placements.c.room)
    )
    found: list[tuple[str, str]] = []
    for conference, room, ids in rows:
        there = {person.id for person in survey.rooms.get(room or "", ())}
        if there != set(ids or ()) and len(found) < limit:
            found.append((conference, room or ""))
    return found


async def listed(
    connection: AsyncConnection, conference: str, cluster: str, people: Iterable[RoomParticipant]
) -> bool:
    """Take over who is in the room; return whether that changed anything.

    A cluster lists also those who are cascaded to it: whoever is known to be elsewhere is not here.
    """
    known = (
        await connection.execute(
            select(participants.c.id, participants.c.cluster).where(participants.c.conference == conference)
        )
    ).all()
    here = {row.id for row in known if row.cluster == cluster}
    elsewhere = {row.id for row in known if row.cluster != cluster}
    there = {person.id: person for person in people if person.id not in elsewhere}
    for person in sorted(there.keys() - here):
        seen = there[person]
        await reports.participant_joined(
            connection, conference, cluster, person, user=seen.user, role=seen.role
        )
    for person in sorted(here - there.keys()):
        await reports.participant_left(connection, conference, cluster, person)
    return here != there.keys()


# --- one room -----------------------------------------------------------------------------------


async def is_asked(connection: AsyncConnection, cluster: str) -> bool:
    """Say whether the cluster is one that is asked rather than one that tells."""
    return bool(
        await connection.scalar(
            select(exists().where(clusters.c.id == cluster, clusters.c.probe_due_at.is_not(None)))
        )
    )


class Known(NamedTuple):
    """A room as the registry knows it at the moment: who is in it, and who is in the conference elsewhere."""

    expected: bool
    """Somebody was given a token for it and has not come yet, and the cluster is one that is asked."""
    here: frozenset[str]
    elsewhere: frozenset[str]

    def agrees(self, people: Iterable[RoomParticipant]) -> bool:
        """Say whether the cluster lists nothing new; see `listed`."""
        return {person.id for person in people} - self.elsewhere == self.here


_KNOWN: Final = text(
    """
    SELECT ARRAY(SELECT p.id FROM participants p WHERE p.conference = a.conference AND p.cluster = a.cluster)
            AS here,
        ARRAY(SELECT p.id FROM participants p WHERE p.conference = a.conference AND p.cluster <> a.cluster)
            AS elsewhere,
        EXISTS (SELECT FROM clusters c WHERE c.id = a.cluster AND c.probe_due_at IS NOT NULL)
            AND EXISTS (
                SELECT FROM reservations r WHERE r.conference = a.conference AND r.cluster = a.cluster
                    AND r.expires_at > clock_timestamp()
            ) AS expected
    FROM unnest(CAST(:conferences AS text[]), CAST(:clusters AS text[])) WITH ORDINALITY
        AS a (conference, cluster, n)
    ORDER BY a.n
    """
)


async def known(connection: AsyncConnection, rooms: Sequence[tuple[str, str]]) -> list[Known]:
    """Return what is known of each (conference, cluster). One statement."""
    rows = await connection.execute(
        _KNOWN, {"conferences": [room[0] for room in rooms], "clusters": [room[1] for room in rooms]}
    )
    return [Known(row.expected, frozenset(row.here), frozenset(row.elsewhere)) for row in rows]


async def is_inhabited(connection: AsyncConnection, conference: str, cluster: str) -> bool:
    """Say whether anybody is known to be there."""
    somebody = exists().where(participants.c.conference == conference, participants.c.cluster == cluster)
    return bool(await connection.scalar(select(somebody)))


async def is_open(connection: AsyncConnection, conference: str, cluster: str) -> bool:
    """Say whether the room there is known to have come to life."""
    there = exists().where(
        placements.c.conference == conference,
        placements.c.cluster == cluster,
        placements.c.token.is_not(None),
    )
    return bool(await connection.scalar(select(there)))


async def sole(connection: AsyncConnection, conference: str, driver: str) -> str | None:
    """Return the living cluster of this kind that has the conference, None if there is not exactly one."""
    found = await connection.scalars(
        select(placements.c.cluster)
        .join(clusters, clusters.c.id == placements.c.cluster)
        .where(placements.c.conference == conference, clusters.c.driver == driver, online())
    )
    names = found.all()
    return names[0] if len(names) == 1 else None
