"""The engine, and the three ways in which the registry's functions are run on it.

    await store.write(clusters.heartbeat, "eu-1", epoch=3, …)     one transaction, committed
    await store.read(roster.read)                                 one statement, a transaction by itself
    await store.snapshot(conferences.show, "standup")             several reads of one moment

What loses a deadlock or a serialisation race is run again: registry functions have no effect outside their
transaction, nor has a single statement. Raises DatabaseUnavailableError when the database cannot be
reached or breaks off.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from causeway.errors import UnavailableError
from control.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["Store"]

P = ParamSpec("P")
T = TypeVar("T")
Fence: TypeAlias = "Callable[[AsyncConnection], Awaitable[None]]"

_RACES: Final = frozenset({"40001", "40P01"})
"""SQLSTATE serialization_failure and deadlock_detected."""
_GONE: Final = ("08", "57P", "53300", "25P03", "55P03", "57014")
"""SQLSTATE of lost connections, of a server that stops or starts, of one without a free connection, and of
one that gave up: a transaction in which nothing happened, waiting for a lock, a statement that took long."""
_TRIES: Final = 5


class Store:
    """Runs registry functions, which take a connection first, on a pool of connections."""

    def __init__(self, engine: AsyncEngine, *, fence: Fence | None = None) -> None:
        self._engine = engine
        self._fence = fence
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._repeatable = engine.execution_options(isolation_level="REPEATABLE READ")

    def fenced(self, fence: Fence) -> Store:
        """Return a store whose writes begin and end with `fence(connection)`, which may refuse by raising."""
        return Store(self._engine, fence=fence)

    async def write(
        self,
        function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run it in a transaction and return what it returned, once that is committed."""
        return await _until_no_race(partial(self._write, function, *args, **kwargs))

    async def read(
        self,
        function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function of one statement, saving the round trips of a transaction. It may write."""
        return await _until_no_race(partial(self._read, function, *args, **kwargs))

    async def snapshot(
        self,
        function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function of several reads that must agree with each other."""
        with _translated():
            async with self._repeatable.connect() as connection:
                return await function(connection, *args, **kwargs)

    async def check(self, function: Callable[[AsyncEngine], Awaitable[T]]) -> T:
        """Run something that wants the engine itself, with the same errors."""
        with _translated():
            return await function(self._engine)

    async def _read(
        self,
        function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with self._autocommit.connect() as connection:
            return await function(connection, *args, **kwargs)

    async def _write(
        self,
        function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with self._engine.begin() as connection:
            if self._fence is not None:
                await self._fence(connection)
            result = await function(connection, *args, **kwargs)
            if self._fence is not None:
                await self._fence(connection)
            return result


async def _until_no_race(work: Callable[[], Awaitable[T]]) -> T:
    with _translated():
        for _ in range(_TRIES - 1):
            try:
                return await work()
            except DBAPIError as error:
                if _state(error) not in _RACES:
                    raise
        return await work()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OSError, PoolTimeoutError, UnavailableError) as error:
        raise _unavailable(error) from error
    except DBAPIError as error:
        broken = error.connection_invalidated or isinstance(error, InterfaceError | OperationalError)
        if broken or _state(error).startswith(_GONE):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"the database does not answer ({type(error).__name__}); nothing was changed", retry_after=1
    )


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")
