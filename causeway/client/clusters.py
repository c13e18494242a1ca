"""What a cluster says to control: its registration, and what happens in its rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causeway.api import ClusterView, Heartbeat, Lease, LinkReport, Load, MissingRoom
from causeway.client.connection import Connection, headers_of, path_of

if TYPE_CHECKING:
    from typing import Literal

    from causeway.api import Capacity, ClusterRegistration, ParticipantReport, RoomReport, StreamReport

__all__ = ["ClusterCalls"]


class ClusterCalls(Connection):
    """Calls for enrolment keys.

    `number`: of the report, larger than that of every request before it; a report with a smaller number than
    one that was carried out is ApiError 409 `report-superseded`.
    """

    async def register_cluster(
        self, cluster: str, registration: ClusterRegistration, *, number: int | None = None
    ) -> Lease:
        """Register, or change the registration: the answer's epoch goes with every report from now on."""
        path = path_of("clusters", cluster)
        return await self._ask("PUT", path, Lease, body=registration, headers=headers_of(number=number))

    async def heartbeat(self, cluster: str, *, epoch: int, load: Load | None = None) -> Lease:
        """Renew the lease. ApiError 409 `stale-epoch`, 404 `cluster-unknown`: register again."""
        beat = Heartbeat(load=load if load is not None else Load())
        path = path_of("clusters", cluster, "heartbeat")
        return await self._ask("POST", path, Lease, body=beat, headers=headers_of(epoch=epoch))

    async def unregister_cluster(self, cluster: str, *, epoch: int | None = None) -> None:
        """Leave in good order; an operator needs no epoch."""
        await self._call("DELETE", path_of("clusters", cluster), headers=headers_of(epoch=epoch))

    async def get_cluster(self, cluster: str) -> ClusterView:
        """Return one cluster."""
        return await self._ask("GET", path_of("clusters", cluster), ClusterView)

    async def put_capacity(
        self,
        cluster: str,
        module: str,
        capacity: Capacity | None = None,
        *,
        epoch: int | None = None,
        number: int | None = None,
    ) -> None:
        """Say that the cluster has this module now; may come before its registration."""
        path = path_of("clusters", cluster, "capacity", module)
        await self._call("PUT", path, body=capacity, headers=headers_of(epoch=epoch, number=number))

    async def delete_capacity(
        self, cluster: str, module: str, *, epoch: int | None = None, number: int | None = None
    ) -> None:
        """Say that the cluster has this module no more."""
        path = path_of("clusters", cluster, "capacity", module)
        await self._call("DELETE", path, headers=headers_of(epoch=epoch, number=number))

    async def report_room(
        self, cluster: str, room: str, report: RoomReport, *, epoch: int, number: int | None = None
    ) -> None:
        """Report that a room is initialised; bridges of other clusters must present its token."""
        path = path_of("clusters", cluster, "rooms", room)
        await self._call("PUT", path, body=report, headers=headers_of(epoch=epoch, number=number))

    async def room_closed(self, cluster: str, room: str, *, epoch: int, number: int | None = None) -> None:
        """Report that a room is gone, with everybody in it."""
        path = path_of("clusters", cluster, "rooms", room)
        await self._call("DELETE", path, headers=headers_of(epoch=epoch, number=number))

    async def room_missing(
        self, cluster: str, room: str, placement: int, *, epoch: int, number: int | None = None
    ) -> None:
        """Report that a client came with a signed token of this placement for a room that is not there."""
        path = path_of("clusters", cluster, "rooms", room, "missing")
        missing = MissingRoom(placement=placement)
        await self._call("POST", path, body=missing, headers=headers_of(epoch=epoch, number=number))

    async def participant_joined(
        self,
        cluster: str,
        room: str,
        participant: str,
        report: ParticipantReport,
        *,
        epoch: int,
        number: int | None = None,
    ) -> None:
        """Report a client that has really joined here. Cascaded participants are not reported."""
        path = path_of("clusters", cluster, "rooms", room, "participants", participant)
        await self._call("PUT", path, body=report, headers=headers_of(epoch=epoch, number=number))

    async def participant_left(
        self, cluster: str, room: str, participant: str, *, epoch: int, number: int | None = None
    ) -> None:
        """Report that a client that had joined here is gone."""
        path = path_of("clusters", cluster, "rooms", room, "participants", participant)
        await self._call("DELETE", path, headers=headers_of(epoch=epoch, number=number))

    async def report_stream(
        self,
        cluster: str,
        room: str,
        stream: str,
        report: StreamReport,
        *,
        epoch: int,
        number: int | None = None,
    ) -> None:
        """Report a stream that is published here, or what it is now."""
        path = path_of("clusters", cluster, "rooms", room, "streams", stream)
        await self._call("PUT", path, body=report, headers=headers_of(epoch=epoch, number=number))

    async def stream_gone(
        self, cluster: str, room: str, stream: str, *, epoch: int, number: int | None = None
    ) -> None:
        """Report that a stream is no longer there."""
        path = path_of("clusters", cluster, "rooms", room, "streams", stream)
        await self._call("DELETE", path, headers=headers_of(epoch=epoch, number=number))

    async def report_link(
        self,
        cluster: str,
        room: str,
        peer: str,
        state: Literal["up", "down"],
        *,
        epoch: int,
        number: int | None = None,
    ) -> None:
        """Report what this cluster sees of the room's cascade to the cluster `peer`."""
        path = path_of("clusters", cluster, "rooms", room, "links", peer)
        await self._call(
            "PUT", path, body=LinkReport(state=state), headers=headers_of(epoch=epoch, number=number)
        )
