"""OWT clusters as they are: what their cluster managers say, turned into registrations, modules and rooms.

Such a cluster says each thing once, in any order, knows no epoch and sends no heartbeat (control.probing asks
it instead). So what comes too early is kept: modules without bound of time, rooms for a while.

Its deployment is told from another by its service id, which belongs to its database: `instance` is made of
it. It never says that it started anew, and its rooms outlive a restart of the manager, which alone speaks to
us: `incarnation` stays the same. What has become of a room shows when its token is asked for or its
participants are listed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import structlog

from causeway.api import BridgeAddress, Capacity, ClusterRegistration
from control.cascade.hands import ROOM_TOKEN
from control.errors import ConferenceEndingError, ConferenceUnknownError, OverloadedError
from control.fleet import SERVICE_KEY
from control.registry import capacity, clusters, conferences, early_rooms, links, reports
from control.security.vault import SealError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.bell import Bell
    from control.cluster_settings import OwtSettings, ProbeSettings
    from control.registry.store import Store
    from control.security.vault import Vault

__all__ = ["OwtClusters", "registration"]

_log = structlog.get_logger(__name__)

_INCARNATION: Final = "owt"


class OwtClusters:
    """What an OWT cluster manager may tell us."""

    def __init__(
        self, store: Store, vault: Vault, bell: Bell, settings: OwtSettings, probe: ProbeSettings
    ) -> None:
        self._store = store
        self._vault = vault
        self._bell = bell
        self._settings = settings
        self._probe = probe

    async def register(self, cluster: str, request: ClusterRegistration, *, actor: str) -> None:
        """Take the cluster in, with what it said before. Raises ClusterClaimedError."""
        sealed = self._vault.seal(request.service_key, SERVICE_KEY, cluster)

        async def write(connection: AsyncConnection) -> list[str]:
            await clusters.register(
                connection,
                cluster,
                request,
                sealed_key=sealed,
                ttl=self._probe.lease,
                actor=actor,
                probe_in=0,
            )
            # Its workers join its manager anew and are told anew; what was not told lately is gone.
            await capacity.forget_untold(connection, cluster, within=self._settings.early_seconds)
            return await self._attach(connection, cluster)

        rooms = await self._store.write(write)
        self._bell.any.set()
        for room in rooms:
            self._bell.ring(room)
        _log.info("cluster.registered", cluster=cluster, region=request.region, kind="owt")

    async def unregister(self, cluster: str, *, actor: str) -> None:
        """Let the cluster go, and what it said of rooms."""

        async def write(connection: AsyncConnection) -> None:
            await clusters.unregister(connection, cluster, epoch=None, actor=actor)
            await early_rooms.forget(connection, cluster)

        await self._store.write(write)
        self._bell.any.set()
        _log.info("cluster.unregistered", cluster=cluster)

    async def add_module(self, cluster: str, module: str) -> None:
        """Note a module; the cluster may register later."""
        await self._store.write(capacity.add, cluster, module, Capacity())

    async def remove_module(self, cluster: str, module: str) -> None:
        """Note that a module is gone."""
        await self._store.write(capacity.remove, cluster, module)

    async def room_opened(self, cluster: str, room: str, token: str) -> None:
        """Keep the room's token, with its placement or until there is one. Raises OverloadedError."""
        sealed = self._vault.seal(token, ROOM_TOKEN, room, cluster)

        async def write(connection: AsyncConnection) -> bool:
            alive = await clusters.live_epoch(connection, cluster) is not None
            if alive and await self._open(connection, cluster, room, sealed):
                await early_rooms.forget(connection, cluster, room)
                return True
            return await early_rooms.keep(
                connection, cluster, room, sealed_token=sealed, limit=self._settings.max_early_rooms
            )

        if not await self._store.write(write):
            raise OverloadedError(f"too many rooms of cluster {cluster} are waiting for its registration")
        self._bell.ring(room)

    async def room_closed(self, cluster: str, room: str) -> None:
        """Forget the room's token and whoever was there."""

        async def write(connection: AsyncConnection) -> None:
            await early_rooms.forget(connection, cluster, room)
            await reports.room_closed(connection, room, cluster)

        await self._store.write(write)
        self._bell.ring(room)

    async def attach(self, cluster: str) -> None:
        """Give kept rooms of a living cluster their place, where there is one by now."""
        for room in await self._store.write(self._attach_living, cluster):
            self._bell.ring(room)

    async def _attach_living(self, connection: AsyncConnection, cluster: str) -> list[str]:
        if await clusters.live_epoch(connection, cluster) is None:
            return []
        return await self._attach(connection, cluster)

    async def _attach(self, connection: AsyncConnection, cluster: str) -> list[str]:
        kept = await early_rooms.take(connection, cluster, unknown_too=self._settings.adopt_rooms)
        for room, sealed in sorted(kept):
            await self._open(connection, cluster, room, sealed)
        return [room for room, _ in kept]

    async def _open(self, connection: AsyncConnection, cluster: str, room: str, sealed: bytes) -> bool:
        """Note the token with the room's placement; False for a room that is no conference."""
        try:
            if self._settings.adopt_rooms:
                await conferences.create(connection, room)
            before = await reports.room_opened(connection, room, cluster, sealed_token=sealed)
        except ConferenceEndingError:
            return True  # it is being taken down, there as well
        except ConferenceUnknownError:
            return False
        if before is not None and not self._same(before, sealed, room, cluster):
            await links.want(connection, cluster, conference=room)
        return True

    def _same(self, one: bytes, other: bytes, room: str, cluster: str) -> bool:
        try:
            tokens = [self._vault.open(sealed, ROOM_TOKEN, room, cluster) for sealed in (one, other)]
        except SealError:
            return False
        return tokens[0] == tokens[1]


def registration(
    *,
    region: str,
    rest_url: str,
    service_id: str,
    service_key: str,
    event_bridge: BridgeAddress | None = None,
    media_bridge: BridgeAddress | None = None,
    own_service: bool,
) -> ClusterRegistration:
    """Return a registration of ours; without `own_service` the address tells deployments apart."""
    identity = service_id if own_service else rest_url
    return ClusterRegistration(
        region=region,
        rest_url=rest_url,
        service_id=service_id,
        service_key=service_key,
        instance=f"owt-{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
        incarnation=_INCARNATION,
        driver="owt",
        event_bridge=event_bridge,
        media_bridge=media_bridge,
        probe=True,
    )
