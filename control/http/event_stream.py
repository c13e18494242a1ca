"""An answer that goes on: server-sent events (the HTML standard, section 9.2), one part after the other.

Nothing is queued: the next part is asked for when the connection has taken the one before. A peer that takes
nothing for too long is cut off.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from starlette.responses import Response

from control.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import ExitStack

    from starlette.types import Receive, Scope, Send

__all__ = ["BEGINNING", "HEARTBEAT", "MEDIA_TYPE", "EventStream", "message"]

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
BEGINNING: Final = b"retry: 2000\n\n"
"""How long a reader waits before it comes again, in milliseconds."""
HEARTBEAT: Final = b":\n\n"
_ENCODER: Final = msgspec.json.Encoder()


def message(name: str, seq: int, data: msgspec.Struct) -> bytes:
    """Return an event with the number that its reader comes back with."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, name.encode(), _ENCODER.encode(data))


class _LeftError(Exception):
    """The reader is gone."""


class _StuckError(Exception):
    """The reader takes nothing."""


class EventStream(Response):
    """Sends `parts` until they end, for at most `life` seconds; each may take `send_timeout` seconds.

    `held` is given back at the end, whatever that is.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        parts: AsyncGenerator[bytes],
        *,
        held: ExitStack,
        life: float,
        send_timeout: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._parts = parts
        self._held = held
        self._life = life
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        scope.get("causeway.release", _nothing)()
        with self._held:
            try:
                async with asyncio.TaskGroup() as group:
                    leaving = group.create_task(_until_left(receive))
                    await self._send(send)
                    leaving.cancel()
            except* _LeftError:
                pass
            except* _StuckError:
                _log.info("events.reader_stuck")
                scope.get("causeway.abort", _nothing)()
                await _left(receive, self._send_timeout)

    async def _send(self, send: Send) -> None:
        await self._one(
            send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        try:
            async with asyncio.timeout(self._life), aclosing(self._parts) as parts:
                async for part in parts:
                    await self._one(send, {"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            pass  # it has lived its life; the reader comes again
        except DatabaseUnavailableError as error:
            _log.warning("events.database_unavailable", error=error.detail)
        await self._one(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _one(self, send: Send, sent: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(self._send_timeout):
                await send(sent)
        except TimeoutError:
            raise _StuckError from None


async def _until_left(receive: Receive) -> None:
    while True:
        heard = await receive()
        if heard["type"] == "http.disconnect":
            raise _LeftError


async def _left(receive: Receive, patience: float) -> None:
    """Wait until the server knows that the connection is gone."""
    try:
        async with asyncio.timeout(patience):
            await _until_left(receive)
    except (TimeoutError, _LeftError):
        return


def _nothing() -> None:
    pass
