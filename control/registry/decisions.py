"""Decisions of joins, the newest few of each conference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select, text

from control.errors import ConferenceUnknownError
from control.registry.tables import conferences, decisions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["of_conference", "trim"]


async def of_conference(
    connection: AsyncConnection, conference: str, *, limit: int
) -> list[tuple[datetime, bytes]]:
    """Return (when, packed decision) of its joins, newest first. Raises ConferenceUnknownError."""
    found = (
        await connection.execute(
            select(conferences.c.id, decisions.c.at, decisions.c.body)
            .select_from(conferences)
            .outerjoin(decisions, decisions.c.conference == conferences.c.id)
            .where(conferences.c.id == conference)
            .order_by(decisions.c.id.desc())
            .limit(limit)
        )
    ).all()
    if not found:
        raise ConferenceUnknownError(f"no conference {conference}")
    return [(row.at, row.body) for row in found if row.body is not None]


_TRIM: Final = text(
    """
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS done)
    DELETE FROM decisions d USING quick, unnest(CAST(:conferences AS text[])) AS c (id)
    WHERE quick.done IS NOT NULL AND d.conference = c.id AND d.id <= (
        SELECT kept.id FROM decisions kept WHERE kept.conference = c.id
        ORDER BY kept.id DESC OFFSET :keep LIMIT 1
    )
    """
)


async def trim(connection: AsyncConnection, touched: Sequence[str], *, keep: int) -> None:
    """Delete all but the newest `keep` decisions of these conferences. One statement; waits for no disk."""
    await connection.execute(_TRIM, {"conferences": touched, "keep": keep})
