"""How an edge's own participants come into a conference: control gives them a place, here, as anybody else.

So the conference gets its room here, its links to other clusters, and counts who is in it. And what changes
in a room is made known to those who wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import structlog

from causeway.api import JoinRequest
from causeway.backoff import Backoff
from causeway.errors import ApiError, CausewayError, UnavailableError
from edge.guest import Guest
from lab.portal_calls import CallError

if TYPE_CHECKING:
    from bridges.internal.listener import InternalListener
    from causeway.client import ControlClient
    from lab.cluster import Cluster
    from lab.rooms import RoomNews, RunningRoom

__all__ = ["Places", "Who"]

_log: Final = structlog.get_logger(__name__)
_REFUSED: Final = frozenset({401, 403})


class _NotHereError(CausewayError):
    """Control or the cluster has no place for the participant now."""

    code: ClassVar[str] = "edge-no-place"


class Who(NamedTuple):
    """Somebody whom the edge puts into a conference."""

    conference: str
    user: str
    role: str


class Places:
    """Places in the conferences of `cluster`; its rooms are listened to."""

    def __init__(
        self, cluster: Cluster, listener: InternalListener, control: ControlClient, *, retry_cap: float
    ) -> None:
        self.cluster = cluster
        self._listener = listener
        self._control = control
        self._retry_cap = retry_cap
        self._changes: dict[str, asyncio.Event] = {}
        cluster.rooms.listeners.append(self._hear)

    async def join(self, who: Who) -> Guest:
        """Return a guest who has joined, however long that takes. Raises ApiError for a wrong key."""
        backoff = Backoff(base=0.2, cap=self._retry_cap)
        while True:
            try:
                return await self._join(who)
            except ApiError as error:
                if error.status in _REFUSED:
                    raise
                reason = str(error)
            except (UnavailableError, _NotHereError) as error:
                reason = str(error)
            delay = backoff.next_delay()
            _log.info("edge.not_joined", conference=who.conference, user=who.user, reason=reason)
            await asyncio.sleep(delay)

    async def changed(self, room: str, timeout: float | None) -> None:
        """Wait until something happens in `room`, for at most `timeout` seconds."""
        event = self._changes.setdefault(room, asyncio.Event())
        event.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()

    async def _join(self, who: Who) -> Guest:
        settings = self.cluster.settings
        request = JoinRequest(user=who.user, role=who.role, region=settings.region)
        place = await self._control.join(who.conference, request)
        if place.cluster != settings.cluster:
            raise _NotHereError(f"control gives a place in {place.cluster}, not here")
        if self.cluster.keys is not None:
            await self.cluster.keys.look_up(place.token)
        try:
            member, _answer = self.cluster.portal.calls.join({"token": place.token})
        except CallError as error:
            raise _NotHereError(str(error)) from None
        return Guest(
            self.cluster,
            self._listener,
            host=settings.host,
            room=member.room,
            participant=member.participant,
        )

    def _hear(self, running: RunningRoom, news: RoomNews) -> None:
        del news
        if (event := self._changes.get(running.room.id)) is not None:
            event.set()
