"""Carries out one action of a plan on the clusters and notes in the registry what came of it.

Knows nothing of claims and of when actions are due; control.cascade.reconcile does. What a cluster says wrong
becomes the `error` of the placement or link, in words that carry no secret.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from control.cascade.link_hands import ROOM_TOKEN, LinkHands
from control.cascade.outcome import DONE, NOT_BEGUN, Outcome, delay, said
from control.cascade.room_hands import RoomHands
from control.cascade.view import (
    AssignAgent,
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    MoveClients,
    RemoveRoom,
    StartCascade,
    StopCascade,
    UnassignAgent,
)
from control.errors import (
    ConferenceEndingError,
    ConferenceUnknownError,
    DatabaseUnavailableError,
    RefusedError,
)
from control.registry import agents, conferences, links, placements

if TYPE_CHECKING:
    from control.cascade.moving import Moving
    from control.cascade.view import Action, View
    from control.cascade_settings import CascadeSettings
    from control.fleet import Fleet
    from control.registry.store import Store
    from control.security.vault import Vault
    from control.settings import ReconcileSettings

__all__ = ["ROOM_TOKEN", "Hands"]

_log: Final = structlog.get_logger(__name__)


class Hands:
    """Executes actions. Raises DatabaseUnavailableError; a cluster's failure is noted, not raised."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        vault: Vault,
        moving: Moving,
        *,
        settings: ReconcileSettings,
        cascade: CascadeSettings,
    ) -> None:
        self._store = store
        self._moving = moving
        self._settings = settings
        self._cascade = cascade
        self._rooms = RoomHands(store, fleet, settings)
        self._links = LinkHands(store, fleet, vault, settings, cascade)

    async def do(self, view: View, action: Action) -> Outcome:
        """Carry it out."""
        match action:
            case CreateRoom() | RemoveRoom():
                return await self._rooms.do(view, action)
            case FetchBridges() | StartCascade() | StopCascade():
                return await self._links.do(view, action)
            case AssignAgent() | UnassignAgent():
                return await self._staff(view.conference, action)
            case MoveClients(cluster):
                return await self._move_clients(view, cluster)
            case ForgetLink() | ForgetPlacement() | ForgetConference():
                await self._forget(view.conference, action)
                return DONE

    async def _staff(self, conference: str, action: AssignAgent | UnassignAgent) -> Outcome:
        match action:
            case UnassignAgent(cluster, kind, agent):
                await self._store.write(agents.unassign, conference, cluster=cluster, kind=kind, agent=agent)
            case AssignAgent(cluster, kind, agent):
                taken = await self._store.write(
                    agents.assign, conference, cluster=cluster, kind=kind, agent=agent
                )
                if not taken:  # it went, or was filled, since the view was read
                    return NOT_BEGUN
        return DONE

    async def _forget(self, conference: str, action: ForgetLink | ForgetPlacement | ForgetConference) -> None:
        match action:
            case ForgetLink(dialer, listener):
                await self._store.write(links.forget, conference, dialer=dialer, listener=listener)
            case ForgetPlacement(cluster):
                await self._store.write(placements.forget, conference, cluster)
            case ForgetConference():
                if await self._store.write(conferences.forget, conference):
                    _log.info("conference.gone", conference=conference)

    async def _move_clients(self, view: View, cluster: str) -> Outcome:
        try:
            async with asyncio.timeout(self._cascade.move_timeout):
                await self._moving.move(view.conference, cluster)
        except DatabaseUnavailableError:
            raise
        except (ConferenceUnknownError, ConferenceEndingError):
            return NOT_BEGUN
        except (RefusedError, TimeoutError) as error:
            failures = next((p.attempts for p in view.placements if p.cluster == cluster), 0)
            text = said(error)
            _log.warning("clients.not_moved", conference=view.conference, cluster=cluster, error=text)
            await self._store.write(
                placements.failed, view.conference, cluster, error=text, delay=delay(self._settings, failures)
            )
        return DONE
