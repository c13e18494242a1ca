"""The Open WebRTC Toolkit's side of the API: what its cluster managers send, and its sample's client calls.

    POST /owt/{enrolment key}/registerCluster | updateCapacity | updateConference | leaveConference |
                              unregisterCluster                                      → `ok`
    GET  /owt/{application key}/createConference/                                    → a new id
    POST /owt/{application key}/createToken/   {region, room, user, role}            → a token

Messages as in owt-server 5.x (cluster_manager, cascading) and, where they differ, its cascading design.
Fields that we do not know are ignored here: they are not ours. The key is a part of the path because nothing
else can be configured on the other side; paths under /owt/ are never logged whole. Any key that is not valid
for the call is answered 404, like a path that does not exist.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.responses import PlainTextResponse

from causeway.api import BridgeAddress, ClusterId, ConferenceId, Module, Region
from causeway.api.base import Host, HttpUrl, Port, Role, Secret, User
from control.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from control.http.edge import Body
from control.http.entry import Entry
from control.joining import Visit
from control.owt_clusters import registration
from control.registry import conferences

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from causeway.keys import KeyKind, Scope
    from control.cluster_settings import OwtSettings
    from control.http.gate import Gate
    from control.joining import Joining
    from control.owt_clusters import OwtClusters
    from control.registry.store import Store

__all__ = ["OwtRoutes"]

_NEW_IDS: Final = 10**12
"""Conference ids are drawn below this."""

ServiceId = Annotated[str, Meta(min_length=1, max_length=256)]


class RegisterInfo(Struct, frozen=True):
    """`info` of registerCluster."""

    resturl: HttpUrl
    servicekey: Secret
    serviceid: ServiceId


class Register(Struct, frozen=True, kw_only=True):
    """registerCluster: `{clusterID, region, info}`, or the design's flat `{id, region, restfulip, …}`."""

    region: Region
    clusterID: ClusterId | None = None  # noqa: N815 - its name there
    info: RegisterInfo | None = None
    id: ClusterId | None = None
    restfulip: Host | None = None
    restfulport: Port | None = None
    eventbridgeip: Host | None = None
    eventbridgeport: Port | None = None
    mediabridgeip: Host | None = None
    mediabridgeport: Port | None = None
    serviceid: ServiceId | None = None
    servicekey: Secret | None = None


class Message(Struct, frozen=True, kw_only=True):
    """What every other message names."""

    clusterID: ClusterId | None = None  # noqa: N815 - its name there
    id: ClusterId | None = None

    def cluster(self) -> str:
        """Return the cluster; raises InvalidRequestError without one."""
        cluster: str = _required(self.clusterID or self.id, "clusterID")
        return cluster


class CapacityInfo(Struct, frozen=True):
    """`info` of updateCapacity; the module is called `capacity`, in the design `module`."""

    action: str
    capacity: Module | None = None
    module: Module | None = None


class UpdateCapacity(Message, frozen=True, kw_only=True):
    """updateCapacity."""

    info: CapacityInfo


class RoomInfo(Struct, frozen=True):
    """`info` of updateConference."""

    room: ConferenceId
    token: Secret


class UpdateConference(Message, frozen=True, kw_only=True):
    """updateConference."""

    info: RoomInfo


class LeaveConference(Message, frozen=True, kw_only=True):
    """leaveConference."""

    conferenceId: ConferenceId  # noqa: N815 - its name there


class CreateToken(Struct, frozen=True):
    """createToken; a region that we would not take as a name is none."""

    room: ConferenceId
    user: User
    role: Role = "presenter"
    region: Any = None


_REGISTER: Final = Body(Register)
_UNREGISTER: Final = Body(Message)
_CAPACITY: Final = Body(UpdateCapacity)
_CONFERENCE: Final = Body(UpdateConference)
_LEAVE: Final = Body(LeaveConference)
_TOKEN: Final = Body(CreateToken)


