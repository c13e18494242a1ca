"""Agents, what they are assigned, and the round trips that they measure."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Named,
    Table,
    Text,
    TypedColumns,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from control.registry.tables.base import TIME, metadata

__all__ = ["agent_figures", "agents", "assignments", "link_figures", "round_trips"]


class _Agents(TypedColumns):
    """Processes that serve a cluster: bridges, recorders. Rows of those that left stay for a while."""

    id: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, nullable=False)
    """No foreign key: an agent may be there before its cluster."""
    region: Named[str] = Column(Text, nullable=False)
    kinds: Named[list[str]] = Column(ARRAY(Text), nullable=False)
    wires: Named[list[str]] = Column(ARRAY(Text), nullable=False, server_default=text("'{}'"))
    """What its bridges speak with those of other clusters, by the names that QUIC negotiates."""
    addresses: Named[Any] = Column(JSONB, nullable=False)
    """{event?: {host, port, fingerprint?}, media?: …}, as registered."""
    capacity_conferences: Named[int] = Column(Integer, nullable=False)
    version: Named[str] = Column(Text, nullable=False)
    """Of its software."""
    protocol: Named[int] = Column(Integer, nullable=False)
    instance: Named[str] = Column(Text, nullable=False)
    """Which start of the process."""
    epoch: Named[int] = Column(BigInteger, nullable=False)
    state: Named[str] = Column(Text, nullable=False)
    """Whether an agent is online is `state` and `lease_expires_at`."""
    state_since: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    registered_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    last_seen_at: Named[datetime] = Column(TIME, nullable=False)
    lease_expires_at: Named[datetime] = Column(TIME, nullable=False)
    drain_since: Named[datetime | None] = Column(TIME)
    channel: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """The connection that speaks for the agent, drawn by the replica that has it; another one is over."""
    desired_version: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    """The last version of its desired state that it was told."""
    acked_version: Named[int | None] = Column(BigInteger)
    refused: Named[Any] = Column(JSONB, nullable=False, server_default=text("'[]'"))
    """[{conference, peer?, reason}], of `acked_version`."""
    load: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))


agents: Final = Table(
    "agents",
    metadata,
    _Agents,
    CheckConstraint("capacity_conferences >= 0", name="capacity"),
    CheckConstraint("state IN ('online', 'lost', 'unregistered')", name="state"),
    Index("agents_cluster_idx", "cluster"),
    # As with clusters: no index on what a heartbeat changes.
    postgresql_with={"fillfactor": 50},
)


class _Assignments(TypedColumns):
    """Which agent serves a conference at a cluster, one of each kind."""

    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    kind: Named[str] = Column(Text, primary_key=True)
    agent: Named[str] = Column(Text, ForeignKey("agents.id", ondelete="CASCADE"), nullable=False)
    assigned_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())


assignments: Final = Table(
    "assignments",
    metadata,
    _Assignments,
    ForeignKeyConstraint(
        ["conference", "cluster"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="assignments_placement_fkey",
    ),
    CheckConstraint("kind IN ('event', 'media', 'recorder')", name="kind"),
    Index("assignments_agent_idx", "agent"),
)


class _RoundTrips(TypedColumns):
    """How far one cluster's bridges are from another's, as measured by agents of the former."""

    from_cluster: Named[str] = Column(Text, primary_key=True)
    to_cluster: Named[str] = Column(Text, primary_key=True)
    ms: Named[float] = Column(Double, nullable=False)
    jitter_ms: Named[float] = Column(Double, nullable=False)
    measured_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    planned_ms: Named[float | None] = Column(Double)
    """What it was when conferences were last looked at because of it; and when that was."""
    planned_at: Named[datetime | None] = Column(TIME)


round_trips: Final = Table("round_trips", metadata, _RoundTrips, postgresql_with={"fillfactor": 70})


class _AgentFigures(TypedColumns):
    """What an agent's bridges measured last, but for links. UNLOGGED: it is told again in a moment."""

    agent: Named[str] = Column(Text, ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    bridges: Named[Any] = Column(JSONB, nullable=False)
    """[causeway.api.figures.BridgeFigures]."""
    told_at: Named[datetime] = Column(TIME, nullable=False)


agent_figures: Final = Table(
    "agent_figures", metadata, _AgentFigures, prefixes=["UNLOGGED"], postgresql_with={"fillfactor": 50}
)


class _LinkFigures(TypedColumns):
    """What one end of a link measured last, as the agent of `cluster` told it. UNLOGGED, as above."""

    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    peer: Named[str] = Column(Text, primary_key=True)
    """No foreign key: where it is not placed any more, there is no link that would show it."""
    kind: Named[str] = Column(Text, primary_key=True)
    agent: Named[str] = Column(Text, nullable=False)
    figures: Named[Any] = Column(JSONB, nullable=False)
    """causeway.api.figures.LinkFigures."""
    told_at: Named[datetime] = Column(TIME, nullable=False)


link_figures: Final = Table(
    "link_figures",
    metadata,
    _LinkFigures,
    ForeignKeyConstraint(
        ["conference", "cluster"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="link_figures_placement_fkey",
    ),
    prefixes=["UNLOGGED"],
    postgresql_with={"fillfactor": 50},
)
