"""The registry's tables, as the migrations leave them (a test compares both).

Every time is the database's own clock. Cluster and conference ids are the API's; secrets are sealed by
control.security.vault before they come here. This module knows shapes only, no rules.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

__all__ = [
    "agents",
    "assignments",
    "audit",
    "caches",
    "cluster_capacity",
    "clusters",
    "conference_checkpoints",
    "conference_events",
    "conference_heads",
    "conferences",
    "credentials",
    "decisions",
    "dirty_conferences",
    "displaced",
    "duties",
    "early_rooms",
    "former_conferences",
    "kept_answers",
    "links",
    "metadata",
    "participants",
    "pending_events",
    "placements",
    "replicas",
    "reservations",
    "roster",
    "round_trips",
    "schema_bounds",
    "seats",
    "signing_keys",
    "streams",
    "templates",
    "webhook_deliveries",
    "webhook_lanes",
    "webhooks",
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
    name: Named[str] = Column(Text, nullable=False, server_default=text("''"))
    scopes: Named[list[str] | None] = Column(ARRAY(Text), nullable=True)
    """What an application key may do; NULL: all that its kind may."""
    created_by: Named[str | None] = Column(Text)
    """Id of the operator key that asked for it; NULL: made on the spot, at the first start or by hand."""
    last_used_at: Named[datetime | None] = Column(_TIME)
    """To the minute or so."""
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    revoked_at: Named[datetime | None] = Column(_TIME)


credentials: Final = Table(
    "credentials",
    metadata,
    _Credentials,
    CheckConstraint("kind IN ('enrolment', 'application', 'operator')", name="kind"),
    Index("credentials_created_idx", "created_at", "id"),
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
    state_since: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    state_reason: Named[str] = Column(Text, nullable=False, server_default=text("''"))
    epoch: Named[int] = Column(BigInteger, nullable=False)
    lease_expires_at: Named[datetime] = Column(_TIME, nullable=False)
    last_seen_at: Named[datetime] = Column(_TIME, nullable=False)
    unregistered_at: Named[datetime | None] = Column(_TIME)
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
    drain_since: Named[datetime | None] = Column(_TIME)
    """Set: the cluster gets no new placements."""
    drain_deadline: Named[datetime | None] = Column(_TIME)
    drain_reason: Named[str | None] = Column(Text)
    blocked_at: Named[datetime | None] = Column(_TIME)
    """Set: the cluster gets no new clients at all."""
    blocked_reason: Named[str | None] = Column(Text)
    probe_due_at: Named[datetime | None] = Column(_TIME)
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
    added_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    count: Named[int] = Column(Integer, nullable=False, server_default=text("1"))
    """Workers of this module."""
    capacity_limit: Named[int | None] = Column(Integer)
    """What they carry together, in the module's own unit; None: not told."""
    told_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
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
    reported_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


early_rooms: Final = Table("early_rooms", metadata, _EarlyRooms, Index("early_rooms_age_idx", "reported_at"))


class _Audit(TypedColumns):
    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    actor: Named[str] = Column(Text, nullable=False)
    """`<kind of key>:<id of key>`, or `control`."""
    subject: Named[str] = Column(Text, nullable=False)
    """`cluster:<id>`, for example."""
    action: Named[str] = Column(Text, nullable=False)
    before: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    after: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)


audit: Final = Table("audit", metadata, _Audit, Index("audit_subject_idx", "subject", "id"))


class _Templates(TypedColumns):
    name: Named[str] = Column(Text, primary_key=True)
    version: Named[int] = Column(Integer, primary_key=True, autoincrement=False)
    """Rows are never changed but for `retired_at`, and never deleted: a number never means two things."""
    body: Named[Any] = Column(JSONB, nullable=False)
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    retired_at: Named[datetime | None] = Column(_TIME)
    """Of the newest version: since when the template takes no new conferences."""


templates: Final = Table("templates", metadata, _Templates, CheckConstraint("version >= 0", name="version"))


