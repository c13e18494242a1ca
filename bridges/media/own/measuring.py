"""How a path treats datagrams: the share that it loses, and whether losses come in runs.

Pure. Datagrams are numbered as they are sent; what became of them is told in any order and judged in order.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LossMeter"]

_MAX_WAITING: Final = 8192
_WEIGHT: Final = 60
"""Datagrams for which the share counts that is believed before anything is known."""
_FEWEST_RUNS: Final = 4
"""From so many on, their length is believed,"""
_RUNS_WEIGHT: Final = 4
"""which begins as if so many single losses had been seen: two in a row are chance at times."""


class LossMeter:
    """Estimates over about the last `memory` datagrams; run lengths over the last `runs` runs of losses.

    `loss` begins with what lines lose at times, so that a path is believed good once it has shown it.
    """

    __slots__ = (
        "_first",
        "_judged",
        "_memory",
        "_run",
        "_run_length",
        "_run_memory",
        "_runs",
        "_waiting",
        "loss",
    )

    def __init__(self, *, memory: int = 300, run_memory: int = 20, loss: float = 0.02) -> None:
        self.loss = loss
        """Share that is lost."""
        self._memory = memory
        self._judged = min(_WEIGHT, memory)
        self._run_memory = run_memory
        self._waiting: deque[bool | None] = deque()
        self._first = 0
        """The number of the first datagram in _waiting."""
        self._run = 0
        self._runs = 0
        self._run_length = 1.0

    @property
    def run_length(self) -> float:
        """How many are lost in a row, on average; 1 until enough runs have been seen."""
        return self._run_length if self._runs >= _FEWEST_RUNS else 1.0

    def sent(self) -> int:
        """Return the number of a datagram that is sent now."""
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self._first += 1
        self._waiting.append(None)
        return self._first + len(self._waiting) - 1

    def settled(self, number: int, *, arrived: bool) -> None:
        """Take note of what became of a datagram."""
        place = number - self._first
        if place < 0:
            return
        self._waiting[place] = arrived
        while self._waiting and (first := self._waiting[0]) is not None:
            self._waiting.popleft()
            self._first += 1
            self._judge(arrived=first)

    def _judge(self, *, arrived: bool) -> None:
        self._judged = min(self._judged + 1, self._memory)
        self.loss += ((not arrived) - self.loss) / self._judged
        if not arrived:
            self._run += 1
        elif self._run:
            self._runs += 1
            seen = min(self._runs + _RUNS_WEIGHT, self._run_memory)
            self._run_length += (self._run - self._run_length) / seen
            self._run = 0
