"""What every edge process is around its work: it runs until a signal, and says a task's one error alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvloop

from lab.stopping import run_until_signal

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["run_process"]

_log: Final = structlog.get_logger(__name__)


def run_process(running: AbstractAsyncContextManager[Any], *, stop_timeout: float) -> None:
    """Enter `running` and leave it after SIGTERM or SIGINT, which may take `stop_timeout` seconds.

    Raises what `running` raises.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run_until_signal(running, stop_timeout=stop_timeout))
        except TimeoutError:
            _log.warning("edge.stopped_late")
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _only(error: BaseException) -> BaseException:
    """Return the one error in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
