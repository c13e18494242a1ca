"""What an agent shall do, read from assignments and links; and what it says of its links, written back.

The desired state is not stored: it is what assignments, links and room tokens say at the moment. An agent
dials the links of its conferences whose dialer is its cluster and which were ordered `via` agents; it keeps
to the last order while control looks for newer addresses. Those that the peer dials it is told of, too.

Of several agents that serve a conference at one cluster the one for events speaks for the links, as they are
up when events flow; without one, the one for media.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from causeway.api.agents import RELAYING_WIRES
from control.registry import links
from control.registry.agents import OF_ONE_MIND

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.channel import LinkState

__all__ = ["Known", "Ordered", "Share", "known", "read", "report", "ways_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A link of a conference, as the row says. `token` is sealed for `(ROOM_TOKEN, conference, peer)`."""

    peer: str
    role: Literal["dial", "listen"]
    orders: int
    bridges: dict[str, Any]
    token: bytes | None = field(repr=False)
    relays: bool = False
    """What comes over it is passed on over the conference's other links that relay."""
    behind: tuple[str, ...] = ()
    """With `relays`: whom it leads to, besides the peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What an agent has of a conference."""

    conference: str
    kinds: tuple[str, ...]
    links: tuple[Ordered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A link that an agent speaks for, and the state that it is known to be in."""

    conference: str
    peer: str
    state: str


_READ: Final = text("""
    WITH mine AS MATERIALIZED (
        SELECT conference, cluster, array_agg(kind ORDER BY kind) AS kinds
        FROM assignments
        WHERE agent = :agent AND (:everything OR conference = ANY (:conferences))
        GROUP BY conference, cluster
    )
    SELECT m.conference, m.cluster, m.kinds, l.dialer = m.cluster AS dials,
        CASE WHEN l.dialer = m.cluster THEN l.listener ELSE l.dialer END AS peer,
        l.via, l.orders, l.bridges, p.token
    FROM mine m
    LEFT JOIN links l ON l.conference = m.conference AND m.cluster IN (l.dialer, l.listener)
    LEFT JOIN placements p
        ON p.conference = l.conference AND p.cluster = l.listener AND l.dialer = m.cluster
    ORDER BY m.conference, peer
""").bindparams(bindparam("conferences", type_=ARRAY(Text)))

# Links relay in conferences that want a tree or a star, between clusters all of whose agents can.
_RELAYED: Final = text(f"""
    WITH mine AS MATERIALIZED (
        SELECT DISTINCT s.conference
        FROM assignments s
            JOIN conferences c ON c.id = s.conference
            JOIN templates t ON t.name = c.template AND t.version = c.template_version
        WHERE s.agent = :agent AND (:everything OR s.conference = ANY (:conferences))
            AND t.body -> 'topology' ->> 'kind' IN ('tree', 'star')
    ), able AS MATERIALIZED (
        SELECT a.cluster FROM agents a
        WHERE a.state = 'online' AND a.lease_expires_at > clock_timestamp()
            AND a.kinds && ARRAY['event', 'media']
            AND a.cluster IN (SELECT p.cluster FROM mine m JOIN placements p ON p.conference = m.conference)
        GROUP BY a.cluster
        HAVING bool_and(a.wires && :wires) AND bool_or('event' = ANY (a.kinds))
    )
    SELECT l.conference, l.dialer, l.listener
    FROM mine m JOIN links l ON l.conference = m.conference
    WHERE {OF_ONE_MIND}
        AND l.dialer IN (SELECT cluster FROM able) AND l.listener IN (SELECT cluster FROM able)
    ORDER BY l.conference, l.dialer, l.listener
""").bindparams(  # noqa: S608 - put together from constants
    bindparam("conferences", type_=ARRAY(Text)),
    bindparam("wires", sorted(RELAYING_WIRES), type_=ARRAY(Text)),
)

_KNOWN: Final = text("""
    SELECT l.conference, l.listener AS peer, l.state
    FROM assignments a JOIN links l ON l.conference = a.conference AND l.dialer = a.cluster
    WHERE a.agent = :agent AND (:everything OR a.conference = ANY (:conferences)) AND l.via = 'agent' AND (
        a.kind = 'event' OR (a.kind = 'media' AND NOT EXISTS (
            SELECT FROM assignments e
            WHERE e.conference = a.conference AND e.cluster = a.cluster AND e.kind = 'event'
        ))
    )
    ORDER BY l.conference, l.listener
""").bindparams(bindparam("conferences", type_=ARRAY(Text)))


async def read(
    connection: AsyncConnection, agent: str, *, conferences: Collection[str] | None = None
) -> dict[str, Share]:
    """Return what the agent has, of these conferences or of all, by conference."""
    asked = _asked(agent, conferences)
    rows = (await connection.execute(_READ, asked)).all()
    relayed: dict[str, list[tuple[str, str]]] = {}
    for link in (await connection.execute(_RELAYED, asked)).all():
        relayed.setdefault(link.conference, []).append((link.dialer, link.listener))
    kinds: dict[str, tuple[str, ...]] = {}
    ordered: dict[str, list[Ordered]] = {}
    ways: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        if row.conference not in kinds:
            ways[row.conference] = ways_from(row.cluster, relayed.get(row.conference, ()))
        kinds[row.conference] = tuple(row.kinds)
        found = ordered.setdefault(row.conference, [])
        if row.peer is None:
            continue
        way = ways[row.conference].get(row.peer)
        relayed_on: dict[str, Any] = {"relays": way is not None, "behind": way or ()}
        if not row.dials:
            found.append(
                Ordered(peer=row.peer, role="listen", orders=0, bridges={}, token=None, **relayed_on)
            )
        elif row.via == "agent" and row.orders > 0 and row.bridges is not None and row.token is not None:
            found.append(
                Ordered(
                    peer=row.peer,
                    role="dial",
                    orders=row.orders,
                    bridges=row.bridges,
                    token=row.token,
                    **relayed_on,
                )
            )
    return {
        conference: Share(conference=conference, kinds=kinds[conference], links=tuple(found))
        for conference, found in ordered.items()
    }


async def known(
    connection: AsyncConnection, agent: str, *, conferences: Collection[str] | None = None
) -> list[Known]:
    """Return the links that the agent speaks for, of these conferences or of all."""
    rows = await connection.execute(_KNOWN, _asked(agent, conferences))
    return [Known(conference=row.conference, peer=row.peer, state=row.state) for row in rows.all()]


async def report(connection: AsyncConnection, cluster: str, seen: Iterable[LinkState]) -> None:
    """Take over what the agent of `cluster` sees of links that it speaks for."""
    # In one order, so that two of these do not wait for each other.
    for each in sorted(seen, key=lambda link: (link.conference, link.peer)):
        await links.report(
            connection,
            each.conference,
            cluster=cluster,
            peer=each.peer,
            state=each.state,
            via="agent",
            error=each.error,
        )


def ways_from(cluster: str, links: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return, by each neighbour of `cluster`, the other clusters that these links lead to over it, sorted.

    Links that relay make no loop once a plan is carried out. While one is being carried out they may: then a
    cluster counts as behind the neighbour that it is the nearest to.
    """
    near: dict[str, set[str]] = {}
    for one, other in links:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    ways: dict[str, list[str]] = {neighbour: [] for neighbour in sorted(near.get(cluster, ()))}
    reached = {cluster, *ways}
    edge = [(neighbour, neighbour) for neighbour in ways]
    for neighbour, last in edge:  # grows while it is read
        for following in sorted(near[last] - reached):
            reached.add(following)
            ways[neighbour].append(following)
            edge.append((neighbour, following))
    return {neighbour: tuple(sorted(behind)) for neighbour, behind in ways.items()}


def _asked(agent: str, conferences: Collection[str] | None) -> dict[str, Any]:
    return {"agent": agent, "everything": conferences is None, "conferences": list(conferences or ())}
