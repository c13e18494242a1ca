"""Processes of a benchmark: each serves calls that come over a pipe, and ends when the pipe does."""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
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
    role: Callable[..., AbstractAsyncContextManager[Role]],
    *args: Any,
    exact_timers: bool = False,
    **options: Any,
) -> AsyncIterator[Remote]:
    """Run a role, made with `args` and `options`, in a process of its own.

    At the end it is told to go, then made to. With `exact_timers` its timers are not late by up to a
    millisecond, as asyncio's usually are: for a role that stands in for a network.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, role, args, options, exact_timers)
    child = context.Process(target=_main, args=arguments, daemon=True)
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
    exact_timers: bool,  # noqa: FBT001 - Process() takes a tuple
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    shorten_pauses()  # as a bridge's process does; for all roles alike
    with asyncio.Runner(loop_factory=_exact_loop if exact_timers else None) as runner:
        runner.run(_serve(connection, role(*args, **options)))


def _exact_loop() -> asyncio.AbstractEventLoop:
    # select() counts in microseconds, epoll_wait() in milliseconds.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


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
