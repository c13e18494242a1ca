"""Links: where to connect, the order to the dialing side, and what is reported about it.

What is asked of a cluster is noted before and marked with an id: if, while it is under way, the link changes
(a bridge restarted, a report came), the id is gone and the outcome no longer counts.

    want        a row at `wanted`, with nothing in it, for every link whose addresses or rooms changed
    begin_fetch … fetched          the listener's addresses, good for one order
    begin_order … order_taken      by the dialing cluster's driver
    order_by_agent                 by a row alone: agents are told what the rows say

A link `via` an agent is what that agent says it is; what the clusters at its ends see of it is not asked.
All functions work inside the caller's transaction.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from control.registry import work
from control.registry.tables import assignments, clusters, links, placements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "Order",
    "begin_fetch",
    "begin_order",
    "fetched",
    "forget",
    "how",
    "order_by_agent",
    "order_failed",
    "order_taken",
    "report",
    "stop_failed",
    "want",
]

_NOW: Final = func.clock_timestamp()


async def want(connection: AsyncConnection, cluster: str, *, conference: str | None = None) -> None:
    """Want every link of the cluster anew, or those of one conference; orders under way no longer count.

    Agents keep to their last order until there is a newer one: what still works goes on working.
    """
    concerned = or_(links.c.dialer == cluster, links.c.listener == cluster)
    if conference is not None:
        concerned = and_(concerned, links.c.conference == conference)
    await connection.execute(
        update(links)
        .where(concerned)
        .values(
            state="wanted",
            since=_NOW,
            attempts=0,
            retry_at=None,
            error=None,
            order_id=None,
            bridges=case((links.c.via == "agent", links.c.bridges), else_=null()),
            bridges_at=None,
        )
    )


# --- where to connect -------------------------------------------------------------------------


async def begin_fetch(
    connection: AsyncConnection, conference: str, *, dialer: str, listener: str
) -> uuid.UUID | None:
    """Note that the listener is about to be asked; return the question's id, None if the link is up by now.

    Makes the link if there is none. What it was told last stays until there is something newer.
    """
    order = uuid.uuid4()
    row = insert(links).values(conference=conference, dialer=dialer, listener=listener, order_id=order)
    noted = await connection.execute(
        row.on_conflict_do_update(
            index_elements=[links.c.conference, links.c.dialer, links.c.listener],
            set_={
                "order_id": order,
                "state": "wanted",
                "since": case((links.c.state == "wanted", links.c.since), else_=_NOW),
            },
            where=links.c.state != "up",
        ).returning(links.c.order_id)
    )
    return None if noted.one_or_none() is None else order


async def fetched(
    connection: AsyncConnection,
    conference: str,
    order: uuid.UUID,
    *,
    dialer: str,
    listener: str,
    bridges: dict[str, Any],
) -> bool:
    """Keep the addresses, `{event: {host, port, fingerprint?}, media: …}`, unless the link has moved on."""
    kept = await connection.execute(
        update(links)
        .where(_is(conference, dialer, listener), links.c.order_id == order, links.c.state == "wanted")
        .values(bridges=bridges, bridges_at=_NOW, order_id=None, retry_at=None)
    )
    return kept.rowcount > 0


# --- the order --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order about to be given, and the addresses that go with it, as they were kept."""

    id: uuid.UUID
    bridges: dict[str, Any]


async def begin_order(
    connection: AsyncConnection, conference: str, *, dialer: str, listener: str
) -> Order | None:
    """Note that the dialing cluster is about to be told, and use the addresses up.

    None: there are no fresh ones, or the link has moved on.
    """
    order = uuid.uuid4()
    noted = await connection.execute(
        update(links)
        .where(_ready(conference, dialer, listener))
        .values(order_id=order, via="driver", bridges_at=None, orders=links.c.orders + 1)
        .returning(links.c.bridges)
    )
    row = noted.one_or_none()
    return None if row is None else Order(id=order, bridges=row.bridges)


async def order_taken(
    connection: AsyncConnection, conference: str, order: uuid.UUID, *, dialer: str, listener: str
) -> None:
    """Note that the dialer took the order, unless the link has moved on since."""
    await connection.execute(
        update(links)
        .where(_is(conference, dialer, listener), links.c.order_id == order, links.c.state == "wanted")
        .values(state="requested", since=_NOW, order_id=None, retry_at=None, error=None)
    )


async def order_by_agent(connection: AsyncConnection, conference: str, *, dialer: str, listener: str) -> bool:
    """Have the dialer's agent connect to the addresses kept; it is told what the row says.

    False: there are no fresh ones, or the link has moved on.
    """
    ordered = await connection.execute(
        update(links)
        .where(_ready(conference, dialer, listener))
        .values(
            via="agent",
            state="requested",
            since=_NOW,
            orders=links.c.orders + 1,
            bridges_at=None,
            order_id=None,
            retry_at=None,
            error=None,
        )
    )
    return ordered.rowcount > 0


