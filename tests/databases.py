"""Databases for tests: made once, emptied and lent again, dropped when a test has changed their schema.

Making a database copies some three hundred files; emptying one deletes what a test has written. A database
that comes back is as the template in everything that a test may look at: rows, sequences, schema.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from control.registry.database import migrate

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Iterator

    from control.registry.embedded import EmbeddedPostgres

__all__ = ["PostgresForTests"]

_TEMPLATE: Final = "causeway_template"

# Whatever is made, changed or taken away leaves another object id or transaction id in the catalog.
# Statistics do not: they are written in place.
_SCHEMA: Final = """
    SELECT md5(string_agg(said, ' ' ORDER BY said)) FROM (
        SELECT 'class ' || oid || ' ' || relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'attribute ' || attrelid || ' ' || attnum || ' ' || xmin FROM pg_attribute
            WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        UNION ALL SELECT 'function ' || oid || ' ' || xmin FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger ' || oid || ' ' || tgenabled::text FROM pg_trigger
        UNION ALL SELECT 'constraint ' || oid || ' ' || convalidated FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'event trigger ' || oid FROM pg_event_trigger
    ) AS everything(said)
"""
_TABLES: Final = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
"""
_SEQUENCES: Final = (
    "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'"
)


class PostgresForTests:
    """A session's server and its databases; usable from fixtures that are not coroutines."""

    def __init__(self, server: EmbeddedPostgres, runner: asyncio.Runner) -> None:
        self.server = server
        self._runner = runner
        self._idle: list[str] = []
        self._template: _Template | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's own loop; never from inside a running one."""
        return self._runner.run(work)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Lend the URL of a database with nothing in it."""
        name = self.run(self._make("template1"))
        try:
            yield self.server.url_of(name)
        finally:
            self.run(self._drop(name))

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """Lend the URL of a database with the newest schema, and what migrations have put into it."""
        if self._template is None:
            self._template = self.run(self._make_template())
        name = self._idle.pop() if self._idle else self.run(self._make(_TEMPLATE))
        try:
            yield self.server.url_of(name)
        finally:
            if self.run(self._is_as_new(name)):
                self._idle.append(name)
            else:
                self.run(self._drop(name))

    async def _connect(self, database: str) -> asyncpg.Connection[Any]:
        dsn = self.server.url_of(database).replace("+asyncpg", "")
        return await asyncpg.connect(dsn, timeout=10, command_timeout=30)

    async def _execute(self, statement: str) -> None:
        connection = await self._connect("postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=5)

    async def _make(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def _drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def _make_template(self) -> _Template:
        await self._execute(f"CREATE DATABASE {_TEMPLATE}")
        await migrate(self.server.url_of(_TEMPLATE))
        connection = await self._connect(_TEMPLATE)
        try:
            return await _Template.read(connection)
        finally:
            await connection.close(timeout=5)

    async def _is_as_new(self, name: str) -> bool:
        """Empty a database that was used; say whether it is now as one just made."""
        assert self._template is not None
        connection = await self._connect(name)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return await self._template.restore(connection)
        finally:
            await connection.close(timeout=5)


class _Template:
    """What a new database is like."""

    def __init__(self, schema: str, reset: str) -> None:
        self._schema = schema
        self._reset = reset

    @classmethod
    async def read(cls, connection: asyncpg.Connection[Any]) -> _Template:
        """Note the schema, and how to have just the rows again that are there."""
        reset = ["SET LOCAL session_replication_role = replica"]  # no triggers, no order of deletions
        seeds: list[str] = []
        for (table,) in await connection.fetch(_TABLES):
            reset.append(f'DELETE FROM "{table}"')
            rows = await connection.fetchval(f'SELECT json_agg(t) FROM "{table}" t')
            if rows is not None:
                text = json.dumps(json.loads(rows)).replace("'", "''")
                seeds.append(
                    f'INSERT INTO "{table}" OVERRIDING SYSTEM VALUE '
                    f"SELECT * FROM json_populate_recordset(NULL::\"{table}\", '{text}')"
                )
        for (sequence,) in await connection.fetch(_SEQUENCES):
            at = await connection.fetchrow(f"SELECT last_value, is_called FROM {sequence}")
            assert at is not None
            seeds.append(f"SELECT setval('{sequence}', {at['last_value']}, {at['is_called']})")
        return cls(await connection.fetchval(_SCHEMA), ";\n".join([*reset, *seeds]))

    async def restore(self, connection: asyncpg.Connection[Any]) -> bool:
        """Put the rows back as they were; False if the schema is another one by now."""
        if await connection.fetchval(_SCHEMA) != self._schema:
            return False
        async with connection.transaction():
            await connection.execute(self._reset)
        return True
