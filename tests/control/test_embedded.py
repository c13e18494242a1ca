from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import uvloop

from causeway.errors import ConfigError, UnavailableError
from control.registry.embedded import EmbeddedPostgres
from control.registry.ownership import Ownership
from control.registry.programs import Account, Programs, ProgramsError, copy_programs, find_programs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

_ROOT = os.geteuid() == 0
_ACCOUNT = Account("nobody" if _ROOT else None)

# Runs the embedded server of the folder in its argument until it is killed.
_OWNER = """
import asyncio, pathlib, sys
from control.registry.embedded import EmbeddedPostgres
async def main():
    async with EmbeddedPostgres(pathlib.Path(sys.argv[1]), durable=False) as postgres:
        print(postgres.pid, file=sys.stderr, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def _one_of_each_major() -> list[Programs]:
    """What this machine has; Debian's PostgreSQL 15, the oldest that we support, where it is installed."""

    async def majors() -> dict[int, Programs]:
        found: dict[int, Programs] = {}
        for programs in find_programs():
            with contextlib.suppress(ProgramsError):
                found.setdefault((await Account().version(programs)).major, programs)
        return found

    return list(asyncio.run(majors()).values())


SERVERS = _one_of_each_major()


async def query(postgres: EmbeddedPostgres, statement: str) -> Any:
    connection = await asyncpg.connect(postgres.url.replace("+asyncpg", ""), timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close(timeout=5)


async def await_gone(pid: int, seconds: float = 10.0) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool((await asyncio.to_thread(select.select, [handle], [], [], seconds))[0])
    finally:
        os.close(handle)


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def mode_of(path: str) -> int | None:
    return Path(path).stat().st_mode & 0o777 if Path(path).exists() else None


def executable_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


@pytest.fixture(scope="module")
def initialised(lend_state_folder: Callable[[], AbstractContextManager[Path]]) -> Iterator[Path]:
    """A state folder whose server ran once: initdb is what takes the time."""

    async def once(state: Path) -> None:
        async with EmbeddedPostgres(state, durable=False):
            pass

    with lend_state_folder() as folder, asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(once(folder))
        yield folder


@pytest.fixture
def warm_folder(initialised: Path, state_folder: Path) -> Path:
    """A copy of it, of this test's own."""
    subprocess.run(["cp", "-a", initialised / "postgres", state_folder], check=True)
    return state_folder


@asynccontextmanager
async def owner_process(state: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Start a process that owns the server of `state`; gives it and the server's process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OWNER,
        str(state),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        yield process, int(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def fake_programs(folder: Path, *, postgres: str, initdb: str = "exit 1") -> Programs:
    """Make programs out of two shell scripts."""
    folder.mkdir(mode=0o755)
    for name, script in (("postgres", postgres), ("initdb", initdb)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return Programs.fixed(folder)


@pytest.mark.parametrize("programs", SERVERS, ids=lambda each: str(each.bin.parent.name))
async def test_data_outlives_the_server(state_folder: Path, programs: Programs) -> None:
    async with EmbeddedPostgres(state_folder, programs=[programs], durable=False) as postgres:
        assert postgres.owner
        assert postgres.pid is not None
        first = postgres.pid
        await query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert await query(postgres, "SHOW listen_addresses") == ""
        assert await query(postgres, "SHOW data_checksums") == "on"
        assert await query(postgres, "SHOW server_encoding") == "UTF8"
        assert await query(postgres, "SELECT datcollate FROM pg_database WHERE datname = 'causeway'") == "C"
        assert owner_of(first) != 0
    assert await await_gone(first)
    async with EmbeddedPostgres(state_folder, programs=[programs], durable=False) as postgres:
        assert postgres.pid != first
        assert await query(postgres, "SELECT answer FROM kept") == 42


async def test_it_is_durable_unless_told_otherwise(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder) as postgres:
        assert await query(postgres, "SHOW fsync") == "on"
        assert await query(postgres, "SHOW synchronous_commit") == "on"
        assert await query(postgres, "SHOW full_page_writes") == "on"


def test_it_runs_under_uvloop(warm_folder: Path) -> None:
    async def story() -> None:
        async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
            assert await query(postgres, "SELECT 1") == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_nobody_else_can_reach_the_socket_or_the_data(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder, durable=False):
        folder = warm_folder / "postgres"
        for closed in (folder / "run", *folder.glob("data-*")):
            assert closed.stat().st_mode & 0o077 == 0
        assert (folder / "owner.lock").stat().st_mode & 0o077 == 0
        assert (folder / "owner.alive").stat().st_mode & 0o077 == 0


# --- one owner --------------------------------------------------------------------------------


async def test_another_process_s_server_is_used_and_left_running(warm_folder: Path) -> None:
    async with owner_process(warm_folder) as (process, server):
        async with EmbeddedPostgres(warm_folder, durable=False) as guest:
            assert not guest.owner
            assert await query(guest, "SELECT 1") == 1
        assert process.returncode is None
        async with EmbeddedPostgres(warm_folder, durable=False) as guest:
            assert await query(guest, "SELECT 1") == 1
        assert not await await_gone(server, 0)


async def test_of_two_that_start_together_one_owns(state_folder: Path) -> None:
    first = EmbeddedPostgres(state_folder, durable=False)
    second = EmbeddedPostgres(state_folder, durable=False)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first.__aenter__())
        tasks.create_task(second.__aenter__())
    assert [first.owner, second.owner].count(True) == 1
    guest, owner = sorted([first, second], key=lambda each: each.owner)
    assert await query(guest, "SELECT 1") == 1
    await guest.__aexit__(None, None, None)
    assert await query(owner, "SELECT 1") == 1
    await owner.__aexit__(None, None, None)


def test_a_server_whose_owner_is_gone_is_neither_taken_over_nor_joined(tmp_path: Path) -> None:
    former, successor = Ownership.open(tmp_path), Ownership.open(tmp_path)
    assert former.take()
    assert successor.server() is None  # not ready yet
    former.announce(Path("/run/here"))
    assert successor.server() == Path("/run/here")
    server = os.dup(former.inherited)
    former.close()
    assert not successor.take()
    assert successor.server() is None
    os.close(server)
    assert successor.take()
    assert successor.take()  # it still is
    successor.close()


async def test_a_killed_owner_takes_the_server_down_and_the_next_start_works(warm_folder: Path) -> None:
    async with owner_process(warm_folder) as (process, server):
        async with EmbeddedPostgres(warm_folder, durable=False) as guest:
            await query(guest, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()
        await process.wait()
        # At once, while the old server still has to notice and to shut down.
        async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
            assert postgres.owner
            assert await await_gone(server, 0)
            assert await query(postgres, "SELECT answer FROM kept") == 42


async def test_a_killed_server_s_leavings_do_not_prevent_the_next_start(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
        assert postgres.pid is not None
        await query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(postgres.pid, signal.SIGKILL)
    data = next((warm_folder / "postgres").glob("data-*"))
    assert (data / "postmaster.pid").exists()
    # The process id belongs to somebody else by now, as after a reboot: one that Postgres would believe.
    lines = (data / "postmaster.pid").read_text().split("\n")
    bystander = await asyncio.create_subprocess_exec(
        *(["setpriv", "--reuid=nobody", "--clear-groups"] if _ROOT else []), "sleep", "60"
    )
    (data / "postmaster.pid").write_text("\n".join([str(bystander.pid), *lines[1:]]))
    try:
        async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
            assert await query(postgres, "SELECT answer FROM kept") == 42
    finally:
        bystander.kill()
        await bystander.wait()


async def test_a_server_that_somebody_started_by_hand_is_not_disturbed(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder, durable=False):
        pass
    data = next((warm_folder / "postgres").glob("data-*"))
    foreign = await asyncio.create_subprocess_exec("sleep", "60", cwd=data)
    (data / "postmaster.pid").write_text(f"{foreign.pid}\n{data}\n")
    try:
        with pytest.raises(UnavailableError, match=f"process {foreign.pid}"):
            await EmbeddedPostgres(warm_folder).__aenter__()
        assert (data / "postmaster.pid").exists()
    finally:
        foreign.kill()
        await foreign.wait()


# --- stopping ---------------------------------------------------------------------------------


async def test_open_connections_do_not_hold_up_the_stop(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
        connection = await asyncpg.connect(postgres.url.replace("+asyncpg", ""), timeout=10)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


async def test_a_server_that_does_not_react_is_killed(warm_folder: Path) -> None:
    async with EmbeddedPostgres(warm_folder, durable=False, stop_timeout=0.2) as postgres:
        assert postgres.pid is not None
        pid = postgres.pid
        os.kill(pid, signal.SIGSTOP)
    assert await await_gone(pid, 0)
    assert not postgres.owner


async def test_a_start_that_is_cancelled_leaves_nothing(warm_folder: Path) -> None:
    sockets = warm_folder / "postgres" / "run"
    sockets.rmdir()
    start = asyncio.create_task(EmbeddedPostgres(warm_folder, durable=False).__aenter__())
    while not sockets.exists():  # the server is about to be launched
        assert not start.done()
        await asyncio.wait({start}, timeout=0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
        assert postgres.owner


async def test_a_start_has_a_time_limit(state_folder: Path) -> None:
    with pytest.raises(UnavailableError, match=r"not ready within 0.01 s; see .*postgres.log"):
        await EmbeddedPostgres(state_folder, start_timeout=0.01).__aenter__()


# --- which programs ---------------------------------------------------------------------------


async def test_programs_that_do_not_run_are_passed_over(state_folder: Path) -> None:
    version = 'echo "postgres (PostgreSQL) 18.9"'
    candidates = [
        Programs.fixed(state_folder / "missing"),
        fake_programs(state_folder / "libc", postgres="echo 'version GLIBC_2.99 not found' >&2; exit 1"),
        fake_programs(state_folder / "old", postgres="echo 'postgres (PostgreSQL) 14.2'"),
        fake_programs(state_folder / "silent", postgres="true"),
        fake_programs(
            state_folder / "broken", postgres=version, initdb="echo 'initdb: error: no' >&2; exit 1"
        ),
        SERVERS[-1],
    ]
    async with EmbeddedPostgres(state_folder, programs=candidates, durable=False) as postgres:
        assert await query(postgres, "SELECT 1") == 1
    # What failed half-way left no data directory that the next start would believe in.
    assert len(list((state_folder / "postgres").glob("data-*"))) == 1


async def test_a_server_that_ends_at_once_is_passed_over(state_folder: Path) -> None:
    script = 'case "$1" in --version) echo "postgres (PostgreSQL) 99.1";; *) exit 3;; esac'
    broken = fake_programs(state_folder / "bin", postgres=script, initdb="true")
    with pytest.raises(UnavailableError, match=r"ended with 3; see .*/postgres\.log"):
        await EmbeddedPostgres(state_folder, programs=[broken]).__aenter__()


async def test_without_any_programs_one_line_says_what_to_do(state_folder: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await EmbeddedPostgres(state_folder, programs=[]).__aenter__()
    assert str(caught.value) == (
        "no Postgres to start: install one, 15 or newer (Debian: apt install postgresql), "
        "or set database.url to a running one (none found on this machine)"
    )
    too_old = fake_programs(state_folder / "old", postgres="echo 'postgres (PostgreSQL) 14.2'")
    with pytest.raises(UnavailableError, match=r"/old: is PostgreSQL 14\.2, older than 15") as caught:
        await EmbeddedPostgres(state_folder, programs=[too_old]).__aenter__()
    assert "\n" not in str(caught.value)


async def test_another_major_version_s_data_is_not_touched(warm_folder: Path) -> None:
    other = warm_folder / "postgres" / "data-9"
    other.mkdir(parents=True, mode=0o711)
    other.parent.chmod(0o711)
    (other / "PG_VERSION").write_text("9\n")
    async with EmbeddedPostgres(warm_folder, durable=False) as postgres:
        assert await query(postgres, "SELECT 1") == 1
    assert [each.name for each in other.iterdir()] == ["PG_VERSION"]


async def test_programs_out_of_reach_are_copied_once(warm_folder: Path) -> None:
    movable = [each for each in find_programs() if each.movable]
    for original in movable:  # none on a machine without the wheel
        hidden = warm_folder / "home"
        for part in original.parts:
            (hidden / part).parent.mkdir(parents=True, exist_ok=True)
            (hidden / part).symlink_to(original.base / part)
        hidden.chmod(0o700)
        programs = Programs(
            bin=hidden / original.bin.relative_to(original.base), base=hidden, parts=original.parts
        )
        for _ in range(2):
            async with EmbeddedPostgres(warm_folder, programs=[programs], durable=False) as postgres:
                assert await query(postgres, "SELECT 1") == 1
                made = list((warm_folder / "postgres").glob("programs/*"))
                assert len(made) == (1 if _ROOT else 0)
                executable = executable_of(postgres.pid)
                assert executable.is_relative_to(made[0] if made else original.base)


def test_a_copy_is_readable_by_all_and_replaces_former_ones(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "package" / "install" / "bin").mkdir(parents=True, mode=0o700)
    tool = base / "package" / "install" / "bin" / "postgres"
    tool.write_text("")
    tool.chmod(0o700)
    library = base / "package.libs"
    library.mkdir()
    (library / "libpq.so").touch(mode=0o600)
    parts = (Path("package/install"), Path("package.libs"), Path("not.there"))
    programs = Programs(bin=tool.parent, base=base, parts=parts)
    store = tmp_path / "store"
    copy_programs(programs, store, "one")
    copied = copy_programs(programs, store, "two")
    assert [each.name for each in store.iterdir()] == ["two"]
    assert copied.bin == store / "two" / "package" / "install" / "bin"
    assert (copied.bin / "postgres").stat().st_mode & 0o555 == 0o555
    assert (copied.base / "package.libs" / "libpq.so").stat().st_mode & 0o777 == 0o644
    (base / "package").rename(base / "gone")
    assert copy_programs(programs, store, "two") == copied


async def test_fixed_programs_out_of_reach_are_passed_over(state_folder: Path) -> None:
    programs = fake_programs(state_folder / "bin", postgres="echo 'postgres (PostgreSQL) 18.1'")
    programs.bin.chmod(0o000)
    reason = rf"may not enter {programs.bin}" if _ROOT else "Permission denied"
    with pytest.raises(UnavailableError, match=reason):
        await EmbeddedPostgres(state_folder, programs=[programs]).__aenter__()
    programs.bin.chmod(0o700)


async def test_a_program_that_hangs_is_given_up() -> None:
    with pytest.raises(ProgramsError, match=r"sleep took longer than 0\.1 s"):
        await _ACCOUNT.run("sleep", "60", timeout=0.1)


# --- the state folder -------------------------------------------------------------------------


async def test_a_state_folder_out_of_reach_is_one_line(state_folder: Path) -> None:
    closed = state_folder / "closed"
    closed.mkdir()
    closed.chmod(0o700 if _ROOT else 0o500)
    with pytest.raises(ConfigError) as caught:
        await EmbeddedPostgres(closed / "deeper" / "state").__aenter__()
    assert str(closed) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(closed.iterdir()) == []
    if _ROOT:
        assert str(caught.value).endswith(
            f"may not enter {closed}; choose another state folder or allow it: chmod o+x {closed}"
        )


async def test_a_state_folder_that_is_a_file_is_one_line(state_folder: Path) -> None:
    (state_folder / "file").write_text("")
    with pytest.raises(ConfigError, match=f"state folder {state_folder}/file"):
        await EmbeddedPostgres(state_folder / "file").__aenter__()


async def test_an_unknown_user_is_one_line(warm_folder: Path) -> None:
    postgres = EmbeddedPostgres(warm_folder, user="no-such-user", durable=False)
    if _ROOT:
        with pytest.raises(ConfigError, match="no user 'no-such-user'"):
            await postgres.__aenter__()
    else:  # the user is only for root
        async with postgres:
            assert postgres.owner


@pytest.mark.parametrize("name", ["long-" * 25, "with space, comma and 'quote' %"])
async def test_a_path_that_is_no_good_for_a_socket_is_not_used_for_one(state_folder: Path, name: str) -> None:
    state = state_folder / name
    async with EmbeddedPostgres(state, durable=False) as postgres:
        assert await query(postgres, "SELECT 1") == 1
        folder = await query(postgres, "SHOW unix_socket_directories")
        assert not folder.startswith(str(state))
        assert mode_of(folder) == 0o700
        async with EmbeddedPostgres(state) as guest:
            assert await query(guest, "SELECT 1") == 1
    assert mode_of(folder) is None


async def test_the_state_folder_is_made_whatever_the_umask(state_folder: Path) -> None:
    former = os.umask(0o077)
    try:
        async with EmbeddedPostgres(state_folder / "new" / "state", durable=False) as postgres:
            assert postgres.owner
    finally:
        os.umask(former)


async def test_a_log_that_grew_too_long_is_put_aside(warm_folder: Path) -> None:
    for _ in range(3):
        async with EmbeddedPostgres(warm_folder, durable=False, max_log_bytes=10) as postgres:
            assert postgres.owner
    folder = warm_folder / "postgres"
    assert sorted(each.name for each in folder.glob("postgres.log*")) == ["postgres.log", "postgres.log.1"]
