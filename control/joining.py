"""Sends a client to a cluster: decided, a seat taken, the room there, a token fetched or signed.

A join only marks what it wants (a placement) and waits for the reconciler to have the room made; then the
token is made. When a cluster fails, its seat is given back, the next one is tried, and a placement that
nobody got into is taken back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from causeway.api import DecisionView, JoinAnswer, RejectionView, ScoreView
from control.drivers.base import DriverError, DriverTimeoutError, RoomNotFoundError
from control.errors import ClusterFailedError, ClusterTimeoutError, RefusedError
from control.missing_rooms import look_for_room
from control.placement import unpack
from control.placing import Visit
from control.registry import decisions, placements
from control.security.vault import SealError

if TYPE_CHECKING:
    from datetime import datetime

    from control.attendance import Attendance
    from control.bell import Bell
    from control.drivers.base import RoomToken
    from control.fleet import Fleet
    from control.placement import Decision
    from control.placing import Meanwhile, Placing, Where
    from control.registry.roster import Choice
    from control.registry.store import Store
    from control.settings import JoinSettings

__all__ = ["Joining", "Visit", "decision_view"]

_log = structlog.get_logger(__name__)

_LOOK_INTERVAL: Final = 0.25
"""Seconds between looks at a placement when no notice comes."""
_RETRY_AFTER: Final = 2


class Joining:
    """The join service."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        bell: Bell,
        placing: Placing,
        settings: JoinSettings,
        *,
        attendance: Attendance | None = None,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._bell = bell
        self._placing = placing
        self._settings = settings
        self._attendance = attendance

    async def join(self, visit: Visit) -> JoinAnswer:
        """Return where the client has to go.

        Raises what Placing.place raises, ClusterFailedError and ClusterTimeoutError.
        """
        end = asyncio.get_running_loop().time() + self._settings.timeout
        meanwhile = partial(self._signed, visit)
        try:
            offer = await self._placing.offer(visit, meanwhile)
            where = offer.where
            if offer.taken and where.token is not None and where.placed is not None and where.placed.room:
                return self._answer(visit, where, where.placed.room, where.token)  # as most joins end
            async with asyncio.timeout_at(end):
                where = await self._placing.settle(visit, offer, meanwhile)
                return await self._insist(visit, where, meanwhile)
        except TimeoutError:
            raise ClusterTimeoutError(
                f"no cluster was ready within {self._settings.timeout:g} s", retry_after=_RETRY_AFTER
            ) from None

    async def _insist(self, visit: Visit, where: Where, meanwhile: Meanwhile) -> JoinAnswer:
        """Try this cluster, and others in its place where it fails."""
        for last in range(1, self._settings.max_clusters + 1):
            try:
                return await self._enter(visit, where)
            except (ClusterFailedError, ClusterTimeoutError) as error:
                cluster = where.choice.cluster
                _log.warning(
                    "join.cluster_failed", conference=visit.conference, cluster=cluster, error=error.detail
                )
                await self._placing.release(where.seat)
                visit.tried.add(cluster)
                if last == self._settings.max_clusters:
                    raise
                try:
                    where = await self._placing.place(visit, meanwhile)
                except RefusedError:
                    raise error from None
        raise AssertionError("unreachable")

    async def explain(self, conference: str, *, limit: int) -> list[DecisionView]:
        """Return the conference's newest decisions, newest first. Raises ConferenceUnknownError."""
        stored = await self._store.read(decisions.of_conference, conference, limit=limit)
        return [decision_view(unpack(body), at) for at, body in stored]

    async def _enter(self, visit: Visit, where: Where) -> JoinAnswer:
        """Have a room on this cluster and a token for it; a room that turns out to be gone is made again."""
        conference, choice, token = visit.conference, where.choice, where.token
        ready = None
        if where.placed is not None and where.placed.room is not None:
            ready = (where.placed.room, where.placed.epoch)
        for last in (False, True):
            if ready is None:
                ready = await self._room(conference, choice)
            room, epoch = ready
            try:
                if token is None:
                    token = await self._token(visit, choice, room, epoch)
            except RoomNotFoundError:
                await look_for_room(
                    self._store,
                    self._fleet.driver(choice.cluster, choice),
                    conference,
                    choice.cluster,
                    room,
                    timeout=self._settings.cluster_timeout,
                )
                self._bell.ring(conference)
                ready = None
                if last:
                    raise ClusterFailedError(
                        f"cluster {choice.cluster} loses the room", retry_after=_RETRY_AFTER
                    ) from None
                continue
            return self._answer(visit, where, room, token)
        raise AssertionError("unreachable")

    def _answer(self, visit: Visit, where: Where, room: str, token: RoomToken) -> JoinAnswer:
        choice = where.choice
        if self._attendance is not None:
            self._attendance.expect(visit.conference, choice.cluster, room, driver=choice.driver)
        return JoinAnswer(
            conference=visit.conference,
            cluster=choice.cluster,
            region=choice.region,
            placed=where.decision.placed,
            ip=token.ip,
            port=token.port,
            secure=token.secure,
            room=room,
            token=token.text,
            expires_at=token.expires_at,
            decision=decision_view(where.decision, None) if visit.everybody else None,
        )

    async def _room(self, conference: str, choice: Choice) -> tuple[str, int]:
        """Wait until the room that was wanted is there; return it, and the placement's epoch."""
        cluster = choice.cluster
        with self._bell.listening(conference) as changed:
            self._bell.ring(conference)
            try:
                async with asyncio.timeout(self._settings.cluster_timeout):
                    while True:
                        changed.clear()
                        placed = await self._store.read(placements.placed, conference, cluster)
                        if placed is not None and placed.state == "ready" and placed.room is not None:
                            return placed.room, placed.epoch
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

    def _signed(self, visit: Visit, where: Where) -> RoomToken | None:
        """Sign a token if the room is there; None if it is not, if that is not our business, or if it fails.

        The last is found again, and told, when the token is needed.
        """
        choice, placed = where.choice, where.placed
        if placed is None or placed.room is None:
            return None
        try:
            signer = self._fleet.signer(choice.cluster, choice)
            if signer is None:
                return None
            return signer.sign_token(placed.room, user=visit.user, role=visit.role, placement=placed.epoch)
        except (DriverError, SealError):
            return None

    async def _token(self, visit: Visit, choice: Choice, room: str, epoch: int) -> RoomToken:
        """Ask the cluster for a token, or sign one; RoomNotFoundError comes through."""
        try:
            driver = self._fleet.driver(choice.cluster, choice)
            return await driver.create_token(
                room,
                user=visit.user,
                role=visit.role,
                region=visit.region or choice.region,
                placement=epoch,
                timeout=self._settings.cluster_timeout,
            )
        except RoomNotFoundError:
            raise
        except DriverTimeoutError:
            raise ClusterTimeoutError(
                f"cluster {choice.cluster} did not answer in time", retry_after=_RETRY_AFTER
            ) from None
        except (DriverError, SealError) as error:
            raise ClusterFailedError(
                f"cluster {choice.cluster} made no token ({error.code})", retry_after=_RETRY_AFTER
            ) from None


def decision_view(decision: Decision, at: datetime | None) -> DecisionView:
    """Return a decision as it is shown."""
    return DecisionView(
        cluster=decision.cluster,
        placed=decision.placed,
        policy=decision.policy,
        home=decision.home,
        considered=decision.considered,
        scores=[ScoreView(cluster=s.cluster, total=s.total, points=s.points) for s in decision.scored],
        rejections=[
            RejectionView(filter=r.filter, reason=r.reason, count=r.count, clusters=list(r.clusters))
            for r in decision.rejected
        ],
        suspect=decision.suspect,
        user=decision.user,
        at=at,
    )