class _Conferences(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    state: Named[str] = Column(Text, nullable=False, server_default=text("'active'"))
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    template: Named[str] = Column(Text, nullable=False, server_default=text("'default'"))
    template_version: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    metadata: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))
    locked: Named[bool] = Column(nullable=False, server_default=text("false"))
    participant_limit: Named[int] = Column(Integer, nullable=False, server_default=text("-1"))
    empty_ttl: Named[int] = Column(Integer, nullable=False, server_default=text("86400"))
    """Both as they are in force: the conference's own, or a copy of its template's."""
    empty_since: Named[datetime | None] = Column(
        _TIME, nullable=True, server_default=text("clock_timestamp()")
    )
    """Kept by triggers on `participants`, whoever deletes those and for whatever reason."""
    expires_at: Named[datetime | None] = Column(_TIME)
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
    retry_at: Named[datetime | None] = Column(_TIME)
    error: Named[str | None] = Column(Text)
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    empty_since: Named[datetime | None] = Column(
        _TIME, nullable=True, server_default=text("clock_timestamp()")
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
    since: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    attempts: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    retry_at: Named[datetime | None] = Column(_TIME)
    error: Named[str | None] = Column(Text)
    order_id: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """An order to the dialing cluster is under way; a change of the link in the meantime takes it away."""
    via: Named[str] = Column(Text, nullable=False, server_default=text("'driver'"))
    """Who is told to dial: the cluster, by its driver, or an agent, by its desired state."""
    bridges: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    """Where the listener's bridges are: {event: {host, port, fingerprint?}, media: {…}?}."""
    bridges_at: Named[datetime | None] = Column(_TIME)
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


class _Displaced(TypedColumns):
    """Clients of a cluster that was lost with them, or started anew, who have not been told where to go."""

    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    participant: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, nullable=False)
    role: Named[str] = Column(Text, nullable=False)
    since: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())


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
    published_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())


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


class _ConferenceHeads(TypedColumns):
    """How far a conference's events are; locked by whoever commits one, last of all, until that is done.

    Outlives the conference: the next one of that id goes on counting.
    """

    conference: Named[str] = Column(Text, primary_key=True)
    seq: Named[int] = Column(BigInteger, nullable=False)
    at: Named[datetime] = Column(_TIME, nullable=False)


conference_heads: Final = Table(
    "conference_heads", metadata, _ConferenceHeads, postgresql_with={"fillfactor": 50}
)


class _PendingEvents(TypedColumns):
    """What a transaction has told so far; numbered and moved to the log when it commits. UNLOGGED."""

    transaction: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    n: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    conferences: Named[list[str]] = Column(ARRAY(Text), nullable=False)
    kinds: Named[list[str]] = Column(ARRAY(Text), nullable=False)
    bodies: Named[Any] = Column(ARRAY(JSONB), nullable=False)


pending_events: Final = Table("pending_events", metadata, _PendingEvents, prefixes=["UNLOGGED"])


class _ConferenceEvents(TypedColumns):
    """What happened, written by triggers in the transaction in which it happened.

    Partitioned by days (UTC): control.registry.event_days makes and drops them.
    """

    conference: Named[str] = Column(Text, primary_key=True)
    seq: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, without gaps; whoever sees n can see all before it."""
    at: Named[datetime] = Column(_TIME, primary_key=True)
    """Never earlier than the event before it in the conference."""
    kind: Named[str] = Column(Text, nullable=False)
    body: Named[Any] = Column(JSONB, nullable=False)
    id: Named[Any] = Column(UUID(as_uuid=True), nullable=False, server_default=text("gen_random_uuid()"))


conference_events: Final = Table(
    "conference_events", metadata, _ConferenceEvents, postgresql_partition_by="RANGE (at)"
)


class _ConferenceCheckpoints(TypedColumns):
    """A conference as it was after an event: what is left of those before it, once they are dropped."""

    conference: Named[str] = Column(Text, primary_key=True)
    seq: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    at: Named[datetime] = Column(_TIME, nullable=False)
    body: Named[Any] = Column(JSONB, nullable=False)
    """causeway.api.events.ConferenceState."""


conference_checkpoints: Final = Table("conference_checkpoints", metadata, _ConferenceCheckpoints)


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


class _Agents(TypedColumns):
    """Processes that serve a cluster: bridges, recorders. Rows of those that left stay for a while."""

    id: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, nullable=False)
    """No foreign key: an agent may be there before its cluster."""
    region: Named[str] = Column(Text, nullable=False)
    kinds: Named[list[str]] = Column(ARRAY(Text), nullable=False)
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
    state_since: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    registered_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    last_seen_at: Named[datetime] = Column(_TIME, nullable=False)
    lease_expires_at: Named[datetime] = Column(_TIME, nullable=False)
    drain_since: Named[datetime | None] = Column(_TIME)
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
    assigned_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())


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
    measured_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())


round_trips: Final = Table("round_trips", metadata, _RoundTrips, postgresql_with={"fillfactor": 70})


class _SigningKeys(TypedColumns):
    """Keys of join tokens; control.security.signing says what becomes of each, and when."""

    kid: Named[str] = Column(Text, primary_key=True)
    public: Named[str] = Column(Text, nullable=False)
    private: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed: the base64 of 32 bytes."""
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    active_from: Named[datetime] = Column(_TIME, nullable=False)


signing_keys: Final = Table("signing_keys", metadata, _SigningKeys)


