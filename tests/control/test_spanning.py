from __future__ import annotations

import random
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.cascade.spanning import Forest, best_tree, middle

if TYPE_CHECKING:
    from collections.abc import Iterator

Edges = list[tuple[int, int]]


def scattered(count: int, seed: int) -> list[list[float]]:
    """Nodes on a square of 100 by 100, their distances as latencies."""
    draw = random.Random(seed)
    points = [complex(100 * draw.random(), 100 * draw.random()) for _ in range(count)]
    return [[abs(a - b) for b in points] for a in points]


def path_sums(latencies: list[list[float]], edges: frozenset[tuple[int, int]]) -> float:
    """All pairs' path latencies, by Floyd and Warshall; infinite if some pair is not joined."""
    count = len(latencies)
    paths = [[0.0 if a == b else float("inf") for b in range(count)] for a in range(count)]
    for a, b in edges:
        paths[a][b] = paths[b][a] = latencies[a][b]
    for middle_, a, b in product(range(count), repeat=3):
        paths[a][b] = min(paths[a][b], paths[a][middle_] + paths[middle_][b])
    return sum(map(sum, paths)) / 2


def every_tree(count: int, limit: int) -> Iterator[Edges]:
    """All labelled trees, by their Prüfer codes."""
    for code in product(range(count), repeat=count - 2):
        degrees = [1 + code.count(node) for node in range(count)]
        if max(degrees) > limit:
            continue
        edges: Edges = []
        for node in code:
            leaf = degrees.index(1)
            edges.append((leaf, node))
            degrees[leaf] = 0
            degrees[node] -= 1
        one, other = (node for node in range(count) if degrees[node] == 1)
        yield [*edges, (one, other)]


def degrees(edges: frozenset[tuple[int, int]], count: int) -> list[int]:
    return [sum(node in edge for edge in edges) for node in range(count)]


def test_an_edge_that_closes_a_loop_is_refused() -> None:
    forest = Forest(scattered(4, 0), 3)
    assert forest.link(0, 1)
    assert forest.link(1, 2)
    assert not forest.link(0, 2)
    assert not forest.link(1, 1)
    assert forest.joined(0, 2)
    assert not forest.joined(0, 3)
    assert forest.edges == {(0, 1), (1, 2)}
    assert [forest.size(node) for node in range(4)] == [3, 3, 3, 1]


def test_an_edge_beyond_the_degree_limit_is_refused() -> None:
    forest = Forest(scattered(4, 0), 2)
    assert forest.link(0, 1)
    assert forest.link(0, 2)
    assert not forest.link(0, 3)
    assert not forest.link(3, 0)


def test_a_limit_that_joins_no_three_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="joins no three"):
        Forest(scattered(3, 0), 1)


def test_no_nodes_need_no_edges() -> None:
    assert best_tree([], 2).edges == frozenset()
    assert best_tree([[0.0]], 2).edges == frozenset()


def test_the_middle_is_the_node_nearest_to_all() -> None:
    line = [[abs(a - b) * 1.0 for b in range(5)] for a in range(5)]
    assert middle(line) == 2
    assert middle(line, [0, 1]) == 1


def test_small_trees_come_near_the_best_there_is() -> None:
    ratios = []
    for seed in range(20):
        latencies = scattered(5, seed)
        for limit in (2, 3, 4):
            best = min(total(latencies, tree) for tree in every_tree(5, limit))
            ratios.append(best_tree(latencies, limit).total / best)
    ratios.sort()
    assert ratios[0] > 0.999
    assert ratios[len(ratios) // 2] < 1.01
    assert ratios[-1] < 1.35


def total(latencies: list[list[float]], edges: Edges) -> float:
    forest = Forest(latencies, len(latencies))
    assert all(forest.link(a, b) for a, b in edges)
    return forest.total


@given(count=st.integers(1, 14), limit=st.integers(2, 5), seed=st.integers(0, 1000))
def test_a_best_tree_spans_all_within_the_limit(count: int, limit: int, seed: int) -> None:
    latencies = scattered(count, seed)
    tree = best_tree(latencies, limit)
    assert len(tree.edges) == count - 1
    assert max(degrees(tree.edges, count)) <= limit
    assert tree.total == pytest.approx(path_sums(latencies, tree.edges))


@given(
    count=st.integers(2, 12),
    limit=st.integers(2, 5),
    seed=st.integers(0, 1000),
    tried=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
)
def test_completing_keeps_what_there_is(
    count: int, limit: int, seed: int, tried: list[tuple[int, int]]
) -> None:
    latencies = scattered(count, seed)
    forest = Forest(latencies, limit)
    for a, b in tried:
        if a < count and b < count:
            forest.link(a, b)
    before = forest.edges
    forest.complete(0)
    assert before <= forest.edges
    assert len(forest.edges) == count - 1
    assert max(degrees(forest.edges, count)) <= limit
    assert forest.total == pytest.approx(path_sums(latencies, forest.edges))
    before_moves = forest.total
    forest.improve()
    assert forest.total <= before_moves * (1 + 1e-6)
    assert forest.total == pytest.approx(path_sums(latencies, forest.edges))


@given(count=st.integers(1, 9), limit=st.integers(2, 4))
def test_equal_latencies_come_to_rest(count: int, limit: int) -> None:
    for value in (0.0, 7.0):
        latencies = [[0.0 if a == b else value for b in range(count)] for a in range(count)]
        assert len(best_tree(latencies, limit).edges) == count - 1
