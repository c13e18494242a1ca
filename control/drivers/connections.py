"""HTTP from control to clusters of any kind: the pool, its limits, and what failures mean as DriverErrors.

Knows nothing of any cluster's API. Redirects are never followed: a cluster may not send control to other
addresses. Everything received is limited in size. A cluster's own words never get into an error's message,
as they may repeat what was sent to it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar
from urllib.parse import quote

import aiohttp

from control.drivers.base import (
    BrokenDownError,
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    MalformedAnswerError,
    RequestRefusedError,
    RoomNotFoundError,
    UnreachableError,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["ClusterConnections", "Limits", "refusal", "segment"]

_T = TypeVar("_T")


class Limits(TypedDict, total=False):
    """The arguments of ClusterConnections, for subclasses that pass them on."""

    max_connections: int
    max_connections_per_cluster: int
    connect_timeout: float
    call_timeout: float
    keepalive_timeout: float
    max_answer_bytes: int
    ssl_context: ssl.SSLContext | None


class ClusterConnections:
    """The connections to all clusters of a kind: an async context manager, made and used on one event loop.

    Each driver's module has a subclass that makes its drivers.
    """

    def __init__(
        self,
        *,
        max_connections: int = 256,
        max_connections_per_cluster: int = 64,
        connect_timeout: float = 2.0,
        call_timeout: float = 5.0,
        keepalive_timeout: float = 3.0,
        max_answer_bytes: int = 1 << 20,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Set limits; timeouts are in seconds.

        `call_timeout` is for a whole call, where its driver has no other one for it. `keepalive_timeout` must
        stay below the cluster's (Node.js: 5 s), or a request is now and then sent into a connection that is
        just being closed. `ssl_context` replaces the verification against the system's authorities, for
        clusters with certificates of their own.
        """
        self.call_timeout = call_timeout
        self.max_answer_bytes = max_answer_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
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

    async def within(self, timeout: float | None, call: Awaitable[_T]) -> _T:
        """Return what the call returns; raises DriverTimeoutError when it takes longer.

        `timeout`: seconds; None: `call_timeout`.
        """
        limit = self.call_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                return await call
        except TimeoutError as error:
            raise DriverTimeoutError(f"no answer within {limit:g} s") from error

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None,
        authorization: str,
        max_answer_bytes: int | None = None,
    ) -> tuple[int, bytes]:
        """Send one request; return status and body. Raises DriverError for everything below HTTP.

        Only connecting is timed here; the caller limits the whole, see `within`.
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
                timeout=self._timeout,
            ) as response:
                return response.status, await _read(response, max_answer_bytes or self.max_answer_bytes)
        except aiohttp.ClientResponseError:
            # Its representation shows the request's headers: it is not chained.
            raise MalformedAnswerError("the answer is not HTTP") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise RequestRefusedError("the rest_url is not a usable URL") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"no connection, or it broke ({type(error).__name__})") from error


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        answer += chunk
        if len(answer) > max_bytes:
            response.close()
            raise MalformedAnswerError(f"the answer is larger than {max_bytes} bytes")
    return bytes(answer)


def segment(name: str, *, what: str = "room") -> str:
    """Return an id as one segment of a path, whatever it contains; raises RequestRefusedError if none can."""
    if name in {"", ".", ".."}:
        raise RequestRefusedError(f"not a {what} id")
    return quote(name, safe="")


def refusal(status: int) -> DriverError:
    """Return what an unsuccessful status means, unless the call knows better."""
    answered = f"the cluster answered {status}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return CredentialsRefusedError(f"{answered}: it refuses the service id and key")
    if status == HTTPStatus.NOT_FOUND:
        return RoomNotFoundError(f"{answered}: it does not know the room")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return BrokenDownError(answered)
    return RequestRefusedError(answered)
