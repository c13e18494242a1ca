"""Listener and receiver over real TCP on loopback, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import inspect
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.internal.listener import DuplicateSourceError, InternalListener
from bridges.internal.receiver import InternalReceiver, InternalUnavailableError
from bridges.internal.settings import InternalSettings
from bridges.wire.frame import AudioInfo, Feedback, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.framing import Deframer, Metadata, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

WAIT = 10.0


def on_both_loops(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on asyncio's own loop and on uvloop."""

    def test(*, run: Callable[[Coroutine[Any, Any, None]], None], **arguments: Any) -> None:
        run(story(**arguments))

    own = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(story)
    test.__name__ = story.__name__
    test.__signature__ = signature.replace(  # type: ignore[attr-defined] # what pytest looks at
        parameters=[*signature.parameters.values(), own]
    )
    mark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    marked: Callable[..., None] = mark(test)
    return marked


def picture(number: int = 0, *, key: bool = True, size: int = 1000) -> MediaFrame:
    info = VideoInfo(width=640, height=480, key_frame=key)
    payload = number.to_bytes(4, "big") * (size // 4)
    return MediaFrame.build(FrameFormat.VP8, timestamp=number * 3000, info=info, payload=payload)


def sound(number: int = 0) -> MediaFrame:
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2)
    return MediaFrame.build(FrameFormat.OPUS, timestamp=number * 960, info=info, payload=bytes(120))


class Heard:
    """What callbacks said, awaitable."""

    def __init__(self) -> None:
        self.frames: list[MediaFrame] = []
        self.feedback: list[Feedback] = []
        self.counts: list[int] = []
        self.lost: list[str] = []
        self._changed = asyncio.Event()

    def take(self, into: list[Any]) -> Callable[[Any], None]:
        def taken(value: Any) -> None:
            into.append(value)
            self._changed.set()

        return taken

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def listening(**limits: Any) -> AsyncIterator[InternalListener]:
    listener = await InternalListener.start(settings=InternalSettings(**limits))
    try:
        yield listener
    finally:
        await listener.close()
        assert listener.connections == 0


async def receive(listener: InternalListener, heard: Heard, stream_id: str = "track") -> InternalReceiver:
    return await InternalReceiver.connect(
        "127.0.0.1",
        listener.port,
        stream_id,
        on_frame=heard.take(heard.frames),
        on_lost=heard.take(heard.lost),
    )


