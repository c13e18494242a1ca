"""Looks after the event log: partitions for the days to come, checkpoints and an end for those long past.

Every replica may do this, also several at once: each step is idempotent, and checkpoints are made of events
that change no more.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import DBAPIError

from control.delivery import rebuilding
from control.errors import DatabaseUnavailableError
from control.registry import event_days, histories

if TYPE_CHECKING:
    from datetime import datetime

    from control.event_settings import EventSettings
    from control.registry.store import Store

__all__ = ["keep_days", "look_after"]

_log = structlog.get_logger(__name__)

_BATCH: Final = 200
"""Conferences whose checkpoints are made in one transaction."""
_LOCK_NOT_AVAILABLE: Final = "55P03"


async def keep_days(store: Store, settings: EventSettings) -> None:
    """Look after the log for ever."""
    while True:
        try:
            await look_after(store, settings)
        except DatabaseUnavailableError as error:
            _log.warning("events.database_unavailable", error=error.detail)
        await asyncio.sleep(settings.upkeep_interval)


async def look_after(store: Store, settings: EventSettings) -> None:
    """Make what is missing, and drop what is over, now. Raises DatabaseUnavailableError."""
    try:
        made = await store.write(event_days.make, ahead=settings.days_ahead)
        if made:
            _log.info("events.days_made", first=made[0], last=made[-1])
        await _drop_old(store, await store.read(event_days.bound, keep_days=settings.retention_days))
    except DatabaseUnavailableError as error:
        cause = error.__cause__
        if not isinstance(cause, DBAPIError) or getattr(cause.orig, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
            raise
        _log.info("events.in_use")  # another time


async def _drop_old(store: Store, before: datetime) -> None:
    """Drop the days before that time, once what they say of living conferences is kept."""
    last: str | None = ""
    while last is not None:
        last = await store.write(rebuilding.keep, before, after=last, limit=_BATCH)
    for day in await store.read(event_days.partitions):
        if day + timedelta(days=1) <= before.date():
            await store.write(event_days.drop, day)
            _log.info("events.day_dropped", day=day)
    await store.write(event_days.prune, before)
    await store.write(histories.forget, before)
