"""Clients whose cluster was lost with them, or started anew, until they are told where to go.

Their rows are made where their participants are deleted, and go with the placement that they hang on. All
functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from control.registry import events, work
from control.registry.tables import clusters, displaced, participants

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Displaced", "dropped", "found", "remember", "returned", "tell", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Displaced:
    """A client that has to go somewhere else. `region`: where its cluster is."""

    participant: str
    user: str
    role: str
    region: str


async def remember(connection: AsyncConnection, cluster: str) -> None:
    """Remember everybody on the cluster; to be called before they are deleted."""
    everybody = select(
        participants.c.conference,
        participants.c.cluster,
        participants.c.id,
        participants.c.user_name,
        participants.c.role,
    ).where(participants.c.cluster == cluster)
    columns = ["conference", "cluster", "participant", "user_name", "role"]
    await connection.execute(insert(displaced).from_select(columns, everybody).on_conflict_do_nothing())


async def returned(connection: AsyncConnection, cluster: str) -> None:
    """Forget them: the same start of the cluster is back, and with it they are."""
    await connection.execute(delete(displaced).where(displaced.c.cluster == cluster))


async def found(connection: AsyncConnection, conference: str, user: str) -> None:
    """Forget one of the user's clients: it has come back by itself."""
    oldest = (
        select(displaced.c.cluster, displaced.c.participant)
        .where(displaced.c.conference == conference, displaced.c.user_name == user)
        .order_by(displaced.c.since)
        .limit(1)
        .cte("oldest")
    )
    await connection.execute(
        delete(displaced).where(
            displaced.c.conference == conference,
            displaced.c.cluster == oldest.c.cluster,
            displaced.c.participant == oldest.c.participant,
        )
    )


async def waiting(
    connection: AsyncConnection, conference: str, cluster: str, *, limit: int
) -> list[Displaced]:
    """Return up to `limit` of them, those first who have waited longest."""
    rows = await connection.execute(
        select(displaced.c.participant, displaced.c.user_name, displaced.c.role, clusters.c.region)
        .join(clusters, clusters.c.id == displaced.c.cluster)
        .where(displaced.c.conference == conference, displaced.c.cluster == cluster)
        .order_by(displaced.c.since, displaced.c.participant)
        .limit(limit)
    )
    return [
        Displaced(participant=row.participant, user=row.user_name, role=row.role, region=row.region)
        for row in rows
    ]


async def dropped(connection: AsyncConnection, conference: str, cluster: str, who: Displaced) -> bool:
    """Forget one of them; False if it is not displaced any more."""
    gone = await connection.execute(
        delete(displaced).where(
            displaced.c.conference == conference,
            displaced.c.cluster == cluster,
            displaced.c.participant == who.participant,
        )
    )
    await work.mark(connection, conference)
    return gone.rowcount > 0


async def tell(
    connection: AsyncConnection, conference: str, cluster: str, who: Displaced, *, to: str, region: str
) -> None:
    """Tell those who follow the conference that the client is to go from `cluster` to another one."""
    await events.write(
        connection,
        conference,
        "participant.moved",
        {"participant": who.participant, "user": who.user, "from": cluster, "to": to, "region": region},
    )
