"""Policies: which rules count for how much. Named, from the settings; extended by entry points.

An installed package adds rules by the entry-point groups `causeway.placement.filters` and
`causeway.placement.scorers`: functions `(candidate, wish, ground)`, see control.placement.rules. A filter
named there counts in the policies whose `filters` name it, a scorer in those that give it a weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import structlog
from msgspec import Meta, Struct

from causeway.errors import ConfigError
from control.placement.rules import (
    DEFAULT_WEIGHTS,
    PASSING_FILTERS,
    STANDING_FILTERS,
    STANDING_SCORERS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from control.placement.facts import Candidate, Wish
    from control.placement.rules import Ground, StandingFilter, StandingScorer

__all__ = ["DEFAULT_POLICY", "Policy", "PolicySettings", "Rules", "load_rules", "make_policies"]

_log = structlog.get_logger(__name__)

DEFAULT_POLICY: Final = "default"
FILTERS_GROUP: Final = "causeway.placement.filters"
SCORERS_GROUP: Final = "causeway.placement.scorers"
_OWN_SCORERS: Final = frozenset(DEFAULT_WEIGHTS)

Weight = Annotated[float, Meta(ge=0, le=1000)]


class PolicySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.placement.policies.<name>]`: how clusters are chosen for templates that name this policy."""

    weights: dict[str, Weight] = {}
    """What each scorer's 0 to 100 is multiplied with: region, group, distance, latency, already, load, cost,
    and installed ones by their names. What is not named keeps its default; 0 takes a scorer out."""
    filters: tuple[str, ...] = ()
    """Installed filters to apply beside the built-in ones, which always count."""
    suspects: Literal["last", "never"] = "last"
    """Clusters whose heartbeat is overdue: taken if there is nothing else, or never."""
    elsewhere: bool = True
    """False: a client that names a region goes to a cluster there or nowhere."""
    choices: Annotated[int, Meta(ge=1, le=64)] = 2
    """Of clusters that are as good as each other, so many are drawn and the least loaded one is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules by name: the built-in ones and those of installed packages."""

    filters: Mapping[str, StandingFilter] = field(default_factory=dict)
    """Installed ones alone."""
    scorers: Mapping[str, StandingScorer] = field(default_factory=lambda: STANDING_SCORERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy with its rules found."""

    name: str
    filters: tuple[tuple[str, StandingFilter], ...]
    scorers: tuple[tuple[str, float, StandingScorer], ...]
    already: float
    load: float
    suspects: Literal["last", "never"]
    elsewhere: bool
    choices: int


def load_rules() -> Rules:
    """Load the rules of installed packages. Raises ConfigError, in one line, for one that does not load."""
    filters = _load(FILTERS_GROUP, taken=(*STANDING_FILTERS, *PASSING_FILTERS))
    scorers = _load(SCORERS_GROUP, taken=_OWN_SCORERS)
    return Rules(
        filters={name: _guarded_filter(name, rule) for name, rule in filters.items()},
        scorers={
            **STANDING_SCORERS,
            **{name: _guarded_scorer(name, rule) for name, rule in scorers.items()},
        },
    )


def make_policies(settings: Mapping[str, PolicySettings], rules: Rules) -> dict[str, Policy]:
    """Return all policies; `default` is always there. Raises ConfigError for one that names no known rule."""
    wanted = {DEFAULT_POLICY: PolicySettings(), **settings}
    return {name: _policy(name, each, rules) for name, each in wanted.items()}


def _load(group: str, *, taken: Iterable[str]) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for point in entry_points(group=group):
        said = f"placement plug-in {point.name} ({point.value}, group {group})"
        if point.name in found or point.name in taken:
            raise ConfigError(f"{said}: there is already a rule of that name")
        try:
            rule = point.load()
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{said}: does not load: {type(error).__name__}: {reason}") from error
        if not callable(rule):
            raise ConfigError(f"{said}: is not a function")
        found[point.name] = rule
    return found


def _guarded_filter(name: str, rule: Callable[..., Any]) -> StandingFilter:
    """Return the installed filter as one that never raises: what it cannot judge is not taken."""

    def guarded(candidate: Candidate, wish: Wish, ground: Ground) -> str | None:
        try:
            reason = rule(candidate, wish, ground)
        except Exception as error:  # noqa: BLE001 - somebody else's code; the decision shows it
            return f"filter {name} failed: {type(error).__name__}"
        return None if reason is None else str(reason)

    return guarded


def _guarded_scorer(name: str, rule: Callable[..., Any]) -> StandingScorer:
    """Return the installed scorer as one that never raises: what it cannot judge gets no points."""

    def guarded(candidate: Candidate, wish: Wish, ground: Ground) -> float:
        try:
            score = float(rule(candidate, wish, ground))
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("placement.scorer_failed", scorer=name, error=type(error).__name__)
            return 0.0
        return score if isfinite(score) else 0.0

    return guarded


def _policy(name: str, settings: PolicySettings, rules: Rules) -> Policy:
    where = f"control.placement.policies.{name}"
    weights = {**DEFAULT_WEIGHTS, **settings.weights}
    known = {*rules.scorers, *_OWN_SCORERS}
    if strange := sorted(set(weights) - known):
        raise ConfigError(f"{where}.weights: no scorer {strange[0]}; there are {', '.join(sorted(known))}")
    if strange := sorted(set(settings.filters) - set(rules.filters)):
        there = ", ".join(sorted(rules.filters)) or "none"
        raise ConfigError(f"{where}.filters: no installed filter {strange[0]}; installed are: {there}")
    return Policy(
        name=name,
        filters=(
            *STANDING_FILTERS.items(),
            *((each, rules.filters[each]) for each in dict.fromkeys(settings.filters)),
        ),
        scorers=tuple(
            (each, weights[each], rule) for each, rule in rules.scorers.items() if weights.get(each, 0) > 0
        ),
        already=weights["already"],
        load=weights["load"],
        suspects=settings.suspects,
        elsewhere=settings.elsewhere,
        choices=settings.choices,
    )
