"""Causeway's own Postgres: started with the process that needs it, stopped with it, its data kept.

One process per state folder owns the server, starts it and stops it (control.registry.ownership); others use
it while it runs.

Files, all under `<state>/postgres`: `data-<major>` (another major version's is never touched), `run` (the
socket), `programs` (a copy of them, where the user that runs them could not reach the original),
`postgres.log`.

Knows nothing of the schema or of who uses the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import asyncpg
import structlog

from causeway.backoff import Backoff
from causeway.errors import ConfigError, UnavailableError
from causeway.leash import leashed
from control.registry.ownership import Ownership
from control.registry.programs import (
    MINIMUM_MAJOR,
    Account,
    Programs,
    ProgramsError,
    Version,
    clean_environment,
    copy_programs,
    find_programs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["DATABASE", "EmbeddedPostgres", "socket_url"]

log = structlog.get_logger(__name__)

DATABASE: Final = "causeway"
"""The name of the database and of the only user."""

_PORT: Final = 5432  # only part of the socket's name
_MAX_SOCKET_PATH: Final = 107  # sun_path without its final NUL, unix(7)
_PLAIN_PATH: Final = re.compile(r"[\w/.+-]+", re.ASCII)  # needs no quoting in settings or URLs
_FAST_SHUTDOWN: Final = signal.SIGINT  # PostgreSQL: "Shutting Down the Server"
_IMMEDIATE_SHUTDOWN: Final = signal.SIGQUIT
_NOT_READY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


def socket_url(folder: Path, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of a database behind the socket in `folder`."""
    return f"postgresql+asyncpg://{DATABASE}@/{quote(database, safe='')}?host={folder}&port={_PORT}"


