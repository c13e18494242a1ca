"""OWT clusters: their management API (owt-server 5.x, base `{rest_url}/v1`) as a ClusterDriver.

`OwtConnections` owns the connection pool and the clock for signatures and makes one `OwtDriver` per cluster.
Redirects are never followed: a cluster may not send control to other addresses. Everything received is
limited in size; control.drivers.owt_answers reads it. A cluster's own words never get into an error's
message, as they may repeat what was sent to it.

Beyond OWT, used only between clusters whose bridges have fingerprints: `eventbridgefingerprint` and
`mediabridgefingerprint` in the answer to `bridges`, `evFingerprint` and `mediaFingerprint` in `cascading`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import aiohttp
import msgspec

from control.drivers.base import (
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    MalformedAnswerError,
    RequestRefusedError,
    RoomNotFoundError,
    UnreachableError,
)
from control.drivers.mauth import MAuthClock, authorization
from control.drivers.owt_answers import read_bridges, read_ok, read_participants, read_room, read_token

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from control.drivers.base import Bridges, RoomParticipant, RoomToken

__all__ = ["OwtConnections", "OwtDriver"]

_SUCCESS: Final = frozenset({100, *range(200, 206)})


# --- the pool ---------------------------------------------------------------------------------


class OwtConnections:
    """The connections to all OWT clusters: an async context manager, made and used on one event loop."""

    def __init__(
        self,
        *,
        max_connections: int = 256,
        max_connections_per_cluster: int = 64,
        connect_timeout: float = 2.0,
        call_timeout: float = 5.0,
        cascade_timeout: float = 200.0,
        keepalive_timeout: float = 3.0,
        max_answer_bytes: int = 1 << 20,
        max_refusals: int = 2,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Set limits; timeouts are in seconds.

        `cascade_timeout` is for `cascading` and `bridges`: a cluster schedules its bridges first and may
        take 90 s for each. `keepalive_timeout` must stay below the cluster's (Node.js: 5 s), or a request is
        now and then sent into a connection that is just being closed. `max_refusals`: how often a 401 is
        answered by signing anew with a later timestamp. `ssl_context` replaces the verification against the
        system's authorities, for clusters with certificates of their own.
        """
        self.clock = MAuthClock()
        self.call_timeout = call_timeout
        self.cascade_timeout = cascade_timeout
        self.max_answer_bytes = max_answer_bytes
        self.max_refusals = max_refusals
        self._connect_timeout = connect_timeout
        self._connector: dict[str, Any] = {
            "limit": max_connections,
            "limit_per_host": max_connections_per_cluster,
            "keepalive_timeout": keepalive_timeout,
            "ssl": ssl_context if ssl_context is not None else True,
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**self._connector),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nothing compressed is asked for; a bomb stays small
            headers={"Accept-Encoding": "identity", "User-Agent": "causeway"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def driver(self, *, rest_url: str, service_id: str, service_key: str) -> OwtDriver:
        """Return the driver of one cluster: cheap, no I/O, as long-lived as one likes."""
        return OwtDriver(self, rest_url=rest_url, service_id=service_id, service_key=service_key)

    async def send(
        self, method: str, url: str, *, body: bytes | None, authorization: str
    ) -> tuple[int, bytes]:
        """Send one request; return status and body. Raises DriverError for everything below HTTP.

        Only connecting is timed here; the caller limits the whole.
        """
        if self._session is None:
            raise UnreachableError("the connections to clusters are closed")
        headers = {"Authorization": authorization}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            ) as response:
                return response.status, await self._read(response)
        except aiohttp.ClientResponseError:
            # Its representation shows the request's headers: it is not chained.
            raise MalformedAnswerError("the answer is not HTTP") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise RequestRefusedError("the rest_url is not a usable URL") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"no connection, or it broke ({type(error).__name__})") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        answer = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            answer += chunk
            if len(answer) > self.max_answer_bytes:
                response.close()
                raise MalformedAnswerError(f"the answer is larger than {self.max_answer_bytes} bytes")
        return bytes(answer)


# --- the driver -------------------------------------------------------------------------------


