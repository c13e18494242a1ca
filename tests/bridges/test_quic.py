"""Real QUIC on loopback: the promises of bridges.quic."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest

from bridges.quic import (
    Certificate,
    Connection,
    ConnectionClosedError,
    DialError,
    Listener,
    QuicSettings,
    TooManyStreamsError,
    dial,
    listen,
)
from bridges.quic.inside.recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

FAST = QuicSettings(idle_timeout=0.6, keepalive=0.15, handshake_timeout=3.0)
WAIT = 10.0


class Recorder:
    """A handler that keeps what it is told, and lets a test wait for it."""

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.lost: list[str] = []
        self.chunks = 0
        self._changed = asyncio.Event()

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.chunks += 1
        self.data[stream_id] = self.data.get(stream_id, b"") + data
        if end:
            self.ended.add(stream_id)
        self._changed.set()

    def stream_reset(self, stream_id: int, code: int) -> None:
        assert stream_id not in self.resets
        self.resets[stream_id] = code
        self._changed.set()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[Recorder], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class Pair:
    """A listener, and what it accepted."""

    def __init__(self, certificate: Certificate, settings: QuicSettings) -> None:
        self.certificate = certificate
        self.settings = settings
        self.accepted: asyncio.Queue[Recorder] = asyncio.Queue()
        self.listener: Listener
        self.port: int | None = None
        """Where to dial instead of the listener's own port."""
        self.dialled: list[Connection] = []
        self.refused: Counter[str] = Counter()

    def on_connection(self, connection: Connection) -> Recorder:
        recorder = Recorder(connection)
        self.accepted.put_nowait(recorder)
        return recorder

    async def connect(self, *, fingerprint: str | None = None) -> tuple[Connection, Recorder, Recorder]:
        """Dial; returns the dialled connection, its recorder and the listener's recorder."""
        connection = await dial(
            "127.0.0.1",
            self.port or self.listener.port,
            fingerprint=fingerprint or self.certificate.fingerprint,
            settings=self.settings,
        )
        self.dialled.append(connection)
        recorder = Recorder(connection)
        connection.handler = recorder
        async with asyncio.timeout(WAIT):
            return connection, recorder, await self.accepted.get()


@asynccontextmanager
async def listening(settings: QuicSettings = FAST) -> AsyncIterator[Pair]:
    pair = Pair(Certificate.self_signed("test"), settings)
    pair.listener = await listen(
        "127.0.0.1",
        0,
        certificate=pair.certificate,
        on_connection=pair.on_connection,
        settings=settings,
        count=lambda name, by=1: pair.refused.update({name: by}),
    )
    try:
        yield pair
    finally:
        for connection in pair.dialled:
            connection.close()
            await connection.wait_closed()
        pair.listener.close()


async def test_bytes_travel_both_ways_and_streams_are_forgotten() -> None:
    async with listening() as pair:
        connection, ours, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, b"ping", end=True)
        await theirs.until(lambda r: stream in r.ended)
        assert theirs.data[stream] == b"ping"
        assert theirs.connection is not None
        theirs.connection.send(stream, b"po")
        theirs.connection.send(stream, b"ng", end=True)
        await ours.until(lambda r: stream in r.ended)
        assert ours.data[stream] == b"pong"
        assert theirs.chunks == 1
        await until(lambda: connection.streams == 0)
        await until(lambda: theirs.connection is not None and theirs.connection.streams == 0)
        assert connection.backlog(stream) == 0
        connection.send(stream, b"late")  # of a forgotten stream: nothing happens
        connection.reset_stream(stream, 1)


async def test_writes_of_one_turn_travel_together() -> None:
    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        stream = connection.open_stream()
        for _ in range(50):
            connection.send(stream, b"x" * 10)
        await theirs.until(lambda r: len(r.data.get(stream, b"")) == 500)
        assert theirs.chunks == 1


async def test_large_transfer_arrives_whole_and_backlog_falls() -> None:
    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        stream = connection.open_stream()
        payload = bytes(range(256)) * 8192
        connection.send(stream, payload, end=True)
        assert connection.backlog(stream) == len(payload)
        await theirs.until(lambda r: stream in r.ended)
        assert theirs.data[stream] == payload
        await until(lambda: connection.backlog(stream) == 0)


async def test_sending_after_the_end_is_a_mistake() -> None:
    async with listening() as pair:
        connection, _, _ = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, b"", end=True)
        with pytest.raises(ValueError, match="after the end"):
            connection.send(stream, b"more")


async def test_reset_reaches_the_peer_and_ends_both_halves() -> None:
    async with listening() as pair:
        connection, ours, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, b"abc")
        await theirs.until(lambda r: stream in r.data)
        assert theirs.connection is not None
        theirs.connection.reset_stream(stream, 7)
        await ours.until(lambda r: stream in r.resets)
        assert ours.resets == {stream: 7}
        connection.send(stream, b"ignored")
        await until(lambda: connection.streams == 0)
        await until(lambda: theirs.connection is not None and theirs.connection.streams == 0)
        assert theirs.resets == {}


