"""The status endpoint: one document, the process's figures as JSON, on a Unix socket or a loopback address.

HTTP, `GET /` only. There are no secrets in it, and nothing can be changed. It is served by websockets, which
speaks HTTP before it becomes a WebSocket; here it never does. An answer takes some work
with thousands of links, so one is given again for a moment instead of being made for each reader.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from websockets.asyncio.server import Server, serve, unix_serve

from bridges.status.places import Http, Unix, find_sockets, make_folder, parse
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from bridges.status.settings import StatusSettings
    from causeway.api.figures import ProcessFigures

__all__ = ["status_endpoint"]

log = structlog.get_logger(__name__)

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CONNECT_TIMEOUT: Final = 1.0
_CLOSE_TIMEOUT: Final = 0.5
_YOUNG: Final = 60.0
_MAX_TIDIED: Final = 100


class _Answers:
    """The document, made anew when it is too old."""

    def __init__(self, figures: Callable[[], Awaitable[ProcessFigures]], settings: StatusSettings) -> None:
        self._figures = figures
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._body = ""
        self._made_at: float | None = None
        self._making = asyncio.Lock()

    async def answer(self, connection: ServerConnection, request: Request) -> Response:
        """Answer a request; what websockets calls before the handshake."""
        if len(connection.server.handler_tasks) > self._settings.max_clients:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many readers; come again\n")
        if not _is_local(request.headers.get("Host", "")):
            # A page in a browser on this machine, whose name was made to lead here.
            return connection.respond(HTTPStatus.FORBIDDEN, "this is not the name of this machine\n")
        if request.method not in {"GET", "HEAD"}:
            return connection.respond(HTTPStatus.METHOD_NOT_ALLOWED, "there is nothing to change here\n")
        if request.path.partition("?")[0] != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "there is / only\n")
        response = connection.respond(HTTPStatus.OK, await self._document())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _document(self) -> str:
        async with self._making:
            if self._made_at is None or self._loop.time() - self._made_at >= self._settings.max_age:
                self._body = msgspec.json.encode(await self._figures()).decode()
                self._made_at = self._loop.time()
            return self._body


@asynccontextmanager
async def status_endpoint(
    settings: StatusSettings, figures: Callable[[], Awaitable[ProcessFigures]]
) -> AsyncIterator[str | None]:
    """Serve `figures` while the context lasts; yield where (`unix:…`, `http://…`), None: nowhere.

    Raises ConfigError when the setting is wrong, UnavailableError when a place that was named cannot be
    used. Where none was named (`auto`), that is a warning only: the bridge is there for conferences.
    """
    place = parse(settings.listen)
    if place is None:
        yield None
        return
    answers = _Answers(figures, settings)
    try:
        server = await _open(place, answers, settings)
    except OSError as error:
        if not (isinstance(place, Unix) and place.shared):
            raise UnavailableError(
                f"bridge.status.listen: cannot listen at {settings.listen}: {error.strerror or error}"
            ) from None
        log.warning("status.unavailable", path=str(place.path), error=str(error))
        yield None
        return
    where = _name(place, server)
    log.info("status.listening", at=where)
    try:
        yield where
    finally:
        server.close()
        if isinstance(place, Unix):
            place.path.unlink(missing_ok=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await server.wait_closed()


async def _open(place: Unix | Http, answers: _Answers, settings: StatusSettings) -> Server:
    http: dict[str, Any] = {"process_request": answers.answer, "open_timeout": settings.client_timeout}
    if isinstance(place, Http):
        return await serve(_nobody, place.host, place.port, **http)
    if place.shared:
        make_folder(place.path.parent)
        await _tidy(place.path.parent)
    elif await _is_served(place.path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    server = await unix_serve(_nobody, str(place.path), **http)
    place.path.chmod(0o600)
    return server


async def _nobody(connection: ServerConnection) -> None:
    """Serve a WebSocket: there is none, as every request is answered before it becomes one."""
    await connection.close()


async def _tidy(folder: Path) -> None:
    """Remove what killed processes have left in the shared folder; a young socket may just be coming up."""
    for path in find_sockets(folder)[:_MAX_TIDIED]:
        with suppress(OSError, TimeoutError):
            if time.time() - path.stat().st_mtime > _YOUNG and not await _is_served(path):
                path.unlink()


async def _is_served(path: Path) -> bool:
    """Return whether somebody listens at a socket; one that a killed process has left is replaced."""
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _reader, writer = await asyncio.open_unix_connection(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    writer.close()
    return True


def _is_local(host: str) -> bool:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in _LOOPBACK_NAMES


def _name(place: Unix | Http, server: Server) -> str:
    if isinstance(place, Unix):
        return f"unix:{place.path}"
    host = f"[{place.host}]" if ":" in place.host else place.host
    port = next(iter(server.sockets)).getsockname()[1]
    return f"http://{host}:{port}"
