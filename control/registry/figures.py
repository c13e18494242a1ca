"""What agents measure of their links, kept for whoever looks: the last word of each, and when it was said.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import insert

from causeway.api.agents import AgentFigures
from causeway.api.figures import BridgeFigures, LinkFigures
from causeway.api.plans import LinkEnd
from control.registry import agent_channels
from control.registry.tables import agent_figures, link_figures

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.registry.agent_channels import Hold

__all__ = ["keep", "of_agent", "of_conference"]

_NOW: Final = func.clock_timestamp()

# Placements are locked in one order, and only against being taken away meanwhile.
_KEEP_LINKS: Final = text("""
    WITH told AS (
        SELECT conference, peer, kind, max(figures::text)::jsonb AS figures
            FROM unnest(
                CAST(:conferences AS text[]), CAST(:peers AS text[]), CAST(:kinds AS text[]),
                CAST(:figures AS jsonb[])
            ) AS t (conference, peer, kind, figures)
            GROUP BY conference, peer, kind
    ), placed AS (
        SELECT p.conference FROM placements p
            WHERE p.cluster = :cluster AND p.conference = ANY (CAST(:conferences AS text[]))
            ORDER BY p.conference
            FOR KEY SHARE
    )
    INSERT INTO link_figures (conference, cluster, peer, kind, agent, figures, told_at)
        SELECT t.conference, :cluster, t.peer, t.kind, :agent, t.figures, clock_timestamp()
            FROM told t JOIN placed USING (conference)
            ORDER BY t.conference, t.peer, t.kind
    ON CONFLICT (conference, cluster, peer, kind) DO UPDATE
        SET agent = excluded.agent, figures = excluded.figures, told_at = excluded.told_at
""").bindparams(bindparam("conferences"), bindparam("peers"), bindparam("kinds"), bindparam("figures"))


async def keep(
    connection: AsyncConnection,
    agent: str,
    cluster: str,
    *,
    channel: uuid.UUID,
    bridges: Sequence[BridgeFigures],
) -> Hold:
    """Keep what the agent of `cluster` measured; links of conferences that are not placed there are left out.

    Nothing is kept of a channel that does not speak for the agent any more.
    """
    hold = await agent_channels.held(connection, agent, channel=channel)
    if hold != "held":
        return hold
    lean = [msgspec.to_builtins(structs.replace(bridge, links=[])) for bridge in bridges]
    row = insert(agent_figures).values(agent=agent, bridges=lean, told_at=_NOW)
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[agent_figures.c.agent],
            set_={"bridges": row.excluded.bridges, "told_at": row.excluded.told_at},
        )
    )
    links = [link for bridge in bridges for link in bridge.links]
    if links:
        await connection.execute(
            _KEEP_LINKS,
            {
                "cluster": cluster,
                "agent": agent,
                "conferences": [each.conference for each in links],
                "peers": [each.peer for each in links],
                "kinds": [each.kind for each in links],
                "figures": [msgspec.json.encode(each).decode() for each in links],
            },
        )
    return hold


async def of_agent(connection: AsyncConnection, agent: str) -> AgentFigures | None:
    """Return what an agent's bridges measured last; None if it told nothing yet."""
    row = (
        await connection.execute(select(agent_figures).where(agent_figures.c.agent == agent))
    ).one_or_none()
    if row is None:
        return None
    return AgentFigures(told_at=row.told_at, bridges=msgspec.convert(row.bridges, list[BridgeFigures]))


async def of_conference(connection: AsyncConnection, conference: str) -> list[LinkEnd]:
    """Return what was measured of a conference's links, at either end, by cluster, peer and kind."""
    rows = await connection.execute(
        select(link_figures)
        .where(link_figures.c.conference == conference)
        .order_by(link_figures.c.cluster, link_figures.c.peer, link_figures.c.kind)
    )
    return [
        LinkEnd(
            cluster=row.cluster,
            agent=row.agent,
            told_at=row.told_at,
            figures=msgspec.convert(row.figures, LinkFigures),
        )
        for row in rows
    ]
