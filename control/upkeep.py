"""Forgets what is old: audit, early reports, numbers of reports, modules of gone clusters, gone replicas."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from control.errors import DatabaseUnavailableError
from control.registry import audit, capacity, early_rooms, replicas, report_order

if TYPE_CHECKING:
    from control.cluster_settings import OwtSettings, UpkeepSettings
    from control.registry.store import Store
    from control.replica_settings import ReplicaSettings

__all__ = ["forget_old", "keep_up"]

_log = structlog.get_logger(__name__)
_DAY: Final = 86_400.0
_HOUR: Final = 3600.0


async def keep_up(store: Store, settings: UpkeepSettings, owt: OwtSettings, replica: ReplicaSettings) -> None:
    """Forget what is old, again and again, until cancelled."""
    while True:
        try:
            await forget_old(store, settings, owt, replica)
        except DatabaseUnavailableError as error:
            _log.warning("upkeep.database_unavailable", error=error.detail)
        await asyncio.sleep(settings.interval)


async def forget_old(
    store: Store, settings: UpkeepSettings, owt: OwtSettings, replica: ReplicaSettings
) -> None:
    """Forget it now. Raises DatabaseUnavailableError."""
    forgotten = {
        "audit": await store.write(audit.prune, keep_days=settings.audit_days),
        "rooms": await store.write(early_rooms.prune, after=owt.early_seconds),
        "modules": await store.write(capacity.forget_strangers, after=settings.capacity_days * _DAY),
        "reports": await store.write(report_order.prune, after=settings.report_hours * _HOUR),
        "replicas": await store.write(replicas.forget, after=replica.forget_after),
    }
    if any(forgotten.values()):
        _log.info("upkeep.forgotten", **forgotten)
