"""Datagrams on real QUIC connections, from a source and to whoever takes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.bridges.test_quic import WAIT, listening

if TYPE_CHECKING:
    from collections.abc import Callable


class Datagrams:
    """A source of datagrams, and the other end's collection of them."""

    def __init__(self, *waiting: bytes) -> None:
        self.waiting = list(waiting)
        self.outcomes: list[bool] = []
        self.taken_in: list[bytes] = []
        self.largest: list[int] = []
        self._changed = asyncio.Event()

    def head(self) -> bytes | None:
        return self.waiting[0] if self.waiting else None

    def taken(self) -> Callable[[bool], None]:
        del self.waiting[0]
        return self._settled

    def _settled(self, arrived: bool) -> None:
        self.outcomes.append(arrived)
        self._changed.set()

    def knock(self) -> None:
        """Have nothing that is more urgent."""

    def resized(self, largest: int) -> None:
        self.largest.append(largest)
        self.waiting = [each[:largest] for each in self.waiting]
        self._changed.set()

    def take(self, datagram: bytes) -> None:
        self.taken_in.append(datagram)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def test_datagrams_travel_both_ways_and_their_fate_is_told() -> None:
    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        assert theirs.connection is not None
        here, there = Datagrams(b"too early"), Datagrams()
        connection.use_datagrams(here, here.take)
        connection.datagrams_waiting()
        await here.until(lambda: here.outcomes)
        theirs.connection.use_datagrams(there, there.take)
        largest = connection.max_datagram_bytes
        assert largest > 1100
        here.waiting = [bytes([number]) * largest for number in range(20)]
        there.waiting = [b"answer"]
        connection.datagrams_waiting()
        theirs.connection.datagrams_waiting()
        await here.until(lambda: here.taken_in and len(here.outcomes) == 21)
        await there.until(lambda: len(there.taken_in) == 20)
        assert here.taken_in == [b"answer"]
        assert all(here.outcomes)
        assert b"too early" not in there.taken_in, "nobody took datagrams then"
        assert connection.path is not None
        assert connection.path.rate > 0
        connection.close()
        connection.datagrams_waiting()  # of a closed connection: nothing happens


async def test_who_fails_at_a_datagram_loses_the_connection() -> None:
    async with listening() as pair:
        connection, ours, theirs = await pair.connect()
        assert theirs.connection is not None

        def fail(datagram: bytes) -> None:
            raise RuntimeError(datagram)

        theirs.connection.use_datagrams(Datagrams(), fail)
        connection.use_datagrams(Datagrams(b"x"), fail)
        connection.datagrams_waiting()
        await ours.until(lambda each: each.lost)
        assert "internal error" in ours.lost[0]
