"""The management API, the server's side: OWT's REST interface below `/v1` (owt-server 5.x).

Requests are signed (lab.mauth), typed and limited in size. Two fields more than OWT has: the answer to
`bridges` carries the bridges' certificate fingerprints, and `cascading` takes those of the other side. One
parameter more: `placementEpoch` of `DELETE rooms/{room}` says which placement's room is meant. One call more:
`DELETE rooms/{room}/cascading/{peer}` ends what `cascading` began.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import structlog
from msgspec import Meta, Struct, field
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from causeway.errors import UnavailableError
from lab.room_options import RoomOptions
from lab.room_rules import RoomError
from lab.rpc_socket import RpcFailedError
from lab.tokens import Admission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from lab.mauth import MAuth
    from lab.room import Room
    from lab.rooms import Rooms
    from lab.settings import RestSettings
    from lab.tokens import Tokens
    from lab.workers import BridgePurpose, Worker, Workers

__all__ = ["Management"]

_log: Final = structlog.get_logger(__name__)
T = TypeVar("T")

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Host = Annotated[str, Meta(min_length=1, max_length=253)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
_MAX_PAGE: Final = 1000


class _CreateRoom(Struct):
    name: _Name
    options: RoomOptions = field(default_factory=RoomOptions)


class _CreateToken(Struct):
    user: _Name
    role: Annotated[str, Meta(min_length=1, max_length=64)]
    preference: dict[str, Any] | None = None


class _AskBridges(Struct, rename="camel"):
    target_cluster: _Name


class _Cascading(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """In OWT's spelling: it goes on to the bridges as it is."""

    room: _Name
    token: Annotated[str, Meta(min_length=1, max_length=512)]
    evIP: _Host  # noqa: N815 - OWT's name on the wire
    evPort: _Port  # noqa: N815
    selfCluster: _Name | None = None  # noqa: N815
    targetCluster: _Name | None = None  # noqa: N815
    mediaIP: _Host | None = None  # noqa: N815
    mediaPort: _Port | None = None  # noqa: N815
    evFingerprint: _Fingerprint | None = None  # noqa: N815
    mediaFingerprint: _Fingerprint | None = None  # noqa: N815


class _StartCascading(Struct, forbid_unknown_fields=True):
    options: _Cascading


class _Page(Struct):
    page: Annotated[int, Meta(ge=1)] = 1
    per_page: Annotated[int, Meta(ge=1, le=_MAX_PAGE)] = _MAX_PAGE


class _Deletion(Struct, rename="camel"):
    placement_epoch: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    """The newest placement whose room is meant. Not OWT's."""


