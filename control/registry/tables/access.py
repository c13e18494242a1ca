"""Who may do what, and what was done: access keys, signing keys, kept answers, the audit."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy evaluates the columns' annotations
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from control.registry.tables.base import TIME, metadata

__all__ = ["audit", "credentials", "kept_answers", "signing_keys"]


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
    last_used_at: Named[datetime | None] = Column(TIME)
    """To the minute or so."""
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    revoked_at: Named[datetime | None] = Column(TIME)


credentials: Final = Table(
    "credentials",
    metadata,
    _Credentials,
    CheckConstraint("kind IN ('enrolment', 'application', 'operator')", name="kind"),
    Index("credentials_created_idx", "created_at", "id"),
)


class _SigningKeys(TypedColumns):
    """Keys of join tokens; control.security.signing says what becomes of each, and when."""

    kid: Named[str] = Column(Text, primary_key=True)
    public: Named[str] = Column(Text, nullable=False)
    private: Named[bytes] = Column(LargeBinary, nullable=False)
    """Sealed: the base64 of 32 bytes."""
    created_at: Named[datetime] = Column(TIME, nullable=False, server_default=func.now())
    active_from: Named[datetime] = Column(TIME, nullable=False)


signing_keys: Final = Table("signing_keys", metadata, _SigningKeys)


class _KeptAnswers(TypedColumns):
    """Answers to requests with an Idempotency-Key."""

    caller: Named[str] = Column(Text, primary_key=True)
    key: Named[str] = Column(Text, primary_key=True)
    fingerprint: Named[bytes] = Column(LargeBinary, nullable=False)
    """SHA-256 of what was asked."""
    answer: Named[bytes | None] = Column(LargeBinary)
    """Sealed; NULL: still being worked on, by whoever holds the claim."""
    claim: Named[int] = Column(BigInteger, nullable=False)
    claimed_until: Named[datetime] = Column(TIME, nullable=False)
    expires_at: Named[datetime] = Column(TIME, nullable=False)


kept_answers: Final = Table(
    "kept_answers", metadata, _KeptAnswers, Index("kept_answers_expires_at_idx", "expires_at")
)


class _Audit(TypedColumns):
    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    at: Named[datetime] = Column(TIME, nullable=False, server_default=func.clock_timestamp())
    actor: Named[str] = Column(Text, nullable=False)
    """`<kind of key>:<id of key>`, or `control`."""
    subject: Named[str] = Column(Text, nullable=False)
    """`cluster:<id>`, for example."""
    action: Named[str] = Column(Text, nullable=False)
    before: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)
    after: Named[Any] = Column(JSONB(none_as_null=True), nullable=True)


audit: Final = Table("audit", metadata, _Audit, Index("audit_subject_idx", "subject", "id"))