async def test_stream_limit_is_an_error_and_lifts_again() -> None:
    settings = msgspec.structs.replace(FAST, max_streams=3)
    async with listening(settings) as pair:
        connection, _, theirs = await pair.connect()
        streams = [connection.open_stream() for _ in range(3)]
        assert len(set(streams)) == 3
        with pytest.raises(TooManyStreamsError):
            connection.open_stream()
        connection.send(streams[0], b"x")
        await theirs.until(lambda r: streams[0] in r.data)
        connection.reset_stream(streams[0], 0)
        await theirs.until(lambda r: streams[0] in r.resets)
        await until(lambda: connection.streams == 2)
        connection.open_stream()


async def test_more_streams_than_aioquics_window_over_time() -> None:
    async with listening() as pair:
        connection, ours, theirs = await pair.connect()
        assert theirs.connection is not None
        for _ in range(300):
            stream = connection.open_stream()
            connection.send(stream, b"a", end=True)
            await theirs.until(lambda r, stream=stream: stream in r.ended)  # type: ignore[misc] # mypy: lambda default
            theirs.connection.send(stream, b"b", end=True)
            await ours.until(lambda r, stream=stream: stream in r.ended)  # type: ignore[misc] # as above
        await until(lambda: connection.streams == 0)
        await until(lambda: theirs.connection is not None and theirs.connection.streams == 0)
        assert connection.ended_streams == 300


async def test_close_tells_the_peer_at_once() -> None:
    patient = QuicSettings(idle_timeout=300, keepalive=100)
    async with listening(patient) as pair:
        connection, ours, theirs = await pair.connect()
        connection.close(0x2A, "enough")
        connection.close()
        await theirs.until(lambda r: r.lost)
        assert theirs.lost == ["code 0x2a 'enough'"]
        assert ours.lost == ["closed by us: enough"]
        assert connection.closed
        connection.send(0, b"nothing")
        with pytest.raises(ConnectionClosedError):
            connection.open_stream()
        await until(lambda: pair.listener.connections == 0)


async def test_listener_close_tells_the_peers() -> None:
    patient = QuicSettings(idle_timeout=300, keepalive=100)
    async with listening(patient) as pair:
        _, ours, theirs = await pair.connect()
        pair.listener.close()
        await ours.until(lambda r: r.lost)
        await theirs.until(lambda r: r.lost)


async def test_killed_peer_is_noticed_and_idle_connection_is_not() -> None:
    async with listening() as pair:
        connection, ours, theirs = await pair.connect()
        # Several idle timeouts pass without a word from the user: keep-alive holds the connection.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(theirs.until(lambda r: r.lost), 4 * FAST.idle_timeout)
        kill_socket(connection)
        await theirs.until(lambda r: r.lost)
        assert theirs.lost == ["code 0x1 'Idle timeout'"]
        await ours.until(lambda r: r.lost)


async def test_what_arrives_before_the_handler_is_kept_in_order() -> None:
    async with listening() as pair:
        connection = await dial(
            "127.0.0.1", pair.listener.port, fingerprint=pair.certificate.fingerprint, settings=FAST
        )
        theirs = (await pair.accepted.get()).connection
        assert theirs is not None
        stream = theirs.open_stream()
        theirs.send(stream, b"early")
        await until(lambda: connection.streams == 1)
        theirs.close(0, "bye")
        await connection.wait_closed()
        recorder = Recorder(connection)
        connection.handler = recorder
        await recorder.until(lambda r: r.lost)
        assert recorder.data == {stream: b"early"}


async def test_flood_before_the_handler_closes_the_connection() -> None:
    async with listening() as pair:
        connection = await dial(
            "127.0.0.1", pair.listener.port, fingerprint=pair.certificate.fingerprint, settings=FAST
        )
        accepted = await pair.accepted.get()
        assert accepted.connection is not None
        stream = accepted.connection.open_stream()
        accepted.connection.send(stream, bytes(4 << 20))
        await accepted.until(lambda r: r.lost)
        assert "before it could be taken" in accepted.lost[0]
        await connection.wait_closed()


async def test_peers_unidirectional_streams_are_ignored() -> None:
    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        quic = connection.quic
        for ordinal in range(20):
            quic.send_stream_data(2 + 4 * ordinal, b"unwanted", end_stream=ordinal % 2 == 0)
        stream = connection.open_stream()
        connection.send(stream, b"wanted")
        await theirs.until(lambda r: stream in r.data)
        assert theirs.data == {stream: b"wanted"}
        assert theirs.connection is not None
        assert theirs.connection.streams == 1


