"""The registry's schema in a database: which revision it has, and bringing it to the newest one.

Alembic keeps what it is doing in module globals: within one process, await one `migrate` at a time per
database; several processes at once are sorted out by an advisory lock.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from causeway.errors import ConfigError, UnavailableError
from control.registry.connection import DatabaseSettings, create_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from control.registry.database import Database

__all__ = ["ensure_schema", "is_current", "migrate", "newest_revision", "schema_revision"]

log = structlog.get_logger(__name__)

_LOCK: Final = 0x63617573_65776179
"""Key of the advisory lock that one migrating process holds; any constant that nobody else uses."""
_LOCK_NOT_AVAILABLE: Final = "55P03"


async def migrate(url: str, *, lock_timeout: float = 4.0, turn_timeout: float = 300.0) -> str | None:
    """Bring the database to the newest revision and return it; returns at once when it is there already.

    `lock_timeout`: seconds that a migration may wait for a table that others use; then it is rolled back.
    `turn_timeout`: seconds to wait for another process that migrates the same database. Raises
    UnavailableError for either and for a server that cannot be reached, ConfigError for the URL.
    """
    engine = create_engine(url, DatabaseSettings(lock_timeout=lock_timeout), pooled=False, bounded=False)
    try:
        async with engine.connect() as connection:
            await _set_lock_timeout(connection, turn_timeout)
            # A session's lock, not a transaction's: each migration has a transaction of its own.
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            await _set_lock_timeout(connection, lock_timeout)
            await connection.commit()
            before = await connection.run_sync(_revision)
            await connection.commit()
            await connection.run_sync(_upgrade)
            after = await connection.run_sync(_revision)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise UnavailableError(
            "the database's schema is in use by others; try again in a quiet moment"
        ) from None
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
    """Return whether the database has the newest revision that this program knows."""
    return await schema_revision(engine) == newest_revision()


def newest_revision() -> str | None:
    """Return the newest revision that this program brings along."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def ensure_schema(database: Database) -> None:
    """Upgrade an embedded database; refuse (ConfigError) any other that is not current."""
    revision, newest = await schema_revision(database.engine), newest_revision()
    if revision == newest:
        return
    known = {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise ConfigError(f"the database's schema ({revision}) is newer than this Causeway; use a newer one")
    if not database.embedded:
        raise ConfigError(
            f"the database's schema is {revision or 'missing'}, needed is {newest}; run: causeway db upgrade"
        )
    await migrate(database.url)


async def _set_lock_timeout(connection: AsyncConnection, seconds: float) -> None:
    value = {"value": f"{round(seconds * 1000)}ms"}
    await connection.execute(text("SELECT set_config('lock_timeout', :value, false)"), value)


def _config() -> Config:
    config = Config()
    # The option is interpolated: a percent sign in the path must be doubled.
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
