"""Sends a client to a cluster: region first, then load; the room is there before the client is told.

A join only marks what it wants (a placement) and waits for the reconciler to have the room made; the token is
then fetched from the cluster. When a cluster fails, the next best one is tried, and a placement that nobody
got into is taken back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from causeway.api import JoinAnswer
from control.drivers.base import DriverError, DriverTimeoutError, RoomNotFoundError
from control.errors import ClusterFailedError, ClusterTimeoutError, NoClusterError, RefusedError
from control.placement.policy import Candidate, choose
from control.registry import placements
from control.security.vault import SealError

if TYPE_CHECKING:
    from causeway.api import JoinRequest
    from control.bell import Bell
    from control.drivers.base import RoomToken
    from control.fleet import Fleet
    from control.registry.placements import Choice
    from control.registry.store import Store
    from control.settings import JoinSettings

__all__ = ["Joining"]

_log = structlog.get_logger(__name__)

_LOOK_INTERVAL: Final = 0.25
"""Seconds between looks at a placement when no notice comes."""
_RETRY_AFTER: Final = 2


class Joining:
    """The join service."""

    def __init__(self, store: Store, fleet: Fleet, bell: Bell, settings: JoinSettings) -> None:
        self._store = store
        self._fleet = fleet
        self._bell = bell
        self._settings = settings
        self._modules = frozenset(settings.required_modules)

    async def join(self, conference: str, request: JoinRequest) -> JoinAnswer:
        """Return where the client has to go.

        Raises ConferenceUnknownError, ConferenceEndingError, NoClusterError, ClusterFailedError and
        ClusterTimeoutError.
        """
        failure: RefusedError | None = None
        tried: set[str] = set()
        try:
            async with asyncio.timeout(self._settings.timeout):
                while len(tried) < self._settings.max_clusters:
                    choice = self._choose(
                        await self._store.read(placements.choices, conference), request, tried
                    )
                    if choice is None:
                        break
                    tried.add(choice.cluster)
                    try:
                        return await self._enter(conference, choice, request)
                    except (ClusterFailedError, ClusterTimeoutError) as error:
                        _log.warning(
                            "join.cluster_failed",
                            conference=conference,
                            cluster=choice.cluster,
                            error=error.detail,
                        )
                        failure = error
        except TimeoutError:
            raise ClusterTimeoutError(
                f"no cluster was ready within {self._settings.timeout:g} s", retry_after=_RETRY_AFTER
            ) from None
        raise failure or NoClusterError(
            "no cluster is online that could take the client", retry_after=_RETRY_AFTER
        )

    def _choose(self, choices: list[Choice], request: JoinRequest, tried: set[str]) -> Choice | None:
        usable = {choice.cluster: choice for choice in choices if choice.cluster not in tried}
        decision = choose(
            [
                Candidate(
                    cluster=choice.cluster,
                    region=choice.region,
                    online=True,
                    modules=choice.modules,
                    participants=choice.participants,
                    streams=choice.streams,
                    cpu=choice.cpu,
                )
                for choice in usable.values()
            ],
            region=request.region,
            already=frozenset(c.cluster for c in usable.values() if c.state in {"wanted", "ready"}),
            required_modules=self._modules,
        )
        return None if decision.cluster is None else usable[decision.cluster]

    async def _enter(self, conference: str, choice: Choice, request: JoinRequest) -> JoinAnswer:
        """Have a room on this cluster and a token for it; a room that turns out to be gone is made again."""
        room = choice.room if choice.state == "ready" else None
        for last in (False, True):
            if room is None:
                room = await self._room(conference, choice)
            try:
                token = await self._token(choice, room, request)
            except RoomNotFoundError:
                await self._store.write(placements.room_missing, conference, choice.cluster, room=room)
                self._bell.ring(conference)
                room = None
                if last:
                    raise ClusterFailedError(
                        f"cluster {choice.cluster} loses the room", retry_after=_RETRY_AFTER
                    ) from None
                continue
            return JoinAnswer(
                conference=conference,
                cluster=choice.cluster,
                region=choice.region,
                ip=token.ip,
                port=token.port,
                secure=token.secure,
                room=room,
                token=token.text,
            )
        raise AssertionError("unreachable")

    async def _room(self, conference: str, choice: Choice) -> str:
        """Want the conference on this cluster and wait until the room is there."""
        cluster = choice.cluster
        with self._bell.listening(conference) as changed:
            await self._store.write(placements.ensure, conference, cluster)
            self._bell.ring(conference)
            try:
                async with asyncio.timeout(self._settings.cluster_timeout):
                    while True:
                        changed.clear()
                        placed = await self._store.read(placements.placed, conference, cluster)
                        if placed is not None and placed.state == "ready" and placed.room is not None:
                            return placed.room
                        if placed is None or placed.state == "lost" or placed.attempts > 0:
                            break
                        with suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK_INTERVAL):
                                await changed.wait()
            except TimeoutError:
                await self._give_up(conference, cluster)
                raise ClusterTimeoutError(
                    f"cluster {cluster} had no room ready in time", retry_after=_RETRY_AFTER
                ) from None
        await self._give_up(conference, cluster)
        raise ClusterFailedError(f"cluster {cluster} could not make the room", retry_after=_RETRY_AFTER)

    async def _give_up(self, conference: str, cluster: str) -> None:
        await self._store.write(placements.give_up, conference, cluster)
        self._bell.ring(conference)

    async def _token(self, choice: Choice, room: str, request: JoinRequest) -> RoomToken:
        """Ask the cluster for a token; RoomNotFoundError comes through."""
        try:
            async with asyncio.timeout(self._settings.cluster_timeout):
                return await self._fleet.driver(choice.cluster, choice).create_token(
                    room, user=request.user, role=request.role, region=request.region or choice.region
                )
        except RoomNotFoundError:
            raise
        except (TimeoutError, DriverTimeoutError):
            raise ClusterTimeoutError(
                f"cluster {choice.cluster} did not answer in time", retry_after=_RETRY_AFTER
            ) from None
        except (DriverError, SealError) as error:
            raise ClusterFailedError(
                f"cluster {choice.cluster} made no token ({error.code})", retry_after=_RETRY_AFTER
            ) from None
