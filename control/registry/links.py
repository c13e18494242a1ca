"""Links: the order to the dialing cluster, and what clusters report about it.

An order is noted before it is given and marked with an id: if, while it is under way, the link changes (a
bridge restarted, a report came), the id is gone and the order's outcome no longer counts.
All functions work inside the caller's transaction.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import ColumnElement, and_, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from control.registry import work
from control.registry.tables import clusters, links, placements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["begin_order", "forget", "order_failed", "order_taken", "report", "want"]

_NOW: Final = func.clock_timestamp()


async def want(connection: AsyncConnection, cluster: str, *, conference: str | None = None) -> None:
    """Want every link of the cluster anew, or those of one conference; orders under way no longer count."""
    concerned = or_(links.c.dialer == cluster, links.c.listener == cluster)
    if conference is not None:
        concerned = and_(concerned, links.c.conference == conference)
    await connection.execute(
        update(links)
        .where(concerned)
        .values(state="wanted", since=_NOW, attempts=0, retry_at=None, error=None, order_id=None)
    )


async def begin_order(
    connection: AsyncConnection, conference: str, *, dialer: str, listener: str
) -> uuid.UUID | None:
    """Note that the dialer is about to be told; return the order's id, None if the link is up by now.

    Makes the link if there is none.
    """
    order = uuid.uuid4()
    row = insert(links).values(conference=conference, dialer=dialer, listener=listener, order_id=order)
    noted = await connection.execute(
        row.on_conflict_do_update(
            index_elements=[links.c.conference, links.c.dialer, links.c.listener],
            set_={"order_id": order, "state": "wanted", "since": _NOW},
            where=links.c.state != "up",
        ).returning(links.c.order_id)
    )
    return None if noted.one_or_none() is None else order


async def order_taken(
    connection: AsyncConnection, conference: str, order: uuid.UUID, *, dialer: str, listener: str
) -> None:
    """Note that the dialer took the order, unless the link has moved on since."""
    await connection.execute(
        update(links)
        .where(_is(conference, dialer, listener), links.c.order_id == order, links.c.state == "wanted")
        .values(state="requested", since=_NOW, order_id=None, retry_at=None, error=None)
    )


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
    """Note that the order was not taken; it is given again in `delay` seconds."""
    await connection.execute(
        update(links)
        .where(_is(conference, dialer, listener), links.c.order_id == order, links.c.state == "wanted")
        .values(
            order_id=None,
            attempts=links.c.attempts + 1,
            retry_at=_NOW + timedelta(seconds=delay),
            error=error,
        )
    )


async def forget(connection: AsyncConnection, conference: str, *, dialer: str, listener: str) -> None:
    """Delete the link. Idempotent."""
    await connection.execute(delete(links).where(_is(conference, dialer, listener)))


async def report(
    connection: AsyncConnection,
    conference: str,
    *,
    cluster: str,
    peer: str,
    state: Literal["up", "down"],
) -> None:
    """Take over what `cluster` sees of its link to `peer`; the dialer's may make a link.

    The dialer's word counts. The listener's does only while the dialer never reports: two observers of one
    connection see its end and the next one's begin in different orders.
    """
    await connection.execute(
        update(clusters)
        .where(clusters.c.id == cluster, clusters.c.reports_links.is_(False))
        .values(reports_links=True)
    )
    silent = select(clusters.c.id).where(clusters.c.reports_links.is_(False))
    ours = or_(
        _is(conference, cluster, peer),
        and_(_is(conference, peer, cluster), links.c.dialer.in_(silent)),
    )
    if state == "up":
        # Accepted in any state: should it be older than a wish for the link anew, then the old connection's
        # end is reported next, and mends this.
        change = (
            update(links)
            .where(ours, links.c.state != "up")
            .values(state="up", since=_NOW, order_id=None, attempts=0, retry_at=None, error=None)
        )
        changed = (await connection.execute(change)).rowcount
        changed += (await connection.execute(_adoption(conference, cluster, peer))).rowcount
    else:
        change = (
            update(links)
            .where(ours, links.c.state.in_(("requested", "up")))
            .values(state="down", since=_NOW, order_id=None)
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
    )
    return (
        insert(links)
        .from_select(["conference", "dialer", "listener", "state"], both)
        .on_conflict_do_nothing()
    )


def _is(conference: str, dialer: str, listener: str) -> ColumnElement[bool]:
    return and_(links.c.conference == conference, links.c.dialer == dialer, links.c.listener == listener)
