"""Answers kept for requests with an Idempotency-Key: who works on one, and what it was."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from control.registry.tables import kept_answers as kept

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Claimed", "begin", "drop", "finish", "sweep"]

_NOW: Final = func.clock_timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What is known of a key. `claim` set: it is ours to work on; else somebody's, or there is an answer."""

    claim: int | None
    fingerprint: bytes
    answer: bytes | None = field(repr=False)
    """Sealed."""


async def begin(
    connection: AsyncConnection, caller: str, key: str, *, fingerprint: bytes, patience: float, ttl: float
) -> Claimed:
    """Claim the key for `patience` seconds, if it is new, or its former claim or answer has run out."""
    claim = secrets.randbits(63)
    row = insert(kept).values(
        caller=caller,
        key=key,
        fingerprint=fingerprint,
        claim=claim,
        claimed_until=_NOW + timedelta(seconds=patience),
        expires_at=_NOW + timedelta(seconds=ttl),
    )
    taken = await connection.scalars(
        row.on_conflict_do_update(
            index_elements=[kept.c.caller, kept.c.key],
            set_={
                name: row.excluded[name]
                for name in ("fingerprint", "answer", "claim", "claimed_until", "expires_at")
            },
            where=(kept.c.expires_at <= _NOW)
            | and_(kept.c.answer.is_(None), kept.c.claimed_until <= _NOW, kept.c.fingerprint == fingerprint),
        ).returning(kept.c.claim)
    )
    if taken.one_or_none() == claim:
        return Claimed(claim=claim, fingerprint=fingerprint, answer=None)
    known = (
        await connection.execute(
            select(kept.c.fingerprint, kept.c.answer).where(kept.c.caller == caller, kept.c.key == key)
        )
    ).one_or_none()
    if known is None:  # given back this very moment: as if somebody still worked on it
        return Claimed(claim=None, fingerprint=fingerprint, answer=None)
    return Claimed(claim=None, fingerprint=known.fingerprint, answer=known.answer)


async def finish(connection: AsyncConnection, caller: str, key: str, *, claim: int, answer: bytes) -> None:
    """Keep the answer, if the claim still holds."""
    await connection.execute(
        update(kept)
        .where(kept.c.caller == caller, kept.c.key == key, kept.c.claim == claim)
        .values(answer=answer)
    )


async def drop(connection: AsyncConnection, caller: str, key: str, *, claim: int) -> None:
    """Give the claim back: nothing was done, the request may be tried again."""
    await connection.execute(
        delete(kept).where(
            kept.c.caller == caller,
            kept.c.key == key,
            kept.c.claim == claim,
            kept.c.answer.is_(None),
        )
    )


async def sweep(connection: AsyncConnection, *, limit: int = 1000) -> None:
    """Delete what ran out, at most `limit`."""
    old = (
        select(kept.c.caller, kept.c.key)
        .where(kept.c.expires_at <= _NOW)
        .order_by(kept.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    await connection.execute(delete(kept).where(kept.c.caller == old.c.caller, kept.c.key == old.c.key))
