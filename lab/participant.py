"""One participant of the laboratory, as a process: `python -m lab.participant --help`.

It joins a conference through control's public API, then publishes a generated or recorded picture with sound,
or receives everything that others publish, or both. Lines on standard output (lab.reports) say what happens,
once a second how much of it. The application key is in the environment, CAUSEWAY_APPLICATION_KEY: an argument
would be visible to every user of the machine. SIGTERM and SIGINT make it leave politely.

Exit codes: 0 after such a signal, 2 for a wrong option or file, 1 for anything else, each with one line on
standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from bridges.internal.listener import InternalListener
from causeway.api import JoinRequest
from causeway.client import ControlClient
from causeway.errors import CausewayError, ConfigError
from causeway.telemetry import LogSettings, configure
from lab.reports import Line, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causeway.api import JoinAnswer
    from lab.attendance import Attendance
    from lab.publication import Publication

__all__ = ["KEY_VARIABLE", "main", "parse"]

KEY_VARIABLE: Final = "CAUSEWAY_APPLICATION_KEY"
_HOST: Final = "127.0.0.1"
_REPORT_INTERVAL: Final = 1.0
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_USAGE, f"participant: {message}; try --help\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options; exits with 2 and one line when they are wrong."""
    parser = _Parser(
        prog="python -m lab.participant",
        description="Join a conference through control, then publish and/or receive real media.",
        epilog=f"The application key is read from the environment variable {KEY_VARIABLE}.",
    )
    add = parser.add_argument
    add(
        "--control-url",
        required=True,
        metavar="URL",
        help="where control answers, e.g. http://127.0.0.1:8700",
    )
    add("--conference", required=True, metavar="ID", help="the conference to join")
    add("--user", required=True, metavar="NAME", help="who joins")
    add("--region", metavar="NAME", help="where the user is; without it control chooses")
    add("--role", default="presenter", metavar="NAME", help="role in the room (default: %(default)s)")
    add("--publish", action="store_true", help="publish VP8 video and Opus audio")
    add("--subscribe", action="store_true", help="receive and decode every stream of others")
    add("--fps", type=_whole(1, 60), default=25, metavar="N", help="pictures a second (default: %(default)s)")
    add("--size", type=_size, default=Size(640, 360), metavar="WxH", help="of the picture (default: 640x360)")
    add(
        "--video-bitrate",
        type=_whole(50, 50_000),
        default=400,
        metavar="KBIT",
        help="kbit/s of video (default: %(default)s)",
    )
    add(
        "--media", type=Path, metavar="FILE", help="publish this file, looped, instead of a generated picture"
    )
    add(
        "--join-timeout",
        type=_whole(1, 3600),
        default=30,
        metavar="S",
        help="seconds to try the first join (default: %(default)s)",
    )
    add("--log-level", choices=["debug", "info", "warning", "error"], default="warning")
    options = parser.parse_args(arguments)
    if not (options.publish or options.subscribe):
        parser.error("--publish, --subscribe or both are needed")
    if options.media is not None and not options.publish:
        parser.error("--media is for --publish")
    return options


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is not from {least} to {most}")
        return number

    convert.__name__ = "whole number"
    return convert


def _size(text: str) -> Size:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 640x360")
    return Size(int(match[1]), int(match[2]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the participant; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    configure(LogSettings(level=options.log_level), process=f"participant:{options.user}")
    try:
        _run_to_the_end(options)
    except ConfigError as error:
        return _complain(error, _EXIT_USAGE)
    except (CausewayError, OSError) as error:
        return _complain(error, _EXIT_FAILED)
    return 0


def _complain(error: Exception, code: int) -> int:
    print(f"participant: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - this is the answer
    return code


def _run_to_the_end(options: argparse.Namespace) -> None:
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise ConfigError(f"the environment variable {KEY_VARIABLE} must hold an application key")
    missing = [name for name in ("av", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not installed; install: pip install 'causeway[lab]'")
    try:
        asyncio.run(_run(options, key))
    except BaseExceptionGroup as group:
        # Tasks fail in groups; what failed first is what there is to say.
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _run(options: argparse.Namespace, key: str) -> None:
    """Attend until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode"))
        control = await stack.enter_async_context(ControlClient(options.control_url, key))
        publication = await _publication(options, stack) if options.publish else None
        attendance = _attendance(options, control, publication, thread)
        async with asyncio.TaskGroup() as tasks:
            staying = tasks.create_task(attendance.run())
            reporting = tasks.create_task(_report_every_second(attendance))
            encoding = tasks.create_task(publication.run()) if publication else None
            await stopping.wait()
            # Encoding ends first: the last report names every picture that anybody can have got.
            for task in (encoding, reporting):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])
            _say(attendance.report())
            staying.cancel()


async def _publication(options: argparse.Namespace, stack: AsyncExitStack) -> Publication:
    from lab.media.picture import check_size  # noqa: PLC0415 - needs the extra `lab`
    from lab.media.source import GeneratedSource, MediaFileSource, Source  # noqa: PLC0415 - as above
    from lab.publication import Publication  # noqa: PLC0415 - as above

    width, height = options.size
    try:
        check_size(width, height)
    except ValueError as error:
        raise ConfigError(f"--size: {error}") from None
    media: Source = (
        MediaFileSource(options.media, width=width, height=height, fps=options.fps)
        if options.media
        else GeneratedSource(width, height)
    )
    listener = await InternalListener.start(_HOST)
    stack.push_async_callback(listener.close)
    return Publication(
        media,
        listener=listener,
        host=_HOST,
        width=width,
        height=height,
        fps=options.fps,
        video_bitrate=options.video_bitrate * 1000,
    )


def _attendance(
    options: argparse.Namespace,
    control: ControlClient,
    publication: Publication | None,
    thread: ThreadPoolExecutor,
) -> Attendance:
    from lab.attendance import Attendance  # noqa: PLC0415 - needs the extra `lab`
    from lab.watching import Watch  # noqa: PLC0415 - as above

    request = JoinRequest(user=options.user, role=options.role, region=options.region)

    async def join() -> JoinAnswer:
        return await control.join(options.conference, request)

    return Attendance(
        join=join,
        say=_say,
        publication=publication,
        watch=Watch(say=_say, thread=thread) if options.subscribe else None,
        join_timeout=options.join_timeout,
    )


async def _report_every_second(attendance: Attendance) -> NoReturn:
    due = time.monotonic()
    while True:
        due = max(due + _REPORT_INTERVAL, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        _say(attendance.report())


def _say(line: Line) -> None:
    # The launcher reads all the time; when it is gone, this raises BrokenPipeError and we end, too.
    sys.stdout.buffer.write(encode(line))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
