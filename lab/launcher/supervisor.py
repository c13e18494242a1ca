"""Start child processes, keep them running, and leave none behind.

A thin shell around `child`: each child has one keeper task that starts it on a leash (causeway.leash), waits
for its readiness condition, restarts it as its life says, and stops it when cancelled: SIGTERM, then SIGKILL
to its whole process group. Leaving the supervisor cancels all keepers at once, so all children stop in
parallel.
This module must not know what the children are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import structlog

from causeway.errors import CausewayError
from causeway.leash import leashed
from lab.launcher.child import ChildLife, Event, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "ChildFailedError", "ChildSpec", "Supervisor", "last_lines"]

MAX_LINE_BYTES: Final = 1 << 16
LOG_TAIL_BYTES: Final = 1 << 13

log = structlog.get_logger(__name__)


class ChildFailedError(CausewayError):
    """A child did not come up, or one ended that may not; the message names it, `tail` has its last words."""

    code = "child-failed"

    def __init__(self, message: str, *, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail
        """The end of its log, several lines."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to run and how to look after it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All of the child's environment; secrets travel here and never in `command`."""
    ready: Callable[[], Awaitable[object]]
    """Called after each start; returns when the child does its work. Cancelled when the child ends first."""
    ready_timeout: float = 20.0
    """Seconds from the start until `ready` must have returned."""
    restart: bool = True
    """Whether to start it again when it ends; never before it was ready once."""
    leash: str = "KILL"
    """The signal that it gets when this process dies."""
    on_line: Callable[[bytes], None] | None = None
    """Called with each line of its standard output; without it the output goes to the log file."""


class Child:
    """A child under supervision."""

    def __init__(self, spec: ChildSpec, log_file: Path) -> None:
        self.spec = spec
        self.log_file = log_file
        self.life = ChildLife(restart=spec.restart)
        self.pid: int | None = None
        """The process id while it runs."""
        self.exit_code: int | None = None
        """How its last process ended; negative: the signal that ended it."""
        self.first_ready = asyncio.Event()

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.spec.name

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self.life.state


