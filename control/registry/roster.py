"""What a join reads: the clusters there are (now and then), and the conferences that are joined (each time).

All functions are one statement each: they are run without a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import func, select

from causeway.api import PortalAddress
from control.lifecycle import Facts as LifeFacts
from control.lifecycle import overdue_at, shown
from control.registry.placement_epoch import epoch_of
from control.registry.tables import cluster_capacity, clusters, roster, seats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.lifecycle import StoredState
    from control.placement.facts import Liveness
    from control.registry.lane import Lane

__all__ = ["Choice", "Joined", "Load", "Placed", "conferences", "loads", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A registered cluster: its facts, and how to talk to it."""

    cluster: str
    region: str
    driver: str
    rest_url: str
    service_id: str
    sealed_key: bytes = field(repr=False)
    incarnation: str
    portal: PortalAddress | None
    modules: frozenset[str]
    labels: dict[str, str]
    cost: float
    location: tuple[float, float] | None
    ping_url: str | None
    max_participants: int | None
    max_conferences: int | None
    draining: bool
    blocked: bool
    liveness: Liveness
    participants: int
    """Reported or reserved."""
    conferences: int
    streams: int
    cpu: float
    bandwidth: float
    """The busier direction, as a share of its limit."""


class Placed(Struct, frozen=True, kw_only=True):
    """The conference on a cluster, as a join needs it."""

    state: str
    room: str | None
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A conference that somebody wants to join."""

    id: str
    state: str
    locked: bool
    participant_limit: int
    template: str
    template_version: int
    placements: dict[str, Placed]
    """By cluster, without lost ones."""


class Load(NamedTuple):
    """What changes of a cluster from moment to moment; the fields are those of Choice."""

    cluster: str
    liveness: Liveness
    participants: int
    conferences: int
    streams: int
    cpu: float
    bandwidth: float


async def read(connection: AsyncConnection) -> tuple[int, list[Choice]]:
    """Return the roster's version, and every cluster that has not left."""
    modules = (
        select(func.array_agg(cluster_capacity.c.module))
        .where(cluster_capacity.c.cluster == clusters.c.id)
        .scalar_subquery()
    )
    columns = [c for c in clusters.c if c.name not in {"event_bridge", "media_bridge"}]
    query = (
        select(
            roster.c.version,
            func.clock_timestamp().label("now"),
            modules.label("modules"),
            seats.c.participants,
            seats.c.reserved,
            seats.c.conferences,
            *columns,
        )
        .select_from(roster)
        .outerjoin(clusters, clusters.c.state != "unregistered")
        .outerjoin(seats, seats.c.cluster == clusters.c.id)
    )
    rows = (await connection.execute(query)).all()
    return rows[0].version, [_choice(row) for row in rows if row.id is not None]


_LOADS: Final = """
    SELECT (SELECT version FROM roster) AS version, clock_timestamp() AS now, c.id, c.state, c.state_since,
        c.last_seen_at, c.lease_expires_at, c.probe_due_at, c.probe_failures, c.load_participants,
        c.load_streams, c.load_cpu, c.load_bandwidth_in, c.load_bandwidth_out, c.limit_bandwidth_in,
        c.limit_bandwidth_out, s.participants, s.reserved, s.conferences
    FROM clusters c LEFT JOIN seats s ON s.cluster = c.id WHERE c.state <> 'unregistered'
"""


class _LoadRow(NamedTuple):
    """What is selected above: with a thousand clusters, looking up columns by name takes most of the time."""

    version: int
    now: datetime
    id: str
    state: StoredState
    state_since: datetime
    last_seen_at: datetime
    lease_expires_at: datetime
    probe_due_at: datetime | None
    probe_failures: int
    load_participants: int
    load_streams: int
    load_cpu: float
    load_bandwidth_in: int
    load_bandwidth_out: int
    limit_bandwidth_in: int | None
    limit_bandwidth_out: int | None
    participants: int | None
    reserved: int | None
    conferences: int | None


async def loads(lane: Lane) -> tuple[int | None, list[Load]]:
    """Return the roster's version (None without a cluster), and how busy every cluster is that has not left.

    A fraction of what `read` costs: it is asked for every second or so.
    """
    rows = [_LoadRow._make(row) for row in await lane.fetch(_LOADS)]
    return (rows[0].version if rows else None), [_load(row) for row in rows]


_CONFERENCES: Final = """
    SELECT (SELECT version FROM roster) AS version, c.id, c.state, c.locked, c.participant_limit, c.template,
        c.template_version, p.cluster, p.state AS placed, p.room, p.created_at
    FROM unnest($1::text[]) AS asked (id)
    LEFT JOIN conferences c ON c.id = asked.id
    LEFT JOIN placements p ON p.conference = c.id AND p.state <> 'lost'
"""


async def conferences(lane: Lane, ids: Sequence[str]) -> tuple[int, dict[str, Joined]]:
    """Return the roster's version, and those of the conferences that there are."""
    found: dict[str, Joined] = {}
    version = 0
    for row in await lane.fetch(_CONFERENCES, ids):
        version = row["version"]
        if row["id"] is None:
            continue
        joined = found.get(row["id"])
        if joined is None:
            joined = found[row["id"]] = Joined(
                id=row["id"],
                state=row["state"],
                locked=row["locked"],
                participant_limit=row["participant_limit"],
                template=row["template"],
                template_version=row["template_version"],
                placements={},
            )
        if row["cluster"] is not None:
            joined.placements[row["cluster"]] = Placed(
                state=row["placed"], room=row["room"], epoch=epoch_of(row["created_at"])
            )
    return version, found


def _choice(row: Any) -> Choice:
    load = _load(row)._asdict()
    return Choice(
        region=row.region,
        driver=row.driver,
        rest_url=row.rest_url,
        service_id=row.service_id,
        sealed_key=row.service_key,
        incarnation=row.incarnation,
        portal=None if row.portal is None else msgspec.convert(row.portal, PortalAddress),
        modules=frozenset(row.modules or ()),
        labels=row.labels,
        cost=row.cost,
        location=None if row.latitude is None or row.longitude is None else (row.latitude, row.longitude),
        ping_url=row.ping_url,
        max_participants=row.limit_participants,
        max_conferences=row.limit_conferences,
        draining=row.drain_since is not None,
        blocked=row.blocked_at is not None,
        **load,
    )


def _load(row: Any) -> Load:
    return Load(
        row.id,
        _liveness(row),
        max(row.participants or 0, row.load_participants) + (row.reserved or 0),
        row.conferences or 0,
        row.load_streams,
        row.load_cpu,
        max(
            _share(row.load_bandwidth_in, row.limit_bandwidth_in),
            _share(row.load_bandwidth_out, row.limit_bandwidth_out),
        ),
    )


def _liveness(row: Any) -> Liveness:
    if row.state == "online" and row.probe_failures == 0 and row.now <= overdue_at(row):
        return "online"
    life = LifeFacts(
        state=row.state,
        since=row.state_since,
        reason="",
        last_seen_at=row.last_seen_at,
        lease_expires_at=row.lease_expires_at,
        probed=row.probe_due_at is not None,
        probe_failures=row.probe_failures,
        probe_error=None,
        drain_since=None,
        drain_reason=None,
    )
    match shown(life, row.now).state:
        case "online":
            return "online"
        case "suspect":
            return "suspect"
        case _:
            return "gone"


def _share(load: int, limit: int | None) -> float:
    if limit is None:
        return 0.0
    return load / limit if limit > 0 else 1.0
