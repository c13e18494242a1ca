"""The view of a conference, read from the modelled database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from control.cascade.view import AgentFacts, ClusterFacts, LinkFacts, PlacementFacts, View

if TYPE_CHECKING:
    from bench._simulation.rows import AgentRow, ClusterRow, LinkRow, PlacementRow
    from bench._simulation.tables import Tables

__all__ = ["moment", "seconds", "view_of"]

_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_IDLE_GRACE: Final = timedelta(seconds=10)
"""Shorter than by default, so that what has to happen afterwards does so sooner."""


def moment(seconds_: float) -> datetime:
    """Return virtual time as the plan wants it."""
    return _BEGINNING + timedelta(seconds=seconds_)


def seconds(moment_: datetime) -> float:
    """Return the same as virtual time."""
    return (moment_ - _BEGINNING).total_seconds()


def view_of(tables: Tables, conference: str) -> View | None:
    """Return what planning works on; None: there is no such conference."""
    head = tables.conferences.get(conference)
    if head is None:
        return None
    placements = tables.placements_of(conference)
    return View(
        conference=conference,
        state=head.state,
        topology=head.topology,
        placements=tuple(
            _placement_facts(tables, conference, cluster, row)
            for cluster, row in sorted(placements.items(), key=lambda each: each[1].ordinal)
        ),
        links=tuple(
            _link_facts(dialer, listener, row)
            for (where, dialer, listener), row in sorted(tables.links.items(), key=lambda each: each[0])
            if where == conference
        ),
        clusters={
            cluster: _cluster_facts(tables, cluster, row)
            for cluster, row in tables.clusters.items()
            if cluster in placements
        },
        agents=tuple(
            _agent_facts(tables, name, row)
            for name, row in tables.agents.items()
            if row.cluster in placements
        ),
        round_trips={
            pair: value for pair, value in tables.round_trips.items() if placements.keys() >= set(pair)
        },
        relaying=tables.relaying,
        idle_grace=_IDLE_GRACE,
    )


def _cluster_facts(tables: Tables, cluster: str, row: ClusterRow) -> ClusterFacts:
    return ClusterFacts(
        id=cluster,
        online=tables.online(cluster),
        reports_links=row.reports_links,
        knows_participants=row.knows_participants,
        gone=row.state == "unregistered",
        region=row.region,
        location=row.location,
    )


def _agent_facts(tables: Tables, name: str, row: AgentRow) -> AgentFacts:
    serving = sum(name in placement.agents.values() for placement in tables.placements.values())
    return AgentFacts(
        id=name,
        cluster=row.cluster,
        kinds=row.kinds,
        live=row.live and row.until > tables.now,
        room=row.room - serving,
        draining=row.draining,
    )


def _placement_facts(tables: Tables, conference: str, cluster: str, row: PlacementRow) -> PlacementFacts:
    empty = row.empty_since
    if empty is not None:
        reserved = tables.reserved_until(conference, cluster)
        empty = max(empty, empty if reserved is None else reserved)
    return PlacementFacts(
        cluster=cluster,
        ordinal=row.ordinal,
        epoch=row.epoch,
        state=row.state,
        has_token=row.token is not None,
        participants=len(row.people),
        empty_since=None if empty is None else moment(empty),
        displaced=len(row.displaced),
        agents=tuple(sorted(row.agents.items())),
        attempts=row.attempts,
        retry_at=None if row.retry_at is None else moment(row.retry_at),
    )


def _link_facts(dialer: str, listener: str, row: LinkRow) -> LinkFacts:
    return LinkFacts(
        dialer=dialer,
        listener=listener,
        state=row.state,
        since=moment(row.since),
        via=row.via,
        bridges_at=None if row.bridges_at is None else moment(row.bridges_at),
        attempts=row.attempts,
        retry_at=None if row.retry_at is None else moment(row.retry_at),
    )
