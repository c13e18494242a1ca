"""One conference at this bridge: what is known of each origin, from whom it comes, and who gets it. Pure.

A bridge has one Relay for each conference; each of the conference's connections (bridges.event.own.exchange)
reads from it and writes to it. Our own cluster is one of the origins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridges.event.own.outputs import Output, Told
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.messages import Position

__all__ = ["OriginState", "Relay", "draw_incarnation"]


def draw_incarnation(unix_ms: int, random_bits: int) -> int:
    """Return a number for a new start: later ones are greater, those of one millisecond differ.

    `random_bits`: at least 20 random bits, such as secrets.randbits(20).
    """
    return (unix_ms << 20 | random_bits & 0xFFFFF) & (2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginState:
    """How an origin stands at this bridge, for figures and for media's way upstream."""

    origin: str
    at: Position
    """How far we have its events."""
    path: tuple[str, ...]
    """Cluster ids on the way from the origin to us, the origin first, ours not included; empty: out of reach,
    or ourselves. The last is the next hop towards the origin."""
    participants: int
    streams: int
    digest: bytes
    log_events: int
    log_bytes: int


class Relay:
    """A conference. `incarnation` as drawn by draw_incarnation; `cluster` is ours.

    `relaying`: whether what comes from one peer is offered to others. The methods that change something
    return what is to be done for it, in order.
    """

    def __init__(
        self, room: str, *, cluster: str, incarnation: int, relaying: bool, settings: OwnWireSettings
    ) -> None:
        raise NotImplementedError

    # --- our conference node ----------------------------------------------------------------------

    def attach(self, participants: Mapping[str, Any], streams: Mapping[str, Any]) -> None:
        """Take our node's `initialize`: all that is local, by id. Offered to the peers from now on.

        Said again, what differs from before is told to the peers as events. Raises ValueError for what is no
        participant, no stream, or no JSON, or too large.
        """
        raise NotImplementedError

    def detach(self) -> None:
        """Take note that our node is lost: our own events cannot be had; peers wait for their grace time."""
        raise NotImplementedError

    def publish(self, type_: str, data: Any) -> str:
        """Take an event of our node, after `attach`; returns its id.

        Raises ValueError for what is no event, no JSON, or too large.
        """
        raise NotImplementedError

    def replay(self) -> list[Told]:
        """Return an `initialize` for each origin: our node has forgotten, or is a new one.

        Nothing that was returned as Told or Vanished before has to be told any more.
        """
        raise NotImplementedError

    # --- topology ---------------------------------------------------------------------------------

    @property
    def relaying(self) -> bool:
        """Whether what comes from one peer is offered to others."""
        raise NotImplementedError

    def set_relaying(self, *, relaying: bool) -> None:
        """Begin or cease to offer what comes from others."""
        raise NotImplementedError

    # --- time ---------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """Return when `poll` wants to be called next; None: not before something else happens."""
        raise NotImplementedError

    def poll(self, now: float) -> list[Output]:
        """Give up origins that are out of reach for longer than the grace time."""
        raise NotImplementedError

    # --- looking ------------------------------------------------------------------------------------

    def origins(self) -> list[OriginState]:
        """Return how the origins stand, our own among them once it was attached."""
        raise NotImplementedError

    def peers(self) -> list[str]:
        """Return the cluster ids of the open channels."""
        raise NotImplementedError

    def state(self, origin: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return participants and streams of an origin by id, None if it is not known."""
        raise NotImplementedError
