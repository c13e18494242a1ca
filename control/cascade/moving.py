"""Finds other clusters for the clients of one that was lost with them, and has them told.

A client is moved by taking a seat for it, as a join would, and saying so in the conference's events: it, or
its application, then joins again. Nothing here talks to a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from control.errors import ConferenceFullError, RoleNotAllowedError
from control.placing import Visit
from control.registry import displaced, reservations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.cascade_settings import CascadeSettings
    from control.placing import Where
    from control.registry.displaced import Displaced
    from control.registry.reservations import Seat
    from control.registry.store import Store

__all__ = ["Moving", "Places"]

_log = structlog.get_logger(__name__)


class Places(Protocol):
    """What takes seats: control.placing."""

    async def place(self, visit: Visit) -> Where:
        """Decide, and take the seat."""
        ...

    async def release(self, seat: Seat) -> None:
        """Give a seat back."""
        ...


class Moving:
    """Moves clients. Each is moved on its own: what was done stays done if the next one cannot be."""

    def __init__(self, store: Store, places: Places, settings: CascadeSettings) -> None:
        self._store = store
        self._places = places
        self._settings = settings

    async def move(self, conference: str, cluster: str) -> None:
        """Move some of those whom the cluster left behind; the others follow with the next call.

        Raises RefusedError when there is nowhere to go for one of them.
        """
        for who in await self._store.read(
            displaced.waiting, conference, cluster, limit=self._settings.moves_at_once
        ):
            await self._move(conference, cluster, who)

    async def _move(self, conference: str, cluster: str, who: Displaced) -> None:
        visit = Visit(conference=conference, user=who.user, role=who.role, region=who.region, returning=True)
        try:
            where = await self._places.place(visit)
        except (RoleNotAllowedError, ConferenceFullError) as error:
            # Nobody else shall wait for the one who cannot come back; a join of its own is told why.
            _log.warning("client.not_moved", conference=conference, user=who.user, error=str(error))
            await self._store.write(displaced.dropped, conference, cluster, who)
            return
        told = await self._store.write(self._told, conference, cluster, who, where)
        if told:
            _log.info(
                "client.moved", conference=conference, user=who.user, left=cluster, to=where.choice.cluster
            )
        else:
            await self._places.release(where.seat)

    async def _told(
        self, connection: AsyncConnection, conference: str, cluster: str, who: Displaced, where: Where
    ) -> bool:
        if not await displaced.dropped(connection, conference, cluster, who):
            return False  # it has come back by itself
        await reservations.prolong(connection, where.seat, ttl=self._settings.move_ttl)
        await displaced.tell(
            connection, conference, cluster, who, to=where.choice.cluster, region=where.choice.region
        )
        return True
