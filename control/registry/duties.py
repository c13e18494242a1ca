"""Duties: what one replica does at a time, taken by compare-and-set and fenced by an epoch.

Whoever holds a duty is a row; whether the holder still lives says its lease (control.registry.replicas). What
a former holder writes is refused in its own transaction (`require`). No advisory lock is used: distributed
engines have none, and a lock does not tell who holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from control.registry.tables import duties

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.registry.lane import Lane

__all__ = ["DutyLostError", "Held", "know", "release", "require", "take"]


class DutyLostError(Exception):
    """Another replica has the duty now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Held:
    """A duty that was taken."""

    name: str
    holder: uuid.UUID
    epoch: int


_KNOW: Final = "INSERT INTO duties (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_TAKE: Final = """
    UPDATE duties SET holder = $2, epoch = epoch + 1, since = clock_timestamp()
    WHERE name = $1 AND epoch = $3
        AND EXISTS (SELECT FROM replicas WHERE id = $2 AND lease_expires_at > clock_timestamp())
        AND NOT EXISTS (
            SELECT FROM replicas
            WHERE id = holder AND id <> $2 AND lease_expires_at > clock_timestamp()
        )
    RETURNING epoch
"""
_RELEASE: Final = """
    UPDATE duties SET holder = NULL, since = NULL WHERE name = $1 AND holder = $2 AND epoch = $3
"""


async def know(lane: Lane, names: Sequence[str]) -> None:
    """Make sure that there is a row for each duty."""
    await lane.fetch(_KNOW, sorted(names))


async def take(lane: Lane, name: str, *, holder: uuid.UUID, seen: int) -> Held | None:
    """Take a duty that nobody alive has; None if somebody did since epoch `seen`, or I am not alive."""
    rows = await lane.fetch(_TAKE, name, holder, seen)
    return Held(name, holder, rows[0]["epoch"]) if rows else None


async def release(lane: Lane, held: Held) -> None:
    """Give the duty back, if it is still mine."""
    await lane.fetch(_RELEASE, held.name, held.holder, held.epoch)


async def require(connection: AsyncConnection, held: Held, *, patience: float) -> None:
    """Let the transaction go on only if the duty is still held; to be asked at its beginning and its end.

    No row is locked: whoever freezes here must not keep others from taking the duty. The server gives up the
    transaction when it is idle for `patience` seconds, so that it does not end long after it was last asked
    for. Raises DutyLostError.
    """
    limit = func.set_config(
        "idle_in_transaction_session_timeout",
        f"{max(1, round(patience * 1000))}",
        True,  # noqa: FBT003 - SQL has no names
    )
    row = await connection.execute(
        select(duties.c.name, limit).where(
            duties.c.name == held.name, duties.c.holder == held.holder, duties.c.epoch == held.epoch
        )
    )
    if row.one_or_none() is None:
        raise DutyLostError(held.name)
