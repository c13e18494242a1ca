"""A participant's stay in a conference: join through control, publish and watch, join anew when it is lost.

Control says where to go; there the portal lets us in. Whatever breaks the portal connection (the cluster
died, the network) sends us back to control, which may name another cluster. It must not know how control is
asked, nor where its lines are written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, NoReturn

from causeway.backoff import Backoff
from causeway.errors import ApiError, CausewayError, UnavailableError
from lab.portal_client import PortalClient, PortalClosedError, PortalRefusedError
from lab.reports import Disconnected, Joined, JoinFailed, Left, Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from causeway.api import JoinAnswer
    from lab.portal_client import Joined as Membership
    from lab.publication import Publication
    from lab.reports import Line, Role
    from lab.watching import Watch

__all__ = ["Attendance"]

_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})  # and everything from 500 on
_SERVER_ERROR: Final = 500


class Attendance:
    """`run` attends until it is cancelled, and then leaves politely.

    `join` asks control for a place. `say` takes a line for standard output. Without a `publication` nothing
    is published, without a `watch` nothing is received. When the first join has not succeeded after
    `join_timeout` seconds, its last error is raised; later joins are tried for ever, unless control says
    that there is no sense in it.
    """

    def __init__(
        self,
        *,
        join: Callable[[], Awaitable[JoinAnswer]],
        say: Callable[[Line], None],
        publication: Publication | None,
        watch: Watch | None,
        join_timeout: float = 30.0,
        leave_timeout: float = 0.5,
        settled_after: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._join = join
        self._say = say
        self._publication = publication
        self._watch = watch
        self._join_timeout = join_timeout
        self._leave_timeout = leave_timeout
        self._settled_after = settled_after
        self._backoff = backoff or Backoff(base=0.2, cap=2.0)
        self._place: JoinAnswer | None = None
        self._me = ""

    async def run(self) -> NoReturn:
        """Join, stay, and join anew. Raises ApiError, UnavailableError or PortalRefusedError when in vain."""
        started = time.monotonic()
        ever_joined = False
        while True:
            tried = time.monotonic()
            try:
                await self._attend()
            except (ApiError, UnavailableError, PortalRefusedError) as error:
                stayed = self._me != ""
                ever_joined = ever_joined or stayed
                late = time.monotonic() - started > self._join_timeout
                if not _worth_retrying(error) or (late and not ever_joined):
                    raise
                if stayed and time.monotonic() - tried > self._settled_after:
                    self._backoff.reset()
                delay = self._backoff.next_delay()
                self._say_lost(error, delay)
                self._me = ""
            await asyncio.sleep(delay)

    def report(self) -> Report:
        """Return the line of the second; its lists are emptied."""
        roles: dict[tuple[bool, bool], Role] = {(True, False): "publisher", (False, True): "subscriber"}
        return Report(
            t=time.monotonic(),
            role=roles.get((self._publication is not None, self._watch is not None), "both"),
            participant=self._me,
            cluster=self._place.cluster if self._place else "",
            region=self._place.region if self._place else "",
            published=self._publication.take_report() if self._publication else None,
            received=self._watch.take_report() if self._watch else {},
        )

    async def _attend(self) -> NoReturn:
        """Join once and stay until the portal connection ends; never returns otherwise."""
        place = self._place = await self._join()
        scheme = "wss" if place.secure else "ws"
        async with await PortalClient.connect(f"{scheme}://{place.ip}:{place.port}/portal") as portal:
            membership = await portal.join(place.token)
            self._me = membership.participant
            self._say(
                Joined(
                    t=time.monotonic(),
                    participant=self._me,
                    cluster=place.cluster,
                    region=place.region,
                    room=membership.room,
                )
            )
            try:
                await self._stay(portal, membership, place)
            except asyncio.CancelledError:
                with contextlib.suppress(PortalClosedError, PortalRefusedError, TimeoutError):
                    async with asyncio.timeout(self._leave_timeout):
                        await portal.leave()
                self._say(Left(t=time.monotonic(), participant=self._me))
                raise

    async def _stay(self, portal: PortalClient, membership: Membership, place: JoinAnswer) -> NoReturn:
        try:
            if self._publication is not None:
                await self._publication.announce(portal)
            if self._watch is None:
                while True:
                    await portal.next_event()
            await self._watch.follow(
                portal,
                me=membership.participant,
                cluster=place.cluster,
                internal=membership.internal,
                streams=membership.streams,
            )
        finally:
            if self._publication is not None:
                self._publication.withdraw()

    def _say_lost(self, error: CausewayError, delay: float) -> None:
        now, retry_in = time.monotonic(), round(delay, 3)
        if self._me and self._place is not None:
            line: Line = Disconnected(
                t=now,
                participant=self._me,
                cluster=self._place.cluster,
                error=str(error),
                retry_in=retry_in,
            )
        else:
            line = JoinFailed(t=now, error=str(error), retry_in=retry_in)
        self._say(line)


def _worth_retrying(error: CausewayError) -> bool:
    if isinstance(error, ApiError):
        return error.status >= _SERVER_ERROR or error.status in _RETRYABLE_STATUSES
    return True
