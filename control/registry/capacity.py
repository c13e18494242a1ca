"""Modules of clusters: how many workers, what they carry. May be told before the cluster registers.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from causeway.api import Capacity
from control.registry.tables import cluster_capacity, clusters

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["add", "forget_strangers", "forget_untold", "of", "remove"]

_NOW: Final = func.clock_timestamp()


async def add(connection: AsyncConnection, cluster: str, module: str, capacity: Capacity) -> None:
    """Note that the cluster has this module; it need not be registered yet. Idempotent."""
    told = {"count": capacity.count, "capacity_limit": capacity.limit, "told_at": _NOW}
    row = insert(cluster_capacity).values(cluster=cluster, module=module, **told)
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[cluster_capacity.c.cluster, cluster_capacity.c.module], set_=told
        )
    )


async def remove(connection: AsyncConnection, cluster: str, module: str) -> None:
    """Note that the cluster no longer has this module. Idempotent."""
    await connection.execute(
        delete(cluster_capacity).where(
            cluster_capacity.c.cluster == cluster, cluster_capacity.c.module == module
        )
    )


async def of(connection: AsyncConnection, cluster: str | None) -> dict[str, dict[str, Capacity]]:
    """Return {cluster: {module: capacity}}, of one cluster or of all; modules in order."""
    query = select(
        cluster_capacity.c.cluster,
        cluster_capacity.c.module,
        cluster_capacity.c.count,
        cluster_capacity.c.capacity_limit,
    ).order_by(cluster_capacity.c.cluster, cluster_capacity.c.module)
    if cluster is not None:
        query = query.where(cluster_capacity.c.cluster == cluster)
    found: dict[str, dict[str, Capacity]] = {}
    for row in await connection.execute(query):
        found.setdefault(row[0], {})[row[1]] = Capacity(count=row[2], limit=row[3])
    return found


async def forget_untold(connection: AsyncConnection, cluster: str, *, within: float) -> None:
    """Forget the cluster's modules that were not told within the last seconds."""
    await connection.execute(
        delete(cluster_capacity).where(
            cluster_capacity.c.cluster == cluster,
            cluster_capacity.c.told_at < _NOW - timedelta(seconds=within),
        )
    )


async def forget_strangers(connection: AsyncConnection, *, after: float) -> int:
    """Forget modules of clusters that for `after` seconds have been gone, or never registered.

    Return how many. A cluster that registers tells its modules again.
    """
    gone_for_long = _NOW - timedelta(seconds=after)
    kept = select(clusters.c.id).where(
        or_(clusters.c.state == "online", clusters.c.state_since > gone_for_long)
    )
    gone = await connection.execute(
        delete(cluster_capacity).where(
            cluster_capacity.c.told_at < gone_for_long, cluster_capacity.c.cluster.not_in(kept)
        )
    )
    return gone.rowcount
