"""Questions that come at once are asked together: one statement for many, in the place of one for each.

Nothing waits for company: whatever has come while the last batch was under way makes the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Gathering"]

Q = TypeVar("Q")
A = TypeVar("A")


class Gathering(Generic[Q, A]):
    """Answers questions in batches while `run` runs."""

    def __init__(
        self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, most: int = 64, lanes: int = 2
    ) -> None:
        """`answer` gets up to `most` questions and returns as many answers, in their order.

        `lanes`: batches under way at the same time.
        """
        self._answer = answer
        self._most = most
        self._lanes = lanes
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._arrived = asyncio.Event()

    async def ask(self, question: Q) -> A:
        """Return the answer; raises what `answer` raised for the batch."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Answer, until cancelled; whoever still waits then is cancelled, too."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes):
                    group.create_task(self._work())
        finally:
            for _, future in self._waiting:
                future.cancel()

    async def _work(self) -> None:
        while True:
            while batch := self._next():
                await self._serve(batch)
            self._arrived.clear()
            await self._arrived.wait()

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """Take up to `most` whose askers still wait."""
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._waiting and len(batch) < self._most:
            question, future = self._waiting.popleft()
            if not future.done():
                batch.append((question, future))
        return batch

    async def _serve(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
