"""What Alembic runs for every command; control.registry.schema calls it with a connection at hand.

There is no alembic.ini and no offline mode: `causeway db upgrade` is the way. Each migration has a
transaction of its own, in a session with lock_timeout and statement_timeout. One that takes something away
names, as `contract`, the oldest revision whose programs can do without it; that is noted along with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from alembic import context
from sqlalchemy import text

from control.registry.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from alembic.script import Script

connection = context.config.attributes["connection"]
on_applied = context.config.attributes["on_applied"]


def applied(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Take note of a migration before its transaction is committed."""
    del ctx, heads, run_args  # Alembic gives them by these names
    script = cast("Script", step.up_revision)
    oldest = getattr(script.module, "contract", None)
    if oldest is not None:
        connection.execute(text("UPDATE schema_bounds SET oldest = :oldest"), {"oldest": oldest})
    on_applied(script.revision)


context.configure(
    connection=connection,
    target_metadata=metadata,
    transaction_per_migration=True,
    on_version_apply=applied,
)
with context.begin_transaction():
    context.run_migrations()
