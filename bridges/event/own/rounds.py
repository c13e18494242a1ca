"""Which conferences of a connection are looked after next: all in each round, a few at a time. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Rounds"]

_ROUND: Final = 1.0
"""Seconds between rounds."""
_LEAST_PAUSE: Final = 0.02
_SOME: Final = 64
"""Channels that are looked after at a time, so that thousands hold nothing up."""


class Rounds:
    """Begins at `now`."""

    def __init__(self, now: float) -> None:
        self.due = now + _ROUND
        """When the next ones are to be looked after."""
        self._unvisited: list[int] = []

    def take(self, channels: Iterable[int], now: float) -> list[int]:
        """Return those whose turn it is; `channels` are all that there are. Some may be gone by now."""
        if not self._unvisited:
            self._unvisited = list(channels)
        visited, self._unvisited = self._unvisited[:_SOME], self._unvisited[_SOME:]
        self.due = now + (_LEAST_PAUSE if self._unvisited else _ROUND)
        return visited
