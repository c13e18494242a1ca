"""Webhooks, and what is still to be delivered to them."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from control.registry.tables.base import TIME, metadata

__all__ = ["webhook_deliveries", "webhook_lanes", "webhooks"]


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
    previous_until: Named[datetime | None] = Column(TIME)
    enabled: Named[bool] = Column(nullable=False, server_default=text("true"))
    disabled_at: Named[datetime | None] = Column(TIME)
    disabled_reason: Named[str | None] = Column(Text)
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    created_by: Named[str | None] = Column(Text)
    """Id of the operator key."""
    failures: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    """In a row; this and the next two are control.delivery.attempts.Endpoint."""
    failing_since: Named[datetime | None] = Column(TIME)
    paused_until: Named[datetime | None] = Column(TIME)
    recovered_at: Named[datetime | None] = Column(TIME)
    """When its circuit closed last: what failed before that need not wait."""
    last_success_at: Named[datetime | None] = Column(TIME)
    """To the minute."""
    last_failure_at: Named[datetime | None] = Column(TIME)
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
    at: Named[datetime] = Column(TIME, nullable=False)
    body: Named[Any] = Column(JSONB, nullable=False)
    """A copy of the event's: the log may forget sooner than the receiver is back."""
    state: Named[str] = Column(Text, nullable=False, server_default=text("'pending'"))
    queued_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    tries: Named[int] = Column(Integer, nullable=False, server_default=text("0"))
    tried_at: Named[datetime | None] = Column(TIME)
    due_at: Named[datetime | None] = Column(TIME)
    """After a failure; what counts is the lane's."""
    done_at: Named[datetime | None] = Column(TIME)
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
    due_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    failed_at: Named[datetime | None] = Column(TIME)
    claimed_by: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    claimed_until: Named[datetime | None] = Column(TIME)
    replica: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    """Which one has claimed it: when that is gone, nobody waits for the claim to run out."""


webhook_lanes: Final = Table(
    "webhook_lanes",
    metadata,
    _WebhookLanes,
    Index("webhook_lanes_due_idx", "webhook", "due_at"),
    Index("webhook_lanes_replica_idx", "replica", postgresql_where=text("replica IS NOT NULL")),
)
