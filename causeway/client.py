"""Client of control's HTTP API: one typed method per route, for clusters, applications and operators.

    async with ControlClient("https://control.example", key="cw_application_…") as control:
        answer = await control.join("standup", JoinRequest(user="alice", region="eu-west"))

Every method raises ApiError for a refusal (`type` is the problem's stable name, docs/errors.md) and
UnavailableError where control could not be asked or made itself not understood: no connection, no answer in
time, an answer that is none. After an UnavailableError the request may still have been carried out; PUT,
DELETE and heartbeat can simply be repeated. Nothing is retried here: the caller knows how long it may wait.

The key goes out in the Authorization header and appears nowhere else. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from causeway.api import (
    EPOCH_HEADER,
    ClusterList,
    ClusterView,
    ConferenceCreate,
    ConferenceList,
    ConferenceView,
    Heartbeat,
    JoinAnswer,
    Lease,
    LinkReport,
    Load,
    Problem,
)
from causeway.errors import ApiError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal

    from causeway.api import (
        ClusterRegistration,
        ConferenceQuery,
        JoinRequest,
        ParticipantReport,
        RoomReport,
    )

__all__ = ["ControlClient"]

_KEY: Final = re.compile(r"[!-~]+")

_T = TypeVar("_T")


class ControlClient:
    """One control service, one key. An async context manager; any number of calls may run at once."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout: float = 10.0,
        max_connections: int = 20,
        max_answer_bytes: int = 16 << 20,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`base_url` is without `/v1`; `timeout` limits each call as a whole, in seconds.

        `transport` replaces the network, for tests. Raises ConfigError for an address or a key that is none.
        """
        try:
            url = httpx2.URL(base_url.rstrip("/") + "/v1/")
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError("control's address must be an http(s) URL")
        if not _KEY.fullmatch(key):
            raise ConfigError("control's key must be printable ASCII without spaces")
        self._timeout = timeout
        self._max_answer_bytes = max_answer_bytes
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=None,
            limits=httpx2.Limits(max_connections=max_connections),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # --- clusters: registration ---------------------------------------------------------------

    async def register_cluster(self, cluster: str, registration: ClusterRegistration) -> Lease:
        """Register, or change the registration: the answer's epoch goes with every report from now on."""
        return await self._ask("PUT", _path("clusters", cluster), Lease, body=registration)

    async def heartbeat(self, cluster: str, *, epoch: int, load: Load | None = None) -> Lease:
        """Renew the lease. ApiError 409 `stale-epoch`, 404 `cluster-unknown`: register again."""
        beat = Heartbeat(load=load if load is not None else Load())
        return await self._ask("POST", _path("clusters", cluster, "heartbeat"), Lease, body=beat, epoch=epoch)

    async def unregister_cluster(self, cluster: str, *, epoch: int | None = None) -> None:
        """Leave in good order; an operator needs no epoch."""
        await self._call("DELETE", _path("clusters", cluster), epoch=epoch)

    async def put_capacity(self, cluster: str, module: str) -> None:
        """Say that the cluster has this module now; may come before its registration."""
        await self._call("PUT", _path("clusters", cluster, "capacity", module))

    async def delete_capacity(self, cluster: str, module: str) -> None:
        """Say that the cluster has this module no more."""
        await self._call("DELETE", _path("clusters", cluster, "capacity", module))

    # --- clusters: reports --------------------------------------------------------------------

    async def report_room(self, cluster: str, room: str, report: RoomReport, *, epoch: int) -> None:
        """Report that a room is initialised; bridges of other clusters must present its token."""
        await self._call("PUT", _path("clusters", cluster, "rooms", room), body=report, epoch=epoch)

    async def room_closed(self, cluster: str, room: str, *, epoch: int) -> None:
        """Report that a room is gone, with everybody in it."""
        await self._call("DELETE", _path("clusters", cluster, "rooms", room), epoch=epoch)

    async def participant_joined(
        self, cluster: str, room: str, participant: str, report: ParticipantReport, *, epoch: int
    ) -> None:
        """Report a client that has really joined here. Cascaded participants are not reported."""
        path = _path("clusters", cluster, "rooms", room, "participants", participant)
        await self._call("PUT", path, body=report, epoch=epoch)

    async def participant_left(self, cluster: str, room: str, participant: str, *, epoch: int) -> None:
        """Report that a client that had joined here is gone."""
        path = _path("clusters", cluster, "rooms", room, "participants", participant)
        await self._call("DELETE", path, epoch=epoch)

    async def report_link(
        self, cluster: str, room: str, peer: str, state: Literal["up", "down"], *, epoch: int
    ) -> None:
        """Report what this cluster sees of the room's cascade to the cluster `peer`."""
        path = _path("clusters", cluster, "rooms", room, "links", peer)
        await self._call("PUT", path, body=LinkReport(state=state), epoch=epoch)

    # --- clusters: views ----------------------------------------------------------------------

    async def list_clusters(self) -> list[ClusterView]:
        """Return all clusters, by id; for operators."""
        return (await self._ask("GET", "clusters", ClusterList)).clusters

    async def get_cluster(self, cluster: str) -> ClusterView:
        """Return one cluster."""
        return await self._ask("GET", _path("clusters", cluster), ClusterView)

    # --- conferences --------------------------------------------------------------------------

    async def create_conference(self, conference: str | None = None) -> ConferenceView:
        """Create a conference; without an id control draws one."""
        return await self._ask("POST", "conferences", ConferenceView, body=ConferenceCreate(id=conference))

    async def get_conference(self, conference: str) -> ConferenceView:
        """Return a conference with its placements, links and participants."""
        return await self._ask("GET", _path("conferences", conference), ConferenceView)

    async def list_conferences(self, query: ConferenceQuery | None = None) -> ConferenceList:
        """Return a page of the conferences that the query describes, oldest first."""
        return await self._ask("GET", f"conferences{_query(query)}", ConferenceList)

    async def delete_conference(self, conference: str) -> None:
        """End a conference: its rooms are removed, everybody is out."""
        await self._call("DELETE", _path("conferences", conference))

    async def join(self, conference: str, request: JoinRequest) -> JoinAnswer:
        """Return where the user shall connect, and the token to show there, once."""
        return await self._ask("POST", _path("conferences", conference, "join"), JoinAnswer, body=request)

    # --- one call -----------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[_T],
        *,
        body: msgspec.Struct | None = None,
        epoch: int | None = None,
    ) -> _T:
        answer = await self._call(method, path, body=body, epoch=epoch)
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Not chained: the error could quote an answer that holds a token.
            raise UnavailableError(f"{method} /v1/{path}: the answer is not control's") from None

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: msgspec.Struct | None = None,
        epoch: int | None = None,
    ) -> bytes:
        if self._http.is_closed:
            raise UnavailableError("this client of control is closed")
        headers: dict[str, str] = {}
        content: bytes | None = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        if epoch is not None:
            headers[EPOCH_HEADER] = str(epoch)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, content=content, headers=headers) as response,
            ):
                answer = await self._read(response)
        except TimeoutError as error:
            raise UnavailableError(
                f"{method} /v1/{path}: control did not answer within {self._timeout:g} s"
            ) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise UnavailableError(
                f"{method} /v1/{path}: control cannot be reached ({type(error).__name__})"
            ) from error
        if not response.is_success:
            raise _refusal(response.status_code, answer)
        return answer

    async def _read(self, response: httpx2.Response) -> bytes:
        answer = bytearray()
        async for chunk in response.aiter_bytes():
            answer += chunk
            if len(answer) > self._max_answer_bytes:
                raise UnavailableError(f"control's answer is larger than {self._max_answer_bytes} bytes")
        return bytes(answer)


def _path(*segments: str) -> str:
    """Join segments into a path; whatever an id holds, it stays one segment."""
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise ApiError(HTTPStatus.BAD_REQUEST, "bad-id", f"{segment!r} cannot be an id")
    return "/".join(quote(segment, safe="") for segment in segments)


def _query(wanted: msgspec.Struct | None) -> str:
    """Return the parameters of a list, with the `?`; a mapping's are `<name>.<key>`."""
    pairs: list[tuple[str, str]] = []
    for name, value in ({} if wanted is None else msgspec.to_builtins(wanted)).items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", str(each)) for key, each in value.items()]
        else:
            pairs.append((name, str(value)))
    return f"?{urlencode(pairs)}" if pairs else ""


def _refusal(status: int, answer: bytes) -> ApiError:
    """Read a problem document; anything else (a proxy's page) is named after its status."""
    try:
        problem: Any = msgspec.json.decode(answer, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "unknown status"
        return ApiError(status, phrase.lower().replace(" ", "-"), phrase)
    return ApiError(status, problem.type, problem.detail or problem.title)
