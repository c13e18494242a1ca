"""Clusters: whose the id is, the lease, and what becomes of their rooms when they change or go.

A registration is fenced by its epoch. The same start of a deployment that registers again while its lease
holds keeps the epoch (PUT is idempotent); its next start, another deployment, or one whose lease ran out gets
the next epoch, so that whatever a former holder or a delayed message still says is recognised. Another
deployment gets the id only when nobody holds it. The row of a cluster that left is kept: its epoch must not
start again.

All functions work inside the caller's transaction. Those that take an epoch raise ClusterUnknownError when
the cluster holds no lease, and StaleEpochError when it is somebody else's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from sqlalchemy import ColumnElement, and_, case, delete, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import PortalAddress
from control import lifecycle
from control.errors import ClusterClaimedError, ClusterUnknownError, StaleEpochError
from control.registry import audit, displaced, links, report_order, work
from control.registry.tables import clusters, participants, placements

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import ClusterRegistration

__all__ = [
    "ClusterAccess",
    "Registered",
    "access",
    "accesses",
    "facts_of",
    "grace",
    "heartbeat",
    "live_epoch",
    "lose",
    "online",
    "refusal",
    "register",
    "require_lease",
    "return_rooms",
    "run_out",
    "settings_of",
    "subject",
    "sweep",
    "unregister",
]

_NOW: Final = func.clock_timestamp()
"""Not now(): a transaction may have waited for a lock since it began."""
_RUN_OUT: Final = and_(
    clusters.c.state == "online",
    clusters.c.lease_expires_at <= _NOW,
    # Whoever is probed is not to blame when nobody asked: this service may have been away.
    or_(clusters.c.probe_due_at.is_(None), clusters.c.probe_failures > 0),
)
_SHOWN: Final = (
    "region",
    "driver",
    "rest_url",
    "service_id",
    "instance",
    "event_bridge",
    "media_bridge",
    "portal",
    "limit_participants",
    "limit_conferences",
    "limit_bandwidth_in",
    "limit_bandwidth_out",
    "labels",
    "cost",
    "ping_url",
    "latitude",
    "longitude",
)
"""What a registration may change and the audit shows. Never the service key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """What is needed to talk to a cluster. `sealed_key` is sealed for `("clusters.service_key", id)`."""

    id: str
    region: str
    driver: str
    rest_url: str
    service_id: str
    sealed_key: bytes = field(repr=False)
    incarnation: str
    portal: PortalAddress | None
    has_fingerprints: bool
    """It registered a bridge with a fingerprint, so it understands fingerprints of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A registration that was taken. `again`: it was in force already, for the same start."""

    epoch: int
    again: bool


