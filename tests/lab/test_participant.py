from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from aiohttp import web

from bridges.internal.listener import InternalListener
from bridges.wire.frame import FrameFormat, MediaFrame, VideoInfo
from causeway.api import JoinAnswer
from causeway.backoff import Backoff
from causeway.errors import ApiError, UnavailableError
from lab import reports
from lab.attendance import Attendance
from lab.media.clock import VIDEO_CLOCK, timestamp
from lab.media.encode import AudioEncoder, VideoEncoder
from lab.media.picture import MovingPicture
from lab.media.publisher import Pace
from lab.media.receiver import StreamReceiver
from lab.media.source import GeneratedSource
from lab.participant import KEY_VARIABLE, Size, parse
from lab.portal_client import PortalRefusedError
from lab.publication import Publication
from lab.watching import Watch
from tests.lab.portal_stub import TOKEN, PortalStub
from tests.lab.test_media import make_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from lab.reports import Line

KEY = "cw_application_test_secret"
WIDTH, HEIGHT = 320, 180


def place(portal: PortalStub, *, token: str = TOKEN, region: str = "eu-west") -> JoinAnswer:
    return JoinAnswer(
        conference="c-1",
        cluster=f"cluster-{region}",
        region=region,
        placed="region",
        ip="127.0.0.1",
        port=portal.port,
        secure=False,
        room="room-1",
        token=token,
    )


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


# --- lines ----------------------------------------------------------------------------------------


def test_lines_come_back_as_they_went_out() -> None:
    published = reports.Published(frames=1, bytes=2, numbers=[(0, 1), (1, 3601)])
    received = reports.Received(from_cluster="far", decoded=1, numbers=[(0, 1)], delays_ms=[0.5])
    lines: list[Line] = [
        reports.Report(
            t=1.5,
            role="both",
            participant="p",
            cluster="c",
            region="r",
            published=published,
            received={"s": received},
        ),
        reports.Joined(t=1.0, participant="p", cluster="c", region="r", room="room"),
        reports.JoinFailed(t=1.0, error="no", retry_in=0.1),
        reports.Disconnected(t=1.0, participant="p", cluster="c", error="gone", retry_in=0.1),
        reports.StreamAdded(t=1.0, stream="s", from_cluster="far"),
        reports.StreamRemoved(t=1.0, stream="s", from_cluster="far"),
        reports.Left(t=1.0, participant="p"),
    ]
    for line in lines:
        data = reports.encode(line)
        assert data.endswith(b"}\n")
        assert data.count(b"\n") == 1
        assert reports.decode(data) == line


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b'{"event": "other"}', b'{"event": "left"}', b"[]"])
def test_another_line_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        reports.decode(data)


# --- options --------------------------------------------------------------------------------------

NEEDED = ["--control-url", "http://127.0.0.1:1", "--conference", "c-1", "--user", "alice"]


