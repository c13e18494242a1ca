"""Replicas of control, their duties, and what all of them have to know of the database."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Named,
    Table,
    Text,
    TypedColumns,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from control.registry.tables.base import TIME, metadata

__all__ = ["caches", "duties", "replicas", "schema_bounds"]


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
    started_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    last_seen_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    lease_expires_at: Named[datetime] = Column(TIME, nullable=False)
    stopped_at: Named[datetime | None] = Column(TIME)
    """When it said that it ends."""
    cleared_at: Named[datetime | None] = Column(TIME)
    """When the last of its claims was given back after its lease ran out."""


replicas: Final = Table("replicas", metadata, _Replicas, postgresql_with={"fillfactor": 50})


class _Duties(TypedColumns):
    """What one replica does at a time. Whoever took it is known by the epoch, and refused when it is over."""

    name: Named[str] = Column(Text, primary_key=True)
    holder: Named[Any] = Column(UUID(as_uuid=True), nullable=True)
    epoch: Named[int] = Column(BigInteger, nullable=False, server_default=text("0"))
    since: Named[datetime | None] = Column(TIME)


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