async def order_failed(
    connection: AsyncConnection,
    conference: str,
    order: uuid.UUID,
    *,
    dialer: str,
    listener: str,
    error: str,
    delay: float,
) -> None:
    """Note that a question or an order came to nothing; it begins anew in `delay` seconds."""
    await connection.execute(
        update(links)
        .where(_is(conference, dialer, listener), links.c.order_id == order, links.c.state == "wanted")
        .values(order_id=None, bridges_at=None, **_failure(error, delay))
    )


async def stop_failed(
    connection: AsyncConnection, conference: str, *, dialer: str, listener: str, error: str, delay: float
) -> None:
    """Note that the dialer would not end the link; it is told again in `delay` seconds."""
    await connection.execute(
        update(links).where(_is(conference, dialer, listener)).values(**_failure(error, delay))
    )


async def how(
    connection: AsyncConnection, conference: str, *, dialer: str, listener: str
) -> tuple[Literal["driver", "agent"], int] | None:
    """Return by whom the link was ordered and how often, None if there is none."""
    row = (
        await connection.execute(select(links.c.via, links.c.orders).where(_is(conference, dialer, listener)))
    ).one_or_none()
    return None if row is None else (cast("Any", row.via), int(row.orders))


async def forget(connection: AsyncConnection, conference: str, *, dialer: str, listener: str) -> None:
    """Delete the link. Idempotent."""
    await connection.execute(delete(links).where(_is(conference, dialer, listener)))


# --- what is reported -------------------------------------------------------------------------


async def report(
    connection: AsyncConnection,
    conference: str,
    *,
    cluster: str,
    peer: str,
    state: Literal["up", "down"],
    via: Literal["driver", "agent"] = "driver",
    error: str | None = None,
) -> None:
    """Take over what `cluster`, or with `via` its agent, sees of its link to `peer`.

    The dialer's word counts. The listener's does only while the dialing cluster never reports: two observers
    of one connection see its end and the next one's begin in different orders. A dialing cluster's word may
    make a link; an agent's may not: it has what it was told.
    """
    ours = _is(conference, cluster, peer)
    if via == "driver":
        await connection.execute(
            update(clusters)
            .where(clusters.c.id == cluster, clusters.c.reports_links.is_(False))
            .values(reports_links=True)
        )
        silent = select(clusters.c.id).where(clusters.c.reports_links.is_(False))
        ours = or_(ours, and_(_is(conference, peer, cluster), links.c.dialer.in_(silent)))
    if state == "up":
        # Accepted in any state: should it be older than a wish for the link anew, then the old connection's
        # end is reported next, and mends this.
        change = (
            update(links)
            .where(ours, links.c.via == via, links.c.state != "up")
            .values(state="up", since=_NOW, order_id=None, attempts=0, retry_at=None, error=None)
        )
        changed = (await connection.execute(change)).rowcount
        if via == "driver":
            changed += (await connection.execute(_adoption(conference, cluster, peer))).rowcount
    else:
        change = (
            update(links)
            .where(ours, links.c.via == via, links.c.state.in_(("requested", "up")))
            .values(state="down", since=_NOW, order_id=None, error=error)
        )
        changed = (await connection.execute(change)).rowcount
    if changed > 0:
        await work.mark(connection, conference)


def _adoption(conference: str, dialer: str, listener: str) -> Insert:
    """Return the statement that makes a link which is up and unknown, as after a dialer's lost lease."""
    later, earlier = placements.alias("later"), placements.alias("earlier")
    both = select(later.c.conference, later.c.cluster, earlier.c.cluster, literal("up").label("state")).where(
        later.c.conference == conference,
        later.c.cluster == dialer,
        earlier.c.conference == conference,
        earlier.c.cluster == listener,
        later.c.ordinal > earlier.c.ordinal,
        # Who is served by an agent has what that was told; its room may just be hearing the last of it.
        ~exists().where(
            assignments.c.conference == conference,
            assignments.c.cluster == dialer,
            assignments.c.kind == "event",
        ),
    )
    return (
        insert(links)
        .from_select(["conference", "dialer", "listener", "state"], both)
        .on_conflict_do_nothing()
    )


def _ready(conference: str, dialer: str, listener: str) -> ColumnElement[bool]:
    """Return the condition that the link is to be ordered, and it is known where to."""
    return and_(
        _is(conference, dialer, listener),
        links.c.state == "wanted",
        links.c.bridges.is_not(None),
        links.c.bridges_at.is_not(None),
    )


def _failure(error: str, delay: float) -> dict[str, Any]:
    return {
        "attempts": links.c.attempts + 1,
        "retry_at": _NOW + timedelta(seconds=delay),
        "error": error,
    }


def _is(conference: str, dialer: str, listener: str) -> ColumnElement[bool]:
    return and_(links.c.conference == conference, links.c.dialer == dialer, links.c.listener == listener)
