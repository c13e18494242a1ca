"""What Alembic runs for every command; control.registry.schema calls it with a connection at hand.

There is no alembic.ini and no offline mode: `causeway db upgrade` is the way.
"""

from __future__ import annotations

from alembic import context

from control.registry.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
