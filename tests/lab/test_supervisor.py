from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from causeway.backoff import Backoff
from lab.launcher.child import State
from lab.launcher.supervisor import Child, ChildFailedError, ChildSpec, Supervisor, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WAIT = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
while 1: signal.pause()
"""
LONG = 15.0


class Ready:
    """A readiness condition that holds after each line that says `up`."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._ups = asyncio.Semaphore(0)

    def line(self, line: bytes) -> None:
        self.lines.append(line)
        if line == b"up\n":
            self._ups.release()

    async def __call__(self) -> None:
        await self._ups.acquire()


def spec(
    code: str, *, name: str = "child", ready: Ready | None = None, restart: bool = True, timeout: float = LONG
) -> ChildSpec:
    ready = ready or Ready()
    return ChildSpec(
        name=name,
        command=[sys.executable, "-S", "-c", code],
        environment={"PATH": os.environ["PATH"]},
        ready=ready,
        ready_timeout=timeout,
        restart=restart,
        on_line=ready.line,
    )


async def until(condition: Callable[[], bool], seconds: float = LONG) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process changes it and cannot set an event of ours
            await asyncio.sleep(0.01)


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def only(failures: ExceptionGroup[ChildFailedError]) -> ChildFailedError:
    (failure,) = failures.exceptions
    assert isinstance(failure, ChildFailedError)
    return failure


