"""Large trees are worked out once, wherever that is; other questions about the view are answered at once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from control.cascade import topology
from control.cascade.plan import next_look, plan, takes_long, topology_of
from control.cascade.spanning import best_tree
from control.cascade.topology import TopologyWish
from control.cascade.view import ClusterFacts, View
from tests.control.planning import NOW, agent, linked, placed

if TYPE_CHECKING:
    from control.cascade.spanning import Forest, Latencies


def tree_of(count: int) -> View:
    rng = random.Random(count)
    names = [f"n{number}" for number in range(count)]
    return View(
        conference="c",
        state="active",
        topology=TopologyWish(kind="tree"),
        placements=tuple(placed(name, number) for number, name in enumerate(names, 1)),
        links=(),
        clusters={
            name: ClusterFacts(id=name, online=True, reports_links=True, region=name) for name in names
        },
        agents=tuple(agent(f"{name}-agent", name) for name in names),
        round_trips={(a, b): rng.uniform(1, 200) for a in names for b in names if a < b},
        relaying=True,
    )


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what grows by one with each tree that is worked out."""
    sizes: list[int] = []

    def counted(latencies: Latencies, degree_limit: int) -> Forest:
        sizes.append(len(latencies))
        return best_tree(latencies, degree_limit)

    monkeypatch.setattr(topology, "best_tree", counted)
    topology._ideal.cache_clear()
    return sizes


async def test_what_another_thread_has_worked_out_is_there_for_the_plan(worked_out: list[int]) -> None:
    view = tree_of(30)
    assert takes_long(view)
    shape = await asyncio.to_thread(topology_of, view, NOW)
    assert worked_out == [30]
    assert topology_of(view, NOW) == shape
    assert plan(view, NOW)
    next_look(view, NOW)
    assert worked_out == [30]


def test_nothing_is_worked_out_while_links_are_being_mended(worked_out: list[int]) -> None:
    view = tree_of(20)
    shape = topology_of(view, NOW)
    worked_out.clear()
    topology._ideal.cache_clear()
    links = tuple(linked("down", dialer=later, listener=earlier) for earlier, later in sorted(shape.edges))
    assert topology_of(replace(view, links=links), NOW).edges == shape.edges
    assert worked_out == []


@pytest.mark.parametrize(
    "view",
    [
        tree_of(15),
        replace(tree_of(30), relaying=False),
        replace(tree_of(30), topology=TopologyWish()),
        replace(tree_of(30), topology=TopologyWish(kind="star")),
    ],
)
def test_small_ones_and_other_shapes_are_worked_out_on_the_spot(view: View) -> None:
    assert not takes_long(view)
