"""Choosing a cluster for one client: filters, weighted scorers, and the better of a few random draws. Pure.

A Board holds the clusters as they are known now. What depends on the wish alone (the standing rules) is
worked out once per wish and kept; a join then only looks at a short list, so that its cost does not grow with
the number of clusters. Randomness is an argument.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from control.placement.decision import NAMED, Decision, Placed, Rejected, Scored
from control.placement.facts import Place, load_of
from control.placement.rules import FULL_SCORE, PASSING_FILTERS, Ground, home_point

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from random import Random

    from control.placement.facts import Candidate, Conference, Wish
    from control.placement.policy import Policy

__all__ = ["Board", "decide"]

SHORT: Final = 32
"""Clusters looked at for one join, unless all of them are full or away."""
_STANDINGS_KEPT: Final = 256
_NOBODY: Final[frozenset[str]] = frozenset()
_NOWHERE: Final = Place()
_PASSING: Final = tuple(PASSING_FILTERS.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """What a policy makes of all clusters for one wish."""

    order: list[tuple[float, Candidate]]
    """Best first."""
    falling: list[float]
    """The totals of `order`, negated: sorted as bisect wants it."""
    points: dict[str, tuple[float, dict[str, float]]]
    """By cluster: the total, and what is told of it, rounded and without zeros."""
    best: tuple[Scored, ...]
    """The first of `order`, as they are told."""
    rejected: _Rejections


class Board:
    """The clusters, and how they stand for the wishes seen so far."""

    def __init__(self, candidates: Iterable[Candidate], places: Mapping[str, Place]) -> None:
        self.candidates = {candidate.cluster: candidate for candidate in candidates}
        costs = [candidate.cost for candidate in self.candidates.values()]
        self.ground = Ground(places=places, max_cost=max(costs, default=0.0))
        self._standings: OrderedDict[tuple[str, Wish], _Standing] = OrderedDict()

    def standing(self, policy: Policy, wish: Wish) -> _Standing:
        """Return how the clusters stand; from memory, if this was asked before."""
        key = (policy.name, wish)
        known = self._standings.get(key)
        if known is None:
            known = self._standings[key] = self._stand(policy, wish)
            if len(self._standings) > _STANDINGS_KEPT:
                self._standings.popitem(last=False)
        return known

    def _stand(self, policy: Policy, wish: Wish) -> _Standing:
        rejected = _Rejections()
        points: dict[str, tuple[float, dict[str, float]]] = {}
        order: list[tuple[float, Candidate]] = []
        for candidate in self.candidates.values():
            if not policy.elsewhere and wish.home not in {None, candidate.region}:
                rejected.add("elsewhere", f"it is not in region {wish.home}", candidate.cluster)
                continue
            for name, rule in policy.filters:
                reason = rule(candidate, wish, self.ground)
                if reason is not None:
                    rejected.add(name, reason, candidate.cluster)
                    break
            else:
                each = {
                    name: weight * min(FULL_SCORE, max(0.0, rule(candidate, wish, self.ground)))
                    for name, weight, rule in policy.scorers
                }
                total = sum(each.values())
                told = {name: round(value, 1) for name, value in each.items() if value}
                points[candidate.cluster] = (total, told)
                order.append((total, candidate))
        order.sort(key=lambda pair: (-pair[0], pair[1].cluster))
        return _Standing(
            order=order,
            falling=[-total for total, _ in order],
            points=points,
            best=tuple(
                Scored(cluster=each.cluster, total=round(total, 3), points=points[each.cluster][1])
                for total, each in order[:NAMED]
            ),
            rejected=rejected,
        )


class _Rejections:
    """Counts clusters by filter and reason, and names the first of each."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}

    def copy(self) -> _Rejections:
        new = _Rejections()
        new._found.update(self._found)
        return new

    def add(self, name: str, reason: str, cluster: str) -> None:
        count, names = self._found.get((name, reason), (0, ()))
        self._found[name, reason] = (count + 1, (*names, cluster) if count < NAMED else names)

    def result(self) -> tuple[Rejected, ...]:
        return tuple(
            Rejected(filter=name, reason=reason, count=count, clusters=names)
            for (name, reason), (count, names) in self._found.items()
        )


class _Search:
    """One decision on its way: who was looked at, and with what outcome."""

    def __init__(
        self,
        board: Board,
        policy: Policy,
        standing: _Standing,
        conference: Conference,
        tried: Collection[str],
    ) -> None:
        self.usable: list[tuple[float, Candidate]] = []
        self.spare: list[tuple[float, Candidate]] = []
        """Suspects: usable if there is nobody else."""
        self.rejected = standing.rejected
        self.rejected_in_passing = False
        self._board = board
        self._policy = policy
        self._conference = conference
        self._tried = tried
        self._seen: dict[str, bool] = {}

    def look(self, total: float, candidate: Candidate) -> bool:
        """Hold a cluster against the passing filters, once; True if it is usable."""
        cluster = candidate.cluster
        known = self._seen.get(cluster)
        if known is None:
            known = self._seen[cluster] = self._looked(total, candidate)
        return known

    def _looked(self, total: float, candidate: Candidate) -> bool:
        cluster = candidate.cluster
        for name, rule in _PASSING:
            reason = rule(candidate, self._conference, self._board.candidates)
            if reason is not None:
                return self._reject(name, reason, cluster)
        if cluster in self._tried:
            return self._reject("tried", "it has failed for this client", cluster)
        if cluster in self._conference.clusters:
            total += self._policy.already * FULL_SCORE
        if candidate.liveness == "suspect":
            if self._policy.suspects == "never":
                return self._reject("state", "its heartbeat is overdue", cluster)
            self.spare.append((total, candidate))
            return False
        self.usable.append((total, candidate))
        return True

    def _reject(self, name: str, reason: str, cluster: str) -> bool:
        if not self.rejected_in_passing:
            self.rejected = self.rejected.copy()  # the standing's own is everybody's
            self.rejected_in_passing = True
        self.rejected.add(name, reason, cluster)
        return False