async def test_a_child_is_started_named_and_stopped(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        child = await supervisor.start(spec(WAIT))
        assert child.state.value == "running"
        assert json.loads((tmp_path / "pids.json").read_text()) == {"child": child.pid}
        pid = child.pid
        assert not gone(pid)
    assert gone(pid)
    assert child.state is State.STOPPED
    assert json.loads((tmp_path / "pids.json").read_text()) == {}


async def test_a_killed_child_is_started_again_and_checked_again(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        child = await supervisor.start(spec(WAIT))
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.life.restarts == 1 and child.state is State.RUNNING)
        assert child.pid not in {None, first}
        assert json.loads((tmp_path / "pids.json").read_text()) == {"child": child.pid}


async def test_a_child_that_may_not_end_ends_the_body(tmp_path: Path) -> None:
    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            child = await supervisor.start(spec(WAIT, restart=False))
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failures:
        await body()
    assert str(only(failures.value)).startswith("child ended with SIGKILL")


async def test_a_child_that_does_not_come_up_is_named_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('no such port', file=sys.stderr); sys.exit(3)"
    pids: list[int | None] = []

    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            pids.append((await supervisor.start(spec(WAIT, name="other"))).pid)
            await supervisor.start(spec(code))

    with pytest.raises(ExceptionGroup) as failures:
        await body()
    failure = only(failures.value)
    assert str(failure).startswith("child ended with exit code 3")
    assert failure.tail == "no such port"
    assert gone(pids[0])


async def test_a_child_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    children: list[Child] = []

    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            children.append(supervisor.launch(spec("import signal; signal.pause()", timeout=0.3)))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failures:
        await body()
    assert "was not ready within 0.3 s" in str(only(failures.value))
    assert children[0].pid is None


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            await supervisor.start(ChildSpec(name="odd", command=["/does/not/exist"], ready=Ready()))

    with pytest.raises(ExceptionGroup) as failures:
        await body()
    assert str(only(failures.value)).startswith("odd ended with exit code 126")
    assert "/does/not/exist" in only(failures.value).tail


async def test_children_stop_in_parallel_and_stubborn_ones_are_killed(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, grace=0.5) as supervisor:
        children = [await supervisor.start(spec(STUBBORN, name=f"child-{n}")) for n in range(4)]
        pids = [child.pid for child in children]
        began = time.monotonic()
    assert time.monotonic() - began < 4 * 0.5
    assert all(gone(pid) for pid in pids)
    assert {child.state for child in children} == {State.STOPPED}


async def test_a_kill_takes_the_childs_children_with_it(tmp_path: Path) -> None:
    code = (
        f"import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-S', '-c', {STUBBORN!r}]).pid)\n"
    )
    ready = Ready()
    async with Supervisor(tmp_path, grace=0.3) as supervisor:
        await supervisor.start(spec(code + STUBBORN, ready=ready))
        await until(lambda: len(ready.lines) == 3)
        (grandchild,) = (int(line) for line in ready.lines if line != b"up\n")
    # Its parent is gone, so whoever adopts orphans on this machine takes it away in its own time.
    await until(lambda: gone(grandchild) or _is_zombie(grandchild))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a kernel file, read once
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_stopping_ends_a_pause_and_a_start(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        pausing = await supervisor.start(spec(WAIT, name="pausing"))
        pausing.life._backoff = Backoff(floor=1000.0)
        assert pausing.pid is not None
        os.kill(pausing.pid, signal.SIGKILL)
        await until(lambda: pausing.state is State.BACKING_OFF)
        starting = supervisor.launch(spec("import signal; signal.pause()", name="starting"))
        await until(lambda: starting.pid is not None)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert {pausing.state, starting.state} == {State.STOPPED}


async def test_a_failed_body_gives_children_their_time_to_stop(tmp_path: Path) -> None:
    code = """
import signal, sys
def stop(number, frame):
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('up', flush=True)
while 1: signal.pause()
"""
    child: list[Child] = []

    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            plain = spec(code)
            child.append(await supervisor.start(plain))
            raise ValueError("the body's own")

    with pytest.raises(ExceptionGroup):
        await body()
    assert child[0].state is State.STOPPED
    assert child[0].exit_code == 0


async def test_a_cancelled_body_leaves_no_child(tmp_path: Path) -> None:
    pids: list[int | None] = []

    async def body() -> None:
        async with Supervisor(tmp_path) as supervisor:
            pids.extend([(await supervisor.start(spec(WAIT, name=f"child-{n}"))).pid for n in range(2)])
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await until(lambda: len(pids) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(gone(pid) for pid in pids)


async def test_lines_are_handed_over_and_endless_ones_dropped(tmp_path: Path) -> None:
    code = f"print('first'); print('x' * 200_000); print('last')\n{WAIT}"
    ready = Ready()
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(spec(code, ready=ready))
    assert ready.lines[0] == b"first\n"
    assert ready.lines[-2:] == [b"last\n", b"up\n"]
    assert all(len(line) <= 1 << 16 for line in ready.lines)


async def test_without_a_reader_the_output_goes_to_the_log(tmp_path: Path) -> None:
    log_file = tmp_path / "logs" / "child.log"

    async def ready() -> None:
        await until(lambda: log_file.exists() and log_file.read_text() == "hello\n")

    command: Sequence[str] = [
        sys.executable,
        "-S",
        "-c",
        "print('hello', flush=True); import signal; signal.pause()",
    ]
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(ChildSpec(name="child", command=command, ready=ready))
    assert last_lines(log_file) == "hello"


def test_the_repr_of_a_spec_shows_no_environment() -> None:
    shown = repr(
        ChildSpec(
            name="x", command=["x"], environment={"KEY": "cw_operator_secret"}, ready=asyncio.Event().wait
        )
    )
    assert "secret" not in shown


def test_last_lines_are_few_and_of_a_missing_file_none(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert last_lines(file) == ""
    file.write_bytes(b"\xff" * 20_000 + b"\n" + b"\n".join(b"%d" % n for n in range(50)))
    assert last_lines(file, lines=3) == "47\n48\n49"
    assert len(last_lines(file, lines=1000)) < 10_000


LAUNCHER = """
import asyncio, pathlib, sys
import structlog
from lab.launcher.supervisor import ChildSpec, Supervisor

async def main(directory):
    up = asyncio.Event()
    async with Supervisor(directory) as supervisor:
        child = await supervisor.start(ChildSpec(
            name="child", command=[sys.executable, "-S", "-c", sys.argv[2]], environment={},
            ready=up.wait, on_line=lambda line: up.set()))
        print(child.pid, flush=True)
        await asyncio.Event().wait()

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


async def test_a_killed_supervisor_leaves_no_child(tmp_path: Path) -> None:
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LAUNCHER, str(tmp_path), STUBBORN),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert launcher.stdout is not None
        pid = int(await launcher.stdout.readline())
        assert not gone(pid)
    finally:
        launcher.kill()
        await launcher.wait()
    await until(lambda: gone(pid) or _is_zombie(pid))
