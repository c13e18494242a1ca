"""Conferences and templates, and what serves them: placements, links, people, streams, marks."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from control.registry.tables.base import TIME, metadata

__all__ = [
    "conferences",
    "dirty_conferences",
    "displaced",
    "links",
    "participants",
    "placements",
    "streams",
    "templates",
]


class _Templates(TypedColumns):
    name: Named[str] = Column(Text, primary_key=True)
    version: Named[int] = Column(Integer, primary_key=True, autoincrement=False)
    """Rows are never changed but for `retired_at`, and never deleted: a number never means two things."""
    body: Named[Any] = Column(JSONB, nullable=False)
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    retired_at: Named[datetime | None] = Column(TIME)
    """Of the newest version: since when the template takes no new conferences."""


templates: Final = Table("templates", metadata, _Templates, CheckConstraint("version >= 0", name="version"))


class _Conferences(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    state: Named[str] = Column(Text, nullable=False, server_default=text("'active'"))
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    template: Named[str] = Column(Text, nullable=False, server_default=text("'default'"))
    template_version: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    metadata: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))
    locked: Named[bool] = Column(nullable=False, server_default=text("false"))
    participant_limit: Named[int] = Column(Integer, nullable=False, server_default=text("-1"))
    empty_ttl: Named[int] = Column(Integer, nullable=False, server_default=text("86400"))
    """Both as they are in force: the conference's own, or a copy of its template's."""
    empty_since: Named[datetime | None] = Column(
        TIME, nullable=True, server_default=text("clock_timestamp()")
    )
    """Kept by triggers on `participants`, whoever deletes those and for whatever reason."""
    expires_at: Named[datetime | None] = Column(TIME)
    """Kept by a trigger on this table: `empty_since` and `empty_ttl`."""


conferences: Final = Table(
    "conferences",
    metadata,
    _Conferences,
    ForeignKeyConstraint(
        ["template", "template_version"],
        ["templates.name", "templates.version"],
        name="conferences_template_fkey",
    ),
    CheckConstraint("state IN ('active', 'ending')", name="state"),
    Index("conferences_created_idx", "created_at", "id"),
    Index("conferences_template_idx", "template", "created_at", "id"),
    Index(
        "conferences_metadata_idx",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    ),
    Index("conferences_expiry_idx", "expires_at", postgresql_where=text("state = 'active'")),
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
    retry_at: Named[datetime | None] = Column(TIME)
    error: Named[str | None] = Column(Text)
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    empty_since: Named[datetime | None] = Column(
        TIME, nullable=True, server_default=text("clock_timestamp()")
    )
    """Since when nobody is there; kept by triggers on `participants`. Who is on the way does not count."""


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
    since: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    attempts: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    retry_at: Named[datetime | None] = Column(TIME)
    error: Named[str | None] = Column(Text)
    order_id: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """An order to the dialing cluster is under way; a change of the link in the meantime takes it away."""
    via: Named[str] = Column(Text, nullable=False, server_default=text("'driver'"))
    """Who is told to dial: the cluster, by its driver, or an agent, by its desired state."""
    bridges: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    """Where the listener's bridges are: {event: {host, port, fingerprint?}, media: {…}?}."""
    bridges_at: Named[datetime | None] = Column(TIME)
    """When that was asked; used for one order only, as bridges restart."""
    orders: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """Counts what the dialer was told: by a larger number an agent knows that it has to dial anew."""


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
    CheckConstraint("via IN ('driver', 'agent')", name="via"),
    Index("links_dialer_idx", "dialer"),
    Index("links_listener_idx", "listener"),
)


class _Participants(TypedColumns):
    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    id: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, nullable=False)
    role: Named[str] = Column(Text, nullable=False)
    joined_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())


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


class _Displaced(TypedColumns):
    """Clients of a cluster that was lost with them, or started anew, who have not been told where to go."""

    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    participant: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, nullable=False)
    role: Named[str] = Column(Text, nullable=False)
    since: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())


displaced: Final = Table(
    "displaced",
    metadata,
    _Displaced,
    ForeignKeyConstraint(
        ["conference", "cluster"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="displaced_placement_fkey",
    ),
    Index("displaced_cluster_idx", "cluster"),
)


class _Streams(TypedColumns):
    """Published on the cluster itself; what came there through a link is not among them."""

    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    id: Named[str] = Column(Text, primary_key=True)
    participant: Named[str | None] = Column(Text)
    """Whose it is; triggers take it away with them, and with the room. NULL: the room's own."""
    tracks: Named[Any] = Column(JSONB, nullable=False)
    """[{id, kind, codec?, source?, muted}]: causeway.api.events.Track."""
    published_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())


streams: Final = Table(
    "streams",
    metadata,
    _Streams,
    ForeignKeyConstraint(
        ["conference", "cluster"],
        ["placements.conference", "placements.cluster"],
        ondelete="CASCADE",
        name="streams_placement_fkey",
    ),
)


class _DirtyConferences(TypedColumns):
    conference: Named[str] = Column(
        Text, ForeignKey("conferences.id", ondelete="CASCADE"), primary_key=True, nullable=False
    )
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))
    """Counts marks: whoever worked on version n may clear the mark only while it still is n."""
    due_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    claimed_by: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    claimed_until: Named[datetime | None] = Column(TIME)


dirty_conferences: Final = Table(
    "dirty_conferences",
    metadata,
    _DirtyConferences,
    Index("dirty_conferences_due_idx", "due_at"),
)
