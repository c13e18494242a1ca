"""One connection to a cluster's HTTP/1.1 server: a request's bytes go out, its answer is read. RFC 9112.

Joins at clusters that are asked for tokens spend most of their time in the HTTP client. This one knows only
what control needs of HTTP, on the parser that serves our own requests, and costs a fraction of a general one;
which addresses, and how many connections, is control.drivers.http_pool's business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import httptools

from control.drivers.base import MalformedAnswerError, UnreachableError

if TYPE_CHECKING:
    from control.drivers.base import DriverError

__all__ = ["Answer", "Line"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_FINAL: Final = 200
"""Statuses below are provisional: another answer follows."""


class Answer(NamedTuple):
    """What the cluster answered."""

    status: int
    body: bytes


class Line(asyncio.Protocol):
    """A connection; one request at a time. Whoever is cancelled in `ask` has to `close` it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._max_bytes = 0
        self._head_bytes = 0
        self._in_head = True
        self._framed = False
        self._body: list[bytes] = []
        self._size = 0
        self._keep = False
        self.heard = False
        """Something of an answer to the last request has come."""

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._keep and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, *, max_bytes: int) -> Answer:
        """Send a whole request and return its answer, with a body of at most `max_bytes`.

        Raises MalformedAnswerError and UnreachableError.
        """
        if self._transport is None or self._transport.is_closing():
            raise UnreachableError("the connection broke")
        self._done = asyncio.get_running_loop().create_future()
        self._max_bytes = max_bytes
        self.heard = self._keep = False
        self._parser = httptools.HttpResponseParser(self)
        self._expect()
        self._transport.write(request)
        try:
            return await self._done
        finally:
            self._done = self._parser = None
            self._body = []

    def close(self) -> None:
        """Close the connection, whatever is under way."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._keep = True

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way; an answer without a length ends like this."""
        if exc is None and not self._in_head and not self._framed:
            self.on_message_complete()
        self._fail(UnreachableError("no answer, the connection broke"))
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._parser is None:
            self.close()  # nobody has asked for anything
            return
        self.heard = True
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(MalformedAnswerError("the answer is not HTTP"))
            return
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail(MalformedAnswerError(f"the answer's head is larger than {_MAX_HEAD_BYTES} bytes"))

    # --- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse an answer to what nobody asked."""
        if self._done is None or self._done.done():
            self.close()

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note whether the head says where the body ends."""
        self._framed = self._framed or name.lower() in _FRAMING

    def on_headers_complete(self) -> None:
        """Count what follows as body."""
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._size += len(body)
        if self._size > self._max_bytes:
            self._fail(MalformedAnswerError(f"the answer is larger than {self._max_bytes} bytes"))
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Give the answer to who has asked; after a provisional one the next is awaited."""
        if self._done is None or self._done.done() or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < _FINAL:
            self._expect()
            return
        self._keep = self._parser.should_keep_alive()
        self._done.set_result(Answer(status, b"".join(self._body)))

    # --- parts --------------------------------------------------------------------------------

    def _expect(self) -> None:
        self._in_head, self._framed = True, False
        self._head_bytes = self._size = 0
        self._body = []

    def _fail(self, error: DriverError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
            self.close()
