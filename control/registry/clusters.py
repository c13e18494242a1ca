"""Clusters: registration, lease, load, capacity, and what becomes of their rooms when they change or go.

A registration is fenced by its epoch. The same instance that registers again while its lease holds keeps the
epoch (PUT is idempotent); a new instance, or one whose lease ran out, gets the next one, so that whatever
a former holder or a delayed message still says is recognised. The row of a cluster that left is kept: its
epoch must not start again.

All functions work inside the caller's transaction. Those that take an epoch raise ClusterUnknownError when
the cluster holds no lease, and StaleEpochError when it is somebody else's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec
from sqlalchemy import ColumnElement, and_, case, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert

from causeway.api import BridgeAddress, ClusterView, Load
from control.errors import ClusterUnknownError, StaleEpochError
from control.registry import links, work
from control.registry.tables import cluster_capacity, clusters, participants, placements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import ClusterRegistration

__all__ = [
    "ClusterAccess",
    "access",
    "add_capacity",
    "grace",
    "heartbeat",
    "list_all",
    "online",
    "register",
    "remove_capacity",
    "require_lease",
    "show",
    "sweep",
    "unregister",
]

_NOW: Final = func.clock_timestamp()
"""Not now(): a transaction may have waited for a lock since it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """What is needed to talk to a cluster. `sealed_key` is sealed for `("clusters.service_key", id)`."""

    id: str
    region: str
    driver: str
    rest_url: str
    service_id: str
    sealed_key: bytes = field(repr=False)
    instance: str
    has_fingerprints: bool
    """It registered a bridge with a fingerprint, so it understands fingerprints of others."""


def online() -> ColumnElement[bool]:
    """Return the condition that a cluster's registration holds."""
    return and_(clusters.c.state == "online", clusters.c.lease_expires_at > _NOW)


async def register(
    connection: AsyncConnection,
    cluster: str,
    request: ClusterRegistration,
    *,
    sealed_key: bytes,
    ttl: float,
) -> int:
    """Write the registration, start its lease of `ttl` seconds, and return its epoch."""
    values: dict[str, Any] = {
        "region": request.region,
        "driver": request.driver,
        "rest_url": request.rest_url,
        "service_id": request.service_id,
        "service_key": sealed_key,
        "instance": request.instance,
        "event_bridge": _bridge_json(request.event_bridge),
        "media_bridge": _bridge_json(request.media_bridge),
        "state": "online",
        "lease_expires_at": _NOW + timedelta(seconds=ttl),
        "last_seen_at": _NOW,
        "unregistered_at": None,
    }
    pinned = _has_fingerprint(values["event_bridge"]) or _has_fingerprint(values["media_bridge"])
    fresh = insert(clusters).values(id=cluster, epoch=1, reports_links=pinned, **values)
    inserted = await connection.execute(fresh.on_conflict_do_nothing().returning(clusters.c.epoch))
    if inserted.one_or_none() is not None:
        return 1
    old = (
        await connection.execute(
            select(
                clusters.c.epoch,
                clusters.c.instance,
                clusters.c.event_bridge,
                clusters.c.media_bridge,
                online().label("live"),
            )
            .where(clusters.c.id == cluster)
            .with_for_update(key_share=True)
        )
    ).one()
    restarted = old.instance != request.instance
    epoch = int(old.epoch) if old.live and not restarted else int(old.epoch) + 1
    # The same instance may already have shown by a report that it reports links; a new one starts afresh.
    reports = literal(pinned) if pinned or restarted else clusters.c.reports_links
    await connection.execute(
        update(clusters).where(clusters.c.id == cluster).values(epoch=epoch, reports_links=reports, **values)
    )
    moved = (old.event_bridge, old.media_bridge) != (values["event_bridge"], values["media_bridge"])
    if restarted:
        await _rooms_are_gone(connection, cluster)
    elif not old.live:
        await _rooms_are_back(connection, cluster)
    if restarted or moved or not old.live:
        await links.want(connection, cluster)
        await work.mark_cluster(connection, cluster)
    return epoch


