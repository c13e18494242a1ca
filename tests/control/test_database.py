from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, field
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from causeway.errors import ConfigError, UnavailableError
from causeway.settings import load
from control.errors import DatabaseUnavailableError
from control.registry import connection as connecting
from control.registry.database import (
    Database,
    DatabaseSettings,
    StateSettings,
    connector,
    create_engine,
    ensure_schema,
    is_current,
    migrate,
    newest_revision,
    open_database,
    schema_revision,
)
from control.registry.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def ask(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))


# --- which server -----------------------------------------------------------------------------


async def test_without_a_url_the_embedded_server_is_started_and_migrated(state_folder: Path) -> None:
    state = StateSettings(directory=str(state_folder))
    async with open_database(DatabaseSettings(), state) as database:
        assert database.embedded
        assert not await is_current(database.engine)
        await ensure_schema(database)
        assert await is_current(database.engine)
        await ensure_schema(database)
        assert await ask(database.engine, "SELECT count(*) FROM clusters") == 0
    assert (state_folder / "postgres").is_dir()


async def test_with_a_url_nothing_is_started(database_url: str, state_folder: Path) -> None:
    state = StateSettings(directory=str(state_folder))
    async with open_database(DatabaseSettings(url=database_url), state) as database:
        assert not database.embedded
        assert await ask(database.engine, "SELECT 1") == 1
    assert not (state_folder / "postgres").exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_every_spelling_of_the_scheme_is_taken(database_url: str, scheme: str) -> None:
    engine = create_engine(database_url.replace("postgresql+asyncpg", scheme), pooled=False)
    assert f"/{await ask(engine, 'SELECT current_database()')}?" in database_url
    await engine.dispose()


async def test_of_several_hosts_the_one_that_answers_as_wanted_is_used(database_url: str) -> None:
    hosts = database_url.replace("?host=", "?host=/nonexistent,").replace("&port=5432", "&port=5432,5432")
    engine = create_engine(f"{hosts}&target_session_attrs=read-write", pooled=False)
    assert await ask(engine, "SELECT 1") == 1
    await engine.dispose()
    with pytest.raises(UnavailableError):
        await connector(f"{hosts}&target_session_attrs=standby", DatabaseSettings(connect_timeout=1))()


async def test_a_server_that_is_too_old_is_refused(
    database_url: str, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "MINIMUM_MAJOR", 99)
    with pytest.raises(ConfigError, match=r"is PostgreSQL \d+, needed is 99 or newer"):
        async with open_database(DatabaseSettings(url=database_url), StateSettings()):
            pass


async def test_sessions_carry_our_limits(database_url: str) -> None:
    settings = DatabaseSettings(statement_timeout=0.2, lock_timeout=0.1)
    engine = create_engine(database_url, settings)
    assert await ask(engine, "SHOW statement_timeout") == "200ms"
    assert await ask(engine, "SHOW lock_timeout") == "100ms"
    assert await ask(engine, "SHOW application_name") == "causeway"
    assert await ask(engine, "SHOW idle_in_transaction_session_timeout") == "3s"
    with pytest.raises(DBAPIError, match="statement timeout"):
        await ask(engine, "SELECT pg_sleep(60)")
    await engine.dispose()


async def test_a_connection_that_was_cut_is_replaced_before_it_is_used(database_url: str) -> None:
    engine, other = create_engine(database_url), create_engine(database_url, pooled=False)
    cut = asyncio.Event()
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.add_termination_listener(lambda _connection: cut.set())
    before = await ask(engine, "SELECT pg_backend_pid()")
    assert await ask(engine, "SELECT pg_backend_pid()") == before  # it is kept
    await ask(other, f"SELECT pg_terminate_backend({before})")
    async with asyncio.timeout(10):
        await cut.wait()
    assert await ask(engine, "SELECT pg_backend_pid()") != before
    await engine.dispose()


async def test_a_connection_is_taken_from_the_pool_without_a_word_to_the_server(database_url: str) -> None:
    engine = create_engine(database_url)
    said: list[str] = []
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.add_query_logger(lambda record: said.append(record.query))
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.exec_driver_sql("SELECT 7")
    assert said == []  # statements that are prepared are not logged; a ping is three that are not
    await engine.dispose()