class _Seats(TypedColumns):
    """What is taken in each cluster, kept by triggers on the tables that are counted."""

    cluster: Named[str] = Column(Text, ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    participants: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """Reported, as in the table of that name."""
    reserved: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    conferences: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """Placements, whatever their state."""


seats: Final = Table("seats", metadata, _Seats, postgresql_with={"fillfactor": 20})


class _Reservations(TypedColumns):
    # No foreign keys: they would lock a row more for each join, and what is left over expires.
    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, primary_key=True)
    id: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    """Random."""
    made_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    expires_at: Named[datetime] = Column(_TIME, nullable=False)


reservations: Final = Table(
    "reservations", metadata, _Reservations, Index("reservations_expires_at_idx", "expires_at")
)


class _Decisions(TypedColumns):
    # No foreign key, as above; a trigger deletes them with the conference.
    conference: Named[str] = Column(Text, primary_key=True)
    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    body: Named[bytes] = Column(LargeBinary, nullable=False)
    """control.placement.decision.Decision in MessagePack."""


decisions: Final = Table("decisions", metadata, _Decisions)


class _Roster(TypedColumns):
    """One row: counts the changes of clusters, heartbeats aside."""

    id: Named[bool] = Column(Boolean, primary_key=True, server_default=text("true"))
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))


roster: Final = Table("roster", metadata, _Roster, CheckConstraint("id", name="single"))


class _KeptAnswers(TypedColumns):
    """Answers to requests with an Idempotency-Key."""

    caller: Named[str] = Column(Text, primary_key=True)
    key: Named[str] = Column(Text, primary_key=True)
    fingerprint: Named[bytes] = Column(LargeBinary, nullable=False)
    """SHA-256 of what was asked."""
    answer: Named[bytes | None] = Column(LargeBinary)
    """Sealed; NULL: still being worked on, by whoever holds the claim."""
    claim: Named[int] = Column(BigInteger, nullable=False)
    claimed_until: Named[datetime] = Column(_TIME, nullable=False)
    expires_at: Named[datetime] = Column(_TIME, nullable=False)


kept_answers: Final = Table(
    "kept_answers", metadata, _KeptAnswers, Index("kept_answers_expires_at_idx", "expires_at")
)


class _Webhooks(TypedColumns):
    id: Named[str] = Column(Text, primary_key=True)
    url: Named[str] = Column(Text, nullable=False)
    description: Named[str] = Column(Text, nullable=False, server_default=text("''"))
    events: Named[list[str]] = Column(ARRAY(Text), nullable=False, server_default=text("'{}'"))
    """Kinds, or `<first part>.*`; empty: all."""
    types: Named[list[str]] = Column(ARRAY(Text), nullable=False, server_default=text("'{}'"))
    """Templates of the conferences; empty: any."""
    metadata: Named[Any] = Column(JSONB, nullable=False, server_default=text("'{}'"))
    """What the conferences' metadata must contain."""
    secret: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed, as is the next one; both for the same place, so that one can become the other."""
    previous_secret: Named[bytes | None] = Column(LargeBinary)
    previous_until: Named[datetime | None] = Column(_TIME)
    enabled: Named[bool] = Column(nullable=False, server_default=text("true"))
    disabled_at: Named[datetime | None] = Column(_TIME)
    disabled_reason: Named[str | None] = Column(Text)
    created_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.now())
    created_by: Named[str | None] = Column(Text)
    """Id of the operator key."""
    failures: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """In a row; this and the next two are control.delivery.attempts.Endpoint."""
    failing_since: Named[datetime | None] = Column(_TIME)
    paused_until: Named[datetime | None] = Column(_TIME)
    recovered_at: Named[datetime | None] = Column(_TIME)
    """When its circuit closed last: what failed before that need not wait."""
    last_success_at: Named[datetime | None] = Column(_TIME)
    """To the minute."""
    last_failure_at: Named[datetime | None] = Column(_TIME)
    last_error: Named[str | None] = Column(Text)


webhooks: Final = Table(
    "webhooks",
    metadata,
    _Webhooks,
    CheckConstraint("disabled_reason IN ('operator', 'gone', 'failing')", name="reason"),
    postgresql_with={"fillfactor": 50},
)


class _WebhookDeliveries(TypedColumns):
    # No foreign key to the webhook: every event would lock its row. What a deleted one leaves is swept.
    webhook: Named[str] = Column(Text, primary_key=True)
    message: Named[Any] = Column(UUID(as_uuid=True), primary_key=True)
    """The event's id."""
    conference: Named[str] = Column(Text, nullable=False)
    seq: Named[int] = Column(BigInteger, nullable=False)
    kind: Named[str] = Column(Text, nullable=False)
    at: Named[datetime] = Column(_TIME, nullable=False)
    body: Named[Any] = Column(JSONB, nullable=False)
    """A copy of the event's: the log may forget sooner than the receiver is back."""
    state: Named[str] = Column(Text, nullable=False, server_default=text("'pending'"))
    queued_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    tries: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    tried_at: Named[datetime | None] = Column(_TIME)
    due_at: Named[datetime | None] = Column(_TIME)
    """After a failure; what counts is the lane's."""
    done_at: Named[datetime | None] = Column(_TIME)
    """When it was delivered or given up."""
    status: Named[int | None] = Column(Integer)
    error: Named[str | None] = Column(Text)


webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    _WebhookDeliveries,
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    Index("webhook_deliveries_at_idx", "webhook", "at", "message"),
    Index(
        "webhook_deliveries_pending_idx",
        "webhook",
        "conference",
        "seq",
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "webhook_deliveries_queued_idx", "webhook", "queued_at", postgresql_where=text("state = 'pending'")
    ),
    Index("webhook_deliveries_dead_idx", "webhook", "at", "message", postgresql_where=text("state = 'dead'")),
    Index("webhook_deliveries_done_idx", "done_at", postgresql_where=text("state <> 'pending'")),
)


class _WebhookLanes(TypedColumns):
    """One for each webhook and conference between which something waits: its messages go one by one."""

    webhook: Named[str] = Column(Text, primary_key=True)
    conference: Named[str] = Column(Text, primary_key=True)
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))
    """Counts what was queued: whoever found nothing more at version n may end the lane only while it is n."""
    due_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    failed_at: Named[datetime | None] = Column(_TIME)
    claimed_by: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    claimed_until: Named[datetime | None] = Column(_TIME)
    replica: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """Which one has claimed it: when that is gone, nobody waits for the claim to run out."""


webhook_lanes: Final = Table(
    "webhook_lanes",
    metadata,
    _WebhookLanes,
    Index("webhook_lanes_due_idx", "webhook", "due_at"),
    Index("webhook_lanes_replica_idx", "replica", postgresql_where=text("replica IS NOT NULL")),
)


class _FormerConferences(TypedColumns):
    """What webhooks' filters ask of conferences that have ended; kept by a trigger."""

    id: Named[str] = Column(Text, primary_key=True)
    template: Named[str] = Column(Text, nullable=False)
    metadata: Named[Any] = Column(JSONB, nullable=False)
    ended_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())


former_conferences: Final = Table(
    "former_conferences",
    metadata,
    _FormerConferences,
    Index("former_conferences_ended_at_idx", "ended_at"),
)


class _Replicas(TypedColumns):
    """Processes of control; who dies is seen by the lease. Rows stay for a while, for whoever looks."""

    id: Named[Any] = Column(UUID(as_uuid=True), primary_key=True)
    """Drawn at each start."""
    name: Named[str] = Column(Text, nullable=False)
    version: Named[str] = Column(Text, nullable=False)
    revision: Named[str] = Column(Text, nullable=False)
    """The newest revision of the schema that it knows."""
    duties: Named[list[str]] = Column(ARRAY(Text), nullable=False)
    """Those that it can do."""
    started_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    last_seen_at: Named[datetime] = Column(_TIME, nullable=False, server_default=func.clock_timestamp())
    lease_expires_at: Named[datetime] = Column(_TIME, nullable=False)
    stopped_at: Named[datetime | None] = Column(_TIME)
    """When it said that it ends."""
    cleared_at: Named[datetime | None] = Column(_TIME)
    """When the last of its claims was given back after its lease ran out."""


replicas: Final = Table("replicas", metadata, _Replicas, postgresql_with={"fillfactor": 50})


class _Duties(TypedColumns):
    """What one replica does at a time. Whoever took it is known by the epoch, and refused when it is over."""

    name: Named[str] = Column(Text, primary_key=True)
    holder: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    epoch: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    since: Named[datetime | None] = Column(_TIME)


duties: Final = Table("duties", metadata, _Duties)


class _SchemaBounds(TypedColumns):
    id: Named[bool] = Column(Boolean, primary_key=True, server_default=text("true"))
    oldest: Named[str] = Column(Text, nullable=False)
    """Programs that know this revision can work with the schema; kept by migrations/env.py."""


schema_bounds: Final = Table("schema_bounds", metadata, _SchemaBounds, CheckConstraint("id", name="single"))


class _Caches(TypedColumns):
    """Counts the changes of what replicas remember; kept by triggers."""

    name: Named[str] = Column(Text, primary_key=True)
    version: Named[int] = Column(BigInteger, nullable=False, server_default=text("1"))


caches: Final = Table("caches", metadata, _Caches)
