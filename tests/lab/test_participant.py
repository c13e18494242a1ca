from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiohttp import web

from lab import reports
from lab.media.publisher import Pace
from lab.participant import KEY_VARIABLE, Size, parse
from tests.lab.portal_stub import PortalStub, place
from tests.lab.test_media import make_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from lab.reports import Line

KEY = "cw_application_test_secret"


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
