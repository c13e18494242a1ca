"""The rows of the modelled database. Times are seconds of virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from control.cascade.topology import TopologyWish
    from control.cascade.view import AgentKind, LinkState, PlacementState, Via
    from control.placement.facts import Point

__all__ = [
    "Address",
    "AgentRow",
    "ClusterRow",
    "ConferenceRow",
    "DirtyRow",
    "LinkRow",
    "PlacementRow",
    "ReservationRow",
]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bridge listens: the cluster, and which start of its bridge."""

    cluster: str
    start: int


@dataclass(slots=True, kw_only=True)
class ConferenceRow:
    """`conferences`."""

    state: Literal["active", "ending"] = "active"
    topology: TopologyWish


@dataclass(slots=True, kw_only=True)
class ClusterRow:
    """`clusters`."""

    incarnation: int
    epoch: int
    until: float
    state: Literal["online", "lost", "unregistered"] = "online"
    reports_links: bool
    knows_participants: bool
    region: str
    location: Point
    bridges: Address | None


@dataclass(slots=True, kw_only=True)
class PlacementRow:
    """`placements`, with what hangs on each."""

    ordinal: int
    epoch: int
    state: PlacementState = "wanted"
    room: bool = False
    """Whether the room was made, as far as is known."""
    token: str | None = None
    empty_since: float | None
    attempts: int = 0
    retry_at: float | None = None
    people: dict[str, str] = field(default_factory=dict)
    """Users, by participant."""
    displaced: dict[str, str] = field(default_factory=dict)
    agents: dict[AgentKind, str] = field(default_factory=dict)
    """Of each kind."""


@dataclass(slots=True, kw_only=True)
class ReservationRow:
    """`reservations`."""

    conference: str
    cluster: str
    user: str
    until: float


@dataclass(slots=True, kw_only=True)
class LinkRow:
    """`links`."""

    state: LinkState = "wanted"
    since: float
    via: Via = "driver"
    bridges: Address | None = None
    bridges_at: float | None = None
    order: int | None = None
    orders: int = 0
    attempts: int = 0
    retry_at: float | None = None

    def renew(self, now: float) -> None:
        """Want it anew; what is under way does not count any more."""
        self.state, self.since, self.order = "wanted", now, None
        self.bridges = self.bridges if self.via == "agent" else None
        self.bridges_at = None
        self.attempts, self.retry_at = 0, None


@dataclass(slots=True, kw_only=True)
class DirtyRow:
    """`dirty`: work to be done."""

    version: int = 1
    due_at: float
    holder: int | None = None
    held_until: float = 0.0


@dataclass(slots=True, kw_only=True)
class AgentRow:
    """`agents`."""

    cluster: str
    kinds: frozenset[AgentKind]
    address: Address
    instance: int
    epoch: int
    until: float
    live: bool = True
    """False: its lease ran out, and that was written down."""
    room: int
    draining: bool = False
    version: int = 0
    """Of its desired state, as told last."""
    acknowledged: int | None = None
    channel: int = 0
    """The one that speaks for it."""
