"""What the agent's core says is to be done, and the names of what it is about. Values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causeway.api.agents import AgentAddress
    from causeway.channel import FromAgent

__all__ = ["Dial", "HangUp", "Kind", "Leave", "Leg", "LegState", "Link", "Output", "Relay", "Say", "Ways"]

Kind: TypeAlias = Literal["event", "media"]
LegState: TypeAlias = Literal["up", "down", "gone"]
"""Of one bridge's part of a link. `gone`: the bridge does not try any more, as its room is closed."""


Ways: TypeAlias = "Mapping[str, tuple[str, ...]]"
"""By each peer whose link relays: the clusters that it leads to, besides the peer itself."""


class Link(NamedTuple):
    """A conference's cascade to another cluster, as seen from ours."""

    conference: str
    peer: str


class Leg(NamedTuple):
    """One bridge's part of a link."""

    conference: str
    peer: str
    kind: Kind

    @property
    def link(self) -> Link:
        """The link that it is a part of."""
        return Link(self.conference, self.peer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Tell the bridge of this kind to connect the conference to the peer. If it will not: `refused`."""

    kind: Kind
    conference: str
    peer: str
    token: str
    address: AgentAddress
    attempt: int

    @property
    def leg(self) -> Leg:
        """What is dialled."""
        return Leg(self.conference, self.peer, self.kind)

    def __repr__(self) -> str:  # without the token
        return f"Dial({self.kind}, {self.conference!r}, {self.peer!r}, attempt={self.attempt})"


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """Tell the bridge of this kind that the link is not wanted any more."""

    kind: Kind
    conference: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Tell the bridge of this kind over which links of the conference it passes on what it receives."""

    kind: Kind
    conference: str
    ways: Ways


@dataclass(frozen=True, slots=True)
class Say:
    """Send control a message."""

    message: FromAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Close the connection to control; register and connect again, after `retry_after` seconds at least."""

    reason: str
    retry_after: float


Output: TypeAlias = Dial | HangUp | Relay | Say | Leave