class EmbeddedPostgres:
    """`async with EmbeddedPostgres(state) as postgres:` gives a running server with the database `causeway`.

    `programs` are tried in this order (default: the wheel's, then the machine's). `user` runs the server when
    we are root, which Postgres refuses to be. `durable=False` turns fsync off, for tests. Timeouts in
    seconds: `start_timeout` for everything until the server is ready, `stop_timeout` for each way to stop.

    Raises ConfigError for a state folder that cannot be used, UnavailableError when no Postgres runs here.
    """

    def __init__(
        self,
        state: Path,
        *,
        programs: Sequence[Programs] | None = None,
        user: str = "nobody",
        durable: bool = True,
        max_connections: int = 100,
        max_log_bytes: int = 10 << 20,
        start_timeout: float = 60.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self._folder = state.absolute() / "postgres"
        self._programs = programs
        self._account = Account(user if os.geteuid() == 0 else None)
        self._durable = durable
        self._max_connections = max_connections
        self._max_log_bytes = max_log_bytes
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._exit = AsyncExitStack()
        self._url = ""

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database; no password, the socket's folder is closed to everybody else."""
        return self._url

    @property
    def owner(self) -> bool:
        """Whether this process started the server (rather than another one with the same state folder)."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id of the server that this process started."""
        return self._process.pid if self._process is not None else None

    def url_of(self, database: str) -> str:
        """Return the URL of another database of this server."""
        return self._url.replace(f"@/{DATABASE}?", f"@/{quote(database, safe='')}?")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._start_timeout):
                    await self._open(stack)
            except TimeoutError:
                raise UnavailableError(
                    f"Postgres not ready within {self._start_timeout:g} s; see {self._folder}/postgres.log"
                ) from None
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        await self._prepare_folder()
        try:
            ownership = Ownership.open(self._folder)
        except OSError as error:
            raise ConfigError(f"state folder {self._folder.parent}: {error.strerror}") from None
        stack.callback(ownership.close)
        if (running := await self._own_or_join(ownership)) is not None:
            self._url = socket_url(running)
            log.info("postgres.joined", folder=str(self._folder))
            return
        failures: list[str] = []
        for programs in find_programs() if self._programs is None else self._programs:
            try:
                await self._start(programs, ownership, stack)
            except ProgramsError as error:
                failures.append(f"{programs.bin}: {error}")
                log.warning("postgres.unusable", programs=str(programs.bin), reason=str(error))
            else:
                return
        raise UnavailableError(
            f"no Postgres to start: install one, {MINIMUM_MAJOR} or newer (Debian: apt install postgresql), "
            f"or set database.url to a running one ({'; '.join(failures) or 'none found on this machine'})"
        )

    # --- the folder and its owner -------------------------------------------------------------

    async def _prepare_folder(self) -> None:
        """Make our folder and what is missing above it, if the server's user can reach it there."""
        state, name = self._folder.parent, self._account.name
        if name is not None and not _exists(name):
            raise ConfigError(f"no user {name!r}, whom Postgres is to run as")
        try:
            missing = [each for each in (self._folder, *self._folder.parents) if not each.exists()]
            present = missing[-1].parent if missing else self._folder
            if name is not None and (barrier := await self._account.barrier(present)) is not None:
                raise ConfigError(
                    f"state folder {state}: Postgres runs as user {name!r}, which may not enter {barrier}; "
                    f"choose another state folder or allow it: chmod o+x {barrier}"
                )
            for each in reversed(missing):
                each.mkdir(exist_ok=True)
                # Whatever the umask: the server's user must get through, others need not look inside.
                each.chmod(0o700 if name is None else 0o711)
        except OSError as error:
            raise ConfigError(f"state folder {state}: {error.strerror}") from None

    async def _own_or_join(self, ownership: Ownership) -> Path | None:
        """Become the owner and return None, or return where the present owner's server listens."""
        backoff = Backoff(base=0.05, cap=0.5, floor=0.02)
        while not ownership.take():
            folder = ownership.server()
            if folder is not None and await _answers(folder):
                return folder
            # Neither a lock that another process gives up nor its server's readiness can be awaited.
            await asyncio.sleep(backoff.next_delay())
        return None

    # --- starting -----------------------------------------------------------------------------

    async def _start(self, programs: Programs, ownership: Ownership, stack: AsyncExitStack) -> None:
        programs, version = await self._make_runnable(programs)
        data = self._folder / f"data-{version.major}"
        others = sorted(each.name for each in self._folder.glob("data-*[0-9]") if each != data)
        if not data.is_dir():
            if others:
                log.warning("postgres.other_major", found=others, starting=data.name)
            await self._initialise(programs, data)
        _clear_stale_pid(data)
        socket = self._socket_folder(stack)
        process = await self._launch(programs, data, socket, ownership.inherited)
        stack.push_async_callback(self._stop, process)
        try:
            await self._ready(process, socket)
        except ProgramsError:
            await self._stop(process)
            raise
        self._process = process
        self._url = socket_url(socket)
        ownership.announce(socket)
        log.info("postgres.started", version=version.text, data=str(data), pid=process.pid)

    async def _make_runnable(self, programs: Programs) -> tuple[Programs, Version]:
        """Return programs that our account can run, a copy where it cannot reach the original."""
        if self._account.name is None:
            return programs, await self._account.version(programs)
        barrier = await self._account.barrier(programs.bin)
        if barrier is None:
            return programs, await self._account.version(programs)
        if not programs.movable:
            raise ProgramsError(f"user {self._account.name!r} may not enter {barrier}")
        version = await Account().version(programs)  # --version is allowed to root
        try:
            copy = await asyncio.to_thread(
                copy_programs, programs, self._folder / "programs", f"postgres-{version.text}"
            )
        except OSError as error:
            raise ProgramsError(f"cannot be copied to {self._folder}/programs: {error.strerror}") from None
        return copy, await self._account.version(copy)

    async def _initialise(self, programs: Programs, data: Path) -> None:
        """Make the data directory, whole or not at all."""
        fresh = data.with_name(f"{data.name}.new")
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._give(fresh)
        command = [
            str(programs.bin / "initdb"),
            f"--pgdata={fresh}",
            f"--username={DATABASE}",
            "--auth=trust",
        ]
        command += ["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]
        if not self._durable:
            command.append("--no-sync")
        try:
            await self._account.run(*command, timeout=self._start_timeout, cwd=fresh)
        except ProgramsError:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
            raise
        fresh.rename(data)

    def _socket_folder(self, stack: AsyncExitStack) -> Path:
        """Return an empty folder, with a short name, that only the server's user and root can enter."""
        folder = self._folder / "run"
        if len(os.fsencode(folder)) + len(
            f"/.s.PGSQL.{_PORT}"
        ) > _MAX_SOCKET_PATH or not _PLAIN_PATH.fullmatch(str(folder)):
            folder = Path(tempfile.mkdtemp(prefix="causeway-", dir="/tmp"))  # mode 0700, short
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # what a crash left; we hold the lock
            folder.mkdir(mode=0o700)
        self._give(folder)
        return folder

    def _give(self, folder: Path) -> None:
        if self._account.name is not None:
            entry = pwd.getpwnam(self._account.name)
            os.chown(folder, entry.pw_uid, entry.pw_gid)

    async def _launch(
        self, programs: Programs, data: Path, socket: Path, lock: int
    ) -> asyncio.subprocess.Process:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket),
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
            "max_connections": str(self._max_connections),
            "logging_collector": "off",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}  # safe until the machine itself crashes
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs.bin / "postgres"), "-D", str(data), *options]
        with self._log_file().open("ab") as log_file:
            return await asyncio.create_subprocess_exec(
                *leashed(command, signal="INT", user=self._account.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env=clean_environment(),
                cwd=data,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C at the terminal is for us: we still need the server
            )

    def _log_file(self) -> Path:
        path = self._folder / "postgres.log"
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > self._max_log_bytes:
                path.replace(path.with_name("postgres.log.1"))
        return path

    async def _ready(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        """Return when the server takes connections and has our database; raises ProgramsError if it ends."""
        backoff = Backoff(base=0.05, cap=0.25, floor=0.02)
        while not await _answers(socket, "postgres"):
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), backoff.next_delay())
                raise ProgramsError(f"ended with {code}; see {self._folder}/postgres.log")
        connection = await _connect(socket, "postgres")
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close(timeout=5)

    # --- stopping -----------------------------------------------------------------------------

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """Shut the server down; returns when it is gone, the harder way after a timeout."""
        for number in (_FAST_SHUTDOWN, _IMMEDIATE_SHUTDOWN, signal.SIGKILL):
            if process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._stop_timeout)
        if self._process is process:
            self._process = None
            log.info("postgres.stopped", code=process.returncode)


async def _connect(socket: Path, database: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        host=str(socket),
        port=_PORT,
        user=DATABASE,
        database=database,
        ssl=False,
        timeout=5,
        command_timeout=30,
    )


async def _answers(socket: Path, database: str = DATABASE) -> bool:
    try:
        connection = await _connect(socket, database)
    except _NOT_READY:
        return False
    await connection.close(timeout=5)
    return True


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _clear_stale_pid(data: Path) -> None:
    """Remove what a crashed server left, whose process id may belong to somebody else by now.

    We hold the lock, so no server of ours runs; but somebody may have started one by hand.
    """
    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text(encoding="ascii", errors="replace").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        pid = 0
    try:
        at_work = pid > 0 and Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except OSError:
        at_work = False
    if at_work:
        raise UnavailableError(f"another Postgres (process {pid}) already runs on {data}; stop it first")
    file.unlink(missing_ok=True)