def decide(
    board: Board,
    policy: Policy,
    wish: Wish,
    conference: Conference,
    *,
    rng: Random,
    tried: Collection[str] = _NOBODY,
    everybody: bool = False,
    user: str = "",
) -> Decision:
    """Choose a cluster. `tried`: those that have failed already. `everybody`: look at all, to explain."""
    standing = board.standing(policy, wish)
    search = _Search(board, policy, standing, conference, tried)
    margin = policy.load * FULL_SCORE
    for cluster in conference.clusters:
        if cluster in standing.points:
            search.look(standing.points[cluster][0], board.candidates[cluster])
    if not everybody and search.usable and _unbeaten(search.usable, standing, margin):
        pass
    elif everybody or len(standing.order) <= SHORT:
        for total, candidate in standing.order:
            search.look(total, candidate)
    else:
        _look_at_the_best(search, standing, margin, rng)
    pool = search.usable or search.spare
    drawn = _draw(pool, margin, policy.choices, rng)
    chosen = drawn[0][2] if drawn else None
    return Decision(
        cluster=None if chosen is None else chosen.cluster,
        placed="any" if chosen is None else _relation(chosen, wish, board.ground),
        policy=policy.name,
        home=wish.home,
        considered=len(board.candidates),
        scored=_compared(policy, conference, search, standing, drawn),
        rejected=search.rejected.result(),
        suspect=chosen is not None and chosen.liveness == "suspect",
        user=user,
    )


def _unbeaten(usable: list[tuple[float, Candidate]], standing: _Standing, margin: float) -> bool:
    """Say whether one of these, where the conference is already, goes before any other, however empty."""
    return max(total for total, _ in usable) > standing.order[0][0] + margin


def _look_at_the_best(search: _Search, standing: _Standing, margin: float, rng: Random) -> None:
    """Look at some of those that load alone tells apart; if none of them is usable, at all in their order."""
    order = standing.order
    level = bisect_left(standing.falling, -(order[0][0] - margin) + 1e-9)
    some = range(level) if level <= SHORT else rng.sample(range(level), SHORT)
    found = [search.look(*order[index]) for index in some]
    if any(found):
        return
    first: float | None = None
    usable = 0
    for total, candidate in order:
        if first is not None and (total < first - margin or usable >= SHORT):
            return
        if search.look(total, candidate):
            first = total if first is None else first
            usable += 1


def _draw(
    pool: list[tuple[float, Candidate]], margin: float, choices: int, rng: Random
) -> list[tuple[float, float, Candidate]]:
    """Return the clusters drawn as (total with load, load's part, cluster), the chosen one first."""
    if not pool:
        return []
    if len(pool) == 1:  # most joins: the conference is somewhere already
        return [_with_load(*pool[0], margin)]
    best = max(total for total, _ in pool)
    equal = [each for each in pool if each[0] >= best - 1e-9]
    first = rng.choice(equal)
    others = [each for each in pool if each[0] >= best - margin and each is not first]
    drawn = [first, *rng.sample(others, min(choices - 1, len(others)))]
    scored = [_with_load(total, candidate, margin) for total, candidate in drawn]
    scored.sort(key=lambda each: -each[0])
    return scored


def _with_load(total: float, candidate: Candidate, margin: float) -> tuple[float, float, Candidate]:
    part = margin * (1.0 - load_of(candidate))
    return total + part, part, candidate


def _compared(
    policy: Policy,
    conference: Conference,
    search: _Search,
    standing: _Standing,
    drawn: list[tuple[float, float, Candidate]],
) -> tuple[Scored, ...]:
    """Return the drawn clusters and the best of the others, with their points."""
    scored = [_scored(policy, conference, standing, candidate, part) for _, part, candidate in drawn[:NAMED]]
    names = {each.cluster for each in scored}
    pool = search.usable or search.spare
    if len(pool) > len(drawn):
        rest = sorted(pool, key=lambda each: -each[0])
        scored += [
            _scored(policy, conference, standing, candidate, None)
            for _, candidate in rest[:NAMED]
            if candidate.cluster not in names
        ]
    elif scored and not search.rejected_in_passing:
        scored += [each for each in standing.best if each.cluster not in names]
    return tuple(scored[:NAMED])


def _scored(
    policy: Policy, conference: Conference, standing: _Standing, candidate: Candidate, load: float | None
) -> Scored:
    points = dict(standing.points[candidate.cluster][1])
    if candidate.cluster in conference.clusters and policy.already:
        points["already"] = policy.already * FULL_SCORE
    if load is not None:
        points["load"] = round(load, 3)
    return Scored(cluster=candidate.cluster, total=round(sum(points.values()), 3), points=points)


def _relation(chosen: Candidate, wish: Wish, ground: Ground) -> Placed:
    home = wish.home
    if home is not None and chosen.region == home:
        return "region"
    here, there = ground.places.get(home or "", _NOWHERE), ground.places.get(chosen.region, _NOWHERE)
    if home is not None and here.groups & there.groups:
        return "group"
    measured = any(region == chosen.region for region, _ in wish.latencies)
    near = home_point(wish, ground) is not None and (chosen.location or there.location) is not None
    return "distance" if measured or near else "any"
