"""What joins write: seats taken, and why there."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    func,
)

from control.registry.tables.base import TIME, metadata

__all__ = ["decisions", "reservations"]


class _Reservations(TypedColumns):
    # No foreign keys: they would lock a row more for each join, and what is left over expires.
    conference: Named[str] = Column(Text, primary_key=True)
    cluster: Named[str] = Column(Text, primary_key=True)
    user_name: Named[str] = Column(Text, primary_key=True)
    id: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    """Random."""
    made_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    expires_at: Named[datetime] = Column(TIME, nullable=False)


reservations: Final = Table(
    "reservations", metadata, _Reservations, Index("reservations_expires_at_idx", "expires_at")
)


class _Decisions(TypedColumns):
    # No foreign key, as above; a trigger deletes them with the conference.
    conference: Named[str] = Column(Text, primary_key=True)
    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    body: Named[bytes] = Column(LargeBinary, nullable=False)
    """control.placement.decision.Decision in MessagePack."""


decisions: Final = Table("decisions", metadata, _Decisions)
