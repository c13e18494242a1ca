"""What every edge process is around its work: it runs until a signal, and ends in good order or in time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvloop

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["run_until_signal"]

_log: Final = structlog.get_logger(__name__)


def run_until_signal(running: AbstractAsyncContextManager[Any], *, stop_timeout: float) -> None:
    """Enter `running` and leave it after SIGTERM or SIGINT, which may take `stop_timeout` seconds.

    Raises what `running` raises.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(running, stop_timeout))
        except TimeoutError:
            _log.warning("edge.stopped_late")
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _only(error: BaseException) -> BaseException:
    """Return the one error in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _run(running: AbstractAsyncContextManager[Any], stop_timeout: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        deadline = await stack.enter_async_context(asyncio.timeout(None))
        await stack.enter_async_context(running)
        await stop.wait()
        deadline.reschedule(loop.time() + stop_timeout)
