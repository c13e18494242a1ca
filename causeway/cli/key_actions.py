"""What `causeway key create --local` does; apart from the command, because it loads all of control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from causeway.api import KeyCreated
from causeway.cli.db_actions import on_database
from control.registry.database import ensure_schema
from control.registry.store import Store
from control.security.credentials import make_key

if TYPE_CHECKING:
    from pathlib import Path

    from causeway.api import KeyCreate
    from control.registry.database import Database

__all__ = ["create"]


def create(config: Path | None, state: str | None, wish: KeyCreate) -> KeyCreated:
    """Make the key in the configured database. Raises ConfigError, UnavailableError, InvalidRequestError."""

    async def work(database: Database) -> KeyCreated:
        await ensure_schema(database)
        made = await make_key(Store(database.engine), wish.kind, name=wish.name, scopes=wish.scopes, by=None)
        return KeyCreated(**structs.asdict(made.view), key=made.text)

    return on_database(config, state, work)
