from __future__ import annotations

import json
import os
import pwd
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from causeway import leash
from causeway.leash import leashed

_ROOT = os.geteuid() == 0
_ANYBODY = "nobody" if _ROOT else None

# Starts what its arguments say, tells the child's process id, and waits until it is killed.
_LAUNCHER = """
import subprocess, sys
from causeway.leash import leashed
user = sys.argv[1] or None
child = subprocess.Popen(leashed(["sleep", "600"], signal="KILL", user=user))
print(child.pid, flush=True)
sys.stdin.read()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "causeway.leash", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def await_gone(pid: int, seconds: float = 10.0) -> bool:
    """Wait for any process, not only a child, to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def test_the_command_gets_its_arguments_directory_and_process_id(tmp_path: Path) -> None:
    program = "import os, sys, json; print(json.dumps([os.getpid(), os.getcwd(), sys.argv[1:]]))"
    command = leashed([sys.executable, "-c", program, "a b", "--", "--signal"], signal="TERM")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        out, _ = process.communicate(timeout=20)
    assert json.loads(out) == [process.pid, str(tmp_path), ["a b", "--", "--signal"]]


def test_the_command_s_exit_code_is_the_exit_code() -> None:
    done = subprocess.run(leashed(["sh", "-c", "exit 7"], signal="KILL"), timeout=20, check=False)
    assert done.returncode == 7


@pytest.mark.parametrize("user", [None, _ANYBODY] if _ROOT else [None])
def test_the_child_dies_with_a_killed_parent(user: str | None) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, user or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        launcher.send_signal(signal.SIGKILL)
        launcher.wait(timeout=20)
        assert await_gone(child)


def test_becoming_another_user_drops_every_group_or_fails_clearly() -> None:
    done = run("--signal", "INT", "--user", "nobody", "--", "id")
    if _ROOT:
        nobody = pwd.getpwnam("nobody")
        assert f"uid={nobody.pw_uid}(nobody)" in done.stdout
        assert done.stdout.count("(") == 3  # uid, gid and the one group that the gid is
    else:
        assert done.returncode == 126
        assert done.stderr.startswith("causeway.leash: cannot become 'nobody': ")


def test_a_name_in_the_path_is_found_as_another_user_too() -> None:
    done = subprocess.run(
        leashed(["id", "-u"], signal="INT", user=_ANYBODY), capture_output=True, timeout=20, check=True
    )
    assert int(done.stdout) != 0 or not _ROOT


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait(timeout=20)
    done = run("--signal", "INT", "--parent", str(gone.pid), "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "causeway.leash: the process that started this one is gone\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--signal", "INT"],
        ["--signal", "INT", "--"],
        ["--", "true"],
        ["--signal", "--", "true"],
        ["--signal", "INT", "--nonsense", "1", "--", "true"],
        ["--signal", "INT", "--parent", "first", "--", "true"],
        ["--signal", "NONSENSE", "--", "true"],
        ["--signal", "", "--", "true"],
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("causeway.leash: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "/nonexistent/program"], "/nonexistent/program: No such file or directory"),
        (["--user", "no-such-user", "--", "true"], "no user 'no-such-user' on this machine"),
    ],
)
def test_what_cannot_run_is_one_line_and_code_126(arguments: list[str], said: str) -> None:
    done = run("--signal", "INT", *arguments)
    assert (done.returncode, done.stderr) == (126, f"causeway.leash: {said}\n")


def test_it_starts_with_next_to_nothing_imported() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(leash.__file__).parent)!r}); import leash;"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    heavy = {"argparse", "asyncio", "ctypes", "pathlib", "subprocess", "typing", "causeway"}
    assert not heavy & set(done.stdout.split())
