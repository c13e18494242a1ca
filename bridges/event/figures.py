"""What the event bridge counts, per (peer, room), over all streams that served it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridges.event.streams import EventStream

__all__ = ["Figures", "Totals"]


@dataclass(slots=True)
class Totals:
    """Sums over the streams that have ended, and how many there were."""

    connects: int = 0
    events_in: int = 0
    events_out: int = 0


class Figures:
    """The totals by (peer, room); beyond `max_entries` the oldest are forgotten."""

    def __init__(self, *, max_entries: int) -> None:
        self._max_entries = max_entries
        self._totals: OrderedDict[tuple[str, str], Totals] = OrderedDict()

    def opened(self, stream: EventStream) -> None:
        """Count a stream that has opened."""
        self._of(stream).connects += 1

    def ended(self, stream: EventStream) -> None:
        """Add what a stream has moved."""
        totals = self._of(stream)
        totals.events_in += stream.events_in
        totals.events_out += stream.events_out

    def forget(self, room: str) -> None:
        """Drop what was counted of a room."""
        for key in [key for key in self._totals if key[1] == room]:
            del self._totals[key]

    def describe(
        self, peer: str, room: str, *, role: str, current: EventStream | None, error: str
    ) -> dict[str, Any]:
        """Return a link's entry of getStats; it is `up` once the peer has got our node's state."""
        totals = self._totals.get((peer, room), Totals())
        return {
            "peer": peer,
            "room": room,
            "role": role,
            "state": "up" if current is not None and current.initialized else "down",
            "events_in": totals.events_in + (0 if current is None else current.events_in),
            "events_out": totals.events_out + (0 if current is None else current.events_out),
            "connects": totals.connects,
            "error": error,
        }

    def _of(self, stream: EventStream) -> Totals:
        totals = self._totals.setdefault((stream.peer, stream.room), Totals())
        while len(self._totals) > self._max_entries:
            self._totals.popitem(last=False)
        return totals
