"""Processes of a benchmark: each serves calls that come over a pipe, and ends when the pipe does."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from bridges.pauses import shorten_pauses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from multiprocessing.connection import Connection

__all__ = ["Remote", "Role", "process"]


class Role(Protocol):
    """What a process does when it is called."""

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call."""


class Remote:
    """A process, as the one that started it calls it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(self, method: str, *args: Any, timeout: float = 60.0) -> Any:
        """Call and return what the process answers; its error is raised here as RuntimeError."""
        self._connection.send((method, list(args)))
        if not await asyncio.to_thread(self._connection.poll, timeout):
            raise RuntimeError(f"{method}: no answer within {timeout:g} s")
        good, value = self._connection.recv()
        if not good:
            raise RuntimeError(f"{method}: {value}")
        return value


@asynccontextmanager
async def process(
    role: Callable[..., AbstractAsyncContextManager[Role]], *args: Any, **options: Any
) -> AsyncIterator[Remote]:
    """Run a role, made with `args` and `options`, in a process of its own.

    At the end it is told to go, then made to.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_main, args=(theirs, role, args, options), daemon=True)
    child.start()
    theirs.close()
    try:
        yield Remote(ours)
    finally:
        ours.close()
        await asyncio.to_thread(child.join, 3.0)
        if child.is_alive():
            child.kill()
            child.join()


def _main(
    connection: Connection,
    role: Callable[..., AbstractAsyncContextManager[Role]],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    shorten_pauses()  # as a bridge's process does; for all roles alike
    asyncio.run(_serve(connection, role(*args, **options)))


async def _serve(connection: Connection, role: AbstractAsyncContextManager[Role]) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    async with role as server:
        while True:
            await readable.wait()
            readable.clear()
            if not connection.poll():
                continue  # the loop had noticed, once more, what is read already
            try:
                method, args = connection.recv()
            except (EOFError, ConnectionResetError):
                break
            try:
                connection.send((True, await server.handle(method, args)))
            except Exception as error:  # noqa: BLE001 - told to the caller, who raises it
                connection.send((False, repr(error)))
    loop.remove_reader(connection.fileno())