async def heartbeat(connection: AsyncConnection, cluster: str, *, epoch: int, load: Load, ttl: float) -> None:
    """Renew the lease for `ttl` seconds from now and keep the load. One statement when all is well."""
    beaten = await connection.execute(
        update(clusters)
        .where(clusters.c.id == cluster, clusters.c.epoch == epoch, online())
        .values(
            lease_expires_at=_NOW + timedelta(seconds=ttl),
            last_seen_at=_NOW,
            load_participants=load.participants,
            load_streams=load.streams,
            load_cpu=load.cpu,
        )
    )
    if beaten.rowcount == 0:
        await require_lease(connection, cluster, epoch)


async def require_lease(connection: AsyncConnection, cluster: str, epoch: int) -> None:
    """Make sure that `epoch` is the cluster's and its lease holds, until this transaction ends."""
    row = (
        await connection.execute(
            select(clusters.c.epoch, online().label("live"))
            .where(clusters.c.id == cluster)
            .with_for_update(read=True)
        )
    ).one_or_none()
    if row is None or (row.epoch == epoch and not row.live):
        raise ClusterUnknownError(
            f"cluster {cluster} holds no lease; register again and report everything anew"
        )
    if row.epoch != epoch:
        raise StaleEpochError(f"epoch {epoch} of cluster {cluster} is over")


