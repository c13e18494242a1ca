"""Agents as planning and its executor need them: who there is, who serves what, where their bridges are.

    STAFF        what a conference's view says of agents, as one JSON expression for the view's own statement
    assign, unassign
    addresses    where the bridges that serve a conference at a cluster listen, as registered

How agents come, stay and go is control.registry.agent_leases; what they are told is control.registry.desired.
All functions work inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from causeway.api.agents import RELAYING_WIRES
from control.cascade.view import AgentFacts, AgentKind
from control.registry import links, work
from control.registry.tables import agents, assignments, placements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["OF_ONE_MIND", "STAFF", "Staff", "addresses", "assign", "online", "staff", "unassign"]

_NOW: Final = func.clock_timestamp()
_KINDS: Final[frozenset[AgentKind]] = frozenset({"event", "media", "recorder"})


def online() -> ColumnElement[bool]:
    """Return the condition that an agent's registration holds."""
    return and_(agents.c.state == "online", agents.c.lease_expires_at > _NOW)


# --- what there is ----------------------------------------------------------------------------


class _Agent(Struct, frozen=True):
    id: str
    cluster: str
    kinds: list[str]
    wires: list[str]
    live: bool
    draining: bool
    room: int


class _Assigned(Struct, frozen=True):
    cluster: str
    kind: AgentKind
    agent: str


class _RoundTrip(Struct, frozen=True):
    a: str
    b: str
    ms: float


class Staff(Struct, frozen=True):
    """The agents of a conference's clusters, in the shapes of control.cascade.view."""

    agents: list[_Agent] = []
    assigned: list[_Assigned] = []
    round_trips: list[_RoundTrip] = []
    of_one_mind: bool = True

    def facts(self) -> tuple[AgentFacts, ...]:
        """Return every agent that is alive, and every one that still has something of the conference."""
        return tuple(
            AgentFacts(
                id=each.id,
                cluster=each.cluster,
                kinds=_KINDS.intersection(each.kinds),
                live=each.live,
                room=each.room,
                draining=each.draining,
                relays=not RELAYING_WIRES.isdisjoint(each.wires),
            )
            for each in self.agents
        )

    def of(self, cluster: str) -> tuple[tuple[AgentKind, str], ...]:
        """Return (kind, agent) of those who serve the conference there."""
        return tuple((each.kind, each.agent) for each in self.assigned if each.cluster == cluster)

    def times(self) -> Mapping[tuple[str, str], float]:
        """Return measured round trips in ms, by pair of clusters in either order."""
        return {(each.a, each.b): each.ms for each in self.round_trips}


OF_ONE_MIND: Final = """
    NOT EXISTS (
        SELECT FROM replicas
        WHERE revision < '0012' AND stopped_at IS NULL AND lease_expires_at > clock_timestamp()
    )
"""
"""Whether every replica that is alive knows of links that relay: else they would undo each other's plans."""

# What was measured longer ago than that may be true of another route.
STAFF: Final = f"""
    jsonb_build_object(
        'of_one_mind', {OF_ONE_MIND},
        'agents', coalesce((
            SELECT jsonb_agg(x ORDER BY x.id) FROM (
                SELECT a.id, a.cluster, a.kinds, a.wires,
                    a.state = 'online' AND a.lease_expires_at > clock_timestamp() AS live,
                    a.drain_since IS NOT NULL AS draining,
                    greatest(0, a.capacity_conferences - (
                        SELECT count(DISTINCT s.conference) FROM assignments s WHERE s.agent = a.id
                    )) AS room
                FROM agents a
                WHERE a.cluster IN (SELECT p.cluster FROM placements p WHERE p.conference = :conference)
                AND (
                    (a.state = 'online' AND a.lease_expires_at > clock_timestamp())
                    OR a.id IN (SELECT s.agent FROM assignments s WHERE s.conference = :conference)
                )
            ) x
        ), '[]'),
        'assigned', coalesce((
            SELECT jsonb_agg(x ORDER BY x.cluster, x.kind) FROM (
                SELECT s.cluster, s.kind, s.agent FROM assignments s WHERE s.conference = :conference
            ) x
        ), '[]'),
        'round_trips', coalesce((
            SELECT jsonb_agg(x ORDER BY x.a, x.b) FROM (
                SELECT r.from_cluster AS a, r.to_cluster AS b, r.ms
                FROM round_trips r
                JOIN placements p ON p.conference = :conference AND p.cluster = r.from_cluster
                JOIN placements q ON q.conference = :conference AND q.cluster = r.to_cluster
                WHERE r.measured_at > clock_timestamp() - interval '1 hour'
            ) x
        ), '[]')
    )
"""  # noqa: S608 - put together from constants
"""A JSON expression that reads as Staff; its parameter is `conference`."""
_STAFF: Final = text(f"SELECT ({STAFF})::text")
_DECODER: Final = msgspec.json.Decoder(Staff)