def test_options_and_their_defaults() -> None:
    options = parse([*NEEDED, "--publish"])
    assert (options.fps, options.size, options.video_bitrate, options.media) == (
        25,
        Size(640, 360),
        400,
        None,
    )
    assert parse([*NEEDED, "--subscribe", "--size", "320x180"]).size == Size(320, 180)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([], "--publish, --subscribe or both are needed"),
        (["--publish", "--fps", "0"], "0 is not from 1 to 60"),
        (["--publish", "--fps", "many"], "invalid whole number value: 'many'"),
        (["--publish", "--size", "big"], "'big' is not of the form 640x360"),
        (["--subscribe", "--media", "x.mp4"], "--media is for --publish"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_options_are_one_line(more: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse([*NEEDED, *(more if not more or more[0] != "--nonsense" else ["--publish", *more])])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


# --- pace -----------------------------------------------------------------------------------------


def test_a_pace_does_not_drift() -> None:
    pace = Pace(0.04, 10.0, slack=0.04)
    for tick in range(1, 1000):
        assert pace.advance(pace.due + 0.03) == 0
        assert pace.due == pytest.approx(10.0 + tick * 0.04)


def test_a_pace_leaves_out_what_is_long_overdue() -> None:
    pace = Pace(0.04, 0.0, slack=0.04)
    assert pace.advance(0.205) == 4
    assert pace.due == pytest.approx(0.20)
    assert pace.advance(0.21) == 0


# --- receiving ------------------------------------------------------------------------------------


def encoded(*numbers: int, keys: tuple[int, ...] = (0,)) -> list[MediaFrame]:
    encoder, source = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), MovingPicture(WIDTH, HEIGHT)
    stamp = timestamp(time.monotonic(), VIDEO_CLOCK)
    frames = []
    for number in numbers:
        stamped = stamp + number

        def stamp_it(stamped: int = stamped) -> int:
            return stamped

        frames.append(encoder.encode(source.draw(number), key=number in keys, stamp=stamp_it))
    return frames


@asynccontextmanager
async def receiving(
    thread: ThreadPoolExecutor, *, max_waiting: int = 50, key_frame_interval: float = 0.25
) -> AsyncIterator[tuple[StreamReceiver, Counter[str]]]:
    asked: Counter[str] = Counter()
    receiver = StreamReceiver(
        "far", thread=thread, max_waiting=max_waiting, key_frame_interval=key_frame_interval
    )
    receiver.on_key_frame_wanted = lambda: asked.update(["key"])
    receiver.begin()
    running = asyncio.create_task(receiver.run())
    try:
        yield receiver, asked
    finally:
        running.cancel()
        await asyncio.wait([running])


async def drained(receiver: StreamReceiver) -> reports.Received:
    async with asyncio.timeout(10):
        await receiver.idle()
    return receiver.take_report()


async def test_numbers_delays_and_sound_are_counted(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, asked):
        frames = encoded(*range(10))
        for frame in frames:
            receiver.take(frame)
        receiver.take(AudioEncoder().encode(GeneratedSource(WIDTH, HEIGHT).sound(0), timestamp=0))
        report = await drained(receiver)
        assert report.numbers == [(n, frame.timestamp) for n, frame in enumerate(frames)]
        assert (report.frames, report.decoded, report.unreadable, report.skipped) == (10, 10, 0, 0)
        assert (report.audio_frames, report.audio_decoded) == (1, 1)
        assert len(report.delays_ms) == 10
        assert all(-1 <= delay < 10_000 for delay in report.delays_ms)
        assert (report.active, report.subscribed, report.subscriptions) == (True, True, 1)
        again = receiver.take_report()
        assert (again.numbers, again.delays_ms, again.decoded) == ([], [], 10)
        assert not asked


async def test_frames_before_the_first_key_frame_are_skipped_and_one_is_asked_for(
    thread: ThreadPoolExecutor,
) -> None:
    async with receiving(thread) as (receiver, asked):
        frames = encoded(*range(10), keys=(0, 6))
        for frame in frames[1:]:
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [6, 7, 8, 9]
        assert (report.frames, report.skipped) == (9, 5)
        assert asked["key"] == 1  # at most once in a quarter of a second


async def test_a_new_subscription_begins_with_a_key_frame(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, _asked):
        frames = encoded(*range(6), keys=(0, 4))
        receiver.take(frames[0])
        receiver.end()
        receiver.begin()
        for frame in frames[1:]:
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [0, 4, 5]
        assert report.subscriptions == 2


async def test_a_slow_decoder_skips_to_the_next_key_frame(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread, max_waiting=3) as (receiver, asked):
        frames = encoded(*range(8), keys=(0, 6))
        for frame in frames:  # without letting the decoder run
            receiver.take(frame)
        assert (await drained(receiver)).skipped == 5
        assert asked["key"] == 1
        for frame in encoded(*range(8, 10), keys=(8,)):
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [8, 9]


async def test_garbage_and_other_formats_do_no_harm(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread, key_frame_interval=0.0) as (receiver, asked):
        info = VideoInfo(width=WIDTH, height=HEIGHT, key_frame=True)
        receiver.take(MediaFrame.build(FrameFormat.VP8, timestamp=0, info=info, payload=b"garbage"))
        receiver.take(MediaFrame.build(FrameFormat.H264, timestamp=0, info=info, payload=b"x"))
        receiver.take(MediaFrame.build(FrameFormat.OPUS, timestamp=0, info=info, payload=b""))
        report = await drained(receiver)
        assert (report.frames, report.decoded, report.unreadable, report.skipped) == (2, 0, 1, 1)
        assert (report.audio_frames, report.audio_decoded) == (1, 0)
        assert asked["key"] == 2


async def test_a_picture_without_number_is_unreadable(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, _asked):
        grey = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
        receiver.take(VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000).encode(grey, stamp=lambda: 0))
        report = await drained(receiver)
        assert (report.decoded, report.unreadable) == (0, 1)


# --- attending, in one process: real portal, real encoding, real TCP ------------------------------


