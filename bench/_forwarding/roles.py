"""A source of media, a forwarder of whatever comes, and a sink that counts: each a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from bench._forwarding.ends import connected, listening
from bench._frames import frame_of
from bench._media.camera import Sent, shoot
from bridges.quic.pump import Pump
from bridges.quic.sockets import udp_socket
from bridges.wire.framing import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench._forwarding.ends import End
    from bench._virtual.media import Track

__all__ = ["Forwarder", "Sink", "Source", "UdpForwarder", "UdpSource"]

_FRAGMENT: Final = 1150
"""Bytes that fit into a datagram of QUIC."""
_UDP_BYTES: Final = 1200
_BUFFER: Final = 1 << 22


class _Role:
    """Serves calls to the methods whose names begin with `on_`."""

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call."""
        return await getattr(self, f"on_{method}")(*args)

    async def on_cpu(self) -> float:
        """Return the seconds of processor that this process has used."""
        return time.process_time()


class Sink(_Role):
    """Counts what comes."""

    def __init__(self) -> None:
        self.address = (0, "")
        self._bytes = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, style: str) -> AsyncIterator[Sink]:
        """Listen until the end."""
        sink = cls()
        async with listening(style, sink._meet) as sink.address:
            yield sink

    def _meet(self, end: End) -> None:
        end.on_data = lambda _, data: self._count(data)
        end.on_datagram = self._count

    def _count(self, data: bytes) -> None:
        self._bytes += len(data)

    async def on_address(self) -> tuple[int, str]:
        """Return where it listens."""
        return self.address

    async def on_bytes(self) -> int:
        """Return how much has come."""
        return self._bytes


class Forwarder(_Role):
    """Passes everything on."""

    def __init__(self, out: End) -> None:
        self.address = (0, "")
        self._out = out
        self._streams: dict[int, int] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, style: str, sink: tuple[int, str], core: int) -> AsyncIterator[Forwarder]:
        """Listen, connected to the sink, until the end; on one core."""
        os.sched_setaffinity(0, {core})
        async with connected(style, sink) as out:
            forwarder = cls(out)
            async with listening(style, forwarder._meet) as forwarder.address:
                yield forwarder

    def _meet(self, end: End) -> None:
        end.on_data = self._pass_on
        end.on_datagram = self._out.throw

    def _pass_on(self, stream_id: int, data: bytes) -> None:
        if stream_id not in self._streams:
            self._streams[stream_id] = self._out.open()
        self._out.write(self._streams[stream_id], data)

    async def on_address(self) -> tuple[int, str]:
        """Return where it listens."""
        return self.address


class _Track:
    """A track on a stream of its own, or in datagrams, as bench._media.camera.shoot has its cameras."""

    def __init__(self, track: Track, end: End, *, datagrams: bool, phase: int) -> None:
        self.track = track
        self._end = end
        self._stream = None if datagrams else end.open()
        self._frames = [
            encode(frame_of(size, sound=track.sound, key=size == track.key_size))
            for size in (track.size, track.key_size or track.size)
        ]
        self._count = phase

    def shoot(self, sent: Sent) -> None:
        """Send the next frame."""
        track, key = self.track, bool(self.track.key_every) and self._count % self.track.key_every == 0
        data = self._frames[key]
        self._count += 1
        sent.media_bytes += track.key_size if key else track.size
        if self._stream is not None:
            self._end.write(self._stream, data)
            return
        for start in range(0, len(data), _FRAGMENT):
            self._end.throw(data[start : start + _FRAGMENT])


class Source(_Role):
    """Sends media in real time."""

    def __init__(self, end: End, *, datagrams: bool) -> None:
        self._end = end
        self._datagrams = datagrams
        self._tracks: list[_Track] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, style: str, address: tuple[int, str], datagrams: bool) -> AsyncIterator[Source]:  # noqa: FBT001 - passed on by position
        """Stay connected until the end."""
        async with connected(style, address) as end:
            yield cls(end, datagrams=datagrams)

    async def on_have(self, tracks: Sequence[Track]) -> None:
        """Have these tracks."""
        self._tracks = [
            _Track(track, self._end, datagrams=self._datagrams, phase=23 * number)
            for number, track in enumerate(tracks)
        ]

    async def on_send(self, seconds: float) -> int:
        """Send; return the bytes of encoded media."""
        return (await shoot(self._tracks, seconds)).media_bytes


class UdpForwarder(_Role):
    """Passes datagrams on without looking at them: what the machine can do at most, from Python."""

    def __init__(self, udp: socket.socket, nobody: socket.socket, *, offload: bool) -> None:
        self._target = nobody.getsockname()
        self._count = 0
        self._pump = Pump(udp, self, count=_ignore, offload=offload)
        self._waiting: list[bytes] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, offload: bool, core: int) -> AsyncIterator[UdpForwarder]:  # noqa: FBT001 - passed on by position
        """Forward to a socket that nobody reads, until the end; on one core."""
        os.sched_setaffinity(0, {core})
        with udp_socket(socket.AF_INET, buffer_bytes=_BUFFER) as nobody:
            nobody.bind(("127.0.0.1", 0))
            udp = udp_socket(socket.AF_INET, buffer_bytes=_BUFFER)
            udp.bind(("127.0.0.1", 0))
            forwarder = cls(udp, nobody, offload=offload)
            try:
                yield forwarder
            finally:
                forwarder._pump.close()

    def datagram_received(self, data: bytes, address: object, now: float) -> None:
        """Pass on at the end of the turn."""
        del address, now
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(data)
        self._count += len(data)

    def error_received(self, error: OSError) -> None:
        """Nobody is told: what is refused does not count as forwarded."""

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._pump.send(waiting, self._target)

    async def on_port(self) -> int:
        """Return where it listens."""
        return self._pump.port

    async def on_bytes(self) -> int:
        """Return how much was passed on."""
        return self._count


class UdpSource(_Role):
    """Sends datagrams as fast as it can."""

    def __init__(self, port: int) -> None:
        self._port = port

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int) -> AsyncIterator[UdpSource]:
        """Wait to be told to send."""
        yield cls(port)

    def datagram_received(self, data: bytes, address: object, now: float) -> None:
        """Nobody answers."""

    def error_received(self, error: OSError) -> None:
        """Nobody is told: what is not taken is lost."""

    async def on_send(self, seconds: float) -> None:
        """Send."""
        udp = udp_socket(socket.AF_INET, buffer_bytes=_BUFFER)
        udp.connect(("127.0.0.1", self._port))
        pump = Pump(udp, self, count=_ignore)
        until = time.monotonic() + seconds
        batch = [bytes(_UDP_BYTES)] * 50
        while time.monotonic() < until:
            pump.send(batch)
            await asyncio.sleep(0)
        pump.close()


def _ignore(name: str, by: int = 1, /) -> None:
    """Count nothing: what is lost is lost."""
