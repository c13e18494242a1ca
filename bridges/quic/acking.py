"""When to acknowledge what comes: less often where much comes in order, else as soon as ever. Pure.

RFC 9000 section 13.2.2 leaves it to the receiver. An acknowledgement costs both ends nearly as much as a
packet of data, so one for ten packets saves a tenth of the work of a fast flow. It costs the sender what it
learns of the path from when each packet came: where trains of packets come stretched by a bottleneck, and
after anything unusual, each is acknowledged by itself. Times are seconds.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Acking"]

_SOON: Final = 0.001
"""Within that, as aioquic does it by itself."""
_LATER: Final = 0.005
_PACKETS: Final = 10
"""So many are acknowledged at once, however soon they came."""
_WINDOW: Final = 0.05
_MANY: Final = 50
"""Packets in a window from which on it is worth anything."""
_CLOSE: Final = 0.0001
_CLOSE_SHARE: Final = 0.4
"""So large a share comes within so many seconds of the packet before: the path does not stretch trains."""


class Acking:
    """The receiver's side of one connection."""

    __slots__ = ("_came", "_close", "_fast", "_last", "_unacknowledged", "_window_ends")

    def __init__(self) -> None:
        self._fast = False
        self._came = 0
        self._close = 0
        self._last = 0.0
        self._window_ends = 0.0
        self._unacknowledged = 0

    def due(self, now: float, due: float | None, *, in_order: bool) -> float:
        """Return when to acknowledge a packet that has come now, and those before it.

        `due` is what was said of the packet before; None: nothing waits to be acknowledged. `in_order`: its
        number is the next one.
        """
        if now >= self._window_ends:
            self._fast = self._came >= _MANY and self._close >= _CLOSE_SHARE * self._came
            self._came, self._close, self._window_ends = 0, 0, now + _WINDOW
        self._came += 1
        self._close += now - self._last < _CLOSE
        self._last = now
        if due is None:
            self._unacknowledged = 0
            due = now + (_LATER if self._fast else _SOON)
        self._unacknowledged += 1
        if not in_order:
            return min(due, now + _SOON)
        return min(due, now) if self._fast and self._unacknowledged >= _PACKETS else due
