"""Which clusters of a conference are linked: `edges(...)` says it, the plan asks for the links. Pure.

Three shapes
    *mesh*: every pair, directly. Each cluster sends a peer only what is its own; that is what every wire can.
    *tree*: what arrives over one link is passed on over the others. The least total latency between all
    pairs of clusters, within a degree limit.
    *star*: a tree with one hub, everybody else linked to it and to nobody else.

Who can relay
    Passing on works between clusters whose agents both can (`Node.can_relay`, `relaying`). Among those the
    shape is what was wished for; one that cannot is linked with everybody directly, as what it sends and gets
    must not be passed on. So a conference is whole whatever is in it, and what was used says so.

No loops
    Relaying links are the edges of a `Forest` (control.cascade.spanning), which refuses an edge between nodes
    that a path joins already. A frame that is passed on can therefore never come round again, and there is
    exactly one way from each to each.

Stable
    What is linked stays linked: a join adds an edge, a leave or a death re-attaches what it cut off, and
    nothing else moves. Only when all of it is linked and quiet (`settled`), and only while more than `GAIN`,
    and more than what measurements differ by, could be won, one link of a tree is replaced by a better one,
    and then the next; or a hub is moved. A hub that is wished for by name takes its place whatever that
    gains. The answer, carried out and given back as `previous`, is the answer again, until a quiet moment
    shows a better one. It does not matter whether old links are ended before new ones are made or after; of
    links that together have a loop those remain that make the better tree.

Latency
    Half a measured round trip would do as well as a whole one, so round trips are what is added up. Where
    none was measured, the distance stands for it, and where that is unknown, whether the region is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import isfinite
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from control.cascade.spanning import MIN_DEGREE, Forest, best_tree, middle
from control.placement.facts import Point, distance_km

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from control.cascade.spanning import Latencies, Pair

__all__ = [
    "GAIN",
    "Edge",
    "Node",
    "Topology",
    "TopologyKind",
    "TopologyWish",
    "edges",
    "round_trip",
]

TopologyKind: TypeAlias = Literal["mesh", "tree", "star"]
Edge: TypeAlias = tuple[str, str]
"""Two clusters: the one that joined the conference earlier, and the later one, which dials."""

GAIN: Final = 0.2
"""The share of the total latency that must be won before links that work are given up for better ones."""
_GAIN_MS: Final = 2.0
"""And how much of it for each pair of clusters: what is next door measures now this, now that."""

_Matrix: TypeAlias = tuple[tuple[float, ...], ...]
_MS_PER_KM: Final = 0.015
"""Round trip: light in fibre takes 0.01 ms for a kilometre and back, and cables run half as long again."""
_NEXT_DOOR: Final = 1.0
"""Milliseconds, within a region, and on top of any distance."""
_FAR: Final = 100.0
"""Milliseconds between regions of which it is not known where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyWish:
    """What a conference's template asks for. Raises ValueError for a limit that joins no three clusters."""

    kind: TopologyKind = "mesh"
    degree_limit: int = 4
    """Of a tree: relaying links at one cluster, at least two."""
    hubs: tuple[str, ...] = ()
    """Of a star: regions or clusters that shall be its hub, the most wanted first."""

    def __post_init__(self) -> None:
        if self.degree_limit < MIN_DEGREE:
            raise ValueError(f"degree_limit is {self.degree_limit}, the least is {MIN_DEGREE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A cluster that takes part. `ordinal`: its place in the order of joining, unique."""

    cluster: str
    ordinal: int
    region: str = ""
    location: Point | None = None
    can_relay: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """The links that the conference shall have."""

    edges: frozenset[Edge]
    used: TopologyKind
    """The shape it is, which need not be the one that was asked for."""
    reason: str
    """Why, for people."""


def edges(
    placements: Sequence[Node],
    wish: TopologyWish,
    round_trips: Mapping[tuple[str, str], float],
    previous: Collection[Edge],
    *,
    relaying: bool,
    settled: bool = True,
) -> Topology:
    """Return the links of a conference on these clusters.

    `round_trips`: milliseconds by pair, in either order or both. `previous`: the links that there are, in
    either order; those of clusters that are gone do not matter. `relaying`: whether there is a wire that
    relays at all. `settled`: nothing is being repaired, so that what works may be changed for the better.
    """
    nodes = sorted(placements, key=lambda node: node.ordinal)
    relays = [node for node in nodes if relaying and node.can_relay]
    if wish.kind == "mesh" or len(relays) <= MIN_DEGREE:
        return Topology(_every(nodes), "mesh", _why_mesh(wish, nodes, relays, relaying=relaying))
    numbers = {node.cluster: number for number, node in enumerate(relays)}
    there = {
        (min(numbers[a], numbers[b]), max(numbers[a], numbers[b]))
        for a, b in previous
        if a != b and a in numbers and b in numbers
    }
    latencies = _matrix(relays, round_trips)
    if wish.kind == "tree":
        joined, reason = _tree(latencies, wish.degree_limit, there, settled=settled)
    else:
        joined, hub, reason = _star(relays, latencies, wish.hubs, there, settled=settled)
        reason = f"the hub is {relays[hub].cluster}: {reason}"
    relayed = frozenset((relays[a].cluster, relays[b].cluster) for a, b in joined)
    others = [node.cluster for node in nodes if node not in relays]
    direct = frozenset(edge for edge in _every(nodes) if edge[0] in others or edge[1] in others)
    if others:
        reason = f"{reason}; linked with everybody directly, as they cannot relay: {', '.join(others)}"
    return Topology(relayed | direct, wish.kind, reason)


def _matrix(relays: Sequence[Node], measured: Mapping[tuple[str, str], float]) -> _Matrix:
    rows = [[0.0] * len(relays) for _ in relays]
    for (a, one), (b, other) in combinations(enumerate(relays), 2):
        rows[a][b] = rows[b][a] = round_trip(one, other, measured)
    return tuple(map(tuple, rows))


def round_trip(one: Node, other: Node, measured: Mapping[tuple[str, str], float]) -> float:
    """Return the milliseconds between two clusters: as measured, by either or both, else as estimated."""
    found = [
        value
        for pair in ((one.cluster, other.cluster), (other.cluster, one.cluster))
        if (value := measured.get(pair)) is not None and isfinite(value) and value >= 0
    ]
    if found:
        return sum(found) / len(found)
    if one.location is not None and other.location is not None:
        return _NEXT_DOOR + _MS_PER_KM * distance_km(one.location, other.location)
    return _NEXT_DOOR if one.region == other.region else _FAR


def _looped(latencies: Latencies, there: Collection[Pair]) -> bool:
    """Whether the links that there are make a loop."""
    everything = Forest(latencies, max(MIN_DEGREE, len(latencies)))
    return not all(everything.link(a, b) for a, b in there)


def _every(nodes: Iterable[Node]) -> frozenset[Edge]:
    return frozenset((earlier.cluster, later.cluster) for earlier, later in combinations(nodes, 2))


def _why_mesh(wish: TopologyWish, nodes: Sequence[Node], relays: Sequence[Node], *, relaying: bool) -> str:
    if wish.kind == "mesh":
        return "as asked for"
    if not relaying:
        return f"a {wish.kind} was asked for, but the wire between these clusters does not relay"
    if len(relays) == len(nodes):
        return f"a {wish.kind} was asked for, which two clusters are not enough for"
    return f"a {wish.kind} was asked for, but fewer than three of these clusters can relay"


# --- tree -------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _ideal(latencies: _Matrix, degree_limit: int) -> tuple[frozenset[Pair], float]:
    """Return the edges and the total of a tree as good as can be found; kept, as plans are made often."""
    best = best_tree(latencies, degree_limit)
    return best.edges, best.total


def _tree(
    latencies: _Matrix,
    degree_limit: int,
    there: Collection[Pair],
    *,
    settled: bool,
) -> tuple[frozenset[Pair], str]:
    forest = Forest(latencies, degree_limit)
    for a, b in sorted(there, key=lambda edge: (latencies[edge[0]][edge[1]], edge)):
        forest.link(a, b)
    if not forest.edges:
        return _ideal(latencies, degree_limit)[0], "the least total latency"
    if _looped(latencies, there):
        best = _ideal(latencies, degree_limit)[0]
        if best <= set(there):
            return best, "the least total latency, of links that there are"
        forest.improve(there)
        settled = False
    if len(forest.edges) < len(latencies) - 1:
        forest.complete(_root(forest, latencies))
        return forest.edges, "what is linked stays, the rest is attached"
    if not settled:
        return forest.edges, "what is linked stays"
    total = _ideal(latencies, degree_limit)[1]
    gain = 1 - total / forest.total if forest.total else 0.0
    worth = forest.total - total > _GAIN_MS * len(latencies) * (len(latencies) - 1) / 2
    if gain > GAIN and worth and forest.improve_once():
        return forest.edges, f"one link is replaced by a better one; at best {gain:.0%} could be won"
    return forest.edges, f"what is linked stays; at best {max(0.0, gain):.0%} could be won"


def _root(forest: Forest, latencies: Latencies) -> int:
    """Return the node where completion begins: in the largest tree, the most central one."""
    size = max(forest.size(node) for node in range(len(latencies)))
    return middle(latencies, [node for node in range(len(latencies)) if forest.size(node) == size])


# --- star -------------------------------------------------------------------------------------


def _star(
    relays: Sequence[Node],
    latencies: Latencies,
    hubs: Sequence[str],
    there: Collection[Pair],
    *,
    settled: bool,
) -> tuple[frozenset[Pair], int, str]:
    hub, reason = _wished_hub(relays, latencies, hubs)
    old = None if _looped(latencies, there) else _old_hub(latencies, there)
    if old is not None and old != hub:
        if not settled:
            hub, reason = old, "as before, until all is quiet"
        elif not _named(relays[hub], hubs) < _named(relays[old], hubs):
            gain = 1 - sum(latencies[hub]) / sum(latencies[old]) if sum(latencies[old]) else 0.0
            worth = sum(latencies[old]) - sum(latencies[hub]) > _GAIN_MS * (len(relays) - 1)
            if gain <= GAIN or not worth:
                hub, reason = old, f"as before; {relays[hub].cluster} would win {gain:.0%}"
            else:
                reason = f"it wins {gain:.0%} over {relays[old].cluster}"
    spokes = (node for node in range(len(relays)) if node != hub)
    return frozenset((min(hub, node), max(hub, node)) for node in spokes), hub, reason


def _wished_hub(relays: Sequence[Node], latencies: Latencies, hubs: Sequence[str]) -> tuple[int, str]:
    rank = min(_named(node, hubs) for node in relays)
    among = [number for number, node in enumerate(relays) if _named(node, hubs) == rank]
    return middle(latencies, among), "as asked for" if rank < len(hubs) else "the nearest to all"


def _named(node: Node, hubs: Sequence[str]) -> int:
    """Return how much it is wanted as hub; less is more."""
    return next((rank for rank, name in enumerate(hubs) if name in {node.cluster, node.region}), len(hubs))


def _old_hub(latencies: Latencies, there: Collection[Pair]) -> int | None:
    """Return the node that most links end at; of several, the most central one."""
    degrees = [sum(node in edge for edge in there) for node in range(len(latencies))]
    most = max(degrees)
    return middle(latencies, [n for n, degree in enumerate(degrees) if degree == most]) if most else None
