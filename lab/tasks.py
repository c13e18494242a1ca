"""A task group whose body's own errors come out as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Tasks"]


class Tasks(asyncio.TaskGroup):
    """As asyncio.TaskGroup, but an error of the body ends the tasks and is then raised unwrapped.

    The errors of tasks come as a group, as ever.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the tasks; cancel them before, when the body failed."""
        if kind is None or issubclass(kind, asyncio.CancelledError):
            await super().__aexit__(kind, error, trace)
            return
        try:
            # To the group this looks like a cancelled body: it ends the tasks, and wraps nothing.
            await super().__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        except asyncio.CancelledError:
            return  # and so the body's error goes on
