"""How much a process moves, out of what its connections have moved so far. Pure: time is an argument.

Connections come and go, and their counts with them: what a peer's have moved together may be less than when
it was looked at last. Then all of it is new; what the former ones moved in their last moments is left out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from causeway.api.figures import PeerFigures

__all__ = ["Bandwidth", "Traffic"]

_Moved: TypeAlias = tuple[int, int]
"""Bytes, in and out."""


class Bandwidth(NamedTuple):
    """Bit/s, QUIC's packets as they go over the network, without UDP's and IP's headers."""

    incoming: int = 0
    outgoing: int = 0


class Traffic:
    """What was seen last, and when."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], _Moved] = {}
        self._at: float | None = None

    def bandwidth(self, peers: Iterable[PeerFigures], now: float) -> Bandwidth:
        """Return the mean since the last call, from the figures of all peers; nothing at the first call."""
        seen: defaultdict[tuple[str, ...], _Moved] = defaultdict(lambda: (0, 0))
        for each in peers:
            key = (each.kind, each.peer, *each.wires)
            incoming, outgoing = seen[key]
            seen[key] = (incoming + each.bytes_in, outgoing + each.bytes_out)
        before, self._seen = self._seen, dict(seen)
        began, self._at = self._at, now
        if began is None or now <= began:
            return Bandwidth()
        moved = [_since(before.get(key, (0, 0)), after) for key, after in self._seen.items()]
        return Bandwidth(*(int(8 * sum(way) / (now - began)) for way in zip(*moved, strict=True)))


def _since(before: _Moved, after: _Moved) -> _Moved:
    """Return what was moved between two looks at the same peer."""
    if after[0] < before[0] or after[1] < before[1]:
        return after
    return (after[0] - before[0], after[1] - before[1])
