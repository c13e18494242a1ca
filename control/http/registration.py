"""Routes for clusters: registration, heartbeat, capacity, and their reports about rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from causeway.api import (
    Capacity,
    ClusterRegistration,
    Heartbeat,
    Lease,
    LinkReport,
    MissingRoom,
    ParticipantReport,
    RoomReport,
    StreamReport,
)
from control.http.edge import (
    Body,
    actor_of,
    epoch_of,
    json,
    no_content,
    optional_epoch_of,
    part,
    report_of,
)
from control.http.entry import CLUSTERS, EPOCH, EPOCH_OPTIONAL, REPORT, Entry
from control.registry.report_order import Said

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.reporting import Reporting

__all__ = ["ClusterRoutes"]

_REGISTRATION: Final = Body(ClusterRegistration)
_HEARTBEAT: Final = Body(Heartbeat, empty=Heartbeat())
_CAPACITY: Final = Body(Capacity, empty=Capacity())
_ROOM: Final = Body(RoomReport)
_PARTICIPANT: Final = Body(ParticipantReport)
_LINK: Final = Body(LinkReport)
_STREAM: Final = Body(StreamReport)
_MISSING: Final = Body(MissingRoom)


class ClusterRoutes:
    """Handlers under /v1/clusters."""

    def __init__(self, reporting: Reporting) -> None:
        self._reporting = reporting

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        cluster = "/v1/clusters/{cluster}"
        room = f"{cluster}/rooms/{{room}}"
        participant = f"{room}/participants/{{participant}}"
        stream = f"{room}/streams/{{stream}}"
        stale = ("cluster-unknown", "stale-epoch")
        told = (*stale, "report-superseded")
        return [
            # First, as what comes most often.
            Entry(
                "POST",
                f"{cluster}/heartbeat",
                CLUSTERS,
                self.heartbeat,
                tag="clusters",
                summary="Renew the lease.",
                headers=(EPOCH,),
                body=_HEARTBEAT,
                answers={200: Lease},
                problems=stale,
            ),
            Entry(
                "PUT",
                cluster,
                CLUSTERS,
                self.register,
                tag="clusters",
                summary="Register, or change the registration; the answer's epoch goes with every report.",
                headers=(REPORT,),
                body=_REGISTRATION,
                answers={200: Lease},
                problems=("cluster-claimed", "report-superseded"),
            ),
            Entry(
                "DELETE",
                cluster,
                CLUSTERS,
                self.unregister,
                tag="clusters",
                summary="Leave in good order; an operator needs no epoch.",
                headers=(EPOCH_OPTIONAL,),
                answers={204: None},
                problems=("stale-epoch",),
            ),
            Entry(
                "PUT",
                f"{cluster}/capacity/{{module}}",
                CLUSTERS,
                self.add_capacity,
                tag="clusters",
                summary="Say that the cluster has this module now; may come before its registration.",
                headers=(EPOCH_OPTIONAL, REPORT),
                body=_CAPACITY,
                answers={204: None},
                problems=("report-superseded",),
            ),
            Entry(
                "DELETE",
                f"{cluster}/capacity/{{module}}",
                CLUSTERS,
                self.remove_capacity,
                tag="clusters",
                summary="Say that the cluster has this module no more.",
                headers=(EPOCH_OPTIONAL, REPORT),
                answers={204: None},
                problems=("report-superseded",),
            ),
            Entry(
                "PUT",
                room,
                CLUSTERS,
                self.open_room,
                tag="reports",
                summary="Report that a room is initialised.",
                headers=(EPOCH, REPORT),
                body=_ROOM,
                answers={204: None},
                problems=(*told, "conference-unknown"),
            ),
            Entry(
                "DELETE",
                room,
                CLUSTERS,
                self.close_room,
                tag="reports",
                summary="Report that a room is gone, with everybody in it.",
                headers=(EPOCH, REPORT),
                answers={204: None},
                problems=told,
            ),
            Entry(
                "POST",
                f"{room}/missing",
                CLUSTERS,
                self.miss_room,
                tag="reports",
                summary="Report that a client came with a signed token for a room that is not there.",
                headers=(EPOCH, REPORT),
                body=_MISSING,
                answers={204: None},
                problems=told,
            ),
            Entry(
                "PUT",
                participant,
                CLUSTERS,
                self.join,
                tag="reports",
                summary="Report a client that has really joined here.",
                headers=(EPOCH, REPORT),
                body=_PARTICIPANT,
                answers={204: None},
                problems=(*told, "conference-unknown"),
            ),
            Entry(
                "DELETE",
                participant,
                CLUSTERS,
                self.leave,
                tag="reports",
                summary="Report that a client that had joined here is gone.",
                headers=(EPOCH, REPORT),
                answers={204: None},
                problems=told,
            ),
            Entry(
                "PUT",
                stream,
                CLUSTERS,
                self.publish,
                tag="reports",
                summary="Report a stream that is published here, or what it is now.",
                headers=(EPOCH, REPORT),
                body=_STREAM,
                answers={204: None},
                problems=(*told, "conference-unknown"),
            ),
            Entry(
                "DELETE",
                stream,
                CLUSTERS,
                self.unpublish,
                tag="reports",
                summary="Report that a stream is gone; those of who leaves go with them.",
                headers=(EPOCH, REPORT),
                answers={204: None},
                problems=told,
            ),
            Entry(
                "PUT",
                f"{room}/links/{{peer}}",
                CLUSTERS,
                self.link,
                tag="reports",
                summary="Report what the cluster sees of the room's cascade to a peer.",
                headers=(EPOCH, REPORT),
                body=_LINK,
                answers={204: None},
                problems=(*told, "conference-unknown"),
            ),
        ]

    async def register(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}."""
        cluster = _cluster(request)
        registration: ClusterRegistration = await _REGISTRATION.read(request)
        lease = await self._reporting.register(
            cluster, registration, actor=actor_of(request), number=report_of(request)
        )
        return json(lease)

    async def unregister(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}; with an epoch, only if it is the current one."""
        epoch = optional_epoch_of(request)
        await self._reporting.unregister(_cluster(request), epoch, actor=actor_of(request))
        return no_content()

    async def heartbeat(self, request: Request) -> Response:
        """POST /v1/clusters/{cluster}/heartbeat."""
        cluster, epoch = _cluster(request), epoch_of(request)
        beat: Heartbeat = await _HEARTBEAT.read(request)
        return json(await self._reporting.heartbeat(cluster, epoch, beat.load))

    async def add_capacity(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/capacity/{module}."""
        told: Capacity = await _CAPACITY.read(request)
        await self._reporting.module_added(_early(request), part(request, "module"), told)
        return no_content()

    async def remove_capacity(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/capacity/{module}."""
        await self._reporting.module_removed(_early(request), part(request, "module"))
        return no_content()

    async def open_room(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}."""
        said, room = _said(request), _room(request)
        report: RoomReport = await _ROOM.read(request)
        await self._reporting.room_opened(said, room, report.token)
        return no_content()

    async def close_room(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/rooms/{room}."""
        await self._reporting.room_closed(_said(request), _room(request))
        return no_content()

    async def miss_room(self, request: Request) -> Response:
        """POST /v1/clusters/{cluster}/rooms/{room}/missing."""
        said, room = _said(request), _room(request)
        report: MissingRoom = await _MISSING.read(request)
        await self._reporting.room_missing(said, room, report.placement)
        return no_content()

    async def join(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}/participants/{participant}."""
        said, room, participant = _said(request), _room(request), part(request, "participant")
        report: ParticipantReport = await _PARTICIPANT.read(request)
        await self._reporting.participant_joined(said, room, participant, report)
        return no_content()

    async def leave(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/rooms/{room}/participants/{participant}."""
        participant = part(request, "participant")
        await self._reporting.participant_left(_said(request), _room(request), participant)
        return no_content()

    async def publish(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}/streams/{stream}."""
        said, room, stream = _said(request), _room(request), part(request, "stream")
        report: StreamReport = await _STREAM.read(request)
        await self._reporting.stream_added(said, room, stream, report)
        return no_content()

    async def unpublish(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/rooms/{room}/streams/{stream}."""
        await self._reporting.stream_removed(_said(request), _room(request), part(request, "stream"))
        return no_content()

    async def link(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}/links/{peer}."""
        said, room, peer = _said(request), _room(request), part(request, "peer")
        report: LinkReport = await _LINK.read(request)
        await self._reporting.link_seen(said, room, peer, report.state)
        return no_content()


def _cluster(request: Request) -> str:
    return part(request, "cluster")


def _room(request: Request) -> str:
    return part(request, "room")


def _said(request: Request) -> Said:
    return Said(_cluster(request), epoch_of(request), report_of(request))


def _early(request: Request) -> Said:
    """Return who says something that needs no registration: without its epoch, numbers say nothing."""
    epoch = optional_epoch_of(request)
    return Said(_cluster(request), epoch or 0, None if epoch is None else report_of(request))
