"""Keys that sign join tokens, as the registry keeps them: the private half sealed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from control.registry.tables import signing_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["StoredSigningKey", "add", "create_first", "find_all", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSigningKey:
    """A key with its private half sealed for `("signing_keys.private", kid)`."""

    kid: str
    public: str
    sealed: bytes = field(repr=False)
    created_at: datetime
    active_from: datetime


async def find_all(connection: AsyncConnection) -> list[StoredSigningKey]:
    """Return every key, whatever its age."""
    rows = await connection.execute(select(signing_keys))
    return [
        StoredSigningKey(
            kid=row.kid,
            public=row.public,
            sealed=row.private,
            created_at=row.created_at,
            active_from=row.active_from,
        )
        for row in rows.all()
    ]


async def create_first(connection: AsyncConnection, kid: str, *, public: str, sealed: bytes) -> bool:
    """Store the key if there is none, to sign at once; of processes that start together, one does."""
    await connection.execute(text("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE"))
    if (await connection.scalars(select(signing_keys.c.kid).limit(1))).one_or_none() is not None:
        return False
    # Since an hour ago, as it were: the clock of whoever signs may be behind the database's.
    await add(connection, kid, public=public, sealed=sealed, lead=-3600.0)
    return True


async def add(connection: AsyncConnection, kid: str, *, public: str, sealed: bytes, lead: float) -> None:
    """Store a key that signs from `lead` seconds from now on."""
    now = func.clock_timestamp()
    await connection.execute(
        insert(signing_keys).values(
            kid=kid, public=public, private=sealed, created_at=now, active_from=now + timedelta(seconds=lead)
        )
    )


async def remove(connection: AsyncConnection, kids: Sequence[str]) -> None:
    """Forget keys that no valid token can be signed with any more."""
    await connection.execute(delete(signing_keys).where(signing_keys.c.kid.in_(kids)))
