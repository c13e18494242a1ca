"""Starts cascades and ends them, by the clusters' drivers or by their agents.

A cluster is asked or told by its driver. Agents are told nothing here: they do what the rows say, and what
the rows say of their addresses is what they registered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from causeway.api import BridgeAddress
from control.cascade.outcome import ANSWERED, DONE, NOT_BEGUN, Outcome, delay, said, verdict
from control.cascade.view import FetchBridges, StartCascade, StopCascade
from control.drivers.base import Bridges, DriverError, RoomNotFoundError
from control.missing_rooms import look_for_room
from control.registry import agents, clusters, links, placements
from control.security.vault import SealError

if TYPE_CHECKING:
    from control.cascade.view import View
    from control.cascade_settings import CascadeSettings
    from control.fleet import Fleet
    from control.registry.clusters import ClusterAccess
    from control.registry.store import Store
    from control.security.vault import Vault
    from control.settings import ReconcileSettings

__all__ = ["ROOM_TOKEN", "LinkHands", "is_served"]

_log: Final = structlog.get_logger(__name__)

ROOM_TOKEN: Final = "placements.token"  # noqa: S105 - the name of what a token is sealed for, no token
"""What room tokens are sealed for, followed by conference and cluster."""


class LinkHands:
    """Raises DatabaseUnavailableError; a cluster's failure is noted at the link."""

    def __init__(
        self, store: Store, fleet: Fleet, vault: Vault, settings: ReconcileSettings, cascade: CascadeSettings
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._vault = vault
        self._settings = settings
        self._cascade = cascade

    async def do(self, view: View, action: FetchBridges | StartCascade | StopCascade) -> Outcome:
        """Carry it out."""
        match action:
            case FetchBridges(dialer, listener):
                return await self._fetch_bridges(view, dialer, listener)
            case StartCascade(dialer, listener):
                return await self._start_cascade(view, dialer, listener)
            case StopCascade(dialer, listener):
                return await self._stop_cascade(view, dialer, listener)

    async def _fetch_bridges(self, view: View, dialer: str, listener: str) -> Outcome:
        conference = view.conference
        if is_served(view, listener):
            return await self._copy_addresses(conference, dialer, listener)
        access = await self._store.read(clusters.access, listener)
        there = await self._store.read(placements.room_token, conference, listener)
        if access is None or there is None:
            return NOT_BEGUN
        order = await self._store.write(links.begin_fetch, conference, dialer=dialer, listener=listener)
        if order is None:
            return NOT_BEGUN
        try:
            async with asyncio.timeout(self._cascade.bridges_timeout):
                bridges = await self._fleet.driver(listener, access).get_bridges(
                    there[0], target_cluster=dialer
                )
        except (DriverError, SealError, TimeoutError) as error:
            await self._link_failed(view, dialer, listener, order, error)
            if isinstance(error, RoomNotFoundError):
                await self._look_for_room(conference, access, there[0])
            return verdict(error)
        await self._store.write(
            links.fetched, conference, order, dialer=dialer, listener=listener, bridges=_stored(bridges)
        )
        return ANSWERED

    async def _copy_addresses(self, conference: str, dialer: str, listener: str) -> Outcome:
        """Keep what the listener's agents have registered."""
        there = await self._store.read(agents.addresses, conference, listener)
        if there is None:
            return NOT_BEGUN
        order = await self._store.write(links.begin_fetch, conference, dialer=dialer, listener=listener)
        if order is None:
            return NOT_BEGUN
        await self._store.write(
            links.fetched, conference, order, dialer=dialer, listener=listener, bridges=there
        )
        return DONE

    async def _start_cascade(self, view: View, dialer: str, listener: str) -> Outcome:
        conference = view.conference
        if is_served(view, dialer):
            ordered = await self._store.write(
                links.order_by_agent, conference, dialer=dialer, listener=listener
            )
            return DONE if ordered else NOT_BEGUN
        near = await self._store.read(clusters.access, dialer)
        here = await self._store.read(placements.room_token, conference, dialer)
        there = await self._store.read(placements.room_token, conference, listener)
        if near is None or there is None:
            return NOT_BEGUN
        order = await self._store.write(links.begin_order, conference, dialer=dialer, listener=listener)
        if order is None:
            return NOT_BEGUN
        try:
            async with asyncio.timeout(self._settings.cascade_timeout):
                await self._fleet.driver(dialer, near).start_cascade(
                    here[0] if here else conference,
                    token=self._vault.open(there[1], ROOM_TOKEN, conference, listener),
                    self_cluster=dialer,
                    target_cluster=listener,
                    bridges=_read(order.bridges),
                    with_fingerprints=near.has_fingerprints,
                )
        except (DriverError, SealError, TimeoutError) as error:
            await self._link_failed(view, dialer, listener, order.id, error)
            if isinstance(error, RoomNotFoundError):
                await self._look_for_room(conference, near, here[0] if here else conference)
            return verdict(error, of_two=True)
        _log.info("cascade.requested", conference=conference, dialer=dialer, listener=listener)
        await self._store.write(links.order_taken, conference, order.id, dialer=dialer, listener=listener)
        return ANSWERED

    async def _stop_cascade(self, view: View, dialer: str, listener: str) -> Outcome:
        conference = view.conference
        ordered = await self._store.read(links.how, conference, dialer=dialer, listener=listener)
        access = await self._store.read(clusters.access, dialer)
        outcome = DONE
        if ordered is not None and ordered[0] == "driver" and ordered[1] > 0:
            if access is None:
                return NOT_BEGUN
            try:
                outcome = await self._call_off(conference, access, listener)
            except (DriverError, SealError, TimeoutError) as error:
                text = said(error)
                _log.warning(
                    "cascade.not_stopped", conference=conference, dialer=dialer, listener=listener, error=text
                )
                await self._store.write(
                    links.stop_failed,
                    conference,
                    dialer=dialer,
                    listener=listener,
                    error=text,
                    delay=delay(self._settings, _attempts(view, dialer, listener)),
                )
                return verdict(error, of_two=True)
        await self._store.write(links.forget, conference, dialer=dialer, listener=listener)
        _log.info("cascade.stopped", conference=conference, dialer=dialer, listener=listener)
        return outcome

    async def _call_off(self, conference: str, access: ClusterAccess, listener: str) -> Outcome:
        """Have a cluster end its cascade; one of a kind that cannot be told so is not asked."""
        driver = self._fleet.driver(access.id, access)
        if not driver.capabilities.stops_cascades:
            return DONE
        async with asyncio.timeout(self._cascade.stop_timeout):
            with suppress(RoomNotFoundError):  # its links went with it
                await driver.stop_cascade(conference, target_cluster=listener)
        return ANSWERED

    async def _look_for_room(self, conference: str, access: ClusterAccess, room: str) -> None:
        driver = self._fleet.driver(access.id, access)
        await look_for_room(
            self._store, driver, conference, access.id, room, timeout=self._settings.room_timeout
        )

    async def _link_failed(
        self, view: View, dialer: str, listener: str, order: Any, error: Exception
    ) -> None:
        text = said(error)
        _log.warning(
            "cascade.failed", conference=view.conference, dialer=dialer, listener=listener, error=text
        )
        await self._store.write(
            links.order_failed,
            view.conference,
            order,
            dialer=dialer,
            listener=listener,
            error=text,
            delay=delay(self._settings, _attempts(view, dialer, listener)),
        )


def is_served(view: View, cluster: str) -> bool:
    """Say whether the cluster's links are made by agents; see control.cascade.staffing."""
    return any(a.live and a.cluster == cluster and "event" in a.kinds for a in view.agents)


def _stored(bridges: Bridges) -> dict[str, Any]:
    """Return the addresses as a link keeps them."""
    kept = {"event": bridges.event, "media": bridges.media}
    return {kind: None if address is None else msgspec.to_builtins(address) for kind, address in kept.items()}


def _read(stored: dict[str, Any]) -> Bridges:
    event = msgspec.convert(stored["event"], BridgeAddress)
    return Bridges(event=event, media=msgspec.convert(stored.get("media"), BridgeAddress | None))


def _attempts(view: View, dialer: str, listener: str) -> int:
    return next((x.attempts for x in view.links if (x.dialer, x.listener) == (dialer, listener)), 0)
