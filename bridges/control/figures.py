"""Which figures control is told next. Pure: figures in, a message out; no socket, no clock, no task.

Everything about connections and refusals each time, and of links those that have moved since they were told.
Links take turns: each message goes on where the one before it stopped, looks at `max_looked` of them at most
and tells `max_links` at most. So thousands of links that all move are told in turn, idle ones are not told,
and no message costs more than a bounded amount of work, which is handed out in small batches.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import structs

from causeway.channel import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridges.figures import BridgeFigures, LinkFigures, LinkKey

__all__ = ["NAME", "Batch", "FiguresTelling"]

_MAX_PEERS: Final = 1000
_BATCH: Final = 50
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~@:-]{0,127}")
"""Of clusters and conferences, as control takes them."""


class Batch(NamedTuple):
    """Links of one bridge that are to be looked at now."""

    bridge: int
    """Which of the bridges, counted from 0."""
    keys: Sequence[LinkKey]


class FiguresTelling:
    """What one connection to control was told; a new connection begins with a new one.

    For each message: `begin`, then `take` the figures of each batch that `look` returns, then `message`.
    """

    def __init__(self, *, max_links: int, max_looked: int | None = None) -> None:
        """Tell `max_links` in a message at most, having looked at `max_looked` (None: four times as many)."""
        self._max_links = max_links
        self._max_looked = 4 * max_links if max_looked is None else max_looked
        self._told: dict[tuple[int, LinkKey], LinkFigures] = {}
        self._last: tuple[int, LinkKey] | None = None
        """The link that was looked at last, over all messages."""
        self._round: list[tuple[int, LinkKey]] = []
        """What is still to be looked at for this message, the next one last."""
        self._chosen: list[tuple[int, LinkFigures]] = []

    def begin(self, keys: Sequence[Iterable[LinkKey]]) -> None:
        """Begin a message; `keys`: the links that there are, by bridge, in order."""
        present = [(bridge, key) for bridge, of_bridge in enumerate(keys) for key in of_bridge]
        known = set(present)
        self._told = {key: told for key, told in self._told.items() if key in known}
        start = 0 if self._last is None else bisect_right(present, self._last)
        turned = present[start:] + present[:start]
        self._round = turned[: self._max_looked][::-1]
        self._chosen = []

    def look(self) -> Batch | None:
        """Return which links to look at next; None: the message is complete."""
        room = min(_BATCH, self._max_links - len(self._chosen))
        if not self._round or room <= 0:
            return None
        bridge = self._round[-1][0]
        keys: list[LinkKey] = []
        while self._round and len(keys) < room and self._round[-1][0] == bridge:
            self._last = self._round.pop()
            keys.append(self._last[1])
        return Batch(bridge, keys)

    def take(self, bridge: int, links: Iterable[LinkFigures]) -> None:
        """Take the figures of a batch's links; those that have moved are told."""
        for link in links:
            key, lasting = (bridge, (link.peer, link.conference)), _lasting(link)
            # Peers say themselves who they are: what control could not know is left out.
            known = NAME.fullmatch(link.peer) and NAME.fullmatch(link.conference)
            if known and self._told.get(key) != lasting:
                self._told[key] = lasting
                self._chosen.append((bridge, link))

    def message(self, overviews: Sequence[BridgeFigures]) -> Figures:
        """Return the message; what is in it counts as told. `overviews`: the bridges without their links."""
        links: Mapping[int, list[LinkFigures]] = {number: [] for number in range(len(overviews))}
        for bridge, link in self._chosen:
            links[bridge].append(link)
        return Figures(
            bridges=[
                structs.replace(
                    overview,
                    links=links[number],
                    peers=[each for each in overview.peers if NAME.fullmatch(each.peer)][:_MAX_PEERS],
                )
                for number, overview in enumerate(overviews)
            ]
        )


def _lasting(link: LinkFigures) -> LinkFigures:
    """Return what is worth a message when it changes: round trips and the like always do."""
    return structs.replace(link, round_trip_ms=None, lag_ms=None, backlog=0)
