"""One stream of a connection: what came of it, and the conferences that have something for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.wire.own.codec import OwnDeframer
from bridges.wire.own.errors import OwnWireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.exchange import Exchange

__all__ = ["Lane"]

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