def subject(cluster: str) -> str:
    """Return what the audit calls the cluster."""
    return f"cluster:{cluster}"


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
    actor: str = audit.CONTROL,
    probe_in: float | None = None,
    number: int | None = None,
) -> Registered:
    """Write the registration and start its lease of `ttl` seconds.

    With `probe_in` the cluster is asked for signs of life, first after so many seconds. `number`: of the
    request, among those of this start of the cluster. Raises ClusterClaimedError while another deployment
    holds the id, ReportSupersededError.
    """
    values = _values(request) | {
        "service_key": sealed_key,
        "incarnation": request.incarnation,
        "state": lifecycle.NEXT[None, "register"],
        "lease_expires_at": _NOW + timedelta(seconds=ttl),
        "last_seen_at": _NOW,
        "unregistered_at": None,
        "probe_due_at": None if probe_in is None else _NOW + timedelta(seconds=probe_in),
        "probe_failures": 0,
        "probe_error": None,
    }
    pinned = _has_fingerprint(values["event_bridge"]) or _has_fingerprint(values["media_bridge"])
    fresh = insert(clusters).values(
        id=cluster, epoch=1, reports_links=pinned, state_since=_NOW, state_reason="registered", **values
    )
    inserted = await connection.execute(fresh.on_conflict_do_nothing().returning(clusters.c.epoch))
    if inserted.one_or_none() is not None:
        after = {name: values[name] for name in _SHOWN if values.get(name) is not None}
        await audit.note(connection, actor=actor, subject=subject(cluster), action="registered", after=after)
        await report_order.take_registration(connection, cluster, epoch=1, number=number, same_start=False)
        return Registered(epoch=1, again=False)
    old = (
        await connection.execute(
            select(clusters, online().label("live"), _NOW.label("now"))
            .where(clusters.c.id == cluster)
            .with_for_update(key_share=True)
        )
    ).one()
    taken_over = old.instance != request.instance
    if taken_over and old.live:
        raise ClusterClaimedError(
            f"another deployment holds cluster {cluster}; its last contact was at "
            f"{old.last_seen_at.isoformat(timespec='milliseconds')}",
            retry_after=max(1, round((old.lease_expires_at - old.now).total_seconds())),
        )
    restarted = taken_over or old.incarnation != request.incarnation
    again = old.live and not restarted
    epoch = int(old.epoch) if again else int(old.epoch) + 1
    await report_order.take_registration(
        connection, cluster, epoch=epoch, number=number, same_start=not restarted
    )
    # The same start may already have shown by a report that it reports links; a new one starts afresh.
    values["reports_links"] = literal(pinned) if pinned or restarted else clusters.c.reports_links
    if not again:
        values |= {"state_since": _NOW, "state_reason": _reason(old, taken_over=taken_over)}
    await connection.execute(update(clusters).where(clusters.c.id == cluster).values(epoch=epoch, **values))
    await _note_change(connection, cluster, old, values, actor=actor, taken_over=taken_over)
    bridges = (old.event_bridge, old.media_bridge)
    moved = bridges != (values["event_bridge"], values["media_bridge"])
    if restarted:
        await _rooms_are_gone(connection, cluster)
    elif not old.live:
        await return_rooms(connection, cluster)
    if not again or moved:
        await links.want(connection, cluster)
        await work.mark_cluster(connection, cluster)
    return Registered(epoch=epoch, again=again)


def _values(request: ClusterRegistration) -> dict[str, Any]:
    """Return the columns that a registration sets; what it may leave out and does leave out is missing."""
    values: dict[str, Any] = {
        "region": request.region,
        "driver": request.driver,
        "rest_url": request.rest_url,
        "service_id": request.service_id,
        "instance": request.instance,
        "event_bridge": _json(request.event_bridge),
        "media_bridge": _json(request.media_bridge),
        "portal": _json(request.portal),
    }
    return values | settings_of(request)


def settings_of(request: Any) -> dict[str, Any]:
    """Return the columns of what operators, too, may set; only those that the request names."""
    values: dict[str, Any] = {}
    if request.limits is not None:
        for name in ("participants", "conferences", "bandwidth_in", "bandwidth_out"):
            values[f"limit_{name}"] = getattr(request.limits, name)
    for name in ("labels", "cost", "ping_url"):
        if getattr(request, name) is not None:
            values[name] = getattr(request, name)
    if request.location is not None:
        values |= {"latitude": request.location.lat, "longitude": request.location.lon}
    return values


def _reason(old: Row[Any], *, taken_over: bool) -> str:
    if taken_over:
        return "another deployment took the id over"
    return "registered anew after it had gone" if not old.live else "its next start registered"


async def _note_change(
    connection: AsyncConnection,
    cluster: str,
    old: Row[Any],
    values: dict[str, Any],
    *,
    actor: str,
    taken_over: bool,
) -> None:
    after: dict[str, Any] = {name: values[name] for name in _SHOWN if name in values}
    changed = audit.changes({name: getattr(old, name) for name in after}, after)
    if changed is not None:
        await audit.note(
            connection,
            actor=actor,
            subject=subject(cluster),
            action="taken-over" if taken_over else "changed",
            before=changed[0],
            after=changed[1],
        )


