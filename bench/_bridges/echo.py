"""Bare aioquic as a yardstick: messages over one stream and back, by its own asyncio protocol alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import QuicEvent, StreamDataReceived

from bench._bare_quic import connected, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["EchoCaller", "EchoServer"]

_IDLE: Final = 3600.0


class _Echoing(QuicConnectionProtocol):
    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data)
            self.transmit()


class EchoServer:
    """The far process."""

    def __init__(self, port: int) -> None:
        self._port = port

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[EchoServer]:
        """Listen until the end."""
        async with listening(_Echoing, idle=_IDLE) as port:
            yield cls(port)

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve `port`."""
        del args
        assert method == "port"
        return self._port


class _Calling(QuicConnectionProtocol):
    """Notes when messages come back; they are of one size."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.size = 1
        self.sent: list[float] = []
        self.round_trips: list[float] = []
        self.bytes = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.bytes += len(event.data)
            now = time.monotonic()
            while len(self.round_trips) < self.bytes // self.size:
                self.round_trips.append(now - self.sent[len(self.round_trips)])


class EchoCaller:
    """The near process."""

    def __init__(self, protocol: _Calling) -> None:
        self._protocol = protocol

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int) -> AsyncIterator[EchoCaller]:
        """Stay connected until the end."""
        async with connected(port, _Calling, idle=_IDLE) as protocol:
            yield cls(protocol)

    async def handle(self, method: str, args: list[Any]) -> list[float]:
        """Serve `round_trips`: so many messages, so many a second, of so many bytes; return the seconds."""
        assert method == "round_trips"
        count, rate, size = args
        protocol = self._protocol
        protocol.size = size
        protocol.sent, protocol.round_trips, protocol.bytes = [], [], 0
        stream = protocol._quic.get_next_available_stream_id()  # noqa: SLF001 - bare aioquic
        begin = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            protocol.sent.append(time.monotonic())
            protocol._quic.send_stream_data(stream, bytes(size))  # noqa: SLF001 - bare aioquic
            protocol.transmit()
        while len(protocol.round_trips) < count:
            await protocol.ping()
        return protocol.round_trips