async def staff(connection: AsyncConnection, conference: str) -> Staff:
    """Return what STAFF says, for those who want nothing else."""
    found = await connection.scalar(_STAFF, {"conference": conference})
    return _DECODER.decode(found)


async def addresses(connection: AsyncConnection, conference: str, cluster: str) -> dict[str, Any] | None:
    """Return where the bridges that serve the conference there listen: {event: {host, port, …}, media: {…}?}.

    None: no live agent serves its events there.
    """
    rows = await connection.execute(
        select(assignments.c.kind, agents.c.addresses)
        .join(agents, agents.c.id == assignments.c.agent)
        .where(assignments.c.conference == conference, assignments.c.cluster == cluster, online())
    )
    found = {
        row.kind: row.addresses[row.kind] for row in rows.all() if row.addresses.get(row.kind) is not None
    }
    return found if "event" in found else None


# --- who serves what --------------------------------------------------------------------------


async def assign(
    connection: AsyncConnection, conference: str, *, cluster: str, kind: AgentKind, agent: str
) -> bool:
    """Have the agent serve the conference at its cluster as `kind`, in the place of whoever did.

    The placement's links are wanted anew. Idempotent. False: the agent cannot take it (any more), or there is
    no such placement.
    """
    placed = await connection.scalar(
        select(placements.c.ordinal)
        .where(placements.c.conference == conference, placements.c.cluster == cluster)
        .with_for_update(read=True, key_share=True)
    )
    # Locked: so that no two take its last room.
    able = (
        await connection.execute(
            select(agents.c.capacity_conferences)
            .where(
                agents.c.id == agent,
                agents.c.cluster == cluster,
                agents.c.kinds.contains([kind]),
                agents.c.drain_since.is_(None),
                online(),
            )
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if placed is None or able is None:
        return False
    # Read by a statement of its own: it sees what was committed while the lock was waited for.
    others = await connection.scalar(
        select(func.count(assignments.c.conference.distinct())).where(
            assignments.c.agent == agent, assignments.c.conference != conference
        )
    )
    if (others or 0) >= able.capacity_conferences:
        return False
    row = insert(assignments).values(conference=conference, cluster=cluster, kind=kind, agent=agent)
    changed = await connection.execute(
        row.on_conflict_do_update(
            index_elements=[assignments.c.conference, assignments.c.cluster, assignments.c.kind],
            set_={"agent": agent, "assigned_at": _NOW},
            where=assignments.c.agent != agent,
        ).returning(assignments.c.agent)
    )
    if changed.one_or_none() is not None:
        await _start_anew(connection, conference, cluster)
    return True


async def unassign(
    connection: AsyncConnection, conference: str, *, cluster: str, kind: AgentKind, agent: str
) -> None:
    """Relieve the agent of the conference; the placement's links are wanted anew. Idempotent."""
    gone = await connection.execute(
        delete(assignments).where(
            assignments.c.conference == conference,
            assignments.c.cluster == cluster,
            assignments.c.kind == kind,
            assignments.c.agent == agent,
        )
    )
    if gone.rowcount > 0:
        await _start_anew(connection, conference, cluster)


async def _start_anew(connection: AsyncConnection, conference: str, cluster: str) -> None:
    await links.want(connection, cluster, conference=conference)
    await work.mark(connection, conference)
