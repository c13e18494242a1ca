"""Trees over numbered nodes: grown, repaired and improved towards the least total latency. Pure.

A `Forest` holds edges that cannot make a loop: it links two nodes only if no path joins them yet. The *total*
of a tree is the sum of the latencies of the paths between all pairs of its nodes: what its participants hear
of each other, as opposed to the sum of its edges. Finding the tree with the least total is NP-hard; growing
one and then moving branches while that helps comes within a few percent of it.

Nodes are 0 to n-1, latencies are symmetric and not negative, and the degree limit is at least two: then every
tree has a node with room for one more edge, so growing never gets stuck. Ties go to the smaller numbers.
Knows nothing of clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["MIN_DEGREE", "Forest", "Latencies", "Pair", "best_tree", "middle"]

Latencies: TypeAlias = "Sequence[Sequence[float]]"
"""By both nodes' numbers; milliseconds, though any unit does."""
Pair: TypeAlias = tuple[int, int]

MIN_DEGREE: Final = 2
_ROUNDS: Final = 8
"""Of improvement: nearly always fewer are enough."""
_WORTH: Final = 1e-9
"""A smaller share of the total is rounding, not improvement; without it a tie could move for ever."""


class Forest:
    """Nodes with edges among them, never a loop, never more than `degree_limit` at a node."""

    def __init__(self, latencies: Latencies, degree_limit: int) -> None:
        if degree_limit < MIN_DEGREE:
            raise ValueError(f"a degree limit of {degree_limit} joins no three nodes")
        count = len(latencies)
        self._latencies = latencies
        self._limit = degree_limit
        self._neighbours: list[set[int]] = [set() for _ in range(count)]
        self._tree: list[list[int]] = [[node] for node in range(count)]
        """Of each node: the nodes of its tree; one list, shared by them."""
        self._paths: list[list[float]] = [[0.0] * count for _ in range(count)]
        """Between nodes of the same tree; elsewhere without meaning."""
        self._sums: list[float] = [0.0] * count
        """Of each node: its paths to all of its tree."""

    @property
    def edges(self) -> frozenset[Pair]:
        """The edges, smaller number first."""
        return frozenset((a, b) for a, near in enumerate(self._neighbours) for b in near if a < b)

    @property
    def total(self) -> float:
        """The latencies of the paths between all pairs that are joined."""
        return sum(self._sums) / 2

    def size(self, node: int) -> int:
        """Return how many nodes its tree has."""
        return len(self._tree[node])

    def joined(self, a: int, b: int) -> bool:
        """Whether a path leads from one to the other."""
        return self._tree[a] is self._tree[b]

    def link(self, a: int, b: int) -> bool:
        """Add the edge; False, and nothing is changed, if it would make a loop or exceed the limit."""
        if self.joined(a, b) or self._full(a) or self._full(b):
            return False
        self._join(a, b)
        return True

    def complete(self, start: int) -> None:
        """Join all trees into one, beginning with that of `start`, the nearest to `start` first."""
        away = self._latencies[start]
        for node in sorted(range(len(away)), key=lambda each: (away[each], each)):
            if not self.joined(start, node):
                self._join(*self._best(self._tree[start], self._tree[node], self._sums)[1:])

    def improve(self, allowed: Collection[Pair] | None = None) -> None:
        """Move branches to where the total becomes less, until none of them can.

        `allowed`: the only edges that may be used; those that are there are among them.
        """
        for _ in range(_ROUNDS):
            moved = [self._move(a, b, allowed) for a, b in sorted(self.edges) if b in self._neighbours[a]]
            if not any(moved):
                return

    def improve_once(self) -> bool:
        """Make the one move that lessens the total most; False if there is none."""
        best = (-_WORTH * self.total, (0, 0), (0, 0))
        for a, b in sorted(self.edges):
            before = self._cut(a, b)
            after, x, y = self._best(self._tree[a], self._tree[b], self._sums)
            self._join(a, b)
            best = min(best, (after - before, (a, b), (x, y)))
        _, old, new = best
        if old == new:
            return False
        self._cut(*old)
        self._join(*new)
        return True

    def _full(self, node: int) -> bool:
        return len(self._neighbours[node]) >= self._limit

    def _best(self, ours: list[int], theirs: list[int], sums: Sequence[float]) -> tuple[float, int, int]:
        """Return how an edge joins two trees with the least total of paths across it, and that total.

        `sums`: of each node, its paths within its own tree.
        """
        many, few = len(ours), len(theirs)
        free = [(many * sums[b], b) for b in theirs if not self._full(b)]
        return min(
            (many * few * latency[b] + few * sums[a] + across, a, b)
            for a in ours
            if not self._full(a)
            for latency in (self._latencies[a],)
            for across, b in free
        )

    def _best_of(
        self, allowed: Collection[Pair], ours: list[int], theirs: list[int]
    ) -> tuple[float, int, int]:
        """Return the same, of these edges."""
        many, few = len(ours), len(theirs)
        return min(
            (many * few * self._latencies[a][b] + few * self._sums[a] + many * self._sums[b], a, b)
            for edge in allowed
            for a, b in (edge, edge[::-1])
            if self._tree[a] is ours and self._tree[b] is theirs and not (self._full(a) or self._full(b))
        )

    def _join(self, a: int, b: int) -> None:
        """Add the edge between two trees and the paths that lead over it."""
        ours, theirs, edge = self._tree[a], self._tree[b], self._latencies[a][b]
        to_a = [self._paths[node][a] for node in ours]
        to_b = [self._paths[node][b] for node in theirs]
        sum_a, sum_b = sum(to_a), sum(to_b)  # not those kept: their rounding errors would double every time
        for x, near in zip(ours, to_a, strict=True):
            row = self._paths[x]
            for y, far in zip(theirs, to_b, strict=True):
                row[y] = self._paths[y][x] = near + edge + far
            self._sums[x] += sum_b + len(theirs) * (near + edge)
        for y, far in zip(theirs, to_b, strict=True):
            self._sums[y] += sum_a + len(ours) * (far + edge)
        whole = [*ours, *theirs]
        for node in whole:
            self._tree[node] = whole
        self._neighbours[a].add(b)
        self._neighbours[b].add(a)

    def _cut(self, a: int, b: int) -> float:
        """Remove the edge; return the latencies of all the paths that led over it."""
        self._neighbours[a].discard(b)
        self._neighbours[b].discard(a)
        ours, theirs, edge = self._reach(a), self._reach(b), self._latencies[a][b]
        sum_a = sum(map(self._paths[a].__getitem__, ours))
        sum_b = sum(map(self._paths[b].__getitem__, theirs))
        for x in ours:
            self._tree[x] = ours
            self._sums[x] -= sum_b + len(theirs) * (self._paths[x][a] + edge)
        for y in theirs:
            self._tree[y] = theirs
            self._sums[y] -= sum_a + len(ours) * (self._paths[y][b] + edge)
        return len(ours) * len(theirs) * edge + len(theirs) * sum_a + len(ours) * sum_b

    def _move(self, a: int, b: int, allowed: Collection[Pair] | None) -> bool:
        """Replace the edge by a better one, if there is one."""
        before = self._cut(a, b)
        after, x, y = (
            self._best(self._tree[a], self._tree[b], self._sums)
            if allowed is None
            else self._best_of(allowed, self._tree[a], self._tree[b])
        )
        better = after < before * (1 - _WORTH)
        self._join(*((x, y) if better else (a, b)))
        return better

    def _reach(self, start: int) -> list[int]:
        found, seen = [start], {start}
        for node in found:  # grows while it is read
            new = self._neighbours[node] - seen
            seen |= new
            found.extend(sorted(new))
        return found


def best_tree(latencies: Latencies, degree_limit: int) -> Forest:
    """Return a tree over all nodes whose total is as small as can be found quickly."""
    forest = Forest(latencies, degree_limit)
    if latencies:
        forest.complete(middle(latencies))
        forest.improve()
    return forest


def middle(latencies: Latencies, among: Iterable[int] | None = None) -> int:
    """Return the node that is nearest to all; `among`: the only ones that may be taken, at least one."""
    return min(
        range(len(latencies)) if among is None else among, key=lambda node: (sum(latencies[node]), node)
    )
