"""The last events of one origin in one conference, kept for whoever comes back. Bounded; pure."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from bridges.wire.own.messages import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EventLog", "LogBudget", "Logged"]

_ENTRY_BYTES = 200
"""What an entry takes beside its data, roughly."""


class Logged(NamedTuple):
    """An event as kept: `data` in its encoded form, `hops` the clusters it came by, ours not included."""

    seq: int
    hops: tuple[str, ...]
    type: str
    data: bytes


class LogBudget:
    """What all logs together may take. While it is exceeded, whatever grows gives up its oldest events."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes

    @property
    def exceeded(self) -> bool:
        """Whether there is more than there may be."""
        return self.bytes > self._max_bytes


class EventLog:
    """Events `first`…`last` of one incarnation, numbers without a gap; the oldest go when a limit is reached.

    The newest event is kept whatever its size.
    """

    def __init__(self, at: Position, *, max_events: int, max_bytes: int, budget: LogBudget) -> None:
        self.incarnation = at.incarnation
        self.last = at.seq
        """Number of the newest event, or of the position that the log began with."""
        self.bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._budget = budget
        self._events: deque[Logged] = deque()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def end(self) -> Position:
        """Return the position after the newest event."""
        return Position(self.incarnation, self.last)

    @property
    def base(self) -> int:
        """Return the least number after which everything is here."""
        return self.last - len(self._events)

    def append(self, event: Logged) -> None:
        """Keep the next event; its number must be `last` + 1."""
        if event.seq != self.last + 1:
            raise ValueError(f"event {event.seq} does not follow {self.last}")
        self._events.append(event)
        self.last = event.seq
        self._weigh(_size(event))
        while len(self._events) > 1 and self._is_too_large:
            self._weigh(-_size(self._events.popleft()))

    def reset(self, at: Position) -> None:
        """Begin anew at a position: nothing before it can be had from here."""
        self.incarnation, self.last = at.incarnation, at.seq
        self._weigh(-self.bytes)
        self._events.clear()

    def reaches(self, position: Position) -> bool:
        """Return whether everything that follows `position` is here, or is still to come."""
        return position.incarnation == self.incarnation and position.seq >= self.base

    def after(self, seq: int) -> Iterator[Logged]:
        """Return the events after number `seq`, which must not be below `base`."""
        return islice(self._events, max(0, seq - self.base), None)

    def get(self, seq: int) -> Logged | None:
        """Return the event of a number, None if it is not here (any more)."""
        index = seq - self.base - 1
        return self._events[index] if 0 <= index < len(self._events) else None

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _is_too_large(self) -> bool:
        return len(self._events) > self._max_events or self.bytes > self._max_bytes or self._budget.exceeded

    def _weigh(self, change: int) -> None:
        self.bytes += change
        self._budget.bytes += change

    def __del__(self) -> None:
        self._budget.bytes -= self.bytes


def _size(event: Logged) -> int:
    return len(event.data) + _ENTRY_BYTES
