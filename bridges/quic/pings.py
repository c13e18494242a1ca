"""Who waits for a peer's sign of life: PINGs by number, and what became of each. No socket, no QUIC."""

from __future__ import annotations

import asyncio

__all__ = ["Pings"]


class Pings:
    """The PINGs of one connection that somebody waits for; numbers begin at 1, 0 is nobody's."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, asyncio.Future[bool]] = {}

    def begin(self) -> int:
        """Return the number of a new one."""
        self._last += 1
        self._waiting[self._last] = asyncio.get_running_loop().create_future()
        return self._last

    async def answer(self, number: int, *, within: float) -> bool:
        """Return whether the answer came within so many seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._waiting[number]
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(number, None)

    def answered(self, number: int) -> None:
        """Take note of an answer."""
        self._settle(number, answer=True)

    def lost(self) -> None:
        """Take note that no answers will come any more."""
        for number in self._waiting:
            self._settle(number, answer=False)

    def _settle(self, number: int, *, answer: bool) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
