"""uvicorn as we run it: on a socket that is already bound, without its signal handling, with limits on heads.

httptools has no limit on the size of a request's head and none on how long it may take; both are kept here.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from causeway.api import Problem
from causeway.errors import ConfigError
from control.http.problems import MEDIA_TYPE, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp
    from uvicorn._types import ASGISendEvent

    from control.settings import HttpSettings

__all__ = ["LimitedProtocol", "Server", "SocketProtocol", "address_of", "bind", "make_server"]

_TOO_LARGE: Final = PROBLEMS["head-too-large"]


class Server(uvicorn.Server):
    """Ends when `should_exit` is set. Signals are the process's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell whoever waits for it."""
        await super().startup(sockets)
        self._listening.set()

    async def wait_started(self) -> None:
        """Return when connections are taken."""
        await self._listening.wait()


def make_server(app: ASGIApp, settings: HttpSettings, *, stop_timeout: int) -> Server:
    """Return a server for the application; `serve(sockets=[…])` runs it."""
    config = uvicorn.Config(
        app,
        http=type("Limited", (LimitedProtocol,), {"limits": settings}),
        ws=SocketProtocol,
        ws_max_size=settings.max_socket_bytes,
        ws_ping_interval=settings.socket_ping,
        ws_ping_timeout=settings.socket_ping,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=stop_timeout,
    )
    return Server(config)


def bind(host: str, port: int, *, share: bool = False) -> socket.socket:
    """Return a listening socket; raises ConfigError, in one line, when that address cannot be had.

    `share`: others that do the same, as the same user, may have it as well; the kernel spreads connections
    over them (SO_REUSEPORT of Linux, not of other systems).
    """
    if share and sys.platform != "linux":
        raise ConfigError("control.share_port: only Linux spreads connections over processes")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"control.host: {host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits; uvicorn makes one for each connection."""

    limits: HttpSettings
    """Set on a subclass: uvicorn wants a class."""

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head; a head that comes whole in one read is bounded by the read's size."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._await_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Tell the application how to cut the connection, should its peer take nothing for too long."""
        super().on_message_begin()
        self.scope["causeway.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key] # ours

    def on_headers_complete(self) -> None:
        """Stop counting: a body follows, or nothing."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Begin to count anew: what comes next is another head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.limits.head_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _refuse_head(self) -> None:
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(
            Problem(type="head-too-large", title=_TOO_LARGE.title, status=_TOO_LARGE.status)
        )
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol; it takes refused handshakes for errors of ours, unless told otherwise."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal that was sent to its end completes the handshake, too."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True


def address_of(listener: socket.socket) -> tuple[str, int]:
    """Return host and port that a socket is bound to."""
    name: Any = listener.getsockname()
    return str(name[0]), int(name[1])
