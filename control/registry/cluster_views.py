"""Clusters as operators see them, and what operators set: settings, drain, block.

All functions work inside the caller's transaction; `show` and `list_all` read several tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import func, select, update

from causeway.api import (
    BlockView,
    BridgeAddress,
    ClusterView,
    DrainView,
    Limits,
    Load,
    Location,
    PortalAddress,
)
from control import lifecycle
from control.errors import ClusterUnknownError
from control.registry import audit, capacity
from control.registry.clusters import facts_of, settings_of, subject
from control.registry.tables import clusters, participants, placements

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import BlockRequest, ClusterPatch, DrainRequest

__all__ = ["block", "drain", "list_all", "patch", "settings", "show", "unblock", "undrain"]

_NOW: Final = func.clock_timestamp()


async def show(connection: AsyncConnection, cluster: str) -> ClusterView:
    """Return the cluster as operators see it; raises ClusterUnknownError if it never registered."""
    found = await _views(connection, cluster)
    if not found:
        raise _unknown(cluster)
    return found[0]


async def list_all(connection: AsyncConnection) -> list[ClusterView]:
    """Return every cluster that ever registered, by id."""
    return await _views(connection, None)


def settings(view: ClusterView) -> dict[str, Any]:
    """Return the part of a view that `patch` can change: what an entity tag is made of."""
    return _settings(view.limits, view.labels, view.cost, view.ping_url, view.location)


async def patch(
    connection: AsyncConnection,
    cluster: str,
    request: ClusterPatch,
    *,
    check: Callable[[object | None], None],
    actor: str,
) -> None:
    """Set what the request names, if `check` accepts what there is. Raises ClusterUnknownError."""
    row = await _locked(connection, cluster)
    if row is None:
        check(None)
        raise _unknown(cluster)
    check(_settings(_limits(row), row.labels, row.cost, row.ping_url, _location(row)))
    values = settings_of(request)
    changed = audit.changes({name: getattr(row, name) for name in values}, values)
    if changed is None:
        return
    await _set(connection, cluster, values)
    await audit.note(
        connection,
        actor=actor,
        subject=subject(cluster),
        action="changed",
        before=changed[0],
        after=changed[1],
    )


async def drain(connection: AsyncConnection, cluster: str, request: DrainRequest, *, actor: str) -> None:
    """Give it no new placements; again: with another deadline or reason. Raises ClusterUnknownError."""
    row = await _required(connection, cluster)
    since = row.drain_since if row.drain_since is not None else _NOW
    await _set(
        connection,
        cluster,
        {"drain_since": since, "drain_deadline": request.deadline, "drain_reason": request.reason},
    )
    await audit.note(
        connection,
        actor=actor,
        subject=subject(cluster),
        action="drained",
        before=None if row.drain_since is None else _drain_json(row.drain_deadline, row.drain_reason),
        after=_drain_json(request.deadline, request.reason),
    )


async def undrain(connection: AsyncConnection, cluster: str, *, actor: str) -> None:
    """Give it placements again. Idempotent. Raises ClusterUnknownError."""
    row = await _required(connection, cluster)
    if row.drain_since is None:
        return
    await _set(connection, cluster, {"drain_since": None, "drain_deadline": None, "drain_reason": None})
    await audit.note(
        connection,
        actor=actor,
        subject=subject(cluster),
        action="undrained",
        before=_drain_json(row.drain_deadline, row.drain_reason),
    )


async def block(connection: AsyncConnection, cluster: str, request: BlockRequest, *, actor: str) -> None:
    """Give it no new clients at all. Raises ClusterUnknownError."""
    row = await _required(connection, cluster)
    if row.blocked_at is not None and row.blocked_reason == request.reason:
        return
    since = row.blocked_at if row.blocked_at is not None else _NOW
    await _set(connection, cluster, {"blocked_at": since, "blocked_reason": request.reason})
    await audit.note(
        connection,
        actor=actor,
        subject=subject(cluster),
        action="blocked",
        after={"reason": request.reason},
    )


async def unblock(connection: AsyncConnection, cluster: str, *, actor: str) -> None:
    """Give it clients again. Idempotent. Raises ClusterUnknownError."""
    row = await _required(connection, cluster)
    if row.blocked_at is None:
        return
    await _set(connection, cluster, {"blocked_at": None, "blocked_reason": None})
    await audit.note(
        connection,
        actor=actor,
        subject=subject(cluster),
        action="unblocked",
        before={"reason": row.blocked_reason},
    )


# --- rows -------------------------------------------------------------------------------------


async def _views(connection: AsyncConnection, cluster: str | None) -> list[ClusterView]:
    left_participants = select(func.count()).where(participants.c.cluster == clusters.c.id).scalar_subquery()
    left_conferences = (
        select(func.count())
        .where(placements.c.cluster == clusters.c.id, placements.c.state != "lost")
        .scalar_subquery()
    )
    query = select(
        clusters,
        _NOW.label("now"),
        left_participants.label("left_participants"),
        left_conferences.label("left_conferences"),
    ).order_by(clusters.c.id)
    if cluster is not None:
        query = query.where(clusters.c.id == cluster)
    modules = await capacity.of(connection, cluster)
    return [_view(row, modules.get(row.id, {})) for row in (await connection.execute(query)).all()]


def _view(row: Any, modules: dict[str, Any]) -> ClusterView:
    seen = lifecycle.shown(facts_of(row), row.now)
    return ClusterView(
        id=row.id,
        region=row.region,
        driver=row.driver,
        state=seen.state,
        state_since=seen.since,
        state_reason=seen.reason,
        rest_url=row.rest_url,
        instance=row.instance,
        modules=list(modules),
        capacity=modules,
        load=Load(
            participants=row.load_participants,
            streams=row.load_streams,
            cpu=row.load_cpu,
            bandwidth_in=row.load_bandwidth_in,
            bandwidth_out=row.load_bandwidth_out,
            modules=row.load_modules,
        ),
        limits=_limits(row),
        labels=row.labels,
        cost=row.cost,
        ping_url=row.ping_url,
        location=_location(row),
        epoch=row.epoch,
        probed=row.probe_due_at is not None,
        last_seen_at=row.last_seen_at,
        lease_expires_at=row.lease_expires_at,
        event_bridge=_stored(row.event_bridge, BridgeAddress),
        media_bridge=_stored(row.media_bridge, BridgeAddress),
        portal=_stored(row.portal, PortalAddress),
        drain=_drain(row),
        block=None
        if row.blocked_at is None
        else BlockView(since=row.blocked_at, reason=row.blocked_reason or ""),
    )


def _drain(row: Any) -> DrainView | None:
    if row.drain_since is None:
        return None
    return DrainView(
        progress=lifecycle.drain_progress(
            participants=row.left_participants,
            conferences=row.left_conferences,
            deadline=row.drain_deadline,
            now=row.now,
        ),
        since=row.drain_since,
        deadline=row.drain_deadline,
        reason=row.drain_reason or "",
        participants=row.left_participants,
        conferences=row.left_conferences,
    )


def _limits(row: Any) -> Limits:
    return Limits(
        participants=row.limit_participants,
        conferences=row.limit_conferences,
        bandwidth_in=row.limit_bandwidth_in,
        bandwidth_out=row.limit_bandwidth_out,
    )


def _location(row: Any) -> Location | None:
    return None if row.latitude is None else Location(lat=row.latitude, lon=row.longitude)


def _settings(*parts: Any) -> dict[str, Any]:
    return dict(zip(("limits", "labels", "cost", "ping_url", "location"), parts, strict=True))


def _stored(value: Any, kind: Any) -> Any:
    return None if value is None else msgspec.convert(value, kind)


def _drain_json(deadline: Any, reason: str | None) -> dict[str, Any]:
    return {"deadline": None if deadline is None else deadline.isoformat(), "reason": reason}


async def _locked(connection: AsyncConnection, cluster: str) -> Any:
    return (
        await connection.execute(
            select(clusters).where(clusters.c.id == cluster).with_for_update(key_share=True)
        )
    ).one_or_none()


async def _required(connection: AsyncConnection, cluster: str) -> Any:
    row = await _locked(connection, cluster)
    if row is None:
        raise _unknown(cluster)
    return row


async def _set(connection: AsyncConnection, cluster: str, values: dict[str, Any]) -> None:
    if values:
        await connection.execute(update(clusters).where(clusters.c.id == cluster).values(**values))


def _unknown(cluster: str) -> ClusterUnknownError:
    return ClusterUnknownError(f"no cluster {cluster}")
