"""What control's side of an agent may ask of a bridge, and what a bridge tells it.

Bridges know this file only: neither the channel to control nor what is done with what they tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridges.control.orders import LegState, Ways
    from bridges.node.cascading import CascadingOptions
    from bridges.quic import RoundTrip

__all__ = [
    "Cascader",
    "LegWatcher",
    "PeerJudge",
    "best_round_trips",
    "everybody_is_expected",
    "nobody_watches",
]


class LegWatcher(Protocol):
    """Who wants to know how links are. Called synchronously; must not call the bridge back."""

    def __call__(self, peer: str, room: str, state: LegState, error: str) -> None:
        """Take note of a state; told again when it is the same. `error`: why it is not up, if known."""


def nobody_watches(peer: str, room: str, state: LegState, error: str) -> None:
    """Watch nothing."""


class PeerJudge(Protocol):
    """Who knows which clusters a conference is to be linked with."""

    def __call__(self, peer: str, room: str) -> bool:
        """Return whether a peer that dials for a room, and says to be this cluster, may be let in."""


def everybody_is_expected(peer: str, room: str) -> bool:  # noqa: ARG001 - whoever it is
    """Let everybody in who has the room's token."""
    return True


class Cascader(Protocol):
    """A bridge that connects rooms to other clusters. Both orders may be repeated."""

    on_leg: LegWatcher
    """Told of every change, of links that were ordered and of those that a peer dialled."""
    expects: PeerJudge
    """Asked about every peer whose token was right."""

    def start_cascading(self, options: CascadingOptions) -> None:
        """Connect a room to another cluster and keep it so. Raises RpcError when it cannot be done."""

    def stop_cascading(self, peer: str, room: str) -> None:
        """Want that no more, and end what we dialled; what the peer dialled stays."""

    def set_relays(self, room: str, ways: Ways) -> None:
        """Pass on what comes over the room's links to these peers, and over no other; may be repeated."""

    def round_trips(self) -> Mapping[str, RoundTrip]:
        """Return what is measured now, by cluster: the best of the connections to each."""


def best_round_trips(measured: Iterable[tuple[str, RoundTrip | None]]) -> dict[str, RoundTrip]:
    """Return the shortest round trip to each peer; what was not measured is left out."""
    best: dict[str, RoundTrip] = {}
    for peer, round_trip in measured:
        if round_trip is not None and (peer not in best or round_trip < best[peer]):
            best[peer] = round_trip
    return best