async def test_connection_limit() -> None:
    settings = msgspec.structs.replace(FAST, max_connections=2, handshake_timeout=0.5)
    async with listening(settings) as pair:
        await pair.connect()
        first, _, _ = await pair.connect()
        with pytest.raises(DialError):
            await pair.connect()
        assert pair.refused["handshake_full"] > 0
        first.close()
        await until(lambda: pair.listener.connections == 1)
        await pair.connect()


async def test_peer_that_leaves_holes_cannot_fill_our_memory() -> None:
    settings = msgspec.structs.replace(FAST, max_reassembly_bytes=1 << 20)
    async with listening(settings) as pair:
        connection, ours, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, bytes(3 << 20))
        # The first byte is never sent; the window, which aioquic widens by what it has seen, would follow.
        connection.quic._streams[stream].sender._pending.subtract(0, 1)
        await theirs.until(lambda r: r.lost)
        assert "out of order" in theirs.lost[0]
        assert theirs.data == {}
        await ours.until(lambda r: r.lost)


async def test_resets_do_not_count_as_holes() -> None:
    settings = msgspec.structs.replace(FAST, max_reassembly_bytes=1 << 20)
    async with listening(settings) as pair:
        connection, _, theirs = await pair.connect()
        for _ in range(8):
            stream = connection.open_stream()
            connection.send(stream, bytes(512 << 10))
            connection.quic._streams[stream].sender._pending.subtract(0, 1)
            await until(partial(sent_beyond, connection, stream, 256 << 10))
            connection.reset_stream(stream, 1)
        last = connection.open_stream()
        connection.send(last, b"fine")
        await theirs.until(lambda r: r.data.get(last) == b"fine" or r.lost)
        assert not theirs.lost


async def test_retry_proves_the_address() -> None:
    settings = msgspec.structs.replace(FAST, retry=True)
    async with listening(settings) as pair:
        connection, _, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, b"proven")
        await theirs.until(lambda r: r.data.get(stream) == b"proven")


async def test_strangers_datagrams_do_no_harm() -> None:
    async with listening() as pair:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            address = ("127.0.0.1", pair.listener.port)
            for junk in (
                b"",
                b"\x00",
                b"\xc0" + bytes(1300),  # version negotiation: never answered
                b"\xc0\x01\x02\x03\x04\x04abcd\x04efgh" + bytes(1300),  # unknown version
                b"\xc0\x00\x00\x00\x01\x08abcdefgh\x00\x00" + bytes(1300),  # an Initial that cannot be read
                b"\x40" + bytes(1300),
            ):
                stranger.sendto(junk, address)
        connection, _, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, b"fine")
        await theirs.until(lambda r: r.data.get(stream) == b"fine")


async def test_failing_handler_costs_its_connection_only() -> None:
    class Failing(Recorder):
        def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
            super().stream_data(stream_id, data, end)
            raise RuntimeError("bug")

    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        assert theirs.connection is not None
        theirs.connection.handler = Failing(theirs.connection)
        connection.send(connection.open_stream(), b"x")
        await connection.wait_closed()
        other, _, other_theirs = await pair.connect()
        stream = other.open_stream()
        other.send(stream, b"fine")
        await other_theirs.until(lambda r: stream in r.data)


async def test_cancelled_dial_leaves_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        task = asyncio.create_task(
            dial("127.0.0.1", deaf.getsockname()[1], fingerprint="0" * 64, settings=FAST)
        )
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_recv(deaf, 2000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(msgspec.ValidationError, match="twice keepalive"):
        msgspec.convert({"idle_timeout": 1.0, "keepalive": 0.9}, QuicSettings)


def sent_beyond(connection: Connection, stream_id: int, offset: int) -> bool:
    return connection.quic._streams[stream_id].sender.highest_offset > offset


def kill_socket(connection: Connection) -> None:
    """Let a connection's datagrams go nowhere, as if its process had been killed."""
    connection._endpoint.send_datagrams = lambda datagrams, address: None  # type: ignore[method-assign] # sabotage


async def until(condition: Callable[[], object]) -> None:
    """Await a condition that nothing announces."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - nothing announces it: it happens inside aioquic
            await asyncio.sleep(0.01)


async def test_the_controller_hears_how_late_the_loop_comes_to_its_timers() -> None:
    async with listening() as pair:
        connection, _, _ = await pair.connect()
        delay = recovery_of(connection).controller.delay
        stream = connection.open_stream()
        async with asyncio.timeout(WAIT):
            while delay.own == 0:
                connection.send(stream, b"x")
                await asyncio.sleep(0)  # it is sent, and its timers are set
                time.sleep(0.05)  # noqa: ASYNC251 - a loop that has much to do
                await asyncio.sleep(0.001)


def recovery_of(connection: Connection) -> Recovery:
    recovery = connection.quic._loss
    assert isinstance(recovery, Recovery)
    return recovery
