"""The registry's database: the configured server, or an embedded one of our own, checked and with an engine.

The rest of control gets all that concerns the database as a whole from here; how a server is reached, started
and given its schema is below, in connection, embedded and schema.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from control.registry.connection import DatabaseSettings, check_server, connector, create_engine
from control.registry.embedded import EmbeddedPostgres
from control.registry.schema import (
    ensure_schema,
    is_current,
    migrate,
    newest_revision,
    pending,
    schema_revision,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "Database",
    "DatabaseSettings",
    "StateSettings",
    "connector",
    "create_engine",
    "ensure_schema",
    "is_current",
    "migrate",
    "newest_revision",
    "open_database",
    "pending",
    "schema_revision",
]


class StateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[state]`: where this machine's Causeway keeps its files."""

    directory: str = ""
    """Folder; made if missing. Default: /var/lib/causeway for root, else $XDG_STATE_HOME/causeway, else
    ~/.local/state/causeway."""

    @property
    def path(self) -> Path:
        """The folder, with the default filled in."""
        if self.directory:
            return Path(self.directory).expanduser().absolute()
        if os.geteuid() == 0:
            return Path("/var/lib/causeway")
        base = os.environ.get("XDG_STATE_HOME", "")
        # The XDG specification wants a relative path to be ignored.
        root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
        return root / "causeway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database. `embedded`: it is ours alone, on this machine."""

    engine: AsyncEngine
    url: str = field(repr=False)
    """As configured, or the embedded server's; may contain a password."""
    embedded: bool


@asynccontextmanager
async def open_database(settings: DatabaseSettings, state: StateSettings) -> AsyncIterator[Database]:
    """Open the configured database, or start the embedded one; closes the engine, then stops the server.

    Raises ConfigError for a URL that cannot be used, a server older than PostgreSQL 15 and a state folder
    that cannot be used; UnavailableError when the server cannot be reached or started.
    """
    async with AsyncExitStack() as stack:
        url, embedded = settings.url, not settings.url
        if embedded:
            postgres = await stack.enter_async_context(EmbeddedPostgres(state.path))
            url = postgres.url
        engine = create_engine(url, settings)
        stack.push_async_callback(engine.dispose)
        await check_server(url, settings)
        yield Database(engine=engine, url=url, embedded=embedded)
