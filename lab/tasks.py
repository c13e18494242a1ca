"""A task group for those who end their own tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Tasks"]


class Tasks(asyncio.TaskGroup):
    """As asyncio.TaskGroup, but an error of the body comes out as it is, not wrapped in a group.

    The owner has its tasks end before leaving: they are waited for, not cancelled, when the body failed.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the tasks. Raises the group of what they raised."""
        if kind is not None and not issubclass(kind, asyncio.CancelledError):
            kind = error = trace = None
        await super().__aexit__(kind, error, trace)
