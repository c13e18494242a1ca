"""A real Postgres for every test that asks for one: started once, a fresh database for each test.

Fixtures: `postgres` (the session's server, one per xdist worker), `empty_database_url` (a database with
nothing in it), `database_url` (one with the newest schema), `engine` (on `database_url`). The server is on a
leash: it dies with pytest, also when that is killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
import structlog

from control.registry.database import create_engine, migrate
from control.registry.embedded import EmbeddedPostgres
from tests.rabbitmq import rabbitmq  # noqa: F401 - a fixture, for all tests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.ext.asyncio import AsyncEngine

_TEMPLATE = "causeway_template"


class PostgresForTests:
    """The session's server, usable from fixtures that are not coroutines."""

    def __init__(self, server: EmbeddedPostgres, runner: asyncio.Runner) -> None:
        self.server = server
        self._runner = runner
        self._has_template = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's own loop; never from inside a running one."""
        return self._runner.run(work)

    def execute(self, statement: str) -> None:
        """Run one statement in the database that new databases are made from."""
        self.run(self._execute(statement))

    async def _execute(self, statement: str) -> None:
        dsn = self.server.url_of("postgres").replace("+asyncpg", "")
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=5)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Lend a new database's URL; the database is dropped afterwards, whoever is still connected."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.server.url_of(name)
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def template(self) -> str:
        """Return the name of a database with the newest schema, made at the first call."""
        if not self._has_template:
            self.execute(f"CREATE DATABASE {_TEMPLATE}")
            self.run(migrate(self.server.url_of(_TEMPLATE)))
            self._has_template = True
        return _TEMPLATE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: else one worker is still at it when all others are idle."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command under test did to logging, which is the whole process's."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    # Not by assignment: pytest's own handlers come and go between setup and teardown.
    for handler in set(root.handlers) - set(handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    with _state_folder() as state, asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = EmbeddedPostgres(state, durable=False)
        runner.run(server.__aenter__())
        try:
            yield PostgresForTests(server, runner)
        finally:
            runner.run(server.__aexit__(None, None, None))


@pytest.fixture
def empty_database_url(postgres: PostgresForTests) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def database_url(postgres: PostgresForTests) -> Iterator[str]:
    with postgres.database(postgres.template()) as url:
        yield url


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def lend_state_folder() -> Callable[[], AbstractContextManager[Path]]:
    """Return what makes state folders that another user can pass through, unlike `tmp_path` (mode 0700)."""
    return _state_folder


@pytest.fixture
def state_folder() -> Iterator[Path]:
    """Lend a state folder of the test's own."""
    with _state_folder() as folder:
        yield folder


@contextmanager
def _state_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="causeway-test-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        _await_no_server(folder)
        shutil.rmtree(folder)


def _await_no_server(state: Path) -> None:
    """Wait until a server whose owner was killed has shut down: it holds the lock until then."""
    try:
        lock = (state / "postgres" / "owner.lock").open("rb")
    except FileNotFoundError:
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
