"""The laboratory as a person runs it: real processes, real kills.

What happened when is read from the participants' own reports (lab.reports): pictures carry the time of their
capture, and all processes of a machine share its monotonic clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab import reports
from lab.media.clock import VIDEO_CLOCK, age

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PUBLISHER: Final = "participant-eu-west"
SUBSCRIBER: Final = "participant-us-east"
RECOVERY_SECONDS: Final = 5.0
STOP_SECONDS: Final = 3.0
NAMES: Final = {
    f"{kind}-{region}" for kind in ("cluster", "bridge", "participant") for region in ("eu-west", "us-east")
}


class Laboratory:
    """A running `causeway lab`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.state = directory / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.output = directory / "output"
        command = [sys.executable, "-m", "causeway", "lab", "--port", str(self.port)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--state", str(self.state), *options], stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pids(self) -> dict[str, int]:
        try:
            pids: dict[str, int] = json.loads((self.state / "pids.json").read_text())
        except FileNotFoundError:
            return {}
        return pids

    def lines(self, name: str) -> list[reports.Line]:
        try:
            text = (self.state / "logs" / f"{name}.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        # The last line may still be being written.
        return [reports.decode(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    def captures(self, name: str = SUBSCRIBER) -> list[float]:
        """When the pictures that `name` decoded were captured, in seconds of CLOCK_MONOTONIC."""
        now = time.monotonic()
        return [
            now - age(timestamp, VIDEO_CLOCK, now)
            for line in self.lines(name)
            if isinstance(line, reports.Report)
            for received in line.received.values()
            for _, timestamp in received.numbers
        ]

    def removals(self, name: str = SUBSCRIBER) -> list[float]:
        """When `name` was told that a stream is gone, in seconds of CLOCK_MONOTONIC."""
        return [line.t for line in self.lines(name) if isinstance(line, reports.StreamRemoved)]

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"the laboratory ended before {what}:\n{self.output.read_text()}")
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what}\n{self.output.read_text()}")
            time.sleep(0.05)  # another process changes it: there is nothing to wait on

    def until_pictures(self) -> None:
        self.until(lambda: len(self.captures()) > 0, "pictures were decoded in the other region")

    def everybody(self) -> set[int]:
        """All processes of the laboratory, grandchildren such as Postgres' included."""
        return {*self.pids.values(), *(pid for one in self.pids.values() for pid in descendants(one))}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, tasks.read_text().split()):
                found |= {child} | descendants(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}  # who adopted it has not fetched it yet


def until_gone(pids: set[int], seconds: float) -> set[int]:
    """Wait; return those that are still there."""
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    # Not pytest's own folder: nobody else may enter that, and as root Postgres becomes somebody else.
    with tempfile.TemporaryDirectory(prefix="causeway-test-") as directory:
        Path(directory).chmod(0o711)
        started = Laboratory(Path(directory))
        try:
            yield started
        finally:
            everybody = started.everybody()
            started.end()
            until_gone(everybody, 10)


def test_pictures_arrive_in_the_other_region_and_the_run_ends_well() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "causeway", "lab", "--for", "4", "--port", str(port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("PASSED: ")
    assert int(last.split()[1]) > 0
    (state,) = {
        line.rpartition(" ")[2] for line in done.stdout.splitlines() if line.startswith("state, logs")
    }
    assert not Path(state).exists()


def test_killed_bridges_come_back_and_a_killed_launcher_leaves_nobody_behind(laboratory: Laboratory) -> None:
    laboratory.until_pictures()
    for victim in ("bridge-us-east", "bridge-eu-west"):
        assert _survived(laboratory, victim) <= RECOVERY_SECONDS, victim
        assert laboratory.pids.keys() == NAMES | {"control"}
    everybody = laboratory.everybody()
    laboratory.process.kill()
    assert until_gone(everybody, 10) == set()


def _survived(laboratory: Laboratory, victim: str) -> float:
    """Kill a bridge; return after how many seconds a picture was taken that arrived again."""
    before = laboratory.pids[victim]
    killed_at = time.monotonic()
    os.kill(before, signal.SIGKILL)
    # Whether the other side is told that the publisher is gone depends on how soon this is mended.
    laboratory.until(lambda: laboratory.pids.get(victim) not in {None, before}, f"{victim} is back")
    back_at = time.monotonic()
    laboratory.until(lambda: max(laboratory.captures()) > back_at, "pictures flow again", 30)
    return min(capture for capture in laboratory.captures() if capture > back_at) - killed_at


def test_ctrl_c_stops_everybody(laboratory: Laboratory) -> None:
    laboratory.until_pictures()
    everybody = laboratory.everybody()
    assert len(everybody) > len(NAMES) + 1  # Postgres is among them
    laboratory.process.send_signal(signal.SIGINT)
    left = until_gone(everybody, STOP_SECONDS)
    assert left == set(), laboratory.output.read_text()
    assert laboratory.process.wait(10) == 128 + signal.SIGINT
    assert "PASSED" in laboratory.output.read_text()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "causeway", "lab", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"causeway: port {port} cannot be used")
    assert done.stderr.count("\n") == 1


def test_a_dead_cluster_ends_the_run_and_is_named(laboratory: Laboratory) -> None:
    laboratory.until_pictures()
    everybody = laboratory.everybody()
    os.kill(laboratory.pids["cluster-us-east"], signal.SIGKILL)
    assert laboratory.process.wait(15) == 1
    assert laboratory.output.read_text().endswith("causeway: cluster-us-east ended with SIGKILL\n")
    assert until_gone(everybody, STOP_SECONDS) == set()