async def test_a_transaction_in_which_nothing_happens_is_given_up(database_url: str) -> None:
    engine = create_engine(database_url, DatabaseSettings(idle_timeout=0.1))
    store = Store(engine)
    ended = asyncio.Event()

    async def freeze(connection: AsyncConnection) -> None:
        await connection.execute(text("LOCK TABLE conferences"))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.add_termination_listener(lambda _connection: ended.set())
        async with asyncio.timeout(10):
            await ended.wait()
        await connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError):
        await store.write(freeze)
    await engine.dispose()


async def test_an_exhausted_pool_is_waited_for_only_so_long(database_url: str) -> None:
    engine = create_engine(database_url, DatabaseSettings(pool_size=1, pool_timeout=0.1))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(PoolTimeoutError):
            await ask(engine, "SELECT 1")
    await engine.dispose()


async def test_a_connection_that_the_server_cut_is_replaced(engine: AsyncEngine) -> None:
    process = await ask(engine, "SELECT pg_backend_pid()")
    killer = await connector_of(engine)
    try:
        await killer.execute("SELECT pg_terminate_backend($1, 5000)", process)
    finally:
        await killer.close()
    assert await ask(engine, "SELECT pg_backend_pid()") != process


async def connector_of(engine: AsyncEngine) -> Any:
    """Open a connection beside the engine's pool."""
    name = await ask(engine, "SELECT current_database()")
    folder = await ask(engine, "SHOW unix_socket_directories")
    return await connector(f"postgresql://causeway@/{name}?host={folder}", DatabaseSettings())()


# --- URLs that do not work --------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["mysql://u:hidden@h/d", "hidden", "//hidden", "postgresql:hidden", "postgresql+psycopg://u:hidden@h/d"],
)
def test_another_kind_of_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with postgresql://") as caught:
        create_engine(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hidden@127.0.0.1:1/d?sslmode=hidden",
        "postgresql://u:hidden@127.0.0.1:hidden/d",
        "postgresql://u@127.0.0.1:1/d?target_session_attrs=hidden&password=hidden",
        "postgresql://u:hidden@/d?host=/a,/b&port=1,2,3",
        "postgresql://u:hidden@[::1/d",
        "postgresql://u:hidden/hidden@127.0.0.1:1/d",
    ],
)
async def test_a_url_that_asyncpg_does_not_understand_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await connector(url, DatabaseSettings(connect_timeout=2))()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there_is_unavailable(state_folder: Path) -> None:
    url = "postgresql://user:hidden@127.0.0.1:1/registry"
    with pytest.raises(UnavailableError, match=r"^database 127\.0\.0\.1:1/registry: ") as caught:
        async with open_database(DatabaseSettings(url=url, connect_timeout=2), StateSettings()):
            pass
    assert "hidden" not in str(caught.value)


async def test_a_certificate_that_is_not_there_is_named_as_a_possibility() -> None:
    url = "postgresql://u:hidden@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nonexistent/file"
    with pytest.raises(UnavailableError, match="a certificate that the URL names"):
        await connector(url, DatabaseSettings(connect_timeout=2))()


async def test_a_silent_server_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, never reads them
        port = server.getsockname()[1]
        connect = connector(
            f"postgresql://u:hidden@127.0.0.1:{port}/d", DatabaseSettings(connect_timeout=0.2)
        )
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}/d: TimeoutError"):
            await connect()


async def test_a_database_that_is_not_there_is_unavailable(database_url: str) -> None:
    with pytest.raises(UnavailableError, match="does not exist"):
        await connector(database_url.replace("@/", "@/no"), DatabaseSettings())()


@given(secret=st.text("abc:%&=!é ", min_size=1), before=st.text("xyz"), after=st.text("xyz"))
def test_no_password_in_an_error_s_sentence(secret: str, before: str, after: str) -> None:
    error = ValueError(f"{before}{secret}{after}")
    for dsn in (
        f"postgresql://user:{quote(secret, safe='')}@host/name",
        f"postgresql://user@host/name?password={quote(secret, safe='')}",
        f"postgresql://user:{secret}@host/name",
    ):
        assert connecting._sentence(error, dsn) == f"{before}***{after}"