async def heartbeat(
    connection: AsyncConnection, cluster: str, *, epoch: int, load: dict[str, Any], ttl: float
) -> None:
    """Renew the lease for `ttl` seconds from now and keep the load, given as columns.

    control.beats sends many of these in one statement; this is for the one that it could not.
    """
    beaten = await connection.execute(
        update(clusters)
        .where(clusters.c.id == cluster, clusters.c.epoch == epoch, online())
        .values(lease_expires_at=_NOW + timedelta(seconds=ttl), last_seen_at=_NOW, **load)
    )
    if beaten.rowcount == 0:
        await require_lease(connection, cluster, epoch)


async def require_lease(connection: AsyncConnection, cluster: str, epoch: int) -> None:
    """Make sure that `epoch` is the cluster's and its lease holds, until this transaction ends."""
    row = await _lease(connection, cluster)
    refused = refusal(cluster, epoch, None if row is None else (row.epoch, row.live))
    if refused is not None:
        raise refused


def refusal(
    cluster: str, epoch: int, known: tuple[int, bool] | None
) -> ClusterUnknownError | StaleEpochError | None:
    """Return why a report with this epoch is refused, None if it is not; `known`: epoch, lease holds."""
    if known is None or known == (epoch, False):
        return ClusterUnknownError(
            f"cluster {cluster} holds no lease; register again and report everything anew"
        )
    return StaleEpochError(f"epoch {epoch} of cluster {cluster} is over") if known[0] != epoch else None


async def live_epoch(connection: AsyncConnection, cluster: str) -> int | None:
    """Return the cluster's epoch while its lease holds, and keep it until this transaction ends."""
    row = await _lease(connection, cluster)
    return int(row.epoch) if row is not None and row.live else None


async def _lease(connection: AsyncConnection, cluster: str) -> Any:
    return (
        await connection.execute(
            select(clusters.c.epoch, online().label("live"))
            .where(clusters.c.id == cluster)
            .with_for_update(read=True)
        )
    ).one_or_none()


