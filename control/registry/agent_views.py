"""Agents as operators see them, and what operators ask of them: a drain.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import structs
from sqlalchemy import case, func, literal, select, update

from causeway.api.agents import (
    AgentAddresses,
    AgentCapacity,
    AgentLoad,
    AgentRefusal,
    AgentState,
    AgentView,
)
from control.errors import AgentUnknownError
from control.registry import audit, figures, work
from control.registry.agent_leases import subject
from control.registry.tables import agents, assignments

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["drain", "list_all", "show", "undrain"]

_NOW: Final = func.clock_timestamp()


async def show(connection: AsyncConnection, agent: str) -> AgentView:
    """Return the agent; raises AgentUnknownError if it never registered, or is forgotten."""
    found = await _views(connection, agent=agent)
    if not found:
        raise _unknown(agent)
    return structs.replace(found[0], figures=await figures.of_agent(connection, agent))


async def list_all(connection: AsyncConnection, *, cluster: str | None = None) -> list[AgentView]:
    """Return every agent that is not forgotten, of one cluster or of all, by cluster and id."""
    return await _views(connection, cluster=cluster)


async def drain(connection: AsyncConnection, agent: str, *, actor: str) -> None:
    """Have the agent relieved of what it has, as far as others can take it. Idempotent."""
    await _set_drain(connection, agent, actor=actor, drained=True)


async def undrain(connection: AsyncConnection, agent: str, *, actor: str) -> None:
    """Let the agent be given conferences again. Idempotent."""
    await _set_drain(connection, agent, actor=actor, drained=False)


async def _set_drain(connection: AsyncConnection, agent: str, *, actor: str, drained: bool) -> None:
    row = (
        await connection.execute(
            select(agents.c.cluster, agents.c.drain_since)
            .where(agents.c.id == agent)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None:
        raise _unknown(agent)
    if drained == (row.drain_since is not None):
        return
    await connection.execute(
        update(agents).where(agents.c.id == agent).values(drain_since=_NOW if drained else None)
    )
    action = "drained" if drained else "undrained"
    await audit.note(connection, actor=actor, subject=subject(agent), action=action)
    await work.mark_cluster(connection, row.cluster)


async def _views(
    connection: AsyncConnection, *, agent: str | None = None, cluster: str | None = None
) -> list[AgentView]:
    expired = agents.c.lease_expires_at <= _NOW
    state = case(
        (agents.c.state != "online", agents.c.state),
        (expired, literal("lost")),
        (agents.c.drain_since.is_not(None), literal("draining")),
        else_=agents.c.state,
    )
    since = case(
        (agents.c.state != "online", agents.c.state_since),
        (expired, agents.c.lease_expires_at),
        else_=func.greatest(agents.c.state_since, agents.c.drain_since),
    )
    count = (
        select(func.count(assignments.c.conference.distinct()))
        .where(assignments.c.agent == agents.c.id)
        .scalar_subquery()
    )
    query = select(
        agents,
        state.label("shown"),
        since.label("since"),
        expired.label("expired"),
        count.label("conferences"),
    ).order_by(agents.c.cluster, agents.c.id)
    if agent is not None:
        query = query.where(agents.c.id == agent)
    if cluster is not None:
        query = query.where(agents.c.cluster == cluster)
    return [_view(row) for row in (await connection.execute(query)).all()]


def _view(row: Row[Any]) -> AgentView:
    return AgentView(
        id=row.id,
        cluster=row.cluster,
        region=row.region,
        kinds=row.kinds,
        state=cast("AgentState", row.shown),
        state_since=row.since,
        version=row.version,
        protocol=row.protocol,
        instance=row.instance,
        epoch=row.epoch,
        addresses=msgspec.convert(row.addresses, AgentAddresses),
        wires=row.wires,
        capacity=AgentCapacity(conferences=row.capacity_conferences),
        load=msgspec.convert(row.load, AgentLoad),
        conferences=row.conferences,
        connected=row.channel is not None and not row.expired,
        last_seen_at=row.last_seen_at,
        lease_expires_at=row.lease_expires_at,
        drain_since=row.drain_since,
        desired_version=row.desired_version,
        acked_version=row.acked_version,
        refused=[
            AgentRefusal(conference=each["conference"], peer=each.get("peer"), reason=each["reason"])
            for each in row.refused
        ],
    )


def _unknown(agent: str) -> AgentUnknownError:
    return AgentUnknownError(f"no agent {agent} has registered")
