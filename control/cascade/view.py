"""What the plan sees, and what it may ask for: plain values, no behaviour.

A `View` is one conference as the registry knew it at one moment; an `Action` is one thing missing in it.
Nothing here knows the registry, the drivers, a clock or asyncio. All times are timezone-aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "Action",
    "ClusterFacts",
    "CreateRoom",
    "ForgetConference",
    "ForgetLink",
    "LinkFacts",
    "LinkState",
    "PlacementFacts",
    "PlacementState",
    "RemoveRoom",
    "StartCascade",
    "View",
]

PlacementState: TypeAlias = Literal["wanted", "ready", "lost"]
LinkState: TypeAlias = Literal["wanted", "requested", "up", "down"]


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
    attempts: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """A cascade between two clusters of the conference. `since`: when it came into its state.

    `wanted`: to be asked for; `requested`: the dialing cluster took the order; `up`, `down`: reported.
    """

    dialer: str
    listener: str
    state: LinkState
    since: datetime
    attempts: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A conference, what it has, and the clusters concerned (one that is missing counts as offline)."""

    conference: str
    state: Literal["active", "ending"]
    placements: tuple[PlacementFacts, ...]
    links: tuple[LinkFacts, ...]
    clusters: Mapping[str, ClusterFacts]


# --- actions ----------------------------------------------------------------------------------
# Every action is idempotent: the executor may have died after doing it and before writing that down.


@dataclass(frozen=True, slots=True)
class CreateRoom:
    """Create the conference's room on the cluster; then its placement is `ready`."""

    cluster: str


@dataclass(frozen=True, slots=True)
class RemoveRoom:
    """Delete the conference's room on the cluster (none there is as good); then forget the placement."""

    cluster: str


@dataclass(frozen=True, slots=True)
class StartCascade:
    """Fetch the listener's bridge addresses, now, and tell the dialer to connect; then `requested`."""

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class ForgetLink:
    """Delete the link's row; no cluster is asked anything."""

    dialer: str
    listener: str


@dataclass(frozen=True, slots=True)
class ForgetConference:
    """Delete the conference with every placement and link that is left."""


Action: TypeAlias = CreateRoom | RemoveRoom | StartCascade | ForgetLink | ForgetConference