class OwtDriver:
    """One OWT cluster; fills control.drivers.base.ClusterDriver."""

    def __init__(
        self, connections: OwtConnections, *, rest_url: str, service_id: str, service_key: str
    ) -> None:
        self._connections = connections
        self._base = rest_url.rstrip("/") + "/v1"
        self._service_id = service_id
        self._service_key = service_key

    async def create_room(self, conference: str) -> str:
        """See ClusterDriver. A cluster refuses an id that it has in various ways: so it is asked for it."""
        body = {"name": conference, "options": {"_id": conference}}
        try:
            answer = await self._call("POST", "rooms", body=body)
        except (RequestRefusedError, RoomNotFoundError, UnreachableError) as refusal:
            try:
                answer = await self._call("GET", f"rooms/{_segment(conference)}")
            except DriverError:
                raise refusal from None
        read_room(answer, conference)
        return conference

    async def delete_room(self, room: str) -> None:
        """See ClusterDriver."""
        try:
            await self._call("DELETE", f"rooms/{_segment(room)}")
        except RoomNotFoundError:
            return

    async def create_token(self, room: str, *, user: str, role: str, region: str) -> RoomToken:
        """See ClusterDriver."""
        body = {"preference": {"isp": "isp", "region": region}, "user": user, "role": role}
        return read_token(await self._call("POST", f"rooms/{_segment(room)}/tokens", body=body))

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:
        """See ClusterDriver. A GET with a body, as the cluster wants it."""
        answer = await self._call(
            "GET",
            f"rooms/{_segment(room)}/bridges",
            body={"targetCluster": target_cluster},
            timeout=self._connections.cascade_timeout,
        )
        return read_bridges(answer)

    async def start_cascade(
        self,
        room: str,
        *,
        token: str,
        self_cluster: str,
        target_cluster: str,
        bridges: Bridges,
        with_fingerprints: bool,
    ) -> None:
        """See ClusterDriver. The cluster refuses options that it does not know: exactly these are sent."""
        event, media = bridges.event, bridges.media
        options: dict[str, Any] = {
            "room": room,
            "token": token,
            "selfCluster": self_cluster,
            "targetCluster": target_cluster,
            "evIP": event.host,
            "evPort": event.port,
        }
        if media is not None:
            options |= {"mediaIP": media.host, "mediaPort": media.port}
        if with_fingerprints and event.fingerprint is not None:
            options["evFingerprint"] = event.fingerprint
        if with_fingerprints and media is not None and media.fingerprint is not None:
            options["mediaFingerprint"] = media.fingerprint
        answer = await self._call(
            "POST",
            f"rooms/{_segment(room)}/cascading",
            body={"options": options},
            timeout=self._connections.cascade_timeout,
        )
        read_ok(answer)

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """See ClusterDriver."""
        return read_participants(await self._call("GET", f"rooms/{_segment(room)}/participants"))

    async def _call(self, method: str, path: str, *, body: Any = None, timeout: float | None = None) -> bytes:
        """Send a signed request and return the answer's body, or raise what its status means."""
        url = f"{self._base}/{path}"
        data = None if body is None else msgspec.json.encode(body)
        limit = self._connections.call_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                status, answer = await self._signed(method, url, data)
        except TimeoutError as error:
            raise DriverTimeoutError(f"no answer within {limit:g} s") from error
        if status not in _SUCCESS:
            raise _refusal(status)
        return answer

    async def _signed(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        """Sign and send; where the cluster refuses the signature, sign anew with a later timestamp.

        A refused request was not looked at, so repeating it is safe.
        """
        clock = self._connections.clock
        for _ in range(self._connections.max_refusals):
            stamp = clock.stamp()
            status, answer = await self._send(method, url, body, stamp)
            if status != HTTPStatus.UNAUTHORIZED:
                return status, answer
            clock.move_on(stamp)
        return await self._send(method, url, body, clock.stamp())

    async def _send(self, method: str, url: str, body: bytes | None, stamp: int) -> tuple[int, bytes]:
        header = authorization(self._service_id, self._service_key, timestamp=stamp)
        return await self._connections.send(method, url, body=body, authorization=header)


def _segment(room: str) -> str:
    """Return the room id as one segment of a path, whatever it contains."""
    if room in {"", ".", ".."}:
        raise RequestRefusedError("not a room id")
    return quote(room, safe="")


def _refusal(status: int) -> DriverError:
    answered = f"the cluster answered {status}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return CredentialsRefusedError(f"{answered}: it refuses the service id and key")
    if status == HTTPStatus.NOT_FOUND:
        return RoomNotFoundError(f"{answered}: it does not know the room")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UnreachableError(answered)
    return RequestRefusedError(answered)
