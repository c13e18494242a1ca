"""What placement looks at: clusters, and what a client and its conference want. Pure values, no rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Candidate", "Conference", "Liveness", "Place", "Point", "Wish", "distance_km", "load_of"]

EARTH_KM: Final = 6371.0
FULL: Final = 500
"""Participants, and streams, that count as a full cluster where it has told no limit."""

Liveness: TypeAlias = Literal["online", "suspect", "gone"]
Point: TypeAlias = tuple[float, float]
"""Latitude and longitude, degrees."""


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A cluster. What changes with every join and heartbeat is kept up by whoever owns the object."""

    cluster: str
    region: str
    driver: str = "owt"
    cascades: bool = True
    """It can be joined with other clusters; else a conference there must stay within it."""
    room_ids: str = ""
    """Regular expression of the conference ids that it takes; empty: all."""
    modules: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    location: Point | None = None
    """None: its region's, if that is known."""
    cost: float = 0.0
    max_participants: int | None = None
    max_conferences: int | None = None
    draining: bool = False
    blocked: bool = False
    liveness: Liveness = "online"
    participants: int = 0
    """In it, and on their way: reservations count."""
    conferences: int = 0
    streams: int = 0
    cpu: float = 0.0
    bandwidth: float = 0.0
    """The busier direction as a share of its limit; 0 without a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A region: the groups that it shares with its neighbours, and where it is."""

    groups: frozenset[str] = frozenset()
    location: Point | None = None


class Wish(Struct, frozen=True, kw_only=True):
    """Where the client is, as far as it is known, and what its conference's template demands.

    Hashable: clusters' standing is worked out once for each different wish.
    """

    region: str | None = None
    """Named by the client, or by a trusted proxy's country."""
    location: Point | None = None
    latencies: tuple[tuple[str, float], ...] = ()
    """(region, milliseconds), sorted."""
    modules: frozenset[str] = frozenset()
    selector: tuple[tuple[str, str], ...] = ()
    residency: frozenset[str] = frozenset()
    """The only regions allowed; empty: all."""

    @property
    def home(self) -> str | None:
        """The region that counts as the client's: the one it named, else the one it reaches soonest."""
        if self.region is not None or not self.latencies:
            return self.region
        return min(self.latencies, key=lambda each: (each[1], each[0]))[0]


class Conference(Struct, frozen=True, kw_only=True):
    """The conference that is joined: its id, and the clusters that it is placed on."""

    id: str
    clusters: frozenset[str] = frozenset()


def load_of(candidate: Candidate) -> float:
    """Return how busy a cluster is, 0 to 1: the mean of people, streams, processors and bandwidth.

    Each of them alone makes a difference, so that of two otherwise equal clusters the emptier one is told.
    """
    return (
        min(1.0, candidate.participants / (candidate.max_participants or FULL))
        + min(1.0, candidate.streams / FULL)
        + min(1.0, candidate.cpu)
        + min(1.0, candidate.bandwidth)
    ) / 4


def distance_km(one: Point, other: Point) -> float:
    """Return the great-circle distance (haversine)."""
    lat1, lon1, lat2, lon2 = (radians(each) for each in (*one, *other))
    chord = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(chord)))