async def unregister(connection: AsyncConnection, cluster: str, *, epoch: int | None) -> None:
    """End the registration; with an `epoch`, only if it is still the current one. Idempotent."""
    row = (
        await connection.execute(
            select(clusters.c.epoch, clusters.c.state)
            .where(clusters.c.id == cluster)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None or row.state == "unregistered":
        return
    if epoch is not None and row.epoch != epoch:
        raise StaleEpochError(f"epoch {epoch} of cluster {cluster} is over")
    await connection.execute(
        update(clusters)
        .where(clusters.c.id == cluster)
        .values(state="unregistered", unregistered_at=_NOW, lease_expires_at=_NOW)
    )
    await _lose(connection, cluster)


async def sweep(connection: AsyncConnection) -> str | None:
    """Write off one cluster whose lease ran out, with everybody on it; return its id, None without one."""
    expired = (
        select(clusters.c.id)
        .where(clusters.c.state == "online", clusters.c.lease_expires_at <= _NOW)
        .order_by(clusters.c.lease_expires_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    cluster = (await connection.scalars(expired)).one_or_none()
    if cluster is not None:
        await connection.execute(update(clusters).where(clusters.c.id == cluster).values(state="lost"))
        await _lose(connection, cluster)
    return cluster


async def grace(connection: AsyncConnection, *, ttl: float) -> None:
    """Let every lease that nobody has written off hold for `ttl` seconds from now, at least.

    For the start of the service: leases that ran out while nobody could renew them say nothing.
    """
    until = _NOW + timedelta(seconds=ttl)
    await connection.execute(
        update(clusters)
        .where(clusters.c.state == "online", clusters.c.lease_expires_at < until)
        .values(lease_expires_at=until)
    )


async def add_capacity(connection: AsyncConnection, cluster: str, module: str) -> None:
    """Note that the cluster has this module; it need not be registered yet. Idempotent."""
    await connection.execute(
        insert(cluster_capacity).values(cluster=cluster, module=module).on_conflict_do_nothing()
    )


async def remove_capacity(connection: AsyncConnection, cluster: str, module: str) -> None:
    """Note that the cluster no longer has this module. Idempotent."""
    await connection.execute(
        delete(cluster_capacity).where(
            cluster_capacity.c.cluster == cluster, cluster_capacity.c.module == module
        )
    )


async def access(connection: AsyncConnection, cluster: str) -> ClusterAccess | None:
    """Return how to talk to the cluster, None if its registration does not hold."""
    row = (
        await connection.execute(
            select(
                clusters.c.id,
                clusters.c.region,
                clusters.c.driver,
                clusters.c.rest_url,
                clusters.c.service_id,
                clusters.c.service_key,
                clusters.c.instance,
                clusters.c.event_bridge,
                clusters.c.media_bridge,
            ).where(clusters.c.id == cluster, online())
        )
    ).one_or_none()
    if row is None:
        return None
    return ClusterAccess(
        id=row.id,
        region=row.region,
        driver=row.driver,
        rest_url=row.rest_url,
        service_id=row.service_id,
        sealed_key=row.service_key,
        instance=row.instance,
        has_fingerprints=_has_fingerprint(row.event_bridge) or _has_fingerprint(row.media_bridge),
    )


async def show(connection: AsyncConnection, cluster: str) -> ClusterView:
    """Return the cluster as operators see it; raises ClusterUnknownError if it never registered."""
    found = await _views(connection, clusters.c.id == cluster)
    if not found:
        raise ClusterUnknownError(f"no cluster {cluster}")
    return found[0]


async def list_all(connection: AsyncConnection) -> list[ClusterView]:
    """Return every cluster that ever registered, by id."""
    return await _views(connection, None)


async def _views(connection: AsyncConnection, condition: ColumnElement[bool] | None) -> list[ClusterView]:
    modules = (
        select(func.array_agg(aggregate_order_by(cluster_capacity.c.module, cluster_capacity.c.module)))
        .where(cluster_capacity.c.cluster == clusters.c.id)
        .scalar_subquery()
    )
    state = case((clusters.c.state == "unregistered", "unregistered"), (online(), "online"), else_="lost")
    query = select(
        clusters.c.id,
        clusters.c.region,
        clusters.c.driver,
        clusters.c.rest_url,
        clusters.c.epoch,
        clusters.c.last_seen_at,
        clusters.c.lease_expires_at,
        clusters.c.event_bridge,
        clusters.c.media_bridge,
        clusters.c.load_participants,
        clusters.c.load_streams,
        clusters.c.load_cpu,
        state.label("shown"),
        modules.label("modules"),
    ).order_by(clusters.c.id)
    if condition is not None:
        query = query.where(condition)
    return [
        ClusterView(
            id=row.id,
            region=row.region,
            driver=row.driver,
            state=cast("Literal['online', 'lost', 'unregistered']", row.shown),
            rest_url=row.rest_url,
            modules=row.modules or [],
            load=Load(participants=row.load_participants, streams=row.load_streams, cpu=row.load_cpu),
            epoch=row.epoch,
            last_seen_at=row.last_seen_at,
            lease_expires_at=row.lease_expires_at,
            event_bridge=_bridge(row.event_bridge),
            media_bridge=_bridge(row.media_bridge),
        )
        for row in (await connection.execute(query)).all()
    ]


# --- what a change means for the conferences --------------------------------------------------


async def _lose(connection: AsyncConnection, cluster: str) -> None:
    """Write off everything on a cluster that is out of reach; its rooms may or may not still exist."""
    await connection.execute(
        update(placements)
        .where(placements.c.cluster == cluster)
        .values(state="lost", token=None, attempts=0, retry_at=None, error=None)
    )
    await connection.execute(delete(participants).where(participants.c.cluster == cluster))
    await links.want(connection, cluster)
    await work.mark_cluster(connection, cluster)


async def _rooms_are_gone(connection: AsyncConnection, cluster: str) -> None:
    """Want every room again: the cluster started anew and knows none."""
    await connection.execute(
        update(placements)
        .where(placements.c.cluster == cluster)
        .values(state="wanted", room=None, token=None, attempts=0, retry_at=None, error=None)
    )
    await connection.execute(delete(participants).where(participants.c.cluster == cluster))


async def _rooms_are_back(connection: AsyncConnection, cluster: str) -> None:
    """Take the rooms of a returned instance as they were; it reports tokens and participants again."""
    await connection.execute(
        update(placements)
        .where(placements.c.cluster == cluster, placements.c.state == "lost")
        .values(state=case((placements.c.room.is_(None), "wanted"), else_="ready"))
    )


def _bridge_json(address: BridgeAddress | None) -> dict[str, Any] | None:
    return None if address is None else cast("dict[str, Any]", msgspec.to_builtins(address))


def _bridge(stored: Any) -> BridgeAddress | None:
    return None if stored is None else msgspec.convert(stored, BridgeAddress)


def _has_fingerprint(stored: dict[str, Any] | None) -> bool:
    return stored is not None and "fingerprint" in stored