async def unregister(
    connection: AsyncConnection, cluster: str, *, epoch: int | None, actor: str = audit.CONTROL
) -> None:
    """End the registration; with an `epoch`, only if it is still the current one. Idempotent."""
    row = (
        await connection.execute(
            select(clusters.c.epoch, clusters.c.state)
            .where(clusters.c.id == cluster)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None or (row.state, "unregister") not in lifecycle.NEXT:
        return
    if epoch is not None and row.epoch != epoch:
        raise StaleEpochError(f"epoch {epoch} of cluster {cluster} is over")
    await connection.execute(
        update(clusters)
        .where(clusters.c.id == cluster)
        .values(
            state="unregistered",
            state_since=_NOW,
            state_reason="it was unregistered",
            unregistered_at=_NOW,
            lease_expires_at=_NOW,
            probe_due_at=None,
        )
    )
    await audit.note(connection, actor=actor, subject=subject(cluster), action="unregistered")
    await lose(connection, cluster)


async def run_out(connection: AsyncConnection) -> bool:
    """Return whether there is a cluster for `sweep`. One statement."""
    return bool(await connection.scalar(select(exists().where(_RUN_OUT))))


async def sweep(connection: AsyncConnection) -> str | None:
    """Write off one cluster whose lease ran out, with everybody on it; return its id, None without one."""
    expired = (
        select(clusters, _NOW.label("now"))
        .where(_RUN_OUT)
        .order_by(clusters.c.lease_expires_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    row = (await connection.execute(expired)).one_or_none()
    if row is None:
        return None
    seen = lifecycle.shown(facts_of(row), row.now)
    await connection.execute(
        update(clusters)
        .where(clusters.c.id == row.id)
        .values(
            state=lifecycle.NEXT["online", "expire"], state_since=seen.since, state_reason=seen.reason[:500]
        )
    )
    await lose(connection, row.id, keep_tokens=row.probe_due_at is not None)
    return str(row.id)


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


def facts_of(row: Any) -> lifecycle.Facts:
    """Return what lifecycle wants to know, from a row of clusters."""
    return lifecycle.Facts(
        state=cast("lifecycle.StoredState", row.state),
        since=row.state_since,
        reason=row.state_reason,
        last_seen_at=row.last_seen_at,
        lease_expires_at=row.lease_expires_at,
        probed=row.probe_due_at is not None,
        probe_failures=row.probe_failures,
        probe_error=row.probe_error,
        drain_since=row.drain_since,
        drain_reason=row.drain_reason,
    )


async def access(
    connection: AsyncConnection, cluster: str, *, even_lost: bool = False
) -> ClusterAccess | None:
    """Return how to talk to the cluster, None if its registration does not hold.

    `even_lost`: None only for one that never registered or has unregistered.
    """
    found = await accesses(connection, [cluster], even_lost=even_lost)
    return found.get(cluster)


async def accesses(
    connection: AsyncConnection, names: Collection[str], *, even_lost: bool = False
) -> dict[str, ClusterAccess]:
    """Return the same for many clusters, by id, without those that there is nothing to say of."""
    rows = await connection.execute(
        select(
            clusters.c.id,
            clusters.c.region,
            clusters.c.driver,
            clusters.c.rest_url,
            clusters.c.service_id,
            clusters.c.service_key,
            clusters.c.incarnation,
            clusters.c.event_bridge,
            clusters.c.media_bridge,
            clusters.c.portal,
        ).where(clusters.c.id.in_(names), clusters.c.state != "unregistered" if even_lost else online())
    )
    return {row.id: _access(row) for row in rows}


def _access(row: Any) -> ClusterAccess:
    return ClusterAccess(
        id=row.id,
        region=row.region,
        driver=row.driver,
        rest_url=row.rest_url,
        service_id=row.service_id,
        sealed_key=row.service_key,
        incarnation=row.incarnation,
        portal=None if row.portal is None else msgspec.convert(row.portal, PortalAddress),
        has_fingerprints=_has_fingerprint(row.event_bridge) or _has_fingerprint(row.media_bridge),
    )


# --- what a change means for the conferences --------------------------------------------------


async def lose(connection: AsyncConnection, cluster: str, *, keep_tokens: bool = False) -> None:
    """Write off everything on a cluster that is out of reach; its rooms may or may not still exist.

    `keep_tokens`: the cluster tells a room's token once only, so the known one is worth trying later.
    """
    values: dict[str, Any] = {"state": "lost", "attempts": 0, "retry_at": None, "error": None}
    if not keep_tokens:
        values["token"] = None
    await connection.execute(update(placements).where(placements.c.cluster == cluster).values(**values))
    await displaced.remember(connection, cluster)
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
    await displaced.remember(connection, cluster)
    await connection.execute(delete(participants).where(participants.c.cluster == cluster))


async def return_rooms(connection: AsyncConnection, cluster: str) -> None:
    """Take the rooms of a start that is back as they were; it reports tokens and participants again.

    Until it has, nobody seems to be there: the time after which a deserted room is removed begins anew.
    """
    await connection.execute(
        update(placements)
        .where(placements.c.cluster == cluster, placements.c.state == "lost")
        .values(
            state=case((placements.c.room.is_(None), "wanted"), else_="ready"),
            empty_since=_NOW,
            attempts=0,
            retry_at=None,
            error=None,
        )
    )
    await displaced.returned(connection, cluster)


def _json(value: msgspec.Struct | None) -> dict[str, Any] | None:
    return None if value is None else cast("dict[str, Any]", msgspec.to_builtins(value))


def _has_fingerprint(stored: dict[str, Any] | None) -> bool:
    return stored is not None and "fingerprint" in stored
