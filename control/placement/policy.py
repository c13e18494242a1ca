"""Filters, then scorers: which clusters may serve a client, and in which order they are tried. Pure.

A filter says why a cluster cannot be taken, or None. A scorer gives a number, more is better; scorers are
compared in their order, so a later one only decides between equals of all earlier ones; the last tie is
broken by the cluster's id, so that every replica decides alike. To add a rule, add a function to its list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["FULL_PARTICIPANTS", "FULL_STREAMS", "Candidate", "Decision", "choose"]

FULL_PARTICIPANTS: Final = 500
FULL_STREAMS: Final = 500
"""How many participants, how many streams weigh as much as all processors being busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cluster, as far as placement cares. Load is what it last reported; `cpu` is 0 to 1."""

    cluster: str
    region: str
    online: bool
    modules: frozenset[str]
    participants: int
    streams: int
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`cluster` is the best, None if there is none; `ranked` all usable ones, best first."""

    cluster: str | None
    ranked: tuple[str, ...]
    rejected: Mapping[str, str]
    """Why each other cluster cannot be taken: cluster id → one short sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the client and its conference ask for."""

    region: str | None
    already: frozenset[str]
    modules: frozenset[str]


# --- filters ----------------------------------------------------------------------------------


def _is_online(candidate: Candidate, _wish: _Wish) -> str | None:
    return None if candidate.online else "it is offline"


def _has_modules(candidate: Candidate, wish: _Wish) -> str | None:
    # Capacity and registration are separate messages, in either order, and some clusters never send any
    # capacity: one that has declared nothing is taken at its word that it is a cluster. One that has
    # declared something is taken at that word.
    if not candidate.modules:
        return None
    lacking = wish.modules - candidate.modules
    return f"it lacks {', '.join(sorted(lacking))}" if lacking else None


# --- scorers ----------------------------------------------------------------------------------


def _in_region(candidate: Candidate, wish: _Wish) -> float:
    return float(candidate.region == wish.region)


def _serves_already(candidate: Candidate, wish: _Wish) -> float:
    # Each further cluster of a conference costs a link to every other one. Without a region the client asked
    # for the least loaded cluster, and load goes first.
    return float(wish.region is not None and candidate.cluster in wish.already)


def _is_idle(candidate: Candidate, _wish: _Wish) -> float:
    return -(candidate.cpu + candidate.participants / FULL_PARTICIPANTS + candidate.streams / FULL_STREAMS)


def _serves_already_too(candidate: Candidate, wish: _Wish) -> float:
    return float(candidate.cluster in wish.already)


_Filter: TypeAlias = "Callable[[Candidate, _Wish], str | None]"
_Scorer: TypeAlias = "Callable[[Candidate, _Wish], float]"

_FILTERS: Final[tuple[_Filter, ...]] = (_is_online, _has_modules)
_SCORERS: Final[tuple[_Scorer, ...]] = (_in_region, _serves_already, _is_idle, _serves_already_too)


# --- the decision -----------------------------------------------------------------------------


def choose(
    candidates: Iterable[Candidate],
    *,
    region: str | None,
    already: frozenset[str],
    required_modules: frozenset[str],
) -> Decision:
    """Rank the candidates for a client in `region` whose conference is placed on the clusters `already`.

    The region's clusters come first, others after them: a far cluster is better than none. Within a region
    one that already serves the conference comes before an emptier one. Without a region the least loaded
    cluster of all comes first.
    """
    wish = _Wish(region=region, already=already, modules=required_modules)
    rejected: dict[str, str] = {}
    usable: list[Candidate] = []
    for candidate in candidates:
        reason = next((why for rule in _FILTERS if (why := rule(candidate, wish)) is not None), None)
        if reason is None:
            usable.append(candidate)
        else:
            rejected[candidate.cluster] = reason
    usable.sort(key=lambda c: (*(-score(c, wish) for score in _SCORERS), c.cluster))
    ranked = tuple(candidate.cluster for candidate in usable)
    return Decision(cluster=ranked[0] if ranked else None, ranked=ranked, rejected=rejected)
