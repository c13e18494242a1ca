"""An agent's channel: which one speaks, and what it may write.

Of a registration's channels the newest one speaks. It is known by an id that its replica drew; whatever an
older one still writes is refused, so two replicas never write in the name of one agent.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from control.errors import AgentUnknownError, StaleEpochError
from control.registry import agent_leases, work
from control.registry.agents import online
from control.registry.tables import agents, conferences, placements, round_trips, templates

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api.agents import AgentLoad
    from causeway.channel import Refusal, RoundTrip

__all__ = [
    "Hold",
    "Speaker",
    "acked",
    "beat",
    "close_channel",
    "held",
    "next_version",
    "open_channel",
]

Hold: TypeAlias = Literal["held", "replaced", "register"]
"""Whether a channel speaks for its agent; else whether another one does, or the registration is over."""

_NOW: Final = func.clock_timestamp()
_WAKE_PAUSE: Final = timedelta(seconds=60)
_MUCH: Final = 0.25
"""The share by which a round trip has to change for conferences to be looked at; and the least, in ms."""
_MUCH_MS: Final = 5.0
_MAX_WOKEN: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """The agent that a channel has just begun to speak for."""

    cluster: str
    protocol: int


async def open_channel(
    connection: AsyncConnection, agent: str, *, epoch: int, channel: uuid.UUID, ttl: float
) -> Speaker:
    """Have this channel, and no other one, speak for the agent; its lease holds for `ttl` seconds from now.

    Raises AgentUnknownError if the registration does not hold, StaleEpochError if it is another one.
    """
    row = (
        await connection.execute(
            select(agents.c.epoch, agents.c.cluster, agents.c.protocol, online().label("live"))
            .where(agents.c.id == agent)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None or not row.live:
        raise AgentUnknownError(f"agent {agent} holds no lease; register again")
    if row.epoch != epoch:
        raise StaleEpochError(f"epoch {epoch} of agent {agent} is over")
    await connection.execute(
        update(agents)
        .where(agents.c.id == agent)
        .values(channel=channel, last_seen_at=_NOW, lease_expires_at=_NOW + timedelta(seconds=ttl))
    )
    await agent_leases.announce(connection, agent)
    return Speaker(cluster=row.cluster, protocol=row.protocol)


async def close_channel(connection: AsyncConnection, agent: str, *, channel: uuid.UUID) -> None:
    """Note that the channel is gone; the lease holds on."""
    await connection.execute(
        update(agents).where(agents.c.id == agent, agents.c.channel == channel).values(channel=None)
    )


async def held(connection: AsyncConnection, agent: str, *, channel: uuid.UUID) -> Hold:
    """Return whether the channel speaks for the agent, and keep that until this transaction ends."""
    row = (
        await connection.execute(
            select(agents.c.channel, online().label("live"))
            .where(agents.c.id == agent)
            .with_for_update(read=True)
        )
    ).one_or_none()
    if row is None or not row.live or row.channel is None:
        return "register"
    return "held" if row.channel == channel else "replaced"


async def beat(
    connection: AsyncConnection,
    agent: str,
    *,
    channel: uuid.UUID,
    ttl: float,
    load: AgentLoad,
    measured: Sequence[RoundTrip],
) -> bool:
    """Renew the lease for `ttl` seconds from now, keep load and round trips. False: the channel is over."""
    row = (
        await connection.execute(
            update(agents)
            .where(_speaks(agent, channel))
            .values(
                lease_expires_at=_NOW + timedelta(seconds=ttl),
                last_seen_at=_NOW,
                load=msgspec.to_builtins(load),
            )
            .returning(agents.c.cluster)
        )
    ).one_or_none()
    if row is None:
        return False
    await _measure(connection, row.cluster, measured)
    return True


async def next_version(connection: AsyncConnection, agent: str, *, channel: uuid.UUID) -> int | None:
    """Return the number for the desired state that is about to be told. None: the channel is over."""
    numbered = await connection.scalars(
        update(agents)
        .where(_speaks(agent, channel))
        .values(desired_version=agents.c.desired_version + 1)
        .returning(agents.c.desired_version)
    )
    return numbered.one_or_none()


async def acked(
    connection: AsyncConnection,
    agent: str,
    *,
    channel: uuid.UUID,
    version: int,
    refused: Sequence[Refusal],
) -> bool:
    """Note which version the agent acts on, and what of it it refuses. False: the channel is over."""
    done = await connection.execute(
        update(agents)
        .where(_speaks(agent, channel))
        .values(acked_version=version, refused=[msgspec.to_builtins(each) for each in refused])
    )
    return done.rowcount > 0


def _speaks(agent: str, channel: uuid.UUID) -> ColumnElement[bool]:
    return and_(agents.c.id == agent, agents.c.channel == channel, online())


async def _measure(connection: AsyncConnection, cluster: str, measured: Sequence[RoundTrip]) -> None:
    """Keep round trips that have changed, or been kept for long."""
    latest = {each.cluster: each for each in measured if each.cluster != cluster}
    if not latest:
        return
    rows = insert(round_trips).values(
        [
            {
                "from_cluster": cluster,
                "to_cluster": peer,
                "ms": each.ms,
                "jitter_ms": each.jitter_ms,
                "measured_at": _NOW,
            }
            for peer, each in sorted(latest.items())  # in one order, so that two of these do not deadlock
        ]
    )
    new = rows.excluded
    kept = await connection.execute(
        rows.on_conflict_do_update(
            index_elements=[round_trips.c.from_cluster, round_trips.c.to_cluster],
            set_={"ms": new.ms, "jitter_ms": new.jitter_ms, "measured_at": new.measured_at},
            where=or_(
                func.abs(new.ms - round_trips.c.ms) > func.greatest(1.0, round_trips.c.ms * 0.05),
                round_trips.c.measured_at < new.measured_at - timedelta(seconds=60),
            ),
        )
    )
    if kept.rowcount > 0:
        await _wake_plans(connection, cluster)


async def _wake_plans(connection: AsyncConnection, cluster: str) -> None:
    """Have conferences looked at whose shape follows from round trips that are not what it was made from.

    Of each pair at most once in `_WAKE_PAUSE`, and at most `_MAX_WOKEN` conferences at a time: what is
    left out is looked at when something else happens in it.
    """
    far = update(round_trips).where(
        round_trips.c.from_cluster == cluster,
        or_(round_trips.c.planned_at.is_(None), round_trips.c.planned_at < _NOW - _WAKE_PAUSE),
        or_(
            round_trips.c.planned_ms.is_(None),
            func.abs(round_trips.c.ms - round_trips.c.planned_ms)
            > func.greatest(_MUCH_MS, round_trips.c.planned_ms * _MUCH),
        ),
    )
    woken = await connection.scalars(
        far.values(planned_ms=round_trips.c.ms, planned_at=_NOW).returning(round_trips.c.to_cluster)
    )
    peers = sorted(woken.all())
    if not peers:
        return
    here, there = placements.alias(), placements.alias()
    shaped = (
        select(here.c.conference)
        .join(there, there.c.conference == here.c.conference)
        .join(conferences, conferences.c.id == here.c.conference)
        .join(
            templates,
            and_(
                templates.c.name == conferences.c.template,
                templates.c.version == conferences.c.template_version,
            ),
        )
        .where(
            here.c.cluster == cluster,
            there.c.cluster.in_(peers),
            templates.c.body["topology"]["kind"].astext.in_(("tree", "star")),
        )
        .distinct()
        .limit(_MAX_WOKEN)
        .subquery()
    )
    await work.mark_selected(connection, select(shaped.c.conference))
