"""Frames over one stream of bare aioquic: its own asyncio protocol, nothing of ours but the framing."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import QuicEvent, StreamDataReceived

from bench._bare_quic import connected, listening
from bench._frames import PICTURE_BYTES, Delays, media, pictures, stamp
from bridges.wire.frame import HEADER_BYTES, MediaFrame
from bridges.wire.framing import Deframer, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Sink", "Spout"]

_HIGH_WATER: Final = 128 << 10
_FRAME_BYTES: Final = PICTURE_BYTES + HEADER_BYTES + 5


class _Taking(QuicConnectionProtocol):
    """Counts bytes, and takes frames while told so."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deframer = Deframer()
        self.delays = Delays()
        self.parsing = True
        self.bytes = 0
        self.first = 0.0
        self.last = 0.0
        _Taking.latest = self

    latest: _Taking

    def quic_event_received(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        if not self.parsing:
            self.last = time.monotonic()
            self.first = self.first or self.last
            self.bytes += len(event.data)
            return
        self.deframer.feed(event.data)
        while (message := self.deframer.next_message()) is not None:
            assert isinstance(message, MediaFrame)
            self.delays.take(message)


class Sink:
    """The receiving process."""

    def __init__(self, port: int) -> None:
        self._port = port

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Sink]:
        """Listen until the end."""
        async with listening(_Taking) as port:
            yield cls(port)

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve `port`, `delays` (p50 and p99 in ms, then forgotten), `count` (bytes from now on), `rate`."""
        del args
        if method == "port":
            return self._port
        taking = _Taking.latest
        if method == "delays":
            figures = (taking.delays.percentile_ms(50), taking.delays.percentile_ms(99))
            taking.delays.clear()
            return figures
        if method == "count":
            taking.parsing = False
            taking.bytes, taking.first = 0, 0.0
            return None
        assert method == "rate"
        return taking.bytes / _FRAME_BYTES / (taking.last - taking.first)


class _Sending(QuicConnectionProtocol):
    """Keeps a stream's buffer filled while `until` lies ahead."""

    stream_id = 0
    data = b""
    until = 0.0

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.fill()

    def fill(self) -> None:
        if time.monotonic() >= self.until:
            return
        buffered = len(self._quic._streams[self.stream_id].sender._buffer)  # noqa: SLF001 - aioquic has no other
        while buffered < _HIGH_WATER:
            self._quic.send_stream_data(self.stream_id, self.data)
            buffered += len(self.data)
        self.transmit()


class Spout:
    """The sending process."""

    def __init__(self, protocol: _Sending) -> None:
        self._protocol = protocol
        self._protocol.stream_id = protocol._quic.get_next_available_stream_id()  # noqa: SLF001 - bare aioquic

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int) -> AsyncIterator[Spout]:
        """Stay connected until the end."""
        async with connected(port, _Sending) as protocol:
            yield cls(protocol)

    async def handle(self, method: str, args: list[Any]) -> None:
        """Serve `media` (the same tracks in real time) and `bulk` (as fast as it goes), seconds each."""
        (seconds,) = args
        protocol = self._protocol
        if method == "media":
            begin = time.monotonic()
            for due, frame in media(seconds):
                await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
                protocol._quic.send_stream_data(protocol.stream_id, encode(stamp(frame)))  # noqa: SLF001
                protocol.transmit()
            return
        assert method == "bulk"
        protocol.data = encode(pictures(1, 1)[0][1])
        protocol.until = time.monotonic() + seconds
        protocol.fill()
        await asyncio.sleep(seconds + 0.1)  # and what is under way arrives