def test_a_database_does_not_show_its_url() -> None:
    engine = create_engine("postgresql://user:hidden@host/name")
    assert "hidden" not in repr(
        Database(engine=engine, url="postgresql://user:hidden@host/name", embedded=False)
    )
    assert "hidden" not in repr(engine)


# --- settings ---------------------------------------------------------------------------------


def test_the_state_folder_s_default_depends_on_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(StateSettings().path) == "/var/lib/causeway"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert str(StateSettings().path) == "/home/ann/.local/state/causeway"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert str(StateSettings().path) == "/home/ann/.local/state/causeway"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/ann")
    assert str(StateSettings().path) == "/var/ann/causeway"
    assert str(StateSettings(directory="~/here").path) == "/home/ann/here"


def test_limits_are_checked() -> None:
    class Settings(Struct, frozen=True):
        database: DatabaseSettings = field(default_factory=DatabaseSettings)

    good = load(Settings, file=None, environment={"CAUSEWAY_DATABASE__POOL_SIZE": "3"})
    assert good.database.pool_size == 3
    for name, value in (("POOL_SIZE", "0"), ("LOCK_TIMEOUT", "0"), ("NONSENSE", "1")):
        with pytest.raises(ConfigError, match="database"):
            load(Settings, file=None, environment={f"CAUSEWAY_DATABASE__{name}": value})


# --- the schema -------------------------------------------------------------------------------


async def test_a_database_is_migrated_once_and_says_its_revision(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url, pooled=False)
    assert await schema_revision(engine) is None
    assert not await is_current(engine)
    assert await migrate(empty_database_url) == newest_revision()
    assert await schema_revision(engine) == newest_revision()
    assert await migrate(empty_database_url) == newest_revision()
    await engine.dispose()


async def test_replicas_that_migrate_together_do_it_once(empty_database_url: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(migrate(empty_database_url)) for _ in range(4)]
    assert {each.result() for each in running} == {newest_revision()}


async def test_a_turn_that_does_not_come_is_unavailable(empty_database_url: str) -> None:
    connection = await connector(empty_database_url, DatabaseSettings())()
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", 0x63617573_65776179)
        with pytest.raises(UnavailableError, match="in use by others"):
            await migrate(empty_database_url, turn_timeout=0.1)
    finally:
        await connection.close()
    assert await migrate(empty_database_url) == newest_revision()


async def test_a_table_in_use_is_not_waited_for_for_long(empty_database_url: str) -> None:
    connection = await connector(empty_database_url, DatabaseSettings())()
    try:
        # As another writer's table would: the first migration cannot create its own of this name.
        async with connection.transaction():
            await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
            with pytest.raises(UnavailableError, match="in use by others"):
                await migrate(empty_database_url, lock_timeout=0.1, tries=2)
    finally:
        await connection.close()


async def test_a_server_of_others_is_never_migrated_by_itself(empty_database_url: str) -> None:
    async with open_database(DatabaseSettings(url=empty_database_url), StateSettings()) as database:
        with pytest.raises(ConfigError, match=r"schema is missing, needed is \d+; run: causeway db upgrade$"):
            await ensure_schema(database)
        assert await schema_revision(database.engine) is None
        await migrate(database.url)
        await ensure_schema(database)


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_newer_schema_that_took_something_away_is_refused(
    engine: AsyncEngine, embedded: bool
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.execute(text("UPDATE schema_bounds SET oldest = '9998'"))
    with pytest.raises(ConfigError, match=r"schema \(9999\) is newer than this Causeway"):
        await ensure_schema(Database(engine=engine, url="", embedded=embedded))
    assert not await is_current(engine)


async def test_a_newer_schema_that_took_nothing_away_will_do(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await ensure_schema(Database(engine=engine, url="", embedded=False))
    assert await is_current(engine)


async def test_every_test_has_a_database_of_its_own(engine: AsyncEngine, database_url: str) -> None:
    assert await ask(engine, "SELECT to_regclass('mine')") is None
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE mine ()"))


test_every_test_has_a_database_of_its_own_again = test_every_test_has_a_database_of_its_own
