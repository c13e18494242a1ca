from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect

from control.registry.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_migrations_make_exactly_the_tables_that_the_code_knows(engine: AsyncEngine) -> None:
    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                # Partitions come and go with time.
                "include_name": lambda name, kind, _: (
                    kind != "table" or not str(name).startswith("conference_events_")
                ),
            },
        )
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables.values():
            checks = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
            assert {c["name"] for c in inspect(connection).get_check_constraints(table.name)} == checks

    async with engine.connect() as connection:
        await connection.run_sync(compare)