class _HttpError(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Management:
    """The API of one cluster. `portal_host` gives `host:port` where clients connect."""

    def __init__(
        self,
        *,
        cluster: str,
        rooms: Rooms,
        workers: Workers,
        tokens: Tokens,
        mauth: MAuth,
        portal_host: Callable[[], str],
        settings: RestSettings,
    ) -> None:
        self._cluster = cluster
        self._rooms = rooms
        self._workers = workers
        self._tokens = tokens
        self._mauth = mauth
        self._portal_host = portal_host
        self._settings = settings
        self.ordered: list[Callable[[str, str], None]] = []
        """Called with a room and a cluster whenever the bridges have taken the order to connect them."""
        self.issue: Callable[[Admission], Awaitable[str]] = self._issue
        """Makes a client's token; whoever has another portal than ours sets another one."""

    def mount(self) -> Mount:
        """Return the routes."""
        calls: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("POST", "/rooms", self._create_room),
            ("GET", "/rooms", self._list_rooms),
            ("GET", "/rooms/{room}", self._get_room),
            ("PUT", "/rooms/{room}", self._update_room),
            ("DELETE", "/rooms/{room}", self._delete_room),
            ("POST", "/rooms/{room}/tokens", self._create_token),
            ("GET", "/rooms/{room}/participants", self._list_participants),
            ("GET", "/rooms/{room}/participants/{participant}", self._get_participant),
            ("DELETE", "/rooms/{room}/participants/{participant}", self._drop_participant),
            ("GET", "/rooms/{room}/streams", self._list_streams),
            ("GET", "/rooms/{room}/streams/{stream}", self._get_stream),
            ("GET", "/rooms/{room}/bridges", self._get_bridges),
            ("POST", "/rooms/{room}/cascading", self._start_cascading),
            ("DELETE", "/rooms/{room}/cascading/{peer}", self._stop_cascading),
        ]
        return Mount(
            "/v1",
            routes=[Route(path, self._guard(call), methods=[method]) for method, path, call in calls],
        )

    def _guard(
        self, call: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Let only signed requests pass, and turn refusals into answers."""

        async def guarded(request: Request) -> Response:
            if not self._mauth.accepts(request.headers.get("authorization", "")):
                _log.warning("rest.unauthorized", path=request.url.path)
                return _refusal(HTTPStatus.UNAUTHORIZED, "the signature is missing or wrong")
            try:
                return await call(request)
            except _HttpError as error:
                return _refusal(error.status, str(error))
            except RoomError as error:
                missing = error.reason.startswith("no-such") or error.reason == "not-joined"
                status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.CONFLICT
                return _refusal(status, f"{error.reason}: {error}")
            except (RpcFailedError, UnavailableError) as error:
                return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            except ClientDisconnect:
                return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody reads it

        return guarded

    # --- rooms ------------------------------------------------------------------------------------

    async def _create_room(self, request: Request) -> Response:
        body = await self._body(request, _CreateRoom)
        return _json(self._rooms.create(body.name, body.options).shown())

    async def _list_rooms(self, request: Request) -> Response:
        page = _query(request, _Page)
        first = (page.page - 1) * page.per_page
        return _json([record.shown() for record in self._rooms.records[first : first + page.per_page]])

    async def _get_room(self, request: Request) -> Response:
        return _json(self._rooms.record(request.path_params["room"]).shown())

    async def _update_room(self, request: Request) -> Response:
        body = await self._body(request, dict[str, Any])
        room_id = request.path_params["room"]
        # OWT's clients send the whole room object back: its options stand at the top then.
        options = body.get("options", body)
        try:
            name = msgspec.convert(body.get("name"), _Name | None)
            record = self._rooms.update(room_id, name, msgspec.convert(options, RoomOptions))
        except msgspec.ValidationError as error:
            raise _HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
        return _json(record.shown())

    async def _delete_room(self, request: Request) -> Response:
        asked = _query(request, _Deletion)
        self._rooms.delete(request.path_params["room"], placement_epoch=asked.placement_epoch)
        return PlainTextResponse("Room deleted")

    async def _create_token(self, request: Request) -> Response:
        record = self._rooms.record(request.path_params["room"])
        body = await self._body(request, _CreateToken)
        rules = record.rules(max_streams_per_participant=1)
        try:
            rules.role(body.role)
        except RoomError as error:
            raise _HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
        admission = Admission(room=record.id, user=body.user, role=body.role)
        return PlainTextResponse(await self.issue(admission))

    async def _issue(self, admission: Admission) -> str:
        return self._tokens.make(admission, host=self._portal_host())

    # --- participants and streams -----------------------------------------------------------------

    async def _list_participants(self, request: Request) -> Response:
        room = self._running(request)
        return _json([] if room is None else room.participants)

    async def _get_participant(self, request: Request) -> Response:
        room = self._running(request)
        return _json(_find(request.path_params["participant"], [] if room is None else room.participants))

    async def _drop_participant(self, request: Request) -> Response:
        room_id, participant = self._rooms.record(request.path_params["room"]).id, request.path_params
        self._rooms.act(room_id, lambda room: room.leave(participant["participant"]))
        return PlainTextResponse("ok")

    async def _list_streams(self, request: Request) -> Response:
        room = self._running(request)
        return _json([] if room is None else room.streams)

    async def _get_stream(self, request: Request) -> Response:
        room = self._running(request)
        return _json(_find(request.path_params["stream"], [] if room is None else room.streams))

    # --- cascading --------------------------------------------------------------------------------

    async def _get_bridges(self, request: Request) -> Response:
        room = self._rooms.record(request.path_params["room"]).id
        await self._body(request, _AskBridges)
        workers = [self._worker("eventbridge", room), self._worker("mediabridge", room)]
        event, media = await asyncio.gather(*(worker.address() for worker in workers))
        answer = {
            "eventbridgeip": event.host,
            "eventbridgeport": event.port,
            "mediabridgeip": media.host,
            "mediabridgeport": media.port,
        }
        if event.fingerprint is not None:
            answer["eventbridgefingerprint"] = event.fingerprint
        if media.fingerprint is not None:
            answer["mediabridgefingerprint"] = media.fingerprint
        return _json(answer)

    async def _start_cascading(self, request: Request) -> Response:
        room = self._rooms.record(request.path_params["room"]).id
        asked = (await self._body(request, _StartCascading)).options
        if (asked.mediaIP is None) != (asked.mediaPort is None):
            raise _HttpError(HTTPStatus.BAD_REQUEST, "mediaIP and mediaPort go together")
        if asked.selfCluster not in {None, self._cluster}:
            raise _HttpError(HTTPStatus.BAD_REQUEST, "selfCluster is not this cluster")
        if asked.targetCluster == self._cluster:
            raise _HttpError(HTTPStatus.BAD_REQUEST, "a cluster does not cascade to itself")
        workers = [self._worker("eventbridge", room)]
        if asked.mediaIP is not None:
            workers.append(self._worker("mediabridge", room))
        options = {**msgspec.to_builtins(asked), "selfCluster": self._cluster}
        timeout = self._settings.cascade_timeout
        answers = await asyncio.gather(
            *(worker.call("startCascading", [options], timeout=timeout) for worker in workers)
        )
        if any(answer != "ok" for answer in answers):
            raise RpcFailedError("startCascading: a bridge did not take the order")
        if asked.targetCluster is not None:
            for listener in self.ordered:
                listener(room, asked.targetCluster)
        return PlainTextResponse("ok")

    async def _stop_cascading(self, request: Request) -> Response:
        """Ours alone: OWT's cascades end with their rooms."""
        room = self._rooms.record(request.path_params["room"]).id
        order = {"room": room, "targetCluster": request.path_params["peer"]}
        # All of them: a room may have moved since its link was made, and who has none takes no notice.
        workers = self._workers.all
        timeout = self._settings.cascade_timeout
        answers = await asyncio.gather(
            *(worker.call("stopCascading", [order], timeout=timeout) for worker in workers)
        )
        if any(answer != "ok" for answer in answers):
            raise RpcFailedError("stopCascading: a bridge did not take the order")
        return PlainTextResponse("ok")

    def _worker(self, purpose: BridgePurpose, room: str) -> Worker:
        worker = self._workers.of(purpose, room)
        if worker is None:
            raise _HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"no {purpose} has joined")
        return worker

    # --- parts of the above -----------------------------------------------------------------------

    def _running(self, request: Request) -> Room | None:
        """Return the room if it runs; raises RoomError when it does not even exist."""
        record = self._rooms.record(request.path_params["room"])
        running = self._rooms.get_running(record.id)
        return running.room if running is not None else None

    async def _body(self, request: Request, shape: type[T]) -> T:
        """Read and check a request's body. Raises _HttpError."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._settings.max_body_bytes:
                raise _HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
        try:
            return msgspec.json.decode(bytes(body), type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # msgspec's words name fields and types, never values: no token leaks from here.
            raise _HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None


def _query(request: Request, shape: type[T]) -> T:
    """Read the parameters behind the `?`; unknown ones are ignored. Raises _HttpError."""
    try:
        return msgspec.convert(dict(request.query_params), shape, strict=False)
    except msgspec.ValidationError as error:
        raise _HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None


def _find(id_: str, among: list[Any]) -> Any:
    found = next((one for one in among if one.id == id_), None)
    if found is None:
        raise _HttpError(HTTPStatus.NOT_FOUND, "there is none with this id")
    return found


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _refusal(status: HTTPStatus, message: str) -> Response:
    body = msgspec.json.encode({"error": {"code": status.value, "message": message}})
    headers = {"WWW-Authenticate": "MAuth"} if status is HTTPStatus.UNAUTHORIZED else None
    return Response(body, status.value, headers, media_type="application/json")
