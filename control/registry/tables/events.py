"""The event log of conferences."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Identity, Index, Named, Table, Text, TypedColumns, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from control.registry.tables.base import TIME, metadata

__all__ = [
    "conference_checkpoints",
    "conference_events",
    "conference_heads",
    "former_conferences",
    "pending_events",
]


class _ConferenceHeads(TypedColumns):
    """How far a conference's events are; locked by whoever commits one, last of all, until that is done.

    Outlives the conference: the next one of that id goes on counting.
    """

    conference: Named[str] = Column(Text, primary_key=True)
    seq: Named[int] = Column(BigInteger, nullable=False)
    at: Named[datetime] = Column(TIME, nullable=False)


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
    at: Named[datetime] = Column(TIME, primary_key=True)
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
    at: Named[datetime] = Column(TIME, nullable=False)
    body: Named[Any] = Column(JSONB, nullable=False)
    """causeway.api.events.ConferenceState."""


conference_checkpoints: Final = Table("conference_checkpoints", metadata, _ConferenceCheckpoints)


class _FormerConferences(TypedColumns):
    """What webhooks' filters ask of conferences that have ended; kept by a trigger."""

    id: Named[str] = Column(Text, primary_key=True)
    template: Named[str] = Column(Text, nullable=False)
    metadata: Named[Any] = Column(JSONB, nullable=False)
    ended_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())


former_conferences: Final = Table(
    "former_conferences",
    metadata,
    _FormerConferences,
    Index("former_conferences_ended_at_idx", "ended_at"),
)
