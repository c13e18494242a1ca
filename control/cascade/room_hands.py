"""Makes and removes rooms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from control.attendance import take_attendance
from control.cascade.outcome import ANSWERED, DONE, NOT_BEGUN, Outcome, delay, said, verdict
from control.cascade.view import CreateRoom, RemoveRoom
from control.drivers.base import DriverError
from control.errors import ConferenceUnknownError
from control.registry import clusters, placements, probes, templates
from control.security.vault import SealError

if TYPE_CHECKING:
    from control.cascade.view import View
    from control.fleet import Fleet
    from control.registry.clusters import ClusterAccess
    from control.registry.store import Store
    from control.settings import ReconcileSettings

__all__ = ["RoomHands"]

_log: Final = structlog.get_logger(__name__)


class RoomHands:
    """Raises DatabaseUnavailableError; a cluster's failure is noted at the placement."""

    def __init__(self, store: Store, fleet: Fleet, settings: ReconcileSettings) -> None:
        self._store = store
        self._fleet = fleet
        self._settings = settings

    async def do(self, view: View, action: CreateRoom | RemoveRoom) -> Outcome:
        """Carry it out."""
        match action:
            case CreateRoom(cluster):
                return await self._create_room(view, cluster)
            case RemoveRoom(cluster):
                return await self._remove_room(view, cluster)

    async def _create_room(self, view: View, cluster: str) -> Outcome:
        conference = view.conference
        access = await self._store.read(clusters.access, cluster)
        if access is None:
            return NOT_BEGUN
        try:
            async with asyncio.timeout(self._settings.room_timeout):
                driver = self._fleet.driver(cluster, access)
                epoch = next((p.epoch for p in view.placements if p.cluster == cluster), 0)
                # The same version everywhere, whatever became of the template since the conference was made.
                used = await self._store.read(templates.of_conference, conference)
                room = await driver.create_room(conference, used.template, placement=epoch)
                known = await self._store.write(
                    placements.created,
                    conference,
                    cluster,
                    incarnation=access.incarnation,
                    epoch=epoch,
                    room=room,
                )
                if known or await self._store.read(placements.placed, conference, cluster) is not None:
                    _log.info("room.created", conference=conference, cluster=cluster)
                else:  # given up in the meantime: leave nothing behind
                    await driver.delete_room(room, placement=epoch)
        except ConferenceUnknownError:
            return NOT_BEGUN
        except (DriverError, SealError, TimeoutError) as error:
            return await self._room_failed(view, cluster, error)
        return ANSWERED

    async def _remove_room(self, view: View, cluster: str) -> Outcome:
        """Remove it for good if the conference ends, else if nobody is there nor comes while this is done."""
        conference, ending = view.conference, view.state == "ending"
        access = await self._store.read(clusters.access, cluster)
        if access is None:
            return NOT_BEGUN
        epoch: int | None = next((p.epoch for p in view.placements if p.cluster == cluster), 0)
        try:
            if not ending:
                epoch = await self._give_up(conference, cluster, access)
            if epoch is None:
                return DONE
            async with asyncio.timeout(self._settings.room_timeout):
                # By its name rather than by what the placement knows: a creation's answer may have been lost.
                driver = self._fleet.driver(cluster, access)
                await driver.delete_room(conference, placement=epoch)
        except (DriverError, SealError, TimeoutError) as error:
            return await self._room_failed(view, cluster, error)
        await self._store.write(placements.removed if ending else placements.vacated, conference, cluster)
        _log.info("room.removed", conference=conference, cluster=cluster)
        return ANSWERED

    async def _give_up(self, conference: str, cluster: str, access: ClusterAccess) -> int | None:
        """Take the placement back and return its epoch, if still nobody is there or on the way."""
        # What is known of a cluster that does not tell may be old; it is asked once more.
        if await self._store.read(probes.is_asked, cluster) and await take_attendance(
            self._store,
            None,
            self._fleet.driver(cluster, access),
            conference=conference,
            cluster=cluster,
            room=conference,
            timeout=self._settings.room_timeout,
        ):
            return None
        if not await self._store.write(placements.vacate, conference, cluster):
            return None
        # A seat that was being taken just then, in a room that was ready, is seen by now.
        return await self._store.write(placements.renew, conference, cluster)

    async def _room_failed(self, view: View, cluster: str, error: Exception) -> Outcome:
        failures = next((p.attempts for p in view.placements if p.cluster == cluster), 0)
        text = said(error)
        _log.warning("room.failed", conference=view.conference, cluster=cluster, error=text)
        await self._store.write(
            placements.failed, view.conference, cluster, error=text, delay=delay(self._settings, failures)
        )
        return verdict(error)
