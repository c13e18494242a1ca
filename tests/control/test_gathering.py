from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from control.gathering import Gathering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class Answerer:
    """Doubles numbers once it is let; refuses batches with a negative one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun: asyncio.Queue[list[int]] = asyncio.Queue()
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.begun.put_nowait(list(questions))
        await self.may.wait()
        if min(questions) < 0:
            raise ValueError("negative")
        return [2 * each for each in questions]


@asynccontextmanager
async def running(gathering: Gathering[int, int]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(gathering.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_comes_meanwhile_is_asked_together() -> None:
    answerer = Answerer()
    answerer.may.clear()
    gathering = Gathering(answerer, most=4, lanes=1)
    async with running(gathering), asyncio.timeout(5):
        first = asyncio.create_task(gathering.ask(1))
        await answerer.begun.get()
        others = [asyncio.create_task(gathering.ask(n)) for n in range(2, 8)]
        await asyncio.sleep(0)
        answerer.may.set()
        assert await first == 2
        assert [await each for each in others] == [4, 6, 8, 10, 12, 14]
    assert answerer.batches == [[1], [2, 3, 4, 5], [6, 7]]


async def test_two_lanes_are_under_way_at_once() -> None:
    answerer = Answerer()
    answerer.may.clear()
    gathering = Gathering(answerer, most=1, lanes=2)
    async with running(gathering), asyncio.timeout(5):
        asked = [asyncio.create_task(gathering.ask(n)) for n in (1, 2, 3)]
        assert [await answerer.begun.get() for _ in range(2)] == [[1], [2]]
        answerer.may.set()
        assert await asyncio.gather(*asked) == [2, 4, 6]


async def test_an_error_reaches_its_batch_and_nobody_else() -> None:
    answerer = Answerer()
    gathering = Gathering(answerer)
    async with running(gathering), asyncio.timeout(5):
        with pytest.raises(ValueError, match="negative"):
            await gathering.ask(-1)
        assert await gathering.ask(1) == 2


async def test_whoever_gave_up_is_not_asked_for() -> None:
    answerer = Answerer()
    gathering = Gathering(answerer)
    given_up = asyncio.create_task(gathering.ask(7))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    async with running(gathering), asyncio.timeout(5):
        assert await gathering.ask(1) == 2
    assert answerer.batches == [[1]]


async def test_the_end_cancels_whoever_waits() -> None:
    answerer = Answerer()
    answerer.may.clear()
    gathering = Gathering(answerer, most=1, lanes=1)
    async with running(gathering) as task:
        asked = [asyncio.create_task(gathering.ask(n)) for n in (1, 2)]
        await answerer.begun.get()
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait(asked)
        assert all(each.cancelled() for each in asked)
