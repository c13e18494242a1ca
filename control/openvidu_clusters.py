"""What OpenVidu deployments tell of their sessions, turned into reports.

They name no deployment. But a conference that is on an OpenVidu cluster is nowhere else, so the session's id
says it. What they tell is a convenience: it makes known at once what the next probe (control.probing) finds
out anyway, and a probe mends whatever was told wrong, twice, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from control.registry import probes, reports

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.attendance import Attendance
    from control.bell import Bell
    from control.registry.store import Store

__all__ = ["OpenViduClusters"]

_log: Final = structlog.get_logger(__name__)

_DRIVER: Final = "openvidu"


class OpenViduClusters:
    """What an OpenVidu deployment may tell us. Sessions that are no conferences of ours are passed over."""

    def __init__(self, store: Store, bell: Bell, attendance: Attendance) -> None:
        self._store = store
        self._bell = bell
        self._attendance = attendance

    async def joined(self, session: str) -> None:
        """Have the deployment asked who is in the session: only it knows in which role they are."""
        cluster = await self._store.read(probes.sole, session, _DRIVER)
        if cluster is not None:
            self._attendance.hint(session, cluster, session)

    async def left(self, session: str, connection: str) -> None:
        """Note that somebody left."""

        async def write(transaction: AsyncConnection) -> bool:
            cluster = await probes.sole(transaction, session, _DRIVER)
            if cluster is not None:
                await reports.participant_left(transaction, session, cluster, connection)
            return cluster is not None

        if await self._store.write(write):
            self._bell.ring(session)

    async def closed(self, session: str) -> None:
        """Note that the session is gone, with everybody; the next join has it made anew."""

        async def write(transaction: AsyncConnection) -> str | None:
            cluster = await probes.sole(transaction, session, _DRIVER)
            if cluster is not None:
                await reports.room_closed(transaction, session, cluster)
            return cluster

        cluster = await self._store.write(write)
        if cluster is not None:
            self._bell.ring(session)
            _log.info("session.closed", cluster=cluster, conference=session)
