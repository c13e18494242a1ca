"""Connections to clusters' HTTP servers, kept open for a while: who gets one, how many, for how long.

Knows no cluster's API and no errors but those of control.drivers.base. There is no proxy, no cookie, no
redirect and no compression.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from control.drivers.base import RequestRefusedError, UnreachableError
from control.drivers.http_line import Line

if TYPE_CHECKING:
    from control.drivers.http_line import Answer

__all__ = ["Pool"]

_TARGET: Final = re.compile(r"/[!-\"$-~]*")
_NAME: Final = re.compile(r"[!-~]+")
_VALUE: Final = re.compile(r"[ -~]*")
_ATTEMPT_DELAY: Final = 0.25
"""Seconds after which a name's next address is tried as well (RFC 8305, section 5)."""
_PORTS: Final = {"http": 80, "https": 443}
_REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2: sent once more when a connection that was kept open turns out to be closed."""
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class _Origin(NamedTuple):
    """Where a URL leads, without its path."""

    host: str
    port: int
    secure: bool
    header: str
    """For `Host:`."""


class _Host:
    """The connections to one origin."""

    __slots__ = ("idle", "turns", "users")

    def __init__(self, most: int) -> None:
        self.turns = asyncio.Semaphore(most)
        self.idle: deque[tuple[float, Line]] = deque()
        """Since when, the latest last."""
        self.users = 0


class Pool:
    """Sends requests; `close` at the end. Timeouts in seconds; `connect_timeout` is for name, TCP and TLS."""

    def __init__(
        self,
        *,
        most: int,
        most_per_host: int,
        connect_timeout: float,
        keepalive_timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        """`ssl_context`: None verifies against the system's authorities."""
        self._most_per_host = most_per_host
        self._connect_timeout = connect_timeout
        self._keepalive_timeout = keepalive_timeout
        self._ssl = ssl_context
        self._turns = asyncio.Semaphore(most)
        self._hosts: dict[_Origin, _Host] = {}
        self._lines: set[Line] = set()
        self._pruning: asyncio.TimerHandle | None = None

    async def send(
        self, method: str, url: str, *, body: bytes | None, authorization: str, max_bytes: int
    ) -> Answer:
        """Send one request; return its answer, the body at most `max_bytes` long.

        Raises RequestRefusedError for a URL that is none, UnreachableError and MalformedAnswerError.
        """
        origin, target = _parts(url)
        request = _request(method, origin, target, body, authorization)
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(self._most_per_host)
        host.users += 1
        try:
            async with host.turns, self._turns:
                kept = self._kept(host)
                if kept is not None:
                    try:
                        return await self._asked(host, kept, request, max_bytes)
                    except UnreachableError:
                        if kept.heard or method not in _REPEATABLE:
                            raise
                return await self._asked(host, await self._connected(origin), request, max_bytes)
        finally:
            host.users -= 1
            if not host.users and not host.idle and self._hosts.get(origin) is host:
                del self._hosts[origin]

    def close(self) -> None:
        """Close every connection."""
        if self._pruning is not None:
            self._pruning.cancel()
            self._pruning = None
        for line in self._lines:
            line.close()
        self._lines.clear()
        self._hosts.clear()

    # --- connections --------------------------------------------------------------------------

    async def _asked(self, host: _Host, line: Line, request: bytes, max_bytes: int) -> Answer:
        """Ask on this connection, and keep it if it may be used again."""
        try:
            answer = await line.ask(request, max_bytes=max_bytes)
        except BaseException:
            self._drop(line)
            raise
        self._keep(host, line)
        return answer

    def _kept(self, host: _Host) -> Line | None:
        """Take the connection that was used last, if it may still be used."""
        oldest = asyncio.get_running_loop().time() - self._keepalive_timeout
        while host.idle:
            since, line = host.idle.pop()
            if since >= oldest and line.usable:
                return line
            self._drop(line)
        return None

    def _keep(self, host: _Host, line: Line) -> None:
        if not line.usable:
            self._drop(line)
            return
        loop = asyncio.get_running_loop()
        host.idle.append((loop.time(), line))
        if self._pruning is None:
            self._pruning = loop.call_later(self._keepalive_timeout, self._prune)

    def _prune(self) -> None:
        """Close what nobody has used for too long."""
        loop = asyncio.get_running_loop()
        oldest, left = loop.time() - self._keepalive_timeout, False
        for origin, host in list(self._hosts.items()):
            while host.idle and (host.idle[0][0] <= oldest or not host.idle[0][1].usable):
                self._drop(host.idle.popleft()[1])
            left = left or bool(host.idle)
            if not host.users and not host.idle:
                del self._hosts[origin]
        self._pruning = loop.call_later(self._keepalive_timeout, self._prune) if left else None

    def _drop(self, line: Line) -> None:
        line.close()
        self._lines.discard(line)

    async def _connected(self, origin: _Origin) -> Line:
        """Return a new connection."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(
                    found, happy_eyeballs_delay=_ATTEMPT_DELAY, interleave=1, loop=loop
                )
                try:
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _, line = await loop.create_connection(
                        Line,
                        sock=connected,
                        ssl=self._context() if origin.secure else None,
                        server_hostname=origin.host if origin.secure else None,
                    )
                except BaseException:
                    connected.close()
                    raise
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"no connection ({type(error).__name__})") from error
        self._lines.add(line)
        return line

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        return self._ssl


# --- a request ----------------------------------------------------------------------------------


def _parts(url: str) -> tuple[_Origin, str]:
    """Return where a URL leads and what is asked for there; raises RequestRefusedError."""
    path = url.find("/", url.find("://") + 3)
    origin = _origin(url[:path]) if path > 0 else None
    if origin is None or not _TARGET.fullmatch(url, path):
        raise RequestRefusedError("the rest_url is not a usable URL")
    return origin, url[path:]


@lru_cache(4096)
def _origin(url: str) -> _Origin | None:
    """Return the origin of a URL without a path; None if it is not one of HTTP."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
            return None
        name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        return None
    usual = _PORTS[parts.scheme]
    if not _NAME.fullmatch(name):
        return None
    return _Origin(
        host, port or usual, parts.scheme == "https", name if port in {None, usual} else f"{name}:{port}"
    )


def _request(method: str, origin: _Origin, target: str, body: bytes | None, authorization: str) -> bytes:
    if not _VALUE.fullmatch(authorization):
        raise RequestRefusedError("the credentials cannot be sent in a header")
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {origin.header}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        f"User-Agent: causeway\r\nAuthorization: {authorization}\r\n"
    )
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    elif method in _WITH_BODY:
        head += "Content-Length: 0\r\n"
    return f"{head}\r\n".encode("ascii") + (body or b"")
