"""Agents: the lease of a registration, and what becomes of their conferences when they change or go.

As with clusters a registration is fenced by its epoch: a PUT of the same start of the process while its lease
holds keeps it; any other gets the next one. Unlike a cluster, an agent that starts anew takes the id over at
once: its former start is dead, or cut off, and must not speak any more.

What an agent says on its channel is control.registry.agent_channels.
All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import and_, delete, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from control.errors import StaleEpochError
from control.registry import audit, work
from control.registry.agents import online
from control.registry.tables import agents, assignments, links, placements, round_trips

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api.agents import AgentRegistration

__all__ = [
    "CHANNEL",
    "Registered",
    "announce",
    "forget",
    "grace",
    "mark_waiting",
    "register",
    "run_out",
    "subject",
    "sweep",
    "unregister",
]

CHANNEL: Final = "causeway_agent"
"""NOTIFY channel. The payload is `<agent> <conference>`, or an agent alone: look whether you still speak."""

_NOW: Final = func.clock_timestamp()
_RUN_OUT: Final = and_(agents.c.state == "online", agents.c.lease_expires_at <= _NOW)
_KEPT: Final = ("cluster", "kinds", "addresses", "wires")
"""What a registration cannot change without making all the agent's links anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A registration that was taken. `again`: it was in force already, for the same start."""

    epoch: int
    again: bool


def subject(agent: str) -> str:
    """Return what the audit calls the agent."""
    return f"agent:{agent}"


# --- registration -----------------------------------------------------------------------------


async def register(
    connection: AsyncConnection,
    agent: str,
    request: AgentRegistration,
    *,
    protocol: int,
    ttl: float,
    actor: str = audit.CONTROL,
) -> Registered:
    """Write the registration and start its lease of `ttl` seconds; what it changes is looked at."""
    values: dict[str, Any] = {
        "cluster": request.cluster,
        "region": request.region,
        "kinds": sorted(set(request.kinds)),
        "addresses": msgspec.to_builtins(request.addresses),
        "wires": list(dict.fromkeys(request.wires)),
        "capacity_conferences": request.capacity.conferences,
        "version": request.version,
        "protocol": protocol,
        "instance": request.instance,
        "state": "online",
        "last_seen_at": _NOW,
        "lease_expires_at": _NOW + timedelta(seconds=ttl),
    }
    fresh = insert(agents).values(id=agent, epoch=1, state_since=_NOW, registered_at=_NOW, **values)
    inserted = await connection.execute(fresh.on_conflict_do_nothing().returning(agents.c.epoch))
    if inserted.one_or_none() is not None:
        await audit.note(
            connection, actor=actor, subject=subject(agent), action="registered", after=_shown(values)
        )
        await work.mark_cluster(connection, request.cluster)
        return Registered(epoch=1, again=False)
    old = (
        (
            await connection.execute(
                select(agents, online().label("live"))
                .where(agents.c.id == agent)
                .with_for_update(key_share=True)
            )
        )
        .mappings()
        .one()
    )
    again = old["live"] and old["instance"] == request.instance
    epoch = int(old["epoch"]) if again else int(old["epoch"]) + 1
    if not again:
        values |= {"state_since": _NOW, "registered_at": _NOW, "channel": null()}
    if old["instance"] != request.instance:
        values |= {"acked_version": None, "refused": [], "load": {}}
    await connection.execute(update(agents).where(agents.c.id == agent).values(epoch=epoch, **values))
    await _note_change(connection, agent, dict(old), values, actor=actor)
    if any(old[name] != values[name] for name in _KEPT) or old["instance"] != request.instance:
        await _make_anew(connection, agent, moved=old["cluster"] != request.cluster)
        await work.mark_cluster(connection, request.cluster)
    elif not again or old["capacity_conferences"] < request.capacity.conferences:
        await work.mark_cluster(connection, request.cluster)
    if not again:
        await announce(connection, agent)
    return Registered(epoch=epoch, again=again)


