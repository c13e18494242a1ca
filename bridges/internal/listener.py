"""The serving end of the internal transport: sources by id, each fanned out to whoever connects and names it.

An asyncio shell over bridges.wire.framing and FrameGate; it must not know what a source is fed from. It runs
on asyncio's own loop and on uvloop, and every call belongs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar, Final, Self, cast

import structlog

from bridges.internal.gate import FrameGate
from bridges.internal.settings import InternalSettings
from bridges.wire.errors import SequenceError, WireError
from bridges.wire.frame import Feedback, FeedbackCommand
from bridges.wire.framing import Deframer, encode
from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.wire.frame import MediaFrame

__all__ = ["DuplicateSourceError", "InternalListener", "Source"]

_log: Final = structlog.get_logger(__name__)


class DuplicateSourceError(CausewayError):
    """The listener already serves a source with this id."""

    code: ClassVar[str] = "duplicate-source"


class Source:
    """One track on offer. Made by InternalListener.add_source."""

    def __init__(
        self,
        listener: InternalListener,
        source_id: str,
        on_feedback: Callable[[Feedback], None] | None,
        on_joined: Callable[[int], None] | None,
        on_left: Callable[[int], None] | None,
    ) -> None:
        self._listener = listener
        self._on_feedback = on_feedback
        self._on_joined = on_joined
        self._on_left = on_left
        self._connections: dict[_Connection, FrameGate] = {}
        self._dropped_before = 0
        self.id = source_id
        self.closed = False

    @property
    def subscribers(self) -> int:
        """Connections that are being served."""
        return len(self._connections)

    @property
    def dropped(self) -> int:
        """Frames dropped so far, summed over all connections, also those that ended."""
        return self._dropped_before + sum(gate.dropped for gate in self._connections.values())

    @property
    def backlog(self) -> int:
        """Bytes that wait now, summed over all connections."""
        return sum(connection.backlog for connection in self._connections)

    def write(self, frame: MediaFrame) -> None:
        """Send `frame` on every connection whose gate lets it pass. Never blocks; nothing after close.

        A connection that lacks a key frame asks for one through `on_feedback`.
        """
        if self.closed or not self._connections:
            return
        data = encode(frame)
        now = asyncio.get_running_loop().time()
        wanted = False
        for connection, gate in self._connections.items():
            if gate.offer(frame, connection.backlog):
                connection.write(data)
            elif gate.wants_key_frame(now):
                wanted = True
        if wanted and self._on_feedback is not None:
            self._on_feedback(Feedback.request_key_frame())

    def close(self) -> None:
        """End every connection once its last frames are out, and forget the id. Calls back no more."""
        if self.closed:
            return
        self.closed = True
        self._listener._forget(self)  # noqa: SLF001 - the two classes are one thing
        for connection in self._connections:
            connection.finish()
        self._connections.clear()

    def _join(self, connection: _Connection, gate: FrameGate) -> None:
        self._connections[connection] = gate
        if self._on_joined is not None:
            self._on_joined(len(self._connections))

    def _leave(self, connection: _Connection) -> None:
        gate = self._connections.pop(connection, None)
        if gate is None:
            return
        self._dropped_before += gate.dropped
        if self._on_left is not None:
            self._on_left(len(self._connections))

    def _feedback(self, feedback: Feedback) -> None:
        if not self.closed and self._on_feedback is not None:
            self._on_feedback(feedback)


class InternalListener:
    """Serves sources on one TCP port. `await InternalListener.start(…)`, later `await listener.close()`."""

    def __init__(self, settings: InternalSettings) -> None:
        self.settings = settings
        self._sources: dict[str, Source] = {}
        self._waiting: dict[str, set[_Connection]] = {}
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def start(
        cls, host: str = "127.0.0.1", port: int = 0, *, settings: InternalSettings | None = None
    ) -> Self:
        """Return a listener that accepts connections; port 0 takes a free one. Raises OSError."""
        listener = cls(settings or InternalSettings())
        loop = asyncio.get_running_loop()
        listener._server = await loop.create_server(lambda: _Connection(listener), host, port)
        return listener

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Open connections, those that have not named a source yet included."""
        return len(self._connections)

    def add_source(
        self,
        source_id: str,
        *,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_joined: Callable[[int], None] | None = None,
        on_left: Callable[[int], None] | None = None,
    ) -> Source:
        """Offer a source under `source_id`; raises DuplicateSourceError when there is one.

        `on_feedback` gets what subscribers ask, and a key-frame request when a gate needs one. `on_joined`
        and `on_left` get the number of subscribers after the change, so 1 is the first and 0 the last.
        Connections that already wait for this id join after this call has returned.
        """
        if source_id in self._sources:
            raise DuplicateSourceError(f"there is already a source {source_id}")
        source = Source(self, source_id, on_feedback, on_joined, on_left)
        self._sources[source_id] = source
        if source_id in self._waiting:
            asyncio.get_running_loop().call_soon(self._admit_waiting, source)
        return source

    async def close(self) -> None:
        """Stop listening and close every connection at once; sources are closed without a call back."""
        assert self._server is not None
        self._closing = True
        self._server.close()
        for source in list(self._sources.values()):
            source.close()
        for connection in list(self._connections):
            connection.abort()
        await self._idle.wait()
        await self._server.wait_closed()

    # What a connection tells its listener.

    def _opened(self, connection: _Connection) -> bool:
        if self._closing:
            return False
        if len(self._connections) >= self.settings.max_connections:
            _log.warning("internal.full", connections=len(self._connections))
            return False
        self._connections.add(connection)
        self._idle.clear()
        return True

    def _closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._stop_waiting(connection)
        if not self._connections:
            self._idle.set()

    def _wanted(self, connection: _Connection, source_id: str) -> None:
        source = self._sources.get(source_id)
        if source is not None:
            connection.serve(source)
        else:
            self._waiting.setdefault(source_id, set()).add(connection)
            connection.wait_for_source()

    def _stop_waiting(self, connection: _Connection) -> None:
        waiting = self._waiting.get(connection.wanted)
        if waiting is None:
            return
        waiting.discard(connection)
        if not waiting:
            del self._waiting[connection.wanted]

    def _admit_waiting(self, source: Source) -> None:
        if not source.closed:
            for connection in self._waiting.pop(source.id, ()):
                connection.serve(source)

    def _forget(self, source: Source) -> None:
        del self._sources[source.id]


