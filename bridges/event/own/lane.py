"""The streams of a connection: what came of each, and the conferences that have something for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.wire.own.codec import OwnDeframer
from bridges.wire.own.errors import OwnWireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.exchange import Exchange

__all__ = ["Lane", "Lanes"]

_TURN_BYTES: Final = 16 << 10
"""What a conference may send before the next one on its lane has its turn."""


class Lane:
    """A stream. `limit`: bytes of a message that is taken on it."""

    def __init__(self, limit: int) -> None:
        self.deframer = OwnDeframer(limit)
        self.ready: dict[Exchange, None] = {}
        """Who may have something to send, in the order of their turns."""
        self.channels = 0
        """Conferences that it carries."""
        self.highest = 0
        """The greatest channel that was opened on it."""

    def fill(self, room_for: int, now: float, refuse: Callable[[Exchange, OwnWireError], None]) -> bytes:
        """Return about `room_for` bytes of what there is to send, the last message whole.

        `refuse` is called for a conference whose message the peer would not take.
        """
        data = bytearray()
        while self.ready and len(data) < room_for:
            exchange = next(iter(self.ready))
            del self.ready[exchange]
            turn = min(room_for, len(data) + _TURN_BYTES)
            try:
                while len(data) < turn:
                    message = exchange.next_message(now)
                    if message is None:
                        break
                    data += message
                else:
                    self.ready[exchange] = None
            except OwnWireError as error:
                refuse(exchange, error)
        return bytes(data)


class Lanes:
    """All of a connection. `hello_limit`, `limit`: bytes of a message on lane 0, and on any other."""

    def __init__(self, *, hello_limit: int, limit: int) -> None:
        self._limit = limit
        self._lanes: dict[int, Lane] = {0: Lane(hello_limit)}

    def find(self, number: int) -> Lane | None:
        """Return a lane that has been used, None for one that has not."""
        return self._lanes.get(number)

    def use(self, number: int) -> Lane:
        """Return a lane, new if it has not been used."""
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = Lane(self._limit)
        return lane

    def least_loaded(self, count: int) -> int:
        """Return which of the lanes 1 to `count` carries the fewest conferences."""
        return min(range(1, count + 1), key=self._load_of)

    def ready(self) -> list[int]:
        """Return those on which a conference may have something to send."""
        return [number for number, lane in self._lanes.items() if lane.ready]

    def silence(self) -> None:
        """Forget who has something to send."""
        for lane in self._lanes.values():
            lane.ready.clear()

    def _load_of(self, number: int) -> int:
        lane = self._lanes.get(number)
        return 0 if lane is None else lane.channels
