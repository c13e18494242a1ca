"""Routes for clusters: registration, heartbeat, capacity, and their reports about rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from causeway.api import (
    ClusterId,
    ClusterList,
    ClusterRegistration,
    ConferenceId,
    Heartbeat,
    LinkReport,
    Module,
    ParticipantReport,
    RoomReport,
)
from control.http.edge import Body, epoch_of, json, no_content, optional_epoch_of, part
from control.registry import clusters

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.registry.store import Store
    from control.reporting import Reporting

__all__ = ["ClusterRoutes"]

ParticipantId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~@:+=-]+$(?!\n)", max_length=128)]
"""Drawn by the cluster; wider than our own names."""

_REGISTRATION: Final = Body(ClusterRegistration)
_HEARTBEAT: Final = Body(Heartbeat, empty=Heartbeat())
_ROOM: Final = Body(RoomReport)
_PARTICIPANT: Final = Body(ParticipantReport)
_LINK: Final = Body(LinkReport)


class ClusterRoutes:
    """Handlers under /v1/clusters."""

    def __init__(self, store: Store, reporting: Reporting) -> None:
        self._store = store
        self._reporting = reporting

    async def index(self, _request: Request) -> Response:
        """GET /v1/clusters."""
        return json(ClusterList(clusters=await self._store.snapshot(clusters.list_all)))

    async def show(self, request: Request) -> Response:
        """GET /v1/clusters/{cluster}."""
        return json(await self._store.snapshot(clusters.show, _cluster(request)))

    async def register(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}."""
        cluster = _cluster(request)
        return json(await self._reporting.register(cluster, await _REGISTRATION.read(request)))

    async def unregister(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}; with an epoch, only if it is the current one."""
        await self._reporting.unregister(_cluster(request), optional_epoch_of(request))
        return no_content()

    async def heartbeat(self, request: Request) -> Response:
        """POST /v1/clusters/{cluster}/heartbeat."""
        cluster, epoch = _cluster(request), epoch_of(request)
        beat: Heartbeat = await _HEARTBEAT.read(request)
        return json(await self._reporting.heartbeat(cluster, epoch, beat.load))

    async def add_capacity(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/capacity/{module}."""
        await self._store.write(clusters.add_capacity, _cluster(request), part(request, "module", Module))
        return no_content()

    async def remove_capacity(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/capacity/{module}."""
        await self._store.write(clusters.remove_capacity, _cluster(request), part(request, "module", Module))
        return no_content()

    async def open_room(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}."""
        cluster, epoch, room = _cluster(request), epoch_of(request), _room(request)
        report: RoomReport = await _ROOM.read(request)
        await self._reporting.room_opened(cluster, epoch, room, report.token)
        return no_content()

    async def close_room(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/rooms/{room}."""
        await self._reporting.room_closed(_cluster(request), epoch_of(request), _room(request))
        return no_content()

    async def join(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}/participants/{participant}."""
        cluster, epoch, room = _cluster(request), epoch_of(request), _room(request)
        participant = part(request, "participant", ParticipantId)
        report: ParticipantReport = await _PARTICIPANT.read(request)
        await self._reporting.participant_joined(cluster, epoch, room, participant, report)
        return no_content()

    async def leave(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/rooms/{room}/participants/{participant}."""
        participant = part(request, "participant", ParticipantId)
        await self._reporting.participant_left(
            _cluster(request), epoch_of(request), _room(request), participant
        )
        return no_content()

    async def link(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/rooms/{room}/links/{peer}."""
        cluster, epoch, room = _cluster(request), epoch_of(request), _room(request)
        peer = part(request, "peer", ClusterId)
        report: LinkReport = await _LINK.read(request)
        await self._reporting.link_seen(cluster, epoch, room, peer, report.state)
        return no_content()


def _cluster(request: Request) -> str:
    return part(request, "cluster", ClusterId)


def _room(request: Request) -> str:
    return part(request, "room", ConferenceId)
