"""Pings and their answers on one connection: whether the peer is there, and how far away. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from bridges.wire.own.messages import Ping, Pong

if TYPE_CHECKING:
    from bridges.wire.own.messages import Message

__all__ = ["Pinger"]

_MAX_ANSWERS: Final = 16
"""Answers that are owed at most; of a peer that asks more often and does not read, the oldest go."""


class Pinger:
    """One ping at a time, every `interval` seconds; without an answer for `timeout` seconds it is overdue."""

    def __init__(self, *, interval: float, timeout: float) -> None:
        self.round_trip: float | None = None
        """Seconds that the last answer took."""
        self._interval = interval
        self._timeout = timeout
        self._count = 0
        self._next_at = float("inf")
        self._asked_at: float | None = None
        """When the present ping became due."""
        self._sent_at: float | None = None
        self._answers: deque[int] = deque(maxlen=_MAX_ANSWERS)

    def begin(self, now: float) -> None:
        """Ping from now on, the first time at once."""
        self._next_at = now
        self.poll(now)

    @property
    def ready(self) -> bool:
        """Whether there is something to send."""
        return bool(self._answers) or (self._asked_at is not None and self._sent_at is None)

    @property
    def due(self) -> float:
        """When `poll` wants to be called."""
        return self._next_at if self._asked_at is None else self._asked_at + self._timeout

    def poll(self, now: float) -> None:
        """Have a ping sent if it is time."""
        if self._asked_at is None and now >= self._next_at:
            self._count += 1
            self._asked_at, self._sent_at = now, None
            self._next_at = now + self._interval

    def overdue(self, now: float) -> bool:
        """Return whether the peer has been silent for too long."""
        return self._asked_at is not None and now - self._asked_at >= self._timeout

    def answer(self, count: int) -> None:
        """Answer a ping of the peer."""
        self._answers.append(count)

    def answered(self, count: int, now: float) -> float | None:
        """Take an answer; returns the seconds that it took, None if it answers nothing of ours."""
        if count != self._count or self._sent_at is None:
            return None
        self.round_trip = max(0.0, now - self._sent_at)
        self._asked_at = self._sent_at = None
        return self.round_trip

    def to_send(self, now: float) -> list[Message]:
        """Return what is to be sent, once."""
        messages: list[Message] = [Pong(count) for count in self._answers]
        self._answers.clear()
        if self._asked_at is not None and self._sent_at is None:
            self._sent_at = now
            messages.append(Ping(self._count))
        return messages
