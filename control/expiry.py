"""Ends conferences that nobody has been in for the time that they are kept empty."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from control.errors import DatabaseUnavailableError
from control.registry import conferences

if TYPE_CHECKING:
    from control.bell import Bell
    from control.conference_settings import ConferenceSettings
    from control.registry.store import Store

__all__ = ["sweep_empty"]

_log = structlog.get_logger(__name__)


async def sweep_empty(store: Store, bell: Bell, settings: ConferenceSettings) -> None:
    """Do that for ever."""
    while True:
        try:
            while ended := await store.write(conferences.expire, limit=settings.sweep_batch):
                for conference in ended:
                    _log.info("conference.expired", conference=conference)
                    bell.ring(conference)
        except DatabaseUnavailableError as error:
            _log.warning("expiry.database_unavailable", error=error.detail)
        await asyncio.sleep(settings.sweep_interval)
