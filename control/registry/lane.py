"""One connection kept for what comes often, joins and beats: statements prepared once, run without a pool.

Used by one task at a time. A statement that loses a deadlock is run again; a connection that breaks is made
anew, and a statement that was under way then is not repeated: whoever asked is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from causeway.errors import UnavailableError
from control.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Lane"]

_RACES: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_LOST: Final = (
    OSError,
    TimeoutError,
    UnavailableError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,
)
_TRIES: Final = 5


class Lane:
    """A connection that is there when it is needed."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Run one statement, committed by itself, and return its rows. Raises DatabaseUnavailableError."""
        try:
            for _ in range(_TRIES - 1):
                try:
                    return await self._fetch(statement, args)
                except _RACES:
                    continue
            return await self._fetch(statement, args)
        except _LOST as error:
            self.close()
            raise DatabaseUnavailableError(
                f"the database does not answer ({type(error).__name__})", retry_after=1
            ) from error
        except asyncio.CancelledError:
            self.close()  # in the middle of something: nobody may use it after us
            raise

    async def _fetch(self, statement: str, args: tuple[Any, ...]) -> list[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return await self._connection.fetch(statement, *args)

    def close(self) -> None:
        """Drop the connection; the next statement makes a new one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
