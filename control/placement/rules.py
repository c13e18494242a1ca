"""The rules that come with Causeway: filters and scorers, after those of the Kubernetes scheduler. Pure.

A standing filter or scorer looks at what a cluster is and what the client wants; its outcome holds for every
join with the same wish. The passing ones look at what changes from join to join: liveness, who is in, where
the conference is. A filter says why a cluster cannot be taken, or None; a scorer gives 0 to 100.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp
from typing import Final, TypeAlias

from control.placement.facts import Candidate, Conference, Place, Point, Wish, distance_km

__all__ = [
    "DEFAULT_WEIGHTS",
    "PASSING_FILTERS",
    "STANDING_FILTERS",
    "STANDING_SCORERS",
    "Ground",
    "PassingFilter",
    "StandingFilter",
    "StandingScorer",
    "home_point",
]

FULL_SCORE: Final = 100.0
NEAR_KM: Final = 2000.0
"""At this distance the score has fallen to 37."""
NEAR_MS: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What rules may look at beside the cluster and the wish."""

    places: Mapping[str, Place]
    max_cost: float = 0.0
    """Of all clusters."""


StandingFilter: TypeAlias = Callable[[Candidate, Wish, Ground], str | None]
StandingScorer: TypeAlias = Callable[[Candidate, Wish, Ground], float]
PassingFilter: TypeAlias = Callable[[Candidate, Conference, Mapping[str, Candidate]], str | None]


# --- standing filters -------------------------------------------------------------------------


def _blocked(candidate: Candidate, _wish: Wish, _ground: Ground) -> str | None:
    return "an operator has blocked it" if candidate.blocked else None


def _modules(candidate: Candidate, wish: Wish, _ground: Ground) -> str | None:
    # Capacity and registration are separate messages, in either order, and some clusters never send any
    # capacity: one that has declared nothing is taken at its word that it is a cluster. One that has
    # declared something is taken at that word.
    if not candidate.modules:
        return None
    lacking = wish.modules - candidate.modules
    return f"it lacks {', '.join(sorted(lacking))}" if lacking else None


def _labels(candidate: Candidate, wish: Wish, _ground: Ground) -> str | None:
    for key, value in wish.selector:
        if candidate.labels.get(key) != value:
            return f"its label {key} is not {value}"
    return None


def _residency(candidate: Candidate, wish: Wish, _ground: Ground) -> str | None:
    if wish.residency and candidate.region not in wish.residency:
        return f"region {candidate.region} is not among those where the conference may be"
    return None


# --- passing filters --------------------------------------------------------------------------


def _liveness(candidate: Candidate, _conference: Conference, _all: Mapping[str, Candidate]) -> str | None:
    return "its lease ran out" if candidate.liveness == "gone" else None


def _draining(candidate: Candidate, conference: Conference, _all: Mapping[str, Candidate]) -> str | None:
    if candidate.draining and candidate.cluster not in conference.clusters:
        return "it is draining"
    return None


def _room_left(candidate: Candidate, conference: Conference, _all: Mapping[str, Candidate]) -> str | None:
    if candidate.max_participants is not None and candidate.participants >= candidate.max_participants:
        return f"it is full ({candidate.max_participants} participants)"
    new = candidate.cluster not in conference.clusters
    if new and candidate.max_conferences is not None and candidate.conferences >= candidate.max_conferences:
        return f"it is full ({candidate.max_conferences} conferences)"
    return "its bandwidth is used up" if candidate.bandwidth >= 1 else None


def _cascade(candidate: Candidate, conference: Conference, every: Mapping[str, Candidate]) -> str | None:
    others = conference.clusters - {candidate.cluster}
    if not others:
        return None
    if not candidate.cascades:
        return "it cannot cascade, and the conference is elsewhere"
    for other in others:
        known = every.get(other)
        if known is not None and not known.cascades:
            return f"the conference is on {other}, which cannot cascade"
    return None


def _accepts_id(candidate: Candidate, conference: Conference, _all: Mapping[str, Candidate]) -> str | None:
    if not candidate.room_ids or candidate.cluster in conference.clusters:
        return None
    if re.fullmatch(candidate.room_ids, conference.id, re.DOTALL) is None:
        return "it cannot have a room of that name"
    return None


STANDING_FILTERS: Final[Mapping[str, StandingFilter]] = {
    "blocked": _blocked,
    "modules": _modules,
    "labels": _labels,
    "residency": _residency,
}
PASSING_FILTERS: Final[Mapping[str, PassingFilter]] = {
    "state": _liveness,
    "draining": _draining,
    "room": _room_left,
    "cascade": _cascade,
    "id": _accepts_id,
}


# --- scorers ----------------------------------------------------------------------------------


def _same_region(candidate: Candidate, wish: Wish, _ground: Ground) -> float:
    return FULL_SCORE if candidate.region == wish.home else 0.0


def _region_group(candidate: Candidate, wish: Wish, ground: Ground) -> float:
    if wish.home is None:
        return 0.0
    here, there = ground.places.get(wish.home, Place()), ground.places.get(candidate.region, Place())
    return FULL_SCORE if candidate.region == wish.home or here.groups & there.groups else 0.0


def home_point(wish: Wish, ground: Ground) -> Point | None:
    """Return where the client is: as it says, else where its region is."""
    if wish.location is not None or wish.home is None:
        return wish.location
    return ground.places.get(wish.home, Place()).location


def _distance(candidate: Candidate, wish: Wish, ground: Ground) -> float:
    here = home_point(wish, ground)
    there = candidate.location or ground.places.get(candidate.region, Place()).location
    if here is None or there is None:
        return 0.0
    return FULL_SCORE * exp(-distance_km(here, there) / NEAR_KM)


def _latency(candidate: Candidate, wish: Wish, _ground: Ground) -> float:
    for region, milliseconds in wish.latencies:
        if region == candidate.region:
            return FULL_SCORE * exp(-milliseconds / NEAR_MS)
    return 0.0


def _cost(candidate: Candidate, _wish: Wish, ground: Ground) -> float:
    return FULL_SCORE if ground.max_cost <= 0 else FULL_SCORE * (1 - candidate.cost / ground.max_cost)


STANDING_SCORERS: Final[Mapping[str, StandingScorer]] = {
    "region": _same_region,
    "group": _region_group,
    "distance": _distance,
    "latency": _latency,
    "cost": _cost,
}

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {
    # Where the client is goes before everything else; one that serves the conference already goes before an
    # emptier one nearby, as each further cluster costs a link to every other one.
    "region": 10.0,
    "latency": 10.0,
    "group": 6.0,
    "distance": 6.0,
    "already": 1.5,
    "load": 1.0,
    "cost": 0.5,
}
"""Of the scorers above, and of `already` and `load`, which control.placement.decide works out itself."""
