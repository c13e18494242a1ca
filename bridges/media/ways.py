"""Over which neighbour the clusters of a room are reached, where links pass on what they bring. Pure.

Control says it with the links (bridges.control): whom each link that relays leads to. Where nothing is said,
a cluster is reached by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.control.orders import Ways

__all__ = ["MAX_HOPS", "Routes"]

MAX_HOPS: Final = 16
"""Clusters that may pass one track on, one after the other."""


class Routes:
    """The ways of every room that has links that relay."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._next: dict[str, dict[str, str]] = {}

    def set(self, room: str, ways: Ways) -> None:
        """Take what control says of a room's links; nothing: none of them relays."""
        hops = {origin: peer for peer, behind in ways.items() for origin in behind}
        hops |= {peer: peer for peer in ways}
        if hops:
            self._next[room] = hops
        else:
            self._next.pop(room, None)

    def next_hop(self, room: str, origin: str) -> str:
        """Return the neighbour from which to pull what lives in `origin`."""
        return self._next.get(room, {}).get(origin, origin)

    def refusal(self, room: str, origin: str, *, asker: str, hops: Sequence[str]) -> str:
        """Return why a neighbour that asks for a track of `origin` does not get it from here; empty: it does.

        `hops`: the clusters that the request has come by. What comes from somewhere never goes back there,
        and what a request has come by it does not reach again, whatever the ways are at the moment.
        """
        known = self._next.get(room, {})
        if known.get(asker) != asker or origin not in known:
            return "nothing of that cluster is passed on to the peer"
        if known[origin] == asker:
            return "the way to that cluster leads over the peer"
        if self._cluster in hops or len(hops) >= MAX_HOPS:
            return "the request has come round, or from too far"
        return ""
