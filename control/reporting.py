"""Registrations and reports of clusters: seals what is secret, writes, and wakes the reconciler.

Reports raise ClusterUnknownError and StaleEpochError (see control.registry.clusters), those with a number
ReportSupersededError (control.registry.report_order). Those about rooms raise ConferenceUnknownError for a
room that is no conference of ours.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import structlog

from causeway.api import Lease
from control.cascade.hands import ROOM_TOKEN
from control.drivers.kinds import capabilities
from control.errors import DatabaseUnavailableError
from control.fleet import SERVICE_KEY
from control.registry import capacity, clusters, links, report_order, reports, streams
from control.registry.report_order import ROOM
from control.security.vault import SealError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import Capacity, ClusterRegistration, Load, ParticipantReport, StreamReport
    from control.beats import Beats
    from control.bell import Bell
    from control.cluster_settings import LeaseSettings, ProbeSettings
    from control.registry.report_order import Said
    from control.registry.store import Store
    from control.security.vault import Vault

__all__ = ["Reporting", "sweep_leases"]

_log = structlog.get_logger(__name__)


class Reporting:
    """What a cluster may tell us."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        bell: Bell,
        beats: Beats,
        *,
        lease: LeaseSettings,
        probe: ProbeSettings,
    ) -> None:
        self._store = store
        self._vault = vault
        self._bell = bell
        self._beats = beats
        self._ttl = lease.ttl
        self._probe = probe

    async def register(
        self, cluster: str, request: ClusterRegistration, *, actor: str, number: int | None = None
    ) -> Lease:
        """Take the cluster in and start its lease. Raises ClusterClaimedError, ReportSupersededError."""
        sealed = self._vault.seal(request.service_key, SERVICE_KEY, cluster)
        probed = request.probe or not capabilities(request.driver).reports
        ttl = self._probe.lease if probed else self._ttl
        done = await self._store.write(
            clusters.register,
            cluster,
            request,
            sealed_key=sealed,
            ttl=ttl,
            actor=actor,
            probe_in=0 if probed else None,
            number=number,
        )
        self._bell.any.set()
        if not done.again:
            _log.info("cluster.registered", cluster=cluster, region=request.region, epoch=done.epoch)
        return self._lease(cluster, done.epoch, ttl)

    async def unregister(self, cluster: str, epoch: int | None, *, actor: str) -> None:
        """Let the cluster go."""
        await self._store.write(clusters.unregister, cluster, epoch=epoch, actor=actor)
        self._bell.any.set()
        _log.info("cluster.unregistered", cluster=cluster)

    async def heartbeat(self, cluster: str, epoch: int, load: Load) -> Lease:
        """Renew the lease."""
        await self._beats.beat(cluster, epoch, load)
        return self._lease(cluster, epoch, self._ttl)

    async def module_added(self, said: Said, module: str, told: Capacity) -> None:
        """Note a module of the cluster, which need not be registered yet."""

        async def write(connection: AsyncConnection) -> None:
            await report_order.take(connection, said, "", f"module/{module}")
            await capacity.add(connection, said.cluster, module, told)

        await self._store.write(write)

    async def module_removed(self, said: Said, module: str) -> None:
        """Note that the cluster does not have a module any more."""

        async def write(connection: AsyncConnection) -> None:
            await report_order.take(connection, said, "", f"module/{module}", gone=True)
            await capacity.remove(connection, said.cluster, module)

        await self._store.write(write)

    # --- what happens in rooms ------------------------------------------------------------------

    async def room_opened(self, said: Said, room: str, token: str) -> None:
        """Keep the room's token; links to it that were made with another one are made anew."""
        cluster = said.cluster

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, cluster, said.epoch)
            await report_order.take(connection, said, room, ROOM)
            sealed = self._vault.seal(token, ROOM_TOKEN, room, cluster)
            before = await reports.room_opened(connection, room, cluster, sealed_token=sealed)
            if before is not None and not self._is(before, token, room, cluster):
                await links.want(connection, cluster, conference=room)

        await self._store.write(write)
        self._bell.ring(room)

    async def room_closed(self, said: Said, room: str) -> None:
        """Forget who was in the room and its token."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, ROOM, gone=True)
            await reports.room_closed(connection, room, said.cluster)

        await self._store.write(write)
        self._bell.ring(room)

    async def room_missing(self, said: Said, room: str, placement: int) -> None:
        """Have a room made anew for which a client had a token of ours, and which the cluster has not."""

        async def write(connection: AsyncConnection) -> bool:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, "missing", of=(ROOM,))
            return await reports.room_missing(connection, room, said.cluster, epoch=placement)

        if await self._store.write(write):
            _log.warning("room.missing", conference=room, cluster=said.cluster)
        self._bell.ring(room)

    async def participant_joined(
        self, said: Said, room: str, participant: str, report: ParticipantReport
    ) -> None:
        """Note that a client has really joined."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, _participant(participant), of=(ROOM,))
            await reports.participant_joined(
                connection, room, said.cluster, participant, user=report.user, role=report.role
            )

        await self._store.write(write)
        self._bell.ring(room)

    async def participant_left(self, said: Said, room: str, participant: str) -> None:
        """Note that a client has left."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, _participant(participant), gone=True)
            await reports.participant_left(connection, room, said.cluster, participant)

        await self._store.write(write)
        self._bell.ring(room)

    async def stream_added(self, said: Said, room: str, stream: str, report: StreamReport) -> None:
        """Note that a stream is published in the room, or what it is now."""
        whose = () if report.participant is None else (_participant(report.participant),)

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, f"stream/{stream}", of=(ROOM, *whose))
            await streams.added(connection, room, said.cluster, stream, report)

        await self._store.write(write)

    async def stream_removed(self, said: Said, room: str, stream: str) -> None:
        """Note that a stream is gone."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, f"stream/{stream}", gone=True)
            await streams.removed(connection, room, said.cluster, stream)

        await self._store.write(write)

    async def link_seen(self, said: Said, room: str, peer: str, state: Literal["up", "down"]) -> None:
        """Note what the cluster sees of its link to the peer."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.require_lease(connection, said.cluster, said.epoch)
            await report_order.take(connection, said, room, f"link/{peer}", of=(ROOM,))
            await links.report(connection, room, cluster=said.cluster, peer=peer, state=state)

        await self._store.write(write)
        self._bell.ring(room)

    def _lease(self, cluster: str, epoch: int, ttl: float) -> Lease:
        return Lease(cluster=cluster, epoch=epoch, ttl=ttl, heartbeat_interval=ttl / 3)

    def _is(self, sealed: bytes, token: str, room: str, cluster: str) -> bool:
        try:
            return self._vault.open(sealed, ROOM_TOKEN, room, cluster) == token
        except SealError:
            return False


def _participant(participant: str) -> str:
    return f"participant/{participant}"


async def sweep_leases(store: Store, bell: Bell, settings: LeaseSettings) -> None:
    """Write off clusters whose lease ran out, one after the other, for ever."""
    while True:
        try:
            if await store.read(clusters.run_out):  # a look costs a fifth of the transaction
                while (cluster := await store.write(clusters.sweep)) is not None:
                    _log.warning("cluster.lost", cluster=cluster)
                    bell.any.set()
        except DatabaseUnavailableError as error:
            _log.warning("sweep.database_unavailable", error=error.detail)
        await asyncio.sleep(settings.sweep_interval)
