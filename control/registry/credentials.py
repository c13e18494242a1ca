"""Access keys as the registry keeps them: id, kind and the hash of the secret, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from causeway.keys import SCOPES
from control.registry.tables import credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.keys import KeyKind, Scope

__all__ = ["StoredKey", "create_first", "ensure", "find"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A valid key."""

    id: str
    kind: KeyKind
    scopes: frozenset[Scope]
    secret_hash: bytes = field(repr=False)


async def find(connection: AsyncConnection, key: str) -> StoredKey | None:
    """Return the key of this id, None if there is none or it was revoked."""
    row = (
        await connection.execute(
            select(credentials.c.kind, credentials.c.secret_hash).where(
                credentials.c.id == key, credentials.c.revoked_at.is_(None)
            )
        )
    ).one_or_none()
    if row is None:
        return None
    return StoredKey(
        id=key, kind=cast("KeyKind", row.kind), scopes=frozenset(SCOPES), secret_hash=row.secret_hash
    )


async def create_first(connection: AsyncConnection, keys: Sequence[tuple[str, KeyKind, bytes]]) -> bool:
    """Store these (id, kind, hash) if there never was any key; of processes that start at once, one does."""
    await connection.execute(text("LOCK TABLE credentials IN SHARE ROW EXCLUSIVE MODE"))
    if (await connection.scalars(select(credentials.c.id).limit(1))).one_or_none() is not None:
        return False
    await connection.execute(
        insert(credentials),
        [{"id": key, "kind": kind, "secret_hash": secret_hash} for key, kind, secret_hash in keys],
    )
    return True


async def ensure(connection: AsyncConnection, key: str, *, kind: KeyKind, secret_hash: bytes) -> bool:
    """Store the key unless its id is taken; return whether the id now is this very key, and not revoked."""
    row = insert(credentials).values(id=key, kind=kind, secret_hash=secret_hash)
    await connection.execute(row.on_conflict_do_nothing())
    stored = await find(connection, key)
    return stored is not None and (stored.kind, stored.secret_hash) == (kind, secret_hash)
