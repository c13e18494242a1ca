"""A real Postgres for every test that asks for one: started once, a database as good as new for each test.

Fixtures: `postgres` (the session's server, one per xdist worker), `empty_database_url` (a database with
nothing in it), `database_url` (one with the newest schema), `engine` (on `database_url`). The server is on a
leash: it dies with pytest, also when that is killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio
import structlog

from control.registry.database import create_engine
from control.registry.embedded import EmbeddedPostgres
from tests.databases import PostgresForTests
from tests.rabbitmq import brokers, rabbitmq  # noqa: F401 - fixtures, for all tests
from tests.scheduling import Scheduling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.ext.asyncio import AsyncEngine


# How many examples a property is tried with, unless it says so itself: `make nightly` asks for more. How long
# one takes is the machine's affair: a busy one is no fault of the code.
_PATIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("quick", _PATIENT, max_examples=30)
hypothesis.settings.register_profile("thorough", _PATIENT, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Have one worker more than processors: tests wait a quarter of their time, for processes and timers."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Have tests that would disturb each other run one after the other."""
    return Scheduling(config, log)


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
    with postgres.empty() as url:
        yield url


@pytest.fixture
def database_url(postgres: PostgresForTests) -> Iterator[str]:
    with postgres.migrated() as url:
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
