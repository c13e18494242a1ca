"""Carries out one action of a plan on the clusters and notes in the registry what came of it.

Knows nothing of claims and of when actions are due; control.cascade.reconcile does. What a cluster says wrong
becomes the `error` of the placement or link, in words that carry no secret.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from causeway.backoff import Backoff
from control.cascade.view import CreateRoom, ForgetConference, ForgetLink, RemoveRoom, StartCascade
from control.drivers.base import DriverError
from control.errors import ConferenceUnknownError
from control.registry import clusters, conferences, links, placements, templates
from control.security.vault import SealError

if TYPE_CHECKING:
    from control.cascade.view import Action, View
    from control.fleet import Fleet
    from control.registry.store import Store
    from control.security.vault import Vault
    from control.settings import ReconcileSettings

__all__ = ["ROOM_TOKEN", "Hands"]

_log = structlog.get_logger(__name__)

ROOM_TOKEN: Final = "placements.token"  # noqa: S105 - the name of what a token is sealed for, no token
"""What room tokens are sealed for, followed by conference and cluster."""


class Hands:
    """Executes actions. Raises DatabaseUnavailableError; a cluster's failure is noted, not raised."""

    def __init__(self, store: Store, fleet: Fleet, vault: Vault, settings: ReconcileSettings) -> None:
        self._store = store
        self._fleet = fleet
        self._vault = vault
        self._settings = settings

    async def do(self, view: View, action: Action) -> bool:
        """Carry it out. False: nothing could be begun, as the world is no longer what the view says."""
        match action:
            case CreateRoom(cluster):
                return await self._create_room(view, cluster)
            case RemoveRoom(cluster):
                return await self._remove_room(view, cluster)
            case StartCascade(dialer, listener):
                return await self._start_cascade(view, dialer, listener)
            case ForgetLink(dialer, listener):
                await self._store.write(links.forget, view.conference, dialer=dialer, listener=listener)
                return True
            case ForgetConference():
                await self._store.write(conferences.forget, view.conference)
                _log.info("conference.gone", conference=view.conference)
                return True

    async def _create_room(self, view: View, cluster: str) -> bool:
        access = await self._store.read(clusters.access, cluster)
        if access is None:
            return False
        try:
            async with asyncio.timeout(self._settings.room_timeout):
                driver = self._fleet.driver(cluster, access)
                epoch = next((p.epoch for p in view.placements if p.cluster == cluster), 0)
                # The same version everywhere, whatever became of the template since the conference was made.
                used = await self._store.read(templates.of_conference, view.conference)
                room = await driver.create_room(view.conference, used.template, placement=epoch)
                known = await self._store.write(
                    placements.created,
                    view.conference,
                    cluster,
                    incarnation=access.incarnation,
                    epoch=epoch,
                    room=room,
                )
                if known or await self._store.read(placements.placed, view.conference, cluster) is not None:
                    _log.info("room.created", conference=view.conference, cluster=cluster)
                else:  # given up in the meantime: leave nothing behind
                    await driver.delete_room(room)
        except ConferenceUnknownError:
            return False
        except (DriverError, SealError, TimeoutError) as error:
            await self._room_failed(view, cluster, error)
        return True

    async def _remove_room(self, view: View, cluster: str) -> bool:
        access = await self._store.read(clusters.access, cluster)
        if access is None:
            return False
        try:
            async with asyncio.timeout(self._settings.room_timeout):
                # By its name rather than by what the placement knows: a creation's answer may have been lost.
                await self._fleet.driver(cluster, access).delete_room(view.conference)
        except (DriverError, SealError, TimeoutError) as error:
            await self._room_failed(view, cluster, error)
        else:
            await self._store.write(placements.removed, view.conference, cluster)
            _log.info("room.removed", conference=view.conference, cluster=cluster)
        return True

    async def _room_failed(self, view: View, cluster: str, error: Exception) -> None:
        failures = next((p.attempts for p in view.placements if p.cluster == cluster), 0)
        text = _text(error)
        _log.warning("room.failed", conference=view.conference, cluster=cluster, error=text)
        await self._store.write(
            placements.failed, view.conference, cluster, error=text, delay=self._delay(failures)
        )

    async def _start_cascade(self, view: View, dialer: str, listener: str) -> bool:
        near = await self._store.read(clusters.access, dialer)
        far = await self._store.read(clusters.access, listener)
        here = await self._store.read(placements.room_token, view.conference, dialer)
        there = await self._store.read(placements.room_token, view.conference, listener)
        room = here[0] if here else view.conference
        if near is None or far is None or there is None:
            return False
        conference = view.conference
        order = await self._store.write(links.begin_order, conference, dialer=dialer, listener=listener)
        if order is None:
            return False
        try:
            async with asyncio.timeout(self._settings.cascade_timeout):
                token = self._vault.open(there[1], ROOM_TOKEN, conference, listener)
                bridges = await self._fleet.driver(listener, far).get_bridges(there[0], target_cluster=dialer)
                await self._fleet.driver(dialer, near).start_cascade(
                    room,
                    token=token,
                    self_cluster=dialer,
                    target_cluster=listener,
                    bridges=bridges,
                    with_fingerprints=near.has_fingerprints and far.has_fingerprints,
                )
        except (DriverError, SealError, TimeoutError) as error:
            failures = next(
                (x.attempts for x in view.links if (x.dialer, x.listener) == (dialer, listener)), 0
            )
            text = _text(error)
            _log.warning(
                "cascade.failed", conference=conference, dialer=dialer, listener=listener, error=text
            )
            await self._store.write(
                links.order_failed,
                conference,
                order,
                dialer=dialer,
                listener=listener,
                error=text,
                delay=self._delay(failures),
            )
        else:
            _log.info("cascade.requested", conference=conference, dialer=dialer, listener=listener)
            await self._store.write(links.order_taken, conference, order, dialer=dialer, listener=listener)
        return True

    def _delay(self, failures: int) -> float:
        backoff = Backoff(base=self._settings.retry_base, cap=self._settings.retry_cap)
        backoff.attempts = failures
        return backoff.next_delay()


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "cluster-timeout: no answer in time"
    code = getattr(error, "code", "error")
    return f"{code}: {error}"[:500]
