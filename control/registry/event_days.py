"""The event log's partitions: one for each day (UTC), made ahead, and dropped whole when its time is over.

A partition is dropped only after checkpoints were left of what it says (control.delivery.keeping). All
functions work inside the caller's transaction.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["bound", "drop", "make", "partitions", "prune"]

_NAME: Final = re.compile(r"conference_events_(\d{8})")
_PATIENCE: Final = "1s"
"""How long a drop waits for readers, and holds up everybody who comes after it meanwhile."""


async def make(connection: AsyncConnection, *, ahead: int) -> list[date]:
    """Make the partitions of today and the `ahead` days after it that are missing; return their days."""
    today = await connection.scalar(text("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"))
    assert isinstance(today, date)
    days = [today + timedelta(days=n) for n in range(ahead + 1)]
    return [day for day in days if await connection.scalar(select(func.causeway_event_partition(day)))]


async def bound(connection: AsyncConnection, *, keep_days: int) -> datetime:
    """Return when the oldest day begins that is to be kept: there are today and `keep_days` before it."""
    today = await connection.scalar(text("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"))
    assert isinstance(today, date)
    return datetime.combine(today - timedelta(days=keep_days), time(), tzinfo=UTC)


async def partitions(connection: AsyncConnection) -> list[date]:
    """Return the days that have a partition, in order."""
    names = await connection.scalars(
        text(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'conference_events'::regclass"
        )
    )
    matches = (_NAME.search(name) for name in names.all())
    return sorted(
        datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).date() for match in matches if match
    )


async def drop(connection: AsyncConnection, day: date) -> None:
    """Drop a day's partition, at once, with all that is in it; raises DBAPIError if it is in use for long."""
    await connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE}'"))
    await connection.execute(text(f"DROP TABLE IF EXISTS conference_events_{day:%Y%m%d}"))


async def prune(connection: AsyncConnection, before: datetime) -> None:
    """Delete what is older in the partition that takes what has no other."""
    await connection.execute(
        text("DELETE FROM conference_events_default WHERE at < :before"), {"before": before}
    )
