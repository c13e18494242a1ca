"""What the plan sees, and what it may ask for: plain values, no behaviour.

A `View` is one conference as the registry knew it at one moment; an `Action` is one thing missing in it.
Nothing here knows the registry, the drivers, a clock or asyncio. All times are timezone-aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from control.cascade.topology import TopologyWish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from control.placement.facts import Point

__all__ = [
    "Action",
    "AgentFacts",
    "AgentKind",
    "AssignAgent",
    "ClusterFacts",
    "CreateRoom",
    "FetchBridges",
    "ForgetConference",
    "ForgetLink",
    "ForgetPlacement",
    "LinkFacts",
    "LinkState",
    "MoveClients",
    "PlacementFacts",
    "PlacementState",
    "RemoveRoom",
    "StartCascade",
    "StopCascade",
    "UnassignAgent",
    "Via",
    "View",
]

PlacementState: TypeAlias = Literal["wanted", "ready", "lost"]
LinkState: TypeAlias = Literal["wanted", "requested", "up", "down"]
AgentKind: TypeAlias = Literal["event", "media", "recorder"]
Via: TypeAlias = Literal["driver", "agent"]

_NO_ROUND_TRIPS: Final[Mapping[tuple[str, str], float]] = MappingProxyType({})


# --- facts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """A cluster that serves the conference. Offline: its lease ran out; nothing is asked of it."""

    id: str
    online: bool
    reports_links: bool
    """Whether it ever tells how its links are; a plain OWT cluster does not."""
    can_cascade: bool = True
    """Whether clusters of this kind can be joined with others at all."""
    knows_participants: bool = True
    """Whether it is known who is there. Where it is not, a room counts as inhabited while it has a token."""
    gone: bool = False
    """It has unregistered: what it had of the conference does not come back."""
    region: str = ""
    location: Point | None = None
    breaker_open: bool = False
    """It failed so often that it is left alone for a while: nothing that calls it is due."""
    breaker_until: datetime | None = None
    """While the breaker is open: from when on it may be tried again, if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """An agent of a cluster that serves the conference."""

    id: str
    cluster: str
    kinds: frozenset[AgentKind]
    live: bool
    """Its lease holds."""
    room: int
    """Conferences that it can still take, besides those it has."""
    relays: bool = True
    """It speaks a wire on which it passes on what it receives."""
    draining: bool = False
    """It is to be relieved of what it has, as soon as another one can take that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementFacts:
    """The conference on one cluster.

    `wanted`: no room there yet, as far as we know; `ready`: the room was created; `lost`: the cluster died
    with it. `attempts` counts failures since the last success; before `retry_at` nothing is tried again.
    """

    cluster: str
    ordinal: int
    """Counts from 1 in the order of joining the conference; unique in it."""
    epoch: int = 0
    """Which placement it is, of all that the conference has had on this cluster; later ones have larger."""
    state: PlacementState
    has_token: bool
    """The cluster reported a room token: the room is initialised there, bridges can be admitted."""
    participants: int
    """Clients that have really joined there."""
    empty_since: datetime | None = None
    """Since when nobody is there and nobody on the way: no participant, no reservation. None: somebody is.
    It may lie ahead: then it is when the last reservation runs out."""
    displaced: int = 0
    """Clients that the cluster's end took their seats from, and who have not been told another one yet."""
    agents: tuple[tuple[AgentKind, str], ...] = ()
    """(kind, agent's id) of those assigned, one a kind."""
    attempts: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """A cascade between two clusters of the conference. `since`: when it came into its state.

    `wanted`: to be asked for; `requested`: the dialing side took the order; `up`, `down`: reported.
    """

    dialer: str
    listener: str
    state: LinkState
    since: datetime
    via: Via = "driver"
    """Who was told to dial: the cluster, by its driver, or an agent of it, by its desired state."""
    bridges_at: datetime | None = None
    """When the listener's addresses were fetched; None: they were not, or have been used."""
    orders: int = 0
    """How often the dialing side was told to connect, by whatever came of it."""
    attempts: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A conference, what it has, and the clusters concerned (one that is missing counts as offline)."""

    conference: str
    state: Literal["active", "ending"]
    template_version: int = 0
    topology: TopologyWish = field(default_factory=TopologyWish)
    """What the conference's template asks for."""
    placements: tuple[PlacementFacts, ...]
    links: tuple[LinkFacts, ...]
    clusters: Mapping[str, ClusterFacts]
    agents: tuple[AgentFacts, ...] = ()
    """All of the clusters concerned, whether or not they have anything of this conference."""
    round_trips: Mapping[tuple[str, str], float] = field(default_factory=lambda: _NO_ROUND_TRIPS)
    """Milliseconds as measured, by pair of clusters."""
    relaying: bool = False
    """Agents of this conference speak a wire that passes on what was received; which ones, they say."""
    idle_grace: timedelta = timedelta(seconds=30)
    """How long a placement stands with nobody there and nobody on the way."""


# --- actions ----------------------------------------------------------------------------------
# Every action is idempotent: the executor may have died after doing it and before writing that down. One that
# fails is put off with the `retry_at` of its placement or link, whichever it names.


@dataclass(frozen=True, slots=True)
class CreateRoom:
    """Create the conference's room on the cluster; then its placement is `ready`."""

    cluster: str


@dataclass(frozen=True, slots=True)
class RemoveRoom:
    """Delete the conference's room on the cluster (none there is as good); then forget the placement.

    In a conference that goes on, somebody may be about to come. So first, in one transaction, the placement
    goes back to `wanted`, without room and token, if still nobody is there and nobody on the way (else there
    is nothing to do); then the room is deleted; then the placement is forgotten, on the same condition. Who
    comes in between waits for the next CreateRoom.
    """

    cluster: str


@dataclass(frozen=True, slots=True)
class FetchBridges:
    """Find out where the listener's bridges listen for the dialer, and keep that in the link.

    Makes the link, `wanted`, if there is none. A listener with agents is not asked: its agents have said it.
    """

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class StartCascade:
    """Tell the dialing side to connect to the addresses just fetched; then the link is `requested`.

    By the dialer's agent (`via` = agent) where one is assigned, else by its cluster. The addresses are used
    up by it, whether it succeeds or not.
    """

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class StopCascade:
    """Have the dialing side end the link, then delete the link's row.

    `via` = agent: the row is all there is to delete. By the driver: clusters of a kind that knows no such
    order are not asked; their links end with the room.
    """

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class ForgetLink:
    """Delete the link's row; no cluster is asked anything: an end of it is dead, and the link with it."""

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class MoveClients:
    """Find another cluster for each displaced client of this one, and have them told."""

    cluster: str


@dataclass(frozen=True, slots=True)
class AssignAgent:
    """Have the agent serve the conference at its cluster; the placement's links become `wanted`."""

    cluster: str
    kind: AgentKind
    agent: str


@dataclass(frozen=True, slots=True)
class UnassignAgent:
    """Relieve the agent of the conference; the placement's links become `wanted`."""

    cluster: str
    kind: AgentKind
    agent: str


@dataclass(frozen=True, slots=True)
class ForgetPlacement:
    """Delete the placement's row; no cluster is asked anything: it is gone for good, and the room with it."""

    cluster: str


@dataclass(frozen=True, slots=True)
class ForgetConference:
    """Delete the conference with every placement and link that is left."""


Action: TypeAlias = (
    CreateRoom
    | RemoveRoom
    | FetchBridges
    | StartCascade
    | StopCascade
    | ForgetLink
    | MoveClients
    | AssignAgent
    | UnassignAgent
    | ForgetPlacement
    | ForgetConference
)
