"""What the core tells its shell, in the order in which it has to be carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.exchange import ChannelFigures
    from bridges.wire.own.errors import OwnCode
    from bridges.wire.own.messages import Position

__all__ = [
    "ChannelClosed",
    "ChannelOpened",
    "Diverged",
    "Greeted",
    "OpenRequested",
    "Output",
    "Refused",
    "Repaired",
    "RoundTripMeasured",
    "RouteChanged",
    "Told",
    "Vanished",
    "Violated",
    "nothing_to_consume",
]


def nothing_to_consume() -> None:
    """Give no credit back: what is told has cost none."""


# --- for the conference node --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Tell the node `handleCascadingEvents [bridge, origin, {type, data}]`, then call `consumed`.

    `type` is `initialize` for an origin that the node has not heard of. An event that came over the wire has
    its position; one that a snapshot amounts to has the snapshot's, and so may several. `consumed` is to be
    called once, whatever came of it, also when the event is dropped: it gives the peer its credit back.
    """

    room: str
    origin: str
    at: Position
    type: str
    data: Any
    consumed: Callable[[], None] = field(default=nothing_to_consume, repr=False, compare=False)

    @property
    def id(self) -> str:
        """What the event is followed by through all bridges."""
        return f"{self.at.incarnation:x}.{self.at.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """Tell the node `onCascadingDisconnected` for the origin: out of reach for longer than the grace."""

    room: str
    origin: str


# --- for whoever looks after the room -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChanged:
    """An origin's events now come from the peer `via`, or from nobody (None): the grace time runs."""

    room: str
    origin: str
    via: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """What we have of the origin at a position is not what `peer` has. A snapshot was asked for."""

    room: str
    origin: str
    peer: str
    at: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A snapshot was taken where something was there already; `changes` Told events followed from it."""

    room: str
    origin: str
    peer: str
    at: Position
    changes: int


# --- for whoever looks after the connection -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeted:
    """The two ends know each other: conferences may be opened."""

    peer: str
    version: int
    features: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequested:
    """The dialer wants a conference carried: check the token, then `accept` or `refuse` the channel."""

    channel: int
    room: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpened:
    """A conference is carried."""

    channel: int
    room: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosed:
    """A conference is carried no more, or never was. Said once for each channel, whoever closed it."""

    channel: int
    room: str
    code: int
    reason: str
    by_peer: bool
    figures: ChannelFigures
    """What was counted of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The peer broke the rules in one conference only, which was closed for it; ChannelClosed follows."""

    room: str
    code: OwnCode
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTripMeasured:
    """A ping was answered."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Violated:
    """Close the connection with `code`: the peer broke the rules, or is silent. ChannelClosed came before."""

    code: OwnCode
    reason: str


Output = (
    Told
    | Vanished
    | RouteChanged
    | Diverged
    | Repaired
    | Greeted
    | OpenRequested
    | ChannelOpened
    | ChannelClosed
    | Refused
    | RoundTripMeasured
    | Violated
)
