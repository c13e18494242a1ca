"""The views of conferences that planning works on, read in one statement: all of each is of one moment.

This module knows how facts are stored, and no rule about what follows from them; see control.cascade.view.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import text

from control.cascade.topology import TopologyWish
from control.cascade.view import ClusterFacts, LinkFacts, PlacementFacts, View
from control.drivers.kinds import KINDS
from control.registry.agents import STAFF, Staff
from control.registry.placement_epoch import epoch_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["STATEMENT", "Snapshot", "load", "read", "texts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A conference as it was at `now`, by the database's clock."""

    view: View
    now: datetime
    starts: Mapping[str, str]
    """Which start of each cluster is meant: what a former one did says nothing of this one."""


class _Placement(Struct):
    cluster: str
    ordinal: int
    state: Literal["wanted", "ready", "lost"]
    has_token: bool
    attempts: int
    retry_at: datetime | None
    created_at: datetime
    empty_since: datetime | None
    participants: int
    reserved_until: datetime | None
    displaced: int


class _Cluster(Struct):
    id: str
    online: bool
    gone: bool
    reports_links: bool
    driver: str
    incarnation: str
    probed: bool
    region: str
    latitude: float | None
    longitude: float | None


class _Link(Struct):
    dialer: str
    listener: str
    state: Literal["wanted", "requested", "up", "down"]
    since: datetime
    via: Literal["driver", "agent"]
    bridges_at: datetime | None
    orders: int
    attempts: int
    retry_at: datetime | None


class _Topology(Struct):
    """What is stored of a template's wish, in any release."""

    kind: Literal["mesh", "tree", "star"] = "mesh"
    degree_limit: int = 4
    hubs: tuple[str, ...] = ()


class _Rows(Struct):
    state: Literal["active", "ending"]
    now: datetime
    template_version: int
    placements: list[_Placement]
    clusters: list[_Cluster]
    links: list[_Link]
    staff: Staff
    topology: _Topology | None


# Facts that belong to one conference: none of these reads more rows than the conference has.
STATEMENT: Final = text(
    f"""
    SELECT c.id, jsonb_build_object(
        'state', c.state,
        'now', clock_timestamp(),
        'template_version', c.template_version,
        'placements', (
            SELECT coalesce(jsonb_agg(x ORDER BY x.ordinal), '[]') FROM (
                SELECT p.cluster, p.ordinal, p.state, p.token IS NOT NULL AS has_token, p.attempts,
                    p.retry_at, p.created_at, p.empty_since,
                    (SELECT count(*) FROM participants y
                        WHERE y.conference = p.conference AND y.cluster = p.cluster) AS participants,
                    (SELECT max(r.expires_at) FROM reservations r
                        WHERE r.conference = p.conference AND r.cluster = p.cluster
                        AND r.expires_at > clock_timestamp()) AS reserved_until,
                    (SELECT count(*) FROM displaced d
                        WHERE d.conference = p.conference AND d.cluster = p.cluster) AS displaced
                FROM placements p WHERE p.conference = c.id
            ) x
        ),
        'clusters', (
            SELECT coalesce(jsonb_agg(x ORDER BY x.id), '[]') FROM (
                SELECT k.id, k.state = 'online' AND k.lease_expires_at > clock_timestamp() AS online,
                    k.state = 'unregistered' AS gone, k.reports_links, k.driver, k.incarnation, k.region,
                    k.probe_due_at IS NOT NULL AS probed, k.latitude, k.longitude
                FROM placements p JOIN clusters k ON k.id = p.cluster WHERE p.conference = c.id
            ) x
        ),
        'links', (
            SELECT coalesce(jsonb_agg(x ORDER BY x.dialer, x.listener), '[]') FROM (
                SELECT dialer, listener, state, since, via, bridges_at, orders, attempts, retry_at
                FROM links WHERE conference = c.id
            ) x
        ),
        'staff', {STAFF.replace(":conference", "c.id")},
        'topology', t.body -> 'topology'
    )::text AS view
    FROM conferences c
        JOIN templates t ON t.name = c.template AND t.version = c.template_version
    WHERE c.id = ANY (CAST(:conferences AS text[]))
    """  # noqa: S608 - put together from constants
)
_DECODER: Final = msgspec.json.Decoder(_Rows)


async def texts(connection: AsyncConnection, conferences: Sequence[str]) -> dict[str, str]:
    """Return what is to be known of each of these conferences that there is, for `read`."""
    found = await connection.execute(STATEMENT, {"conferences": list(conferences)})
    return {row.id: row.view for row in found}


async def load(connection: AsyncConnection, conference: str, *, idle_grace: float) -> Snapshot | None:
    """Return what planning needs to know, None if there is no such conference; see `read`."""
    found = (await texts(connection, [conference])).get(conference)
    return None if found is None else read(conference, found, idle_grace=idle_grace)


def read(conference: str, found: str, *, idle_grace: float) -> Snapshot:
    """Return the snapshot that one of `texts` stands for. `idle_grace`, in seconds, goes into the view."""
    rows = _DECODER.decode(found)
    agents = rows.staff.facts()
    view = View(
        conference=conference,
        state=rows.state,
        template_version=rows.template_version,
        topology=_wish(rows.topology),
        placements=tuple(_placement(row, rows.staff) for row in rows.placements),
        links=tuple(
            LinkFacts(
                dialer=row.dialer,
                listener=row.listener,
                state=row.state,
                since=row.since,
                via=row.via,
                bridges_at=row.bridges_at,
                orders=row.orders,
                attempts=row.attempts,
                retry_at=row.retry_at,
            )
            for row in rows.links
        ),
        clusters={row.id: _cluster(row) for row in rows.clusters},
        agents=agents,
        round_trips=rows.staff.times(),
        relaying=rows.staff.of_one_mind and any(agent.live and agent.relays for agent in agents),
        idle_grace=timedelta(seconds=idle_grace),
    )
    return Snapshot(view=view, now=rows.now, starts={row.id: row.incarnation for row in rows.clusters})


def _wish(stored: _Topology | None) -> TopologyWish:
    if stored is None:
        return TopologyWish()
    return TopologyWish(kind=stored.kind, degree_limit=stored.degree_limit, hubs=stored.hubs)


def _placement(row: _Placement, staff: Staff) -> PlacementFacts:
    # Whoever is on the way counts until the reservation ends, which needs no other change to be noticed.
    since = row.empty_since or row.created_at
    empty = None if row.participants else max(since, row.reserved_until or since)
    return PlacementFacts(
        cluster=row.cluster,
        ordinal=row.ordinal,
        epoch=epoch_of(row.created_at),
        state=row.state,
        has_token=row.has_token,
        participants=row.participants,
        empty_since=empty,
        displaced=row.displaced,
        agents=staff.of(row.cluster),
        attempts=row.attempts,
        retry_at=row.retry_at,
    )


def _cluster(row: _Cluster) -> ClusterFacts:
    kind = KINDS.get(row.driver)  # None: a newer release has registered it
    return ClusterFacts(
        id=row.id,
        online=row.online,
        reports_links=row.reports_links,
        can_cascade=kind is not None and kind.cascade,
        # Where neither the cluster says who comes and goes, nor all are surveyed at once, rooms are looked
        # into now and then, by lot: nobody's absence follows from that.
        knows_participants=kind is not None and not (row.probed and kind.reports),
        gone=row.gone,
        region=row.region,
        location=None if row.latitude is None or row.longitude is None else (row.latitude, row.longitude),
    )
