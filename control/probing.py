"""Asks clusters that send no heartbeat for signs of life: a signed request that they must accept.

Every replica probes; each probe is claimed in the registry, in the replica's name, so that a cluster is asked
once a period whatever their number. Along with it goes what such clusters do not report by themselves: who is
in their rooms.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from control.attendance import take_attendance
from control.drivers.base import DriverError, NotSupportedError
from control.errors import ConferenceUnknownError, DatabaseUnavailableError
from control.registry import clusters, probes
from control.security.vault import SealError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Awaitable, Callable

    from control.bell import Bell
    from control.cluster_settings import ProbeSettings
    from control.drivers.base import ClusterDriver
    from control.fleet import Fleet
    from control.registry.probes import Probe
    from control.registry.store import Store

__all__ = ["Prober"]

_log = structlog.get_logger(__name__)


class Prober:
    """Probes clusters while `run` runs. `on_alive(cluster)` is awaited after every probe that succeeded."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        bell: Bell,
        settings: ProbeSettings,
        *,
        on_alive: Callable[[str], Awaitable[None]],
        replica: uuid.UUID | None = None,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._bell = bell
        self._settings = settings
        self._on_alive = on_alive
        self._replica = replica
        self._under_way = 0

    async def run(self) -> None:
        """Probe what is due, until cancelled."""
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            while True:
                free = self._settings.max_at_once - self._under_way
                try:
                    due = await self._store.read(
                        probes.claim, limit=free, hold=self._hold, replica=self._replica
                    )
                except DatabaseUnavailableError as error:
                    _log.warning("probe.database_unavailable", error=error.detail)
                    due = []
                for probe in due:
                    self._under_way += 1
                    group.create_task(self._guarded(probe, ended))
                ended.clear()
                if self._under_way >= self._settings.max_at_once:
                    await ended.wait()  # every probe has its timeouts, so one of them ends
                else:
                    await asyncio.sleep(self._settings.poll_interval)

    @property
    def _hold(self) -> float:
        """Seconds after which a probe whose prober died may be claimed by another."""
        return 2 * self._settings.timeout + self._settings.period

    async def _guarded(self, probe: Probe, ended: asyncio.Event) -> None:
        try:
            await self.probe(probe)
        except DatabaseUnavailableError as error:
            _log.warning("probe.database_unavailable", cluster=probe.cluster, error=error.detail)
        except Exception:  # noqa: BLE001 - one cluster's trouble must not end the probing of the others; logged
            _log.exception("probe.defect", cluster=probe.cluster)
        finally:
            self._under_way -= 1
            ended.set()

    async def probe(self, probe: Probe) -> None:
        """Ask one cluster and note what it says. Raises DatabaseUnavailableError."""
        access = await self._store.read(clusters.access, probe.cluster, even_lost=True)
        if access is None:
            return
        try:
            async with asyncio.timeout(self._settings.timeout):
                driver = self._fleet.driver(probe.cluster, access)
                health = await driver.health()
        except (DriverError, SealError, TimeoutError) as error:
            await self._silent(probe, _text(error))
            return
        if health.state == "down":
            await self._silent(probe, "it says of itself that it is down")
            return
        came = await self._store.write(
            probes.answered, probe, ttl=self._settings.lease, next_in=self._soon(self._settings.period)
        )
        if came == "outdated":
            return
        if came == "back":
            _log.info("cluster.back", cluster=probe.cluster)
            self._bell.any.set()
        await self._on_alive(probe.cluster)
        if driver.capabilities.reports:
            await self._list(probe.cluster, driver)
        else:
            await self._survey(probe, driver)

    async def _silent(self, probe: Probe, error: str) -> None:
        failures = await self._store.write(
            probes.silent,
            probe,
            error=error[:500],
            failures_to_lost=self._settings.failures_to_lost,
            next_in=self._soon(self._settings.period),
            lost_next_in=self._soon(self._settings.lost_period),
        )
        if failures is not None and failures <= self._settings.failures_to_lost:
            _log.warning("probe.failed", cluster=probe.cluster, failures=failures, error=error)

    async def _survey(self, probe: Probe, driver: ClusterDriver) -> None:
        """Find out how busy a cluster is that tells nothing by itself, and who is in its rooms."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                survey = await driver.survey()
        except (DriverError, TimeoutError) as error:
            _log.info("probe.not_surveyed", cluster=probe.cluster, error=_text(error))
            return
        if survey is None:
            return
        await self._store.write(probes.loaded, probe, survey)
        changed = await self._store.read(
            probes.differing, probe.cluster, survey, limit=self._settings.max_rooms
        )
        for conference, room in changed:
            with suppress(ConferenceUnknownError):  # deleted meanwhile
                people = survey.rooms.get(room, ())
                if await self._store.write(probes.listed, conference, probe.cluster, people):
                    self._bell.ring(conference)

    async def _list(self, cluster: str, driver: ClusterDriver) -> None:
        """Find out who is in the cluster's rooms; what cannot be had now is had with the next probe."""
        if self._settings.max_rooms == 0:
            return
        rooms = await self._store.read(probes.rooms, cluster, limit=self._settings.max_rooms)
        for conference, room, _ in rooms:
            try:
                await take_attendance(
                    self._store,
                    self._bell,
                    driver,
                    conference=conference,
                    cluster=cluster,
                    room=room,
                    timeout=self._settings.timeout,
                )
            except NotSupportedError:
                return
            except (DriverError, TimeoutError) as error:
                _log.info("probe.not_listed", cluster=cluster, room=room, error=_text(error))
                return

    def _soon(self, seconds: float) -> float:
        """Return about so many seconds: probes of clusters that registered together drift apart."""
        return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "cluster-timeout: no answer in time"
    return f"{getattr(error, 'code', 'error')}: {error}"