class Raw:
    """A peer that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def is_closed(self) -> bool:
        async with asyncio.timeout(WAIT):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def scripted_source(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]], heard: Heard
) -> AsyncIterator[InternalReceiver]:
    """Connect a receiver to a source that does what it likes."""
    writers: list[asyncio.StreamWriter] = []
    accepted = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        accepted.set()
        await serve(reader, writer)

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    receiver = await InternalReceiver.connect(
        "127.0.0.1",
        server.sockets[0].getsockname()[1],
        "track",
        on_frame=heard.take(heard.frames),
        on_lost=heard.take(heard.lost),
    )
    try:
        await accepted.wait()
        yield receiver
    finally:
        receiver.close()
        await receiver.wait_closed()
        server.close()
        for writer in writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()


@on_both_loops
async def test_frames_arrive_byte_for_byte_at_every_subscriber_and_feedback_comes_back() -> None:
    async with listening() as listener:
        heard = [Heard(), Heard()]
        source_heard = Heard()
        source = listener.add_source(
            "track",
            on_feedback=source_heard.take(source_heard.feedback),
            on_joined=source_heard.take(source_heard.counts),
            on_left=source_heard.take(source_heard.counts),
        )
        source.write(picture())  # nobody is there: nothing happens
        receivers = [await receive(listener, one) for one in heard]
        await source_heard.until(lambda: source_heard.counts == [1, 2])
        frames = [picture(0), *(picture(i, key=False, size=4 * i) for i in range(1, 60)), sound(7)]
        for frame in frames:
            source.write(frame)
        for one in heard:
            await one.until(lambda one=one: len(one.frames) == len(frames))  # type: ignore[misc] # bound now
            assert one.frames == frames
        receivers[0].request_key_frame()
        receivers[1].send(Feedback.set_bitrate(300))
        await source_heard.until(lambda: len(source_heard.feedback) == 2)
        assert set(source_heard.feedback) == {Feedback.request_key_frame(), Feedback.set_bitrate(300)}
        for receiver in receivers:
            receiver.close()
            await receiver.wait_closed()
        await source_heard.until(lambda: source_heard.counts == [1, 2, 1, 0])
        assert source.subscribers == 0
        assert not any(one.lost for one in heard), "our own close is no loss"


@on_both_loops
async def test_connecting_may_come_before_the_source() -> None:
    async with listening() as listener:
        heard = Heard()
        await receive(listener, heard)
        joined = Heard()
        source = listener.add_source("track", on_joined=joined.take(joined.counts))
        await joined.until(lambda: joined.counts == [1])
        source.write(picture())
        await heard.until(lambda: heard.frames == [picture()])


@on_both_loops
async def test_a_source_that_does_not_appear_ends_the_connection() -> None:
    async with listening(source_wait=0.05) as listener:
        heard = Heard()
        receiver = await receive(listener, heard)
        await heard.until(lambda: heard.lost)
        assert receiver.closed
        assert listener._waiting == {}


@on_both_loops
async def test_a_connection_that_names_no_stream_is_closed() -> None:
    async with listening(init_timeout=0.05) as listener, Raw.connect(listener.port) as peer:
        assert await peer.is_closed()


@on_both_loops
async def test_the_end_of_a_source_delivers_what_was_written_and_tells_the_receiver_once() -> None:
    async with listening() as listener:
        heard, joined = Heard(), Heard()
        source = listener.add_source("track", on_joined=joined.take(joined.counts))
        await receive(listener, heard)
        await joined.until(lambda: joined.counts)
        frames = [picture(0, size=60_000), picture(1, key=False, size=60_000)]
        for frame in frames:
            source.write(frame)
        source.close()
        source.close()
        source.write(picture(2))
        await heard.until(lambda: heard.lost)
        assert heard.frames == frames
        assert len(heard.lost) == 1
        listener.add_source("track").close()  # the id is free again


@on_both_loops
async def test_two_sources_cannot_have_one_id() -> None:
    async with listening() as listener:
        listener.add_source("track")
        with pytest.raises(DuplicateSourceError):
            listener.add_source("track")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x05\x8fxxxx",
        b"\x00\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\x5a",
        encode(Metadata(b"{}")),
        encode(picture()),
        encode(Feedback.request_key_frame()),
        encode(Feedback.init_stream("")),
        encode(Feedback.init_stream("track")) * 2,
    ],
)
@on_both_loops
async def test_what_is_not_the_format_closes_that_connection_only(garbage: bytes) -> None:
    async with listening() as listener:
        heard, joined = Heard(), Heard()
        source = listener.add_source("track", on_joined=joined.take(joined.counts))
        await receive(listener, heard)
        await joined.until(lambda: joined.counts)
        async with Raw.connect(listener.port) as peer:
            peer.writer.write(garbage)
            assert await peer.is_closed()
        source.write(picture())
        await heard.until(lambda: heard.frames)


@on_both_loops
async def test_connections_are_limited() -> None:
    async with listening(max_connections=1) as listener, Raw.connect(listener.port) as first:
        first.writer.write(encode(Feedback.init_stream("track")))
        joined = Heard()
        listener.add_source("track", on_joined=joined.take(joined.counts))
        await joined.until(lambda: joined.counts)
        async with Raw.connect(listener.port) as second:
            assert await second.is_closed()
        assert listener.connections == 1


@on_both_loops
async def test_a_reader_that_never_reads_costs_bounded_memory_and_gets_a_decodable_rest() -> None:
    limit = 64 << 10
    async with listening(max_backlog_bytes=limit, max_delay=60.0, send_buffer_bytes=32 << 10) as listener:
        joined, heard = Heard(), Heard()
        source = listener.add_source(
            "track",
            on_joined=joined.take(joined.counts),
            on_feedback=joined.take(joined.feedback),
        )
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", listener.port))
        await loop.sock_sendall(sock, encode(Feedback.init_stream("track")))
        await receive(listener, heard)
        await joined.until(lambda: len(joined.counts) == 2)
        frames = [picture(i, key=i % 30 == 0, size=4000) for i in range(600)]
        for i, frame in enumerate(frames):
            source.write(frame)
            await heard.until(lambda i=i: len(heard.frames) == i + 1)  # type: ignore[misc] # bound now
            assert all(c.backlog <= limit + 5000 for c in source._connections)
        assert heard.frames == frames, "the one who reads lost nothing"
        assert 0 < source.dropped < 600
        # Now it reads: what waited, then nothing until a key frame, then everything.
        source.write(picture(600, key=True, size=4000))
        got = await _drain(sock)
        numbers = [frame.timestamp // 3000 for frame in got]
        assert numbers == list(range(len(numbers))), "the beginning, without a gap"
        assert len(numbers) < 200
        source.write(picture(601, key=False, size=4000))
        assert joined.feedback == [Feedback.request_key_frame()], (
            "now a key frame would pass, so one is asked"
        )
        source.write(picture(602, key=True, size=4000))
        source.write(picture(603, key=False, size=4000))
        assert [frame.timestamp // 3000 for frame in await _drain(sock, count=2)] == [602, 603]
        sock.close()


async def _drain(sock: socket.socket, *, count: int | None = None) -> list[MediaFrame]:
    """Read what there is: `count` frames, or until nothing has come for a moment."""
    loop = asyncio.get_running_loop()
    deframer = Deframer()
    frames: list[MediaFrame] = []
    while count is None or len(frames) < count:
        try:
            async with asyncio.timeout(WAIT if count is not None else 0.5):
                deframer.feed(await loop.sock_recv(sock, 1 << 16))
        except TimeoutError:
            break
        while (message := deframer.next_message()) is not None:
            assert isinstance(message, MediaFrame)
            frames.append(message)
    return frames


@on_both_loops
async def test_closing_a_source_does_not_wait_for_a_reader_that_never_reads() -> None:
    async with (
        listening(linger=0.05, send_buffer_bytes=4 << 10) as listener,
        Raw.connect(listener.port) as peer,
    ):
        peer.writer.write(encode(Feedback.init_stream("track")))
        left = Heard()
        source = listener.add_source("track", on_joined=left.take(left.counts))
        await left.until(lambda: left.counts)
        for i in range(30):
            source.write(picture(i, size=400_000))
        source.close()
        async with asyncio.timeout(WAIT):
            await listener._idle.wait()


@on_both_loops
async def test_the_receiver_takes_nothing_but_frames_from_a_source() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5 + 272)
        writer.write(encode(picture()) + encode(Feedback.request_key_frame()) + encode(picture(1)))

    heard = Heard()
    async with scripted_source(serve, heard) as receiver:
        await heard.until(lambda: heard.lost)
        assert heard.frames == [picture()]
        assert heard.lost == ["a source may send frames only"]
        receiver.request_key_frame()  # nobody is there any more: nothing happens


@on_both_loops
async def test_an_address_where_nobody_listens_is_one_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    heard = Heard()
    with pytest.raises(InternalUnavailableError, match=f"127.0.0.1:{port}"):
        await InternalReceiver.connect(
            "127.0.0.1", port, "track", on_frame=heard.take(heard.frames), on_lost=heard.take(heard.lost)
        )
    assert heard.lost == []


@on_both_loops
async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        heard = Heard()
        for turns in range(6):
            connecting = asyncio.create_task(
                InternalReceiver.connect(
                    "127.0.0.1",
                    nobody_accepts.getsockname()[1],
                    "track",
                    on_frame=heard.take(heard.frames),
                    on_lost=heard.take(heard.lost),
                )
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            if connecting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            else:
                connecting.result().close()
        assert heard.lost == []


@on_both_loops
async def test_a_reader_that_stops_listening_to_feedback_does_not_fill_memory() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        reader._transport.pause_reading()  # type: ignore[attr-defined] # the stream's own transport

    async with scripted_source(serve, Heard()) as receiver:
        for _ in range(50_000):
            receiver.request_key_frame()
        transport = receiver._protocol._transport
        assert transport is not None
        assert transport.get_write_buffer_size() <= (16 << 10) + 300


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20), st.data())
def test_frames_cut_anywhere_arrive_whole(sizes: list[int], data: st.DataObject) -> None:
    frames = [picture(i, size=size) for i, size in enumerate(sizes)]
    stream = b"".join(encode(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))

    async def story() -> list[MediaFrame]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            del reader
            for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                writer.write(stream[begin:end])
                await writer.drain()
            writer.close()

        heard = Heard()
        async with scripted_source(serve, heard):
            await heard.until(lambda: heard.lost)
        return heard.frames

    assert asyncio.run(story()) == frames