class OwtRoutes:
    """Handlers under /owt."""

    def __init__(
        self, gate: Gate, store: Store, owt: OwtClusters, joining: Joining, settings: OwtSettings
    ) -> None:
        self._gate = gate
        self._store = store
        self._owt = owt
        self._joining = joining
        self._settings = settings

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""

        def told(name: str, handler: Any, body: Body, summary: str, *problems: str) -> Entry:
            return Entry(
                "POST",
                f"/owt/{{secret}}/{name}",
                None,
                handler,
                tag="owt",
                summary=summary,
                body=body,
                answers={200: str},
                problems=(*_ANY, *problems),
            )

        joins = (
            "conference-ending",
            "template-unknown",
            "cluster-failed",
            "no-cluster",
            "cluster-timeout",
        )
        return [
            told(
                "registerCluster", self.register, _REGISTER, "A cluster manager registers.", "cluster-claimed"
            ),
            told("updateCapacity", self.update_capacity, _CAPACITY, "A module is there, or gone."),
            told("updateConference", self.update_conference, _CONFERENCE, "A room is initialised."),
            told("leaveConference", self.leave_conference, _LEAVE, "A room is gone."),
            told("unregisterCluster", self.unregister, _UNREGISTER, "A cluster manager stops."),
            *(
                Entry(
                    "GET",
                    f"/owt/{{secret}}/createConference{end}",
                    None,
                    self.create_conference,
                    tag="owt",
                    summary="Make a conference with a random numeric id.",
                    answers={200: str},
                    problems=("not-found", "rate-limited"),
                )
                for end in ("/", "")
            ),
            *(
                told(f"createToken{end}", self.create_token, _TOKEN, "A token to join a room.", *joins)
                for end in ("/", "")
            ),
        ]

    # --- cluster managers -------------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        """POST /owt/{secret}/registerCluster."""
        actor = await self._admit(request, "enrolment")
        told: Register = await _REGISTER.read(request)
        cluster = _required(told.clusterID or told.id, "clusterID")
        if told.info is not None:
            wanted = registration(
                region=told.region,
                rest_url=told.info.resturl,
                service_id=told.info.serviceid,
                service_key=told.info.servicekey,
                own_service=True,
            )
        else:
            host, port = _required(told.restfulip, "restfulip"), _required(told.restfulport, "restfulport")
            wanted = registration(
                region=told.region,
                rest_url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
                service_id=_required(
                    told.serviceid or self._settings.service_id, "serviceid (or control.owt.service_id)"
                ),
                service_key=_required(
                    told.servicekey or self._settings.service_key, "servicekey (or control.owt.service_key)"
                ),
                event_bridge=_bridge(told.eventbridgeip, told.eventbridgeport),
                media_bridge=_bridge(told.mediabridgeip, told.mediabridgeport),
                own_service=told.serviceid is not None,
            )
        await self._owt.register(cluster, wanted, actor=actor)
        return _ok()

    async def update_capacity(self, request: Request) -> Response:
        """POST /owt/{secret}/updateCapacity."""
        await self._admit(request, "enrolment")
        told: UpdateCapacity = await _CAPACITY.read(request)
        module = _required(told.info.capacity or told.info.module, "info.capacity")
        match told.info.action:
            case "add":
                await self._owt.add_module(told.cluster(), module)
            case "remove" | "delete":
                await self._owt.remove_module(told.cluster(), module)
            case _:
                raise InvalidRequestError("info.action: add, remove or delete")
        return _ok()

    async def update_conference(self, request: Request) -> Response:
        """POST /owt/{secret}/updateConference."""
        await self._admit(request, "enrolment")
        told: UpdateConference = await _CONFERENCE.read(request)
        await self._owt.room_opened(told.cluster(), told.info.room, told.info.token)
        return _ok()

    async def leave_conference(self, request: Request) -> Response:
        """POST /owt/{secret}/leaveConference."""
        await self._admit(request, "enrolment")
        told: LeaveConference = await _LEAVE.read(request)
        await self._owt.room_closed(told.cluster(), told.conferenceId)
        return _ok()

    async def unregister(self, request: Request) -> Response:
        """POST /owt/{secret}/unregisterCluster."""
        actor = await self._admit(request, "enrolment")
        told: Message = await _UNREGISTER.read(request)
        await self._owt.unregister(told.cluster(), actor=actor)
        return _ok()

    # --- the sample's clients ---------------------------------------------------------------------

    async def create_conference(self, request: Request) -> Response:
        """GET /owt/{secret}/createConference/."""
        await self._admit(request, "application", "conferences:write")
        conference = str(secrets.randbelow(_NEW_IDS))
        await self._store.write(conferences.create, conference)
        return PlainTextResponse(conference)

    async def create_token(self, request: Request) -> Response:
        """POST /owt/{secret}/createToken/; makes the conference if there is none of that id."""
        await self._admit(request, "application", "join")
        told: CreateToken = await _TOKEN.read(request)
        await self._store.write(conferences.create, told.room)
        visit = Visit(conference=told.room, user=told.user, role=told.role, region=_region(told.region))
        answer = await self._joining.join(visit)
        return PlainTextResponse(answer.token, headers={"Cache-Control": "no-store"})

    async def _admit(self, request: Request, kind: KeyKind, scope: Scope | None = None) -> str:
        """Return who sent the request; raises NotFoundError and RateLimitedError."""
        try:
            caller = await self._gate.identify(request, f"Bearer {request.path_params['secret']}")
        except UnauthenticatedError:
            caller = None
        if caller is None or caller.kind != kind or (scope is not None and scope not in caller.scopes):
            raise NotFoundError("there is nothing at this path")
        return f"{caller.kind}:{caller.id}"


_ANY: Final = ("not-found", "rate-limited", "overloaded")


def _ok() -> Response:
    return PlainTextResponse("ok")


def _required(value: Any, name: str) -> Any:
    if value is None or value == "":
        raise InvalidRequestError(f"{name} is missing")
    return value


def _bridge(host: str | None, port: int | None) -> BridgeAddress | None:
    return None if host is None or port is None else BridgeAddress(host=host, port=port)


def _region(value: Any) -> str | None:
    try:
        return str(msgspec.convert(value, Region))
    except msgspec.ValidationError:
        return None