async def unregister(
    connection: AsyncConnection, agent: str, *, epoch: int | None, actor: str = audit.CONTROL
) -> None:
    """End the registration; with an `epoch`, only if it is still the current one. Idempotent.

    Raises StaleEpochError.
    """
    row = (
        await connection.execute(
            select(agents.c.epoch, agents.c.state).where(agents.c.id == agent).with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None or row.state == "unregistered":
        return
    if epoch is not None and row.epoch != epoch:
        raise StaleEpochError(f"epoch {epoch} of agent {agent} is over")
    await connection.execute(
        update(agents)
        .where(agents.c.id == agent)
        .values(state="unregistered", state_since=_NOW, lease_expires_at=_NOW, channel=None)
    )
    await audit.note(connection, actor=actor, subject=subject(agent), action="unregistered")
    await work.mark_selected(connection, _served(agent))
    await announce(connection, agent)


async def run_out(connection: AsyncConnection) -> bool:
    """Return whether there is an agent for `sweep`. One statement."""
    return bool(await connection.scalar(select(exists().where(_RUN_OUT))))


async def sweep(connection: AsyncConnection) -> str | None:
    """Write off one agent whose lease ran out, and have its conferences looked at; None without one."""
    expired = (
        select(agents.c.id)
        .where(_RUN_OUT)
        .order_by(agents.c.lease_expires_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    agent = (await connection.scalars(expired)).one_or_none()
    if agent is None:
        return None
    await connection.execute(
        update(agents)
        .where(agents.c.id == agent)
        .values(state="lost", state_since=agents.c.lease_expires_at, channel=None)
    )
    await work.mark_selected(connection, _served(agent))
    await announce(connection, agent)
    return agent


async def grace(connection: AsyncConnection, *, ttl: float) -> None:
    """Let every lease that nobody has written off hold for `ttl` seconds from now, at least.

    For the start of the service, and for a database that is back: nobody could renew them.
    """
    until = _NOW + timedelta(seconds=ttl)
    await connection.execute(
        update(agents)
        .where(agents.c.state == "online", agents.c.lease_expires_at < until)
        .values(lease_expires_at=until)
    )


async def forget(connection: AsyncConnection, *, after: float) -> int:
    """Delete the rows of agents that left or were lost `after` seconds ago; return how many.

    Measurements as old as that go, too.
    """
    old = _NOW - timedelta(seconds=after)
    await connection.execute(delete(round_trips).where(round_trips.c.measured_at < old))
    gone = await connection.execute(
        delete(agents).where(
            agents.c.state != "online",
            agents.c.state_since < old,
            ~exists().where(assignments.c.agent == agents.c.id),
        )
    )
    return gone.rowcount


async def mark_waiting(connection: AsyncConnection, *, limit: int) -> None:
    """Have conferences looked at that wait for an agent, at clusters whose agents have room (again)."""
    taken = (
        select(func.count(assignments.c.conference.distinct()))
        .where(assignments.c.agent == agents.c.id)
        .scalar_subquery()
    )
    roomy = (
        select(agents.c.cluster)
        .where(
            online(),
            agents.c.drain_since.is_(None),
            agents.c.kinds.contains(["event"]),
            taken < agents.c.capacity_conferences,
        )
        .distinct()
    )
    other = placements.alias()
    unserved = (
        select(placements.c.conference)
        .where(
            placements.c.cluster.in_(roomy),
            placements.c.token.is_not(None),
            ~exists().where(
                assignments.c.conference == placements.c.conference,
                assignments.c.cluster == placements.c.cluster,
                assignments.c.kind == "event",
            ),
            exists().where(
                other.c.conference == placements.c.conference, other.c.cluster != placements.c.cluster
            ),
        )
        .distinct()
        .limit(limit)
        .subquery()
    )
    await work.mark_selected(connection, select(unserved.c.conference))


# --- inside -----------------------------------------------------------------------------------


def _served(agent: str) -> Select[Any]:
    return select(assignments.c.conference).where(assignments.c.agent == agent).distinct()


async def _make_anew(connection: AsyncConnection, agent: str, *, moved: bool) -> None:
    """Want every link of what the agent serves anew: its bridges are elsewhere now, or know nothing."""
    served = (
        select(assignments.c.conference, assignments.c.cluster).where(assignments.c.agent == agent).subquery()
    )
    await connection.execute(
        update(links)
        .where(
            links.c.conference == served.c.conference,
            or_(links.c.dialer == served.c.cluster, links.c.listener == served.c.cluster),
        )
        .values(
            state="wanted",
            since=_NOW,
            attempts=0,
            retry_at=None,
            error=None,
            order_id=None,
            bridges_at=None,
        )
    )
    await work.mark_selected(connection, _served(agent))
    if moved:
        await connection.execute(delete(assignments).where(assignments.c.agent == agent))


async def _note_change(
    connection: AsyncConnection, agent: str, old: Mapping[str, Any], values: dict[str, Any], *, actor: str
) -> None:
    before, after = _shown(old), _shown(values)
    changed = {name for name in before if before[name] != after[name]}
    if changed:
        await audit.note(
            connection,
            actor=actor,
            subject=subject(agent),
            action="registered",
            before={name: before[name] for name in sorted(changed)},
            after={name: after[name] for name in sorted(changed)},
        )


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "cluster",
        "region",
        "kinds",
        "addresses",
        "wires",
        "capacity_conferences",
        "version",
        "instance",
    )
    return {name: values[name] for name in names}


async def announce(connection: AsyncConnection, agent: str) -> None:
    """Have the agent's channels, in every replica, look whether they still speak, after the commit."""
    await connection.execute(select(func.pg_notify(CHANNEL, agent)))
