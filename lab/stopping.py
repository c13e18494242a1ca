"""How a process of a cluster ends: after a signal, in good order, and in time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["run_until_signal"]


async def run_until_signal(running: AbstractAsyncContextManager[Any], *, stop_timeout: float) -> None:
    """Enter `running` and leave it after SIGTERM or SIGINT.

    Raises what `running` raises, and TimeoutError when leaving it takes more than `stop_timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        deadline = await stack.enter_async_context(asyncio.timeout(None))
        await stack.enter_async_context(running)
        await stop.wait()
        deadline.reschedule(loop.time() + stop_timeout)