class Stay:
    """A participant without its process."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.attendance: Attendance
        self.task: asyncio.Task[None]
        self.decoded: list[tuple[int, int]] = []
        self.sent: list[tuple[int, int]] = []
        self._said = asyncio.Event()

    def say(self, line: Line) -> None:
        self.lines.append(line)
        self._said.set()

    def said(self, kind: type[Line]) -> list[Line]:
        return [line for line in self.lines if isinstance(line, kind)]

    async def until_said(self, kind: type[Line], count: int = 1) -> None:
        async with asyncio.timeout(15):
            while len(self.said(kind)) < count:
                self._said.clear()
                await self._said.wait()

    async def until(self, condition: Callable[[reports.Report], bool]) -> reports.Report:
        """Look at the report ten times a second: what the process writes once a second."""
        async with asyncio.timeout(15):
            while True:
                report = self.attendance.report()
                if report.published is not None:
                    self.sent += report.published.numbers
                for received in report.received.values():
                    self.decoded += received.numbers
                if condition(report):
                    return report
                await asyncio.sleep(0.1)


def decoded_more_than(count: int) -> Callable[[reports.Report], bool]:
    return lambda report: sum(one.decoded for one in report.received.values()) > count


@asynccontextmanager
async def staying(
    portal: PortalStub,
    thread: ThreadPoolExecutor,
    *,
    publish: bool = False,
    subscribe: bool = False,
    answers: list[JoinAnswer | Exception] | None = None,
    join_timeout: float = 30.0,
) -> AsyncIterator[Stay]:
    stay = Stay()
    left = list(answers or [])

    async def join() -> JoinAnswer:
        answer = left.pop(0) if left else place(portal)
        if isinstance(answer, Exception):
            raise answer
        return answer

    listener = await InternalListener.start()
    publication = Publication(
        GeneratedSource(WIDTH, HEIGHT),
        listener=listener,
        host="127.0.0.1",
        width=WIDTH,
        height=HEIGHT,
        fps=20,
        video_bitrate=300_000,
    )
    stay.attendance = Attendance(
        join=join,
        say=stay.say,
        publication=publication if publish else None,
        watch=Watch(say=stay.say, thread=thread) if subscribe else None,
        join_timeout=join_timeout,
        backoff=Backoff(base=0.05, cap=0.1),
    )
    stay.task = asyncio.create_task(stay.attendance.run())
    encoding = asyncio.create_task(publication.run())
    try:
        yield stay
    finally:
        for task in (stay.task, encoding):
            task.cancel()
            await asyncio.wait([task])
        await listener.close()


async def test_pictures_go_from_one_to_the_other(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True) as one,
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(30))
        (received,) = report.received.values()
        assert report.role == "subscriber"
        assert received.from_cluster == "far"
        assert received.unreadable == 0
        assert received.audio_decoded > 30
        assert 0 < len(other.decoded) <= 1024
        sent = await one.until(lambda report: report.published is not None)
        assert sent.published is not None
        assert sent.role == "publisher"
        assert sent.published.key_frames >= 1
        assert set(other.decoded) <= set(one.sent)


async def test_nothing_is_encoded_while_nobody_pulls(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, publish=True) as one:
        await portal.until(lambda: portal.called("publish"))
        async with staying(portal, thread, subscribe=True) as other:
            await other.until(decoded_more_than(3))
        # The last subscriber has left: from now on the count stands still.
        await portal.until(lambda: not portal.subscriptions)
        before = await one.until(lambda report: report.published is not None)
        first = before.published
        async with staying(portal, thread, subscribe=True) as other:
            await other.until(decoded_more_than(3))
        after = (await one.until(lambda report: report.published is not None)).published
        assert first is not None
        assert after is not None
        assert after.key_frames > first.key_frames


async def test_one_does_not_receive_its_own_stream(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True, subscribe=True) as one,
        staying(portal, thread, publish=True, subscribe=True) as other,
    ):
        report = await one.until(decoded_more_than(3))
        assert report.role == "both"
        assert len(report.received) == 1
        await other.until(decoded_more_than(3))
        assert len(portal.streams) == 2


async def test_a_stream_that_comes_back_is_received_again(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True),
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(3))
        ((stream, received),) = report.received.items()
        await portal.remove_stream(stream)
        await other.until_said(reports.StreamRemoved)
        assert not other.attendance.report().received[stream].active
        await portal.add_stream(stream)
        await other.until_said(reports.StreamAdded, 2)
        report = await other.until(decoded_more_than(received.decoded + 20))
        assert report.received[stream].subscriptions == 2
        assert report.received[stream].active


@pytest.mark.parametrize("trouble", ["subscription ended", "connection lost"])
async def test_a_lost_subscription_is_made_anew(thread: ThreadPoolExecutor, trouble: str) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True),
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(3))
        (received,) = report.received.values()
        if trouble == "subscription ended":
            await portal.end_subscriptions()
        else:
            portal.break_frames()
        report = await other.until(decoded_more_than(received.decoded + 20))
        (received,) = report.received.values()
        assert received.subscriptions == 2
        assert len(portal.called("unsubscribe")) == (trouble == "connection lost")


async def test_a_refused_subscription_is_tried_again(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, publish=True):
        portal.refuse["subscribe"] = "not now"
        async with staying(portal, thread, subscribe=True) as other:
            await portal.until(lambda: len(portal.called("subscribe")) >= 2)
            portal.refuse.clear()
            await other.until(decoded_more_than(3))


async def test_a_lost_portal_is_left_for_another_place(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as first, PortalStub() as second:
        answers: list[JoinAnswer | Exception] = [place(first), place(second, region="us-east")]
        async with (
            staying(second, thread, publish=True),
            staying(first, thread, subscribe=True, answers=answers) as other,
        ):
            await other.until_said(reports.Joined)
            await first.drop_connections()
            await other.until_said(reports.Disconnected)
            await other.until_said(reports.Joined, 2)
            report = await other.until(decoded_more_than(3))
            assert report.cluster == "cluster-us-east"
            assert report.region == "us-east"


async def test_a_publisher_that_joined_anew_publishes_new_tracks(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True) as one,
        staying(portal, thread, subscribe=True) as other,
    ):
        await other.until(decoded_more_than(3))
        await portal.drop_connections()
        await one.until_said(reports.Joined, 2)
        await other.until_said(reports.Joined, 2)
        report = await other.until(
            lambda report: sum(one.active and one.decoded > 3 for one in report.received.values()) == 1
        )
        assert len(report.received) == 2
        tracks = [track["id"] for call in portal.called("publish") for track in call["tracks"]]
        assert len(set(tracks)) == 4
        # Numbers go on: no picture has another's name.
        numbers = [number for number, _ in other.decoded]
        assert len(numbers) == len(set(numbers))


async def test_what_may_pass_is_tried_again(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal:
        answers: list[JoinAnswer | Exception] = [
            UnavailableError("not there"),
            ApiError(503, "no-cluster", "none"),
            place(portal, token="stale"),
        ]
        async with staying(portal, thread, subscribe=True, answers=answers) as one:
            await one.until_said(reports.Joined)
            errors = [line.error for line in one.lines if isinstance(line, reports.JoinFailed)]
            assert errors == ["not there", "503 no-cluster: none", "join: bad-token: no such token"]


async def test_what_cannot_pass_is_not_tried_again(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, subscribe=True, answers=[ApiError(404, "no-such-conference", "gone")]) as one,
    ):
        with pytest.raises(ApiError, match="no-such-conference"):
            await asyncio.wait_for(one.task, 10)


async def test_a_first_join_is_given_up(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal:
        portal.refuse["join"] = "full"
        async with staying(portal, thread, subscribe=True, join_timeout=0.0) as one:
            with pytest.raises(PortalRefusedError, match="join: full"):
                await asyncio.wait_for(one.task, 10)


@pytest.mark.parametrize("data", [None, {}, "text", {"id": "s"}])
async def test_an_announced_stream_that_is_none_ends_the_stay(
    thread: ThreadPoolExecutor, data: object
) -> None:
    async with PortalStub() as portal, staying(portal, thread, subscribe=True) as one:
        await one.until_said(reports.Joined)
        await portal.push("streamAdded", data)
        await one.until_said(reports.Disconnected)
        (line,) = one.said(reports.Disconnected)
        assert isinstance(line, reports.Disconnected)
        assert "what is no stream" in line.error
        await one.until_said(reports.Joined, 2)


async def test_leaving_is_polite_even_to_a_portal_that_does_not_answer(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, subscribe=True) as one:
        await one.until_said(reports.Joined)
        portal.mute.add("leave")
        one.task.cancel()
        await asyncio.wait([one.task], timeout=10)
        assert one.task.cancelled()
        assert len(portal.called("leave")) == 1
        assert isinstance(one.lines[-1], reports.Left)


# --- attending, as a process ----------------------------------------------------------------------


@asynccontextmanager
async def control_stub(portal: PortalStub) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """Control's join route on a free port; yields its URL, and what was asked with which key."""
    asked: list[tuple[str, bytes]] = []

    async def join(request: web.Request) -> web.Response:
        asked.append((request.headers["Authorization"], await request.read()))
        if request.match_info["id"] != "c-1":
            problem = b'{"type": "no-such-conference", "title": "no such conference", "status": 404}'
            return web.Response(status=404, body=problem, content_type="application/problem+json")
        return web.Response(body=msgspec.json.encode(place(portal)), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/conferences/{id}/join", join)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


class Process:
    """A participant as the launcher starts it; everything that it writes is read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.errors = b""

    async def until(self, condition: Callable[[Line], bool]) -> Line:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while data := await self.process.stdout.readline():
                self.lines.append(reports.decode(data))
                if condition(self.lines[-1]):
                    return self.lines[-1]
        raise AssertionError(f"it ended: {await self.end()}")

    async def end(self) -> tuple[int, str]:
        """Wait for its end; returns exit code and standard error."""
        async with asyncio.timeout(30):
            rest, errors = await self.process.communicate()
        self.lines += [reports.decode(line) for line in rest.splitlines()]
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def process(*arguments: str, key: str = KEY) -> AsyncIterator[Process]:
    environment = {**os.environ, KEY_VARIABLE: key}
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lab.participant",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
            await started.communicate()


def options(url: str, user: str, *more: str, conference: str = "c-1") -> list[str]:
    return ["--control-url", url, "--conference", conference, "--user", user, "--region", "eu-west", *more]


def shows_pictures(line: Line) -> bool:
    return isinstance(line, reports.Report) and any(one.decoded > 10 for one in line.received.values())


@pytest.mark.system
@pytest.mark.parametrize("media", [False, True])
async def test_two_processes_meet(tmp_path: Path, *, media: bool) -> None:
    file = ["--media", str(make_file(tmp_path / "film.mkv"))] if media else []
    size = ["--size", "320x180"]
    async with (
        PortalStub() as portal,
        control_stub(portal) as (url, asked),
        process(*options(url, "alice", "--publish", *size, *file)) as one,
        process(*options(url, "bob", "--subscribe")) as other,
    ):
        report = await other.until(shows_pictures)
        assert isinstance(report, reports.Report)
        (received,) = report.received.values()
        assert received.unreadable == 0
        assert received.audio_decoded > 0
        for stopped, number in ((other, signal.SIGTERM), (one, signal.SIGINT)):
            stopped.process.send_signal(number)
            assert await stopped.end() == (0, "")
            assert isinstance(stopped.lines[-1], reports.Left)
        decoded = {
            number
            for line in other.lines
            if isinstance(line, reports.Report)
            for one_stream in line.received.values()
            for number in one_stream.numbers
        }
        sent = {
            number
            for line in one.lines
            if isinstance(line, reports.Report) and line.published is not None
            for number in line.published.numbers
        }
        assert len(decoded) > 10
        assert decoded <= sent
        assert {authorization for authorization, _ in asked} == {f"Bearer {KEY}"}
        assert sorted(msgspec.json.decode(body)["user"] for _, body in asked) == ["alice", "bob"]
        assert len(portal.called("leave")) == 2


@pytest.mark.system
async def test_a_process_ends_with_one_line_when_there_is_no_such_conference() -> None:
    async with (
        PortalStub() as portal,
        control_stub(portal) as (url, _asked),
        process(*options(url, "alice", "--publish", conference="other")) as one,
    ):
        code, said = await one.end()
        assert (code, said.count("\n")) == (1, 1)
        assert "404 no-such-conference" in said


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "key", "reason"),
    [
        (options("http://127.0.0.1:1", "a", "--publish"), "", f"{KEY_VARIABLE} must hold"),
        (options("nowhere", "a", "--publish"), KEY, "must be an http(s) URL"),
        (options("http://127.0.0.1:1", "a", "--publish", "--size", "9x9"), KEY, "--size: picture of 9×9"),
        (options("http://127.0.0.1:1", "a", "--publish", "--media", "/no.mp4"), KEY, "/no.mp4: no such file"),
    ],
)
async def test_a_process_with_a_wrong_option_ends_with_2(arguments: list[str], key: str, reason: str) -> None:
    async with process(*arguments, key=key) as one:
        code, said = await one.end()
        assert (code, said.count("\n")) == (2, 1)
        assert said.startswith("participant: ")
        assert reason in said
        assert KEY not in said


@pytest.mark.system
async def test_a_process_without_the_media_libraries_says_so(tmp_path: Path) -> None:
    # Stands in for an installation without the extra: the finder finds neither.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name in ('av', 'numpy') else found(name, package)\n"
    )
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lab.participant",
        *options("http://127.0.0.1:1", "a", "--publish"),
        env={**os.environ, KEY_VARIABLE: KEY, "PYTHONPATH": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, errors = await started.communicate()
    assert started.returncode == 2
    assert (
        errors.decode() == "participant: av and numpy not installed; install: pip install 'causeway[lab]'\n"
    )
