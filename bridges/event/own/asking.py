"""Conferences that a dialer wants carried: as many at once as the peer takes, the others in turn. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridges.event.own.exchange import Exchange
    from bridges.event.own.relay import Relay

__all__ = ["Asking"]


class Asking:
    """The channels of one connection that are not answered yet."""

    def __init__(self) -> None:
        self._queue: dict[Exchange, tuple[Relay, str]] = {}
        self.asked: set[Exchange] = set()
        """Whom the peer has not answered yet."""

    def add(self, exchange: Exchange, relay: Relay, token: str) -> None:
        """Let a conference wait for its turn."""
        self._queue[exchange] = (relay, token)

    def take(self, at_once: int) -> Iterator[tuple[Exchange, Relay, str]]:
        """Return whom to ask for now; they count as asked for."""
        while self._queue and len(self.asked) < at_once:
            exchange = next(iter(self._queue))
            relay, token = self._queue.pop(exchange)
            self.asked.add(exchange)
            yield exchange, relay, token

    def answered(self, exchange: Exchange) -> None:
        """Note that the peer has answered, or that it does not matter any more."""
        self.asked.discard(exchange)

    def withdraw(self, exchange: Exchange) -> bool:
        """Take a conference out that waits; returns False if it was asked for already."""
        return self._queue.pop(exchange, None) is not None

    def clear(self) -> None:
        """Ask for nothing any more."""
        self._queue.clear()
        self.asked.clear()
