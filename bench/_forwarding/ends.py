"""One end of a QUIC connection, whoever drives aioquic: its own asyncio protocol, that one tuned, or ours."""

from __future__ import annotations

import struct
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived

from bench import _bare_quic
from bridges.quic import Certificate, QuicSettings, dial, listen
from bridges.quic.segments import runs

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import AsyncIterator, Callable

    from bridges.quic import Connection

__all__ = ["STYLES", "End", "connected", "listening"]

STYLES: Final = ("stock", "tuned", "ours")

_SETTINGS: Final = QuicSettings(max_streams=128, idle_timeout=30.0, verify_timeout=600.0)


class End(Protocol):
    """What a source, a forwarder and a sink need of a connection."""

    on_data: Callable[[int, bytes], None]
    """Called with what comes on a stream."""
    on_datagram: Callable[[bytes], None]

    def open(self) -> int:
        """Open a stream and return its id."""

    def write(self, stream_id: int, data: bytes) -> None:
        """Write to a stream."""

    def throw(self, data: bytes) -> None:
        """Send a datagram."""


class Stock(QuicConnectionProtocol):
    """aioquic's own asyncio protocol: a turn of the loop for each datagram in, a call for each out."""

    def __init__(self, *args: Any, made: Callable[[End], None] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_data: Callable[[int, bytes], None] = _nothing
        self.on_datagram: Callable[[bytes], None] = _nothing
        if made is not None:
            made(self)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self.on_datagram(event.data)
        elif isinstance(event, StreamDataReceived):
            self.on_data(event.stream_id, event.data)

    def open(self) -> int:
        stream_id = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream_id, b"")
        return stream_id

    def write(self, stream_id: int, data: bytes) -> None:
        self._quic.send_stream_data(stream_id, data)
        self.transmit()

    def throw(self, data: bytes) -> None:
        self._quic.send_datagram_frame(data)
        self.transmit()


class Tuned(Stock):
    """The same, made as quick as can be from without: it sends once a turn, with UDP_SEGMENT."""

    _soon: asyncio.Handle | None = None

    def transmit(self) -> None:
        if self._soon is None:
            self._soon = self._loop.call_soon(self._transmit_now)

    def _transmit_now(self) -> None:
        self._soon = None
        transport: Any = self._transport
        udp: socket.socket = transport._sock  # noqa: SLF001 - the public socket has no sendmsg
        outgoing = self._quic.datagrams_to_send(now=self._loop.time())
        for run in runs([data for data, _ in outgoing]):
            udp.sendmsg(run, [(17, 103, struct.pack("=H", len(run[0])))], 0, outgoing[0][1])
        timer_at = self._quic.get_timer()
        if self._timer is not None and self._timer_at != timer_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and timer_at is not None:
            self._timer = self._loop.call_at(timer_at, self._handle_timer)
        self._timer_at = timer_at


class Ours:
    """A connection of bridges.quic."""

    def __init__(self, connection: Connection) -> None:
        self.on_data: Callable[[int, bytes], None] = _nothing
        self.on_datagram: Callable[[bytes], None] = _nothing
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        connection.use_datagrams(self, self._datagram_taken)

    def open(self) -> int:
        return self._connection.open_stream()

    def write(self, stream_id: int, data: bytes) -> None:
        self._connection.send(stream_id, data)

    def throw(self, data: bytes) -> None:
        self._waiting.append(data)
        self._connection.datagrams_waiting()

    def _datagram_taken(self, data: bytes) -> None:
        self.on_datagram(data)

    def head(self) -> bytes | None:
        """Return what is to be sent next (bridges.quic.inside.recovery.DatagramSource)."""
        return self._waiting[0] if self._waiting else None

    def taken(self) -> Callable[[bool], None]:
        """Remove it."""
        self._waiting.popleft()
        return _forget

    def knock(self) -> None:
        """Do nothing: the line loses nothing."""

    def resized(self, largest: int) -> None:
        """Do nothing: what is passed on is as large as it came."""

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: ARG002, FBT001 - the protocol's
        """Take what comes (bridges.quic.ConnectionHandler)."""
        self.on_data(stream_id, data)

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Nobody resets."""

    def connection_lost(self, reason: str) -> None:
        """Nobody is told: what does not arrive is seen in the figures."""


_BARE: Final = {"stock": Stock, "tuned": Tuned}


@asynccontextmanager
async def listening(style: str, made: Callable[[End], None]) -> AsyncIterator[tuple[int, str]]:
    """Listen on loopback until the end; give the port and the certificate's fingerprint."""
    if style in _BARE:
        async with _bare_quic.listening(partial(_BARE[style], made=made)) as port:
            yield port, ""
        return
    certificate = Certificate.self_signed("bench")

    def accept(connection: Connection) -> Ours:
        connection.verified()
        end = Ours(connection)
        made(end)
        return end

    listener = await listen("127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=_SETTINGS)
    try:
        yield listener.port, certificate.fingerprint
    finally:
        listener.close()


@asynccontextmanager
async def connected(style: str, address: tuple[int, str]) -> AsyncIterator[End]:
    """Stay connected until the end."""
    port, fingerprint = address
    if style in _BARE:
        async with _bare_quic.connected(port, _BARE[style]) as end:
            yield end
        return
    connection = await dial("127.0.0.1", port, fingerprint=fingerprint, settings=_SETTINGS)
    connection.handler = ours = Ours(connection)
    try:
        yield ours
    finally:
        connection.close()


def _nothing(*_: object) -> None:
    """Take what nobody waits for."""


def _forget(arrived: bool) -> None:  # noqa: FBT001 - the protocol's
    """Nobody asks whether a datagram arrived."""
