"""The registry's tables, as the migrations leave them (a test compares both).

Every time is the database's own clock. Cluster and conference ids are the API's; secrets are sealed by
control.security.vault before they come here. This module knows shapes only, no rules.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

__all__ = [
    "cluster_capacity",
    "clusters",
    "conferences",
    "credentials",
    "dirty_conferences",
    "links",
    "metadata",
    "participants",
    "placements",
]

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ix": "%(table_name)s_%(column_0_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

_TIME: Final = DateTime(timezone=True)


class _Credentials(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    kind: Named[str] = Column(Text, nullable=False)
    secret_hash: Named[bytes] = Column(LargeBinary, nullable=False)
    """SHA-256 of the secret, which has 256 random bits: no salt, no stretching needed."""
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    revoked_at: Named[datetime | None] = Column(_TIME)


credentials: Final = Table(
    "credentials",
    metadata,
    _Credentials,
    CheckConstraint("kind IN ('enrolment', 'application', 'operator')", name="kind"),
)


class _Clusters(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    region: Named[str] = Column(Text, nullable=False)
    driver: Named[str] = Column(Text, nullable=False)
    rest_url: Named[str] = Column(Text, nullable=False)
    service_id: Named[str] = Column(Text, nullable=False)
    service_key: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed."""
    instance: Named[str] = Column(Text, nullable=False)
    event_bridge: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    """{host, port, fingerprint?}, as registered."""
    media_bridge: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    state: Named[str] = Column(Text, nullable=False)
    """`lost` is written by the sweeper; whether a cluster is online is `state` and `lease_expires_at`."""
    epoch: Named[int] = Column(BigInteger, nullable=False)
    lease_expires_at: Named[datetime] = Column(_TIME, nullable=False)
    last_seen_at: Named[datetime] = Column(_TIME, nullable=False)
    unregistered_at: Named[datetime | None] = Column(_TIME)
    reports_links: Named[bool] = Column(nullable=False, server_default=text("false"))
    load_participants: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    load_streams: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    load_cpu: Named[float] = Column(Double, nullable=False, server_default=text("0"))


clusters: Final = Table(
    "clusters",
    metadata,
    _Clusters,
    CheckConstraint("state IN ('online', 'lost', 'unregistered')", name="state"),
    Index("clusters_online_lease_idx", "lease_expires_at", postgresql_where=text("state = 'online'")),
)


class _ClusterCapacity(TypedColumns):
    # No foreign key: a cluster may report capacity before it registers, and it is kept when it leaves.
    cluster: Named[str] = Column(Text, primary_key=True)
    module: Named[str] = Column(Text, primary_key=True)
    added_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


cluster_capacity: Final = Table("cluster_capacity", metadata, _ClusterCapacity)


class _Conferences(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    state: Named[str] = Column(Text, nullable=False, server_default=text("'active'"))
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


conferences: Final = Table(
    "conferences",
    metadata,
    _Conferences,
    CheckConstraint("state IN ('active', 'ending')", name="state"),
    Index("conferences_active_idx", "created_at", "id", postgresql_where=text("state = 'active'")),
)


class _Placements(TypedColumns):
    conference: Named[str] = Column(
        Text, ForeignKey("conferences.id", ondelete="CASCADE"), primary_key=True, nullable=False
    )
    cluster: Named[str] = Column(Text, ForeignKey("clusters.id"), primary_key=True, nullable=False)
    ordinal: Named[int] = Column(Integer, nullable=False)
    state: Named[str] = Column(Text, nullable=False, server_default=text("'wanted'"))
    room: Named[str | None] = Column(Text)
    token: Named[bytes | None] = Column(LargeBinary)
    """Sealed; the cluster reports it when the room has come to life there."""
    attempts: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    retry_at: Named[datetime | None] = Column(_TIME)
    error: Named[str | None] = Column(Text)
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


placements: Final = Table(
    "placements",
    metadata,
    _Placements,
    UniqueConstraint("conference", "ordinal", name="placements_ordinal_key"),
    CheckConstraint("state IN ('wanted', 'ready', 'lost')", name="state"),
    CheckConstraint("ordinal >= 1", name="ordinal"),
    Index("placements_cluster_idx", "cluster"),
)


class _Links(TypedColumns):
    conference: Named[str] = Column(Text, primary_key=True)
    dialer: Named[str] = Column(Text, primary_key=True)
    listener: Named[str] = Column(Text, primary_key=True)
    state: Named[str] = Column(Text, nullable=False, server_default=text("'wanted'"))
    since: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    attempts: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    retry_at: Named[datetime | None] = Column(_TIME)
    error: Named[str | None] = Column(Text)
    order_id: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """An order to the dialing cluster is under way; a change of the link in the meantime takes it away."""


links: Final = Table(
    "links",
    metadata,
    _Links,
    ForeignKeyConstraint(
        ["conference", "dialer"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="links_dialer_fkey",
    ),
    ForeignKeyConstraint(
        ["conference", "listener"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="links_listener_fkey",
    ),
    CheckConstraint("state IN ('wanted', 'requested', 'up', 'down')", name="state"),
    CheckConstraint("dialer <> listener", name="ends"),
    Index("links_dialer_idx", "dialer"),
    Index("links_listener_idx", "listener"),
)


class _Participants(TypedColumns):
    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    id: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, nullable=False)
    role: Named[str] = Column(Text, nullable=False)
    joined_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


participants: Final = Table(
    "participants",
    metadata,
    _Participants,
    ForeignKeyConstraint(
        ["conference", "cluster"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="participants_placement_fkey",
    ),
    Index("participants_cluster_idx", "cluster"),
)


class _DirtyConferences(TypedColumns):
    conference: Named[str] = Column(
        Text, ForeignKey("conferences.id", ondelete="CASCADE"), primary_key=True, nullable=False
    )
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))
    """Counts marks: whoever worked on version n may clear the mark only while it still is n."""
    due_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    claimed_by: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    claimed_until: Named[datetime | None] = Column(_TIME)


dirty_conferences: Final = Table(
    "dirty_conferences",
    metadata,
    _DirtyConferences,
    Index("dirty_conferences_due_idx", "due_at"),
)