class Supervisor:
    """Keeps children; use as `async with`. A failed child ends the body with ChildFailedError in a group."""

    def __init__(self, directory: Path, *, grace: float = 2.0) -> None:
        """`directory` gets `logs/<name>.log` and `pids.json` (name → process id of what runs).

        `grace`: seconds between SIGTERM and SIGKILL when stopping.
        """
        self._directory = directory
        self._grace = grace
        self._tasks = asyncio.TaskGroup()
        self._keepers: list[asyncio.Task[None]] = []
        self.children: dict[str, Child] = {}
        """In the order in which they were started."""

    async def __aenter__(self) -> Self:
        (self._directory / "logs").mkdir(exist_ok=True)
        self._write_pids()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        try:
            await self._tasks.__aexit__(*failure)  # type: ignore[arg-type]  # handed through as it came
        finally:
            self._write_pids()

    async def start(self, spec: ChildSpec) -> Child:
        """Start a child and return when it is ready.

        A child that does not become ready ends the supervisor's body, and so this wait, by cancelling it.
        """
        child = self.launch(spec)
        await child.first_ready.wait()
        return child

    def launch(self, spec: ChildSpec) -> Child:
        """Start a child without waiting for it; `child.first_ready` tells when it is ready."""
        child = Child(spec, self._directory / "logs" / f"{spec.name}.log")
        self.children[spec.name] = child
        self._keepers.append(self._tasks.create_task(self._keep(child), name=f"keep {spec.name}"))
        return child

    # --- a keeper ---------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        """Run the child again and again, until cancelled; raises ChildFailedError."""
        try:
            child.life.handle(Event.START, time.monotonic())
            while True:
                reason = await self._live(child)
                now = time.monotonic()
                if child.life.handle(Event.EXITED, now) is State.FAILED:
                    tail = last_lines(child.log_file)
                    raise ChildFailedError(f"{child.name} {reason}", tail=tail)
                log.warning("child.ended", child=child.name, reason=reason, again_in=child.life.due_at - now)
                await asyncio.sleep(child.life.due_at - now)
                child.life.handle(Event.DUE, time.monotonic())
        except asyncio.CancelledError:
            if child.state is not State.STOPPING:
                child.life.handle(Event.STOP, time.monotonic())
            if child.state is State.STOPPING:
                child.life.handle(Event.EXITED, time.monotonic())
            raise

    async def _live(self, child: Child) -> str:
        """Run the child once and return how it ended; it has ended whichever way this is left."""
        process = await self._spawn(child)
        reader = asyncio.create_task(_read_lines(process, child.spec.on_line))
        try:
            return await self._watch(child, process)
        except asyncio.CancelledError:
            child.life.handle(Event.STOP, time.monotonic())
            raise
        finally:
            try:
                await self._stop(process)
                # What it said last is still in the pipe. A grandchild that holds the pipe is not waited for.
                await asyncio.wait({reader}, timeout=self._grace)
            finally:
                reader.cancel()
                child.pid = None
                child.exit_code = process.returncode
                self._write_pids()

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        spec = child.spec
        # One run's restarts belong together; a log of an earlier run in the directory would only confuse.
        with child.log_file.open("wb" if child.life.starts == 1 else "ab") as log_file:
            try:
                process = await asyncio.create_subprocess_exec(
                    *leashed(list(spec.command), signal=spec.leash),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE if spec.on_line else log_file,
                    stderr=log_file,
                    env=dict(spec.environment),
                    cwd=self._directory,
                    limit=MAX_LINE_BYTES,
                    # Its own process group: Ctrl-C at the terminal reaches this process alone, which then
                    # stops the children in order, and a kill can take the child's children with it.
                    start_new_session=True,
                )
            except OSError as error:
                raise ChildFailedError(f"{spec.name} cannot be started: {error.strerror}") from error
        child.pid = process.pid
        self._write_pids()
        return process

    async def _watch(self, child: Child, process: asyncio.subprocess.Process) -> str:
        """Wait until the child has ended, or failed to become ready, and return which."""
        spec = child.spec
        async with asyncio.TaskGroup() as tasks:
            exited = tasks.create_task(process.wait())
            ready = tasks.create_task(_returns_in_time(spec.ready, spec.ready_timeout))
            await asyncio.wait({exited, ready}, return_when=asyncio.FIRST_COMPLETED)
            was_ready = ready.done() and ready.result()
            if was_ready and not exited.done():
                child.life.handle(Event.READY, time.monotonic())
                child.first_ready.set()
                log.info("child.ready", child=child.name, pid=process.pid)
                await exited
            if exited.done():
                ready.cancel()
                return f"ended with {_exit_text(exited.result())}"
            exited.cancel()
        return f"was not ready within {spec.ready_timeout:g} s"

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """End the process, however often this is cancelled meanwhile: it does not take long."""
        if process.returncode is not None:
            return
        ending = asyncio.create_task(self._end(process))
        cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                cancelled = True
        ending.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """SIGTERM, then SIGKILL to its process group; returns when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._grace):
                await process.wait()
        except TimeoutError:
            log.warning("child.killed", pid=process.pid, after=self._grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _write_pids(self) -> None:
        """Write `pids.json` so that a reader never sees half of it."""
        pids = {name: child.pid for name, child in self.children.items() if child.pid is not None}
        draft = self._directory / "pids.json.new"
        draft.write_text(json.dumps(pids, indent=2) + "\n", encoding="utf-8")
        draft.replace(self._directory / "pids.json")


def last_lines(log_file: Path, *, lines: int = 8) -> str:
    """Return the last lines of a log, at most LOG_TAIL_BYTES; empty when there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            tail = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join(tail)


async def _returns_in_time(condition: Callable[[], Awaitable[object]], timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await condition()
    except TimeoutError:
        return False
    return True


async def _read_lines(process: asyncio.subprocess.Process, on_line: Callable[[bytes], None] | None) -> None:
    """Hand over each line that the child writes to its standard output, until it ends."""
    if process.stdout is None or on_line is None:
        return
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than the limit: asyncio has dropped it, the next line is whole again
            log.warning("child.line_too_long", pid=process.pid, limit=MAX_LINE_BYTES)
            continue
        if not line:
            return
        on_line(line)


def _exit_text(code: int) -> str:
    """Return an exit code in words: `exit code 1`, `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