class _Connection(asyncio.Protocol):
    """One subscriber: INIT_STREAM first, then feedback from it and frames to it."""

    def __init__(self, listener: InternalListener) -> None:
        self._listener = listener
        self._settings = listener.settings
        # Nothing but feedback may come in, so the other types get no room at all.
        self._deframer = Deframer(max_metadata_bytes=0, max_frame_bytes=0)
        self._transport: asyncio.Transport | None = None
        self._source: Source | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.wanted = ""
        """The id that was named, empty before."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by inheritance.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        if not self._listener._opened(self):  # noqa: SLF001 - the classes of this file are one thing
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer_bytes)
        self._expire(self._settings.init_timeout, "no stream was named")

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._deframer.feed(data)
        try:
            while not self._transport.is_closing() and (message := self._deframer.next_message()) is not None:
                if not isinstance(message, Feedback):
                    raise SequenceError("a subscriber may send feedback only")
                self._feedback(message)
        except WireError as error:
            _log.warning("internal.refused", source=self.wanted, reason=str(error))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._cancel_deadline()
        source, self._source = self._source, None
        self._listener._closed(self)  # noqa: SLF001 - the classes of this file are one thing
        if source is not None:
            source._leave(self)  # noqa: SLF001 - the classes of this file are one thing

    # What the source and the listener ask of it.

    @property
    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        assert self._transport is not None
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send; the caller has looked at the backlog."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    def wait_for_source(self) -> None:
        """Give the source a little time to appear."""
        self._expire(self._settings.source_wait, "the stream did not appear")

    def serve(self, source: Source) -> None:
        """Join `source`."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._cancel_deadline()
        self._source = source
        gate = FrameGate(
            max_backlog_bytes=self._settings.max_backlog_bytes,
            max_delay=self._settings.max_delay,
            key_frame_interval=self._settings.key_frame_interval,
        )
        source._join(self, gate)  # noqa: SLF001 - the classes of this file are one thing

    def finish(self) -> None:
        """Close after what is buffered has gone out, or after `linger` seconds."""
        assert self._transport is not None
        self._source = None
        self._transport.close()
        self._expire(self._settings.linger, "")

    def abort(self) -> None:
        """Close at once."""
        assert self._transport is not None
        self._transport.abort()

    def _feedback(self, feedback: Feedback) -> None:
        init = feedback.command is FeedbackCommand.INIT_STREAM_ID
        if self._source is not None and not init:
            self._source._feedback(feedback)  # noqa: SLF001 - the classes of this file are one thing
        elif init and not self.wanted:
            self.wanted = feedback.stream_id
            if not self.wanted:
                raise SequenceError("an empty stream id")
            self._listener._wanted(self, self.wanted)  # noqa: SLF001 - the classes of this file are one thing
        elif init or not self.wanted:
            raise SequenceError("a stream is named first, and once")
        # Feedback for a source that is not there yet, or no more, has nobody to go to.

    def _expire(self, seconds: float, reason: str) -> None:
        self._cancel_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._expired, reason)

    def _expired(self, reason: str) -> None:
        if reason:
            _log.info("internal.expired", source=self.wanted, reason=reason)
        self.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
