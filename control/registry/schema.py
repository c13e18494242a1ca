"""The registry's schema in a database: which revision it has, and bringing it to the newest one.

A program works with its own revision, and with any newer one that has not taken away what the program needs
(docs/migrations.md): so the schema is upgraded first, while the previous release is running.

Alembic keeps what it is doing in module globals: within one process, await one `migrate` at a time per
database; several processes at once are sorted out by an advisory lock.
"""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from causeway.backoff import Backoff
from causeway.errors import ConfigError, UnavailableError
from control.registry.connection import DatabaseSettings, create_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.script import Script
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from control.registry.database import Database

__all__ = [
    "Step",
    "ensure_schema",
    "is_current",
    "migrate",
    "newest_revision",
    "pending",
    "schema_revision",
]

log = structlog.get_logger(__name__)

_LOCK: Final = 0x63617573_65776179
"""Key of the advisory lock that one migrating process holds; any constant that nobody else uses."""
_LOCK_NOT_AVAILABLE: Final = "55P03"
_QUERY_CANCELED: Final = "57014"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A migration."""

    revision: str
    title: str
    contract: str | None
    """Set: it takes something away; only programs that know this revision can do without it."""
    statements: str
    """Its SQL."""


async def migrate(
    url: str,
    *,
    lock_timeout: float = 4.0,
    statement_timeout: float = 60.0,
    turn_timeout: float = 300.0,
    tries: int = 5,
    on_step: Callable[[str, float], None] = lambda _revision, _seconds: None,
) -> str | None:
    """Bring the database to the newest revision and return it; returns at once when it is there already.

    `lock_timeout`: seconds that a migration may wait for a table that others use; then it is rolled back, and
    tried again after a pause, `tries` times in all. `statement_timeout`: seconds for one statement.
    `turn_timeout`: seconds to wait for another process that migrates the same database. `on_step(revision,
    seconds)` is told of every migration that was done. Raises UnavailableError for each of these, for a
    server that cannot be reached, and while programs are running that could not do with the result;
    ConfigError for the URL.
    """
    engine = create_engine(url, DatabaseSettings(lock_timeout=lock_timeout), pooled=False, bounded=False)
    try:
        async with engine.connect() as connection:
            await _set(connection, "lock_timeout", turn_timeout)
            # A session's lock, not a transaction's: each migration has a transaction of its own.
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            await _set(connection, "lock_timeout", lock_timeout)
            await _set(connection, "statement_timeout", statement_timeout)
            await connection.commit()
            before = await connection.run_sync(_revision)
            await connection.run_sync(_refuse_too_early)
            await connection.commit()
            await _upgrade_patiently(connection, tries, on_step)
            after = await connection.run_sync(_revision)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _LOCK_NOT_AVAILABLE:
            reason = "the database's schema is in use by others; try again in a quiet moment"
        elif state == _QUERY_CANCELED:
            reason = f"a statement took longer than {statement_timeout:g} s; its migration was rolled back"
        else:
            raise
        raise UnavailableError(reason) from None
    finally:
        await engine.dispose()
    if after != before:
        log.info("schema.upgraded", before=before, after=after)
    return after


async def schema_revision(engine: AsyncEngine) -> str | None:
    """Return the database's revision, None for one that was never migrated."""
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


async def is_current(engine: AsyncEngine) -> bool:
    """Return whether this program can work with the schema: its own, or a newer one that has all it needs."""
    revision = await schema_revision(engine)
    return revision == newest_revision() or await _is_newer_and_usable(engine, revision)


def newest_revision() -> str | None:
    """Return the newest revision that this program brings along."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def pending(revision: str | None) -> list[Step]:
    """Return what is to be done from that revision on (None: from nothing), in its order.

    Nothing for a revision that this program does not know.
    """
    scripts = ScriptDirectory.from_config(_config())
    if revision is not None and revision not in _known():
        return []
    found = list(scripts.iterate_revisions("head", revision or "base"))
    return [_step(script) for script in reversed(found)]


async def ensure_schema(database: Database) -> None:
    """Upgrade an embedded database; refuse (ConfigError) any other that this program cannot work with."""
    revision, newest = await schema_revision(database.engine), newest_revision()
    if revision == newest:
        return
    if revision is not None and revision not in _known():
        if await _is_newer_and_usable(database.engine, revision):
            log.warning("schema.newer", revision=revision, known=newest)
            return
        raise ConfigError(f"the database's schema ({revision}) is newer than this Causeway; use a newer one")
    if not database.embedded:
        raise ConfigError(
            f"the database's schema is {revision or 'missing'}, needed is {newest}; run: causeway db upgrade"
        )
    await migrate(database.url)


async def _upgrade_patiently(
    connection: AsyncConnection, tries: int, on_step: Callable[[str, float], None]
) -> None:
    """Try again when a table was in use: short waits for locks, with pauses, let everybody else go on."""
    backoff = Backoff(base=0.5, cap=10.0)
    for left in reversed(range(tries)):
        try:
            await connection.run_sync(_upgrade, on_step)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE or left == 0:
                raise
            await connection.rollback()
            log.info("schema.in_use", tries_left=left)
            await asyncio.sleep(backoff.next_delay())
        else:
            return


async def _set(connection: AsyncConnection, name: str, seconds: float) -> None:
    value = {"name": name, "value": f"{round(seconds * 1000)}ms"}
    await connection.execute(text("SELECT set_config(:name, :value, false)"), value)


async def _is_newer_and_usable(engine: AsyncEngine, revision: str | None) -> bool:
    newest = newest_revision()
    if revision is None or newest is None or revision in _known():
        return False
    async with engine.connect() as connection:
        oldest = await connection.scalar(text("SELECT oldest FROM schema_bounds"))
    return oldest is not None and oldest <= newest


def _refuse_too_early(connection: Connection) -> None:
    """Raise UnavailableError while replicas live that could not do with what is about to be taken away."""
    needed = max(
        (step.contract for step in pending(_revision(connection)) if step.contract is not None), default=None
    )
    if needed is None or not inspect(connection).has_table("replicas"):
        return
    alive = connection.execute(
        text("SELECT name FROM replicas WHERE lease_expires_at > clock_timestamp() AND revision < :needed"),
        {"needed": needed},
    )
    names = sorted(alive.scalars())
    if names:
        raise UnavailableError(
            f"this release takes away what older ones need, and they are still running: {', '.join(names)}"
        )


def _known() -> set[str]:
    return {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}


def _step(script: Script) -> Step:
    said = io.StringIO()
    written = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": said}
    )
    with Operations.context(written):
        script.module.upgrade()
    return Step(
        revision=script.revision,
        title=(script.doc or "").rstrip("."),
        contract=getattr(script.module, "contract", None),
        statements=said.getvalue(),
    )


def _config(**attributes: Any) -> Config:
    config = Config()
    # The option is interpolated: a percent sign in the path must be doubled.
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection, on_step: Callable[[str, float], None]) -> None:
    began = time.monotonic()

    def applied(revision: str) -> None:
        nonlocal began
        on_step(revision, time.monotonic() - began)
        began = time.monotonic()

    command.upgrade(_config(connection=connection, on_applied=applied), "head")
