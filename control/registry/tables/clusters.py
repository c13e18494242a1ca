"""Clusters: their registrations, capacity and load, and what is taken in each."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from control.registry.tables.base import TIME, metadata

__all__ = ["cluster_capacity", "clusters", "early_rooms", "report_order", "roster", "seats"]


class _Clusters(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    region: Named[str] = Column(Text, nullable=False)
    driver: Named[str] = Column(Text, nullable=False)
    rest_url: Named[str] = Column(Text, nullable=False)
    service_id: Named[str] = Column(Text, nullable=False)
    service_key: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed."""
    instance: Named[str] = Column(Text, nullable=False)
    """Which deployment holds the id; survives its restarts."""
    incarnation: Named[str] = Column(Text, nullable=False, server_default=text("''"))
    """Which start of the deployment: a changed one knows none of the former's rooms."""
    event_bridge: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    """{host, port, fingerprint?}, as registered."""
    media_bridge: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    portal: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    """{host, port, secure}, as registered: where clients of a cluster connect whose tokens we sign."""
    state: Named[str] = Column(Text, nullable=False)
    """`lost` is written by the sweeper; whether a cluster is online is `state` and `lease_expires_at`."""
    state_since: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    state_reason: Named[str] = Column(Text, nullable=False, server_default=text("''"))
    epoch: Named[int] = Column(BigInteger, nullable=False)
    lease_expires_at: Named[datetime] = Column(TIME, nullable=False)
    last_seen_at: Named[datetime] = Column(TIME, nullable=False)
    unregistered_at: Named[datetime | None] = Column(TIME)
    reports_links: Named[bool] = Column(nullable=False, server_default=text("false"))
    load_participants: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    load_streams: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    load_cpu: Named[float] = Column(Double, nullable=False, server_default=text("0"))
    load_bandwidth_in: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    """Bit/s, as is everything called bandwidth here."""
    load_bandwidth_out: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    load_modules: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))
    """{module: 0..1}."""
    limit_participants: Named[int | None] = Column(Integer)
    limit_conferences: Named[int | None] = Column(Integer)
    limit_bandwidth_in: Named[int | None] = Column(BigInteger)
    limit_bandwidth_out: Named[int | None] = Column(BigInteger)
    labels: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))
    """{key: value}, both text."""
    cost: Named[float] = Column(Double, nullable=False, server_default=text("0"))
    ping_url: Named[str | None] = Column(Text)
    latitude: Named[float | None] = Column(Double)
    longitude: Named[float | None] = Column(Double)
    drain_since: Named[datetime | None] = Column(TIME)
    """Set: the cluster gets no new placements."""
    drain_deadline: Named[datetime | None] = Column(TIME)
    drain_reason: Named[str | None] = Column(Text)
    blocked_at: Named[datetime | None] = Column(TIME)
    """Set: the cluster gets no new clients at all."""
    blocked_reason: Named[str | None] = Column(Text)
    probe_due_at: Named[datetime | None] = Column(TIME)
    """Set: the cluster sends no heartbeat and is asked instead, next at this time."""
    probe_failures: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """In a row."""
    probe_error: Named[str | None] = Column(Text)
    probe_by: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """The replica that is asking just now."""


clusters: Final = Table(
    "clusters",
    metadata,
    _Clusters,
    CheckConstraint("state IN ('online', 'lost', 'unregistered')", name="state"),
    Index("clusters_probe_idx", "probe_due_at", postgresql_where=text("probe_due_at IS NOT NULL")),
    # No index on what a heartbeat changes, and room on each page: so a heartbeat rewrites no index.
    postgresql_with={"fillfactor": 60},
)


class _ClusterCapacity(TypedColumns):
    # No foreign key: a cluster may report capacity before it registers, and it is kept when it leaves.
    cluster: Named[str] = Column(Text, primary_key=True)
    module: Named[str] = Column(Text, primary_key=True)
    added_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    count: Named[int] = Column(Integer, nullable=False, server_default=text("1"))
    """Workers of this module."""
    capacity_limit: Named[int | None] = Column(Integer)
    """What they carry together, in the module's own unit; None: not told."""
    told_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    """Some clusters never tell that a module is gone: what was told long ago ages."""


cluster_capacity: Final = Table(
    "cluster_capacity",
    metadata,
    _ClusterCapacity,
    CheckConstraint("count >= 1", name="count"),
    CheckConstraint("capacity_limit >= 0", name="limit"),
)


class _EarlyRooms(TypedColumns):
    """Rooms reported by clusters that are not registered (yet), until they are or the report is old."""

    cluster: Named[str] = Column(Text, primary_key=True)
    room: Named[str] = Column(Text, primary_key=True)
    token: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed as placements.token is."""
    reported_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())


early_rooms: Final = Table("early_rooms", metadata, _EarlyRooms, Index("early_rooms_age_idx", "reported_at"))


class _ReportOrder(TypedColumns):
    # No foreign key: what was said of a thing that is no more is what has to be remembered.
    cluster: Named[str] = Column(Text, primary_key=True)
    room: Named[str] = Column(Text, primary_key=True)
    """Empty: of the cluster itself."""
    thing: Named[str] = Column(Text, primary_key=True)
    """What of the room; empty: the room itself."""
    epoch: Named[int] = Column(BigInteger, nullable=False)
    """Of the registration that the numbers belong to."""
    number: Named[int] = Column(BigInteger, nullable=False)
    """Of what was carried out last."""
    gone: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    """Of what said last that the thing is no more; 0: nothing has."""
    told_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())


# Its age has no index: it changes with every report, and is looked for now and then only.
report_order: Final = Table("report_order", metadata, _ReportOrder, postgresql_with={"fillfactor": 80})


class _Roster(TypedColumns):
    """One row: counts the changes of clusters, heartbeats aside."""

    id: Named[bool] = Column(Boolean, primary_key=True, server_default=text("true"))
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))


roster: Final = Table("roster", metadata, _Roster, CheckConstraint("id", name="single"))


class _Seats(TypedColumns):
    """What is taken in each cluster, kept by triggers on the tables that are counted."""

    cluster: Named[str] = Column(Text, ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    participants: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """Reported, as in the table of that name."""
    reserved: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    conferences: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """Placements, whatever their state."""


seats: Final = Table("seats", metadata, _Seats, postgresql_with={"fillfactor": 20})
