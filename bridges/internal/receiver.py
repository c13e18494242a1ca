"""The asking end of the internal transport: connects, names a stream, hands its frames on.

One connection is one attempt: whether and when to connect again is for the owner to decide. It runs on
asyncio's own loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar, Final, Self, cast

import structlog

from bridges.internal.settings import InternalSettings
from bridges.wire.errors import SequenceError, WireError
from bridges.wire.frame import Feedback, MediaFrame
from bridges.wire.framing import Deframer, encode
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InternalReceiver", "InternalUnavailableError"]

_log: Final = structlog.get_logger(__name__)
_MAX_FEEDBACK_BACKLOG: Final = 16 << 10


class InternalUnavailableError(UnavailableError):
    """The internal address does not answer."""

    code: ClassVar[str] = "internal-unavailable"


class InternalReceiver:
    """One stream, received: `await InternalReceiver.connect(…)`, later `close()`, `await wait_closed()`."""

    def __init__(
        self,
        stream_id: str,
        on_frame: Callable[[MediaFrame], None],
        on_lost: Callable[[str], None],
        settings: InternalSettings,
    ) -> None:
        self.stream_id = stream_id
        self._protocol = _Protocol(stream_id, on_frame, on_lost, settings)

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        stream_id: str,
        *,
        on_frame: Callable[[MediaFrame], None],
        on_lost: Callable[[str], None],
        settings: InternalSettings | None = None,
    ) -> Self:
        """Connect to `host`:`port` and ask for `stream_id`.

        `on_frame` is called for every frame, maybe before this has returned; `on_lost` once, with the reason,
        when the other side ends the connection or breaks the format, and not after our own `close`. An
        address that does not know the stream ends the connection a moment later. Raises
        InternalUnavailableError when no connection comes about in time, ValueError for an id longer than the
        format carries.
        """
        settings = settings or InternalSettings()
        receiver = cls(stream_id, on_frame, on_lost, settings)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await loop.create_connection(lambda: receiver._protocol, host, port)
        except (OSError, TimeoutError) as error:
            receiver.close()
            reason = getattr(error, "strerror", None) or "no answer in time"
            raise InternalUnavailableError(f"internal address {host}:{port}: {reason}") from None
        except asyncio.CancelledError:
            receiver.close()
            raise
        return receiver

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, by whomever."""
        return self._protocol.lost.is_set()

    def send(self, feedback: Feedback) -> None:
        """Send feedback to the source; dropped when the connection is closed or does not take any."""
        self._protocol.send(feedback)

    def request_key_frame(self) -> None:
        """Ask the source for a key frame."""
        self._protocol.send(Feedback.request_key_frame())

    def close(self) -> None:
        """End the connection; nothing is called back any more."""
        self._protocol.close()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._protocol.lost.wait()


class _Protocol(asyncio.Protocol):
    def __init__(
        self,
        stream_id: str,
        on_frame: Callable[[MediaFrame], None],
        on_lost: Callable[[str], None],
        settings: InternalSettings,
    ) -> None:
        self._hello: Final = encode(Feedback.init_stream(stream_id))
        self._stream_id = stream_id
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._deframer = Deframer(max_metadata_bytes=0, max_frame_bytes=settings.max_frame_bytes)
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._reason = "the source ended the connection"
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by inheritance.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        self._deframer.feed(data)
        try:
            # The owner may close from within on_frame.
            while not self._closing and (message := self._deframer.next_message()) is not None:
                if not isinstance(message, MediaFrame):
                    raise SequenceError("a source may send frames only")
                self._on_frame(message)
        except WireError as error:
            self._reason = str(error)
            _log.warning("internal.broken", source=self._stream_id, reason=self._reason)
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if not self._closing:
            self._closing = True
            self._on_lost(str(exc) if exc is not None else self._reason)

    def send(self, feedback: Feedback) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # Feedback is worth nothing late: a source that does not read it gets no more.
        if transport.get_write_buffer_size() <= _MAX_FEEDBACK_BACKLOG:
            transport.write(encode(feedback))

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()
