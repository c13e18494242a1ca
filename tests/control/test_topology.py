from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations, permutations
from math import inf, nan
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from control.cascade.topology import GAIN, Edge, Node, Topology, TopologyKind, TopologyWish, edges, round_trip

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

TREE = TopologyWish(kind="tree")
STAR = TopologyWish(kind="star")
BERLIN, PARIS, DALLAS, TOKYO = (52.5, 13.4), (48.9, 2.4), (32.8, -96.8), (35.7, 139.7)


def nodes(names: str, **fields: object) -> list[Node]:
    facts = {"can_relay": True, **fields}
    return [Node(cluster=name, ordinal=n, **facts) for n, name in enumerate(names, 1)]  # type: ignore[arg-type]  # kept short


def line(names: str) -> dict[tuple[str, str], float]:
    """Clusters along a road, 10 ms apart."""
    return {(a, b): 10.0 * abs(names.index(a) - names.index(b)) for a, b in permutations(names, 2)}


def world(count: int, seed: int = 1) -> list[Node]:
    """Clusters anywhere between the 60th parallels."""
    draw = random.Random(seed)
    return [
        Node(
            cluster=f"c{n}",
            ordinal=n,
            region=f"r{n % 12}",
            location=(draw.uniform(-60, 60), draw.uniform(-180, 180)),
            can_relay=True,
        )
        for n in range(1, count + 1)
    ]


def shape(
    placements: Sequence[Node],
    wish: TopologyWish,
    previous: Collection[Edge] = (),
    round_trips: Mapping[tuple[str, str], float] | None = None,
    *,
    relaying: bool = True,
    settled: bool = True,
) -> Topology:
    def ask(there: Collection[Edge], *, settled: bool) -> Topology:
        return edges(placements, wish, round_trips or {}, there, relaying=relaying, settled=settled)

    topology = ask(previous, settled=settled)
    assert ask(topology.edges, settled=False).edges == topology.edges, "the answer is the answer again"
    quiet = topology.edges
    for _ in range(4 * len(placements) + 1):
        better = ask(quiet, settled=True).edges
        if better == quiet:
            break
        assert len(better - quiet) == 1 or topology.used == "star"
        quiet = better
    else:
        pytest.fail("it goes on improving for ever")
    order = {node.cluster: node.ordinal for node in placements}
    assert all(order[earlier] < order[later] for earlier, later in topology.edges)
    assert_whole(placements, topology, relaying=relaying)
    return topology


def assert_whole(placements: Sequence[Node], topology: Topology, *, relaying: bool) -> None:
    """Everybody hears everybody, once: by the one way over relaying links, or else directly."""
    relays = {node.cluster for node in placements if relaying and node.can_relay}
    every = {(a.cluster, b.cluster) for a, b in combinations(sorted(placements, key=lambda n: n.ordinal), 2)}
    if topology.used == "mesh":
        assert topology.edges == every
        return
    passing = {edge for edge in topology.edges if set(edge) <= relays}
    assert topology.edges - passing == {edge for edge in every if not set(edge) <= relays}
    assert len(passing) == len(relays) - 1
    assert reached(next(iter(relays)), passing) == relays


def reached(start: str, links: Collection[Edge]) -> set[str]:
    found, left = {start}, [start]
    while left:
        here = left.pop()
        for edge in links:
            if here in edge:
                other = edge[0] if edge[1] == here else edge[1]
                if other not in found:
                    found.add(other)
                    left.append(other)
    return found


def degree(name: str, links: Collection[Edge]) -> int:
    return sum(name in edge for edge in links)


# --- mesh -------------------------------------------------------------------------------------


def test_a_mesh_links_every_pair_and_the_later_one_dials() -> None:
    topology = shape(list(reversed(nodes("abc"))), TopologyWish())
    assert topology.edges == {("a", "b"), ("a", "c"), ("b", "c")}
    assert (topology.used, topology.reason) == ("mesh", "as asked for")


@pytest.mark.parametrize("wish", [TREE, STAR])
def test_without_a_wire_that_relays_it_is_a_mesh_and_says_so(wish: TopologyWish) -> None:
    topology = shape(nodes("abcd"), wish, relaying=False)
    assert topology.used == "mesh"
    assert topology.reason == (
        f"a {wish.kind} was asked for, but the wire between these clusters does not relay"
    )


@pytest.mark.parametrize("wish", [TREE, STAR])
def test_few_clusters_need_no_relay(wish: TopologyWish) -> None:
    for names in ("", "a", "ab"):
        topology = shape(nodes(names), wish)
        assert topology.used == "mesh"
        assert "two clusters are not enough" in topology.reason
    topology = shape([*nodes("ab"), Node(cluster="c", ordinal=3), Node(cluster="d", ordinal=4)], wish)
    assert topology.used == "mesh"
    assert "fewer than three of these clusters can relay" in topology.reason


def test_who_cannot_relay_is_linked_with_everybody() -> None:
    placements = [*nodes("abcd"), Node(cluster="plain", ordinal=9)]
    topology = shape(placements, TREE, round_trips=line("abcd"))
    assert topology.used == "tree"
    assert {edge for edge in topology.edges if "plain" in edge} == {(name, "plain") for name in "abcd"}
    assert topology.reason.endswith("linked with everybody directly, as they cannot relay: plain")


# --- tree -------------------------------------------------------------------------------------


def test_a_tree_follows_the_road() -> None:
    topology = shape(nodes("abcde"), TopologyWish(kind="tree", degree_limit=2), round_trips=line("abcde"))
    assert topology.used == "tree"
    assert topology.edges == {("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")}


def test_a_tree_keeps_the_degree_limit() -> None:
    placements = world(40)
    for limit in (2, 3, 6):
        topology = shape(placements, TopologyWish(kind="tree", degree_limit=limit))
        assert max(degree(node.cluster, topology.edges) for node in placements) <= limit


def test_a_join_adds_one_edge() -> None:
    placements = world(12)
    before = shape(placements[:11], TREE)
    after = shape(placements, TREE, before.edges)
    assert before.edges < after.edges
    assert len(after.edges - before.edges) == 1
    assert after.reason == "what is linked stays, the rest is attached"


def test_a_leaf_that_leaves_moves_nothing() -> None:
    placements = world(12)
    before = shape(placements, TREE)
    leaf = next(node for node in placements if degree(node.cluster, before.edges) == 1)
    after = shape([node for node in placements if node is not leaf], TREE, before.edges, settled=False)
    assert after.edges == {edge for edge in before.edges if leaf.cluster not in edge}


def test_a_dead_hub_is_routed_around_without_dropping_the_rest() -> None:
    placements = world(30)
    before = shape(placements, TREE)
    hub = max(placements, key=lambda node: degree(node.cluster, before.edges))
    rest = {edge for edge in before.edges if hub.cluster not in edge}
    after = shape([node for node in placements if node is not hub], TREE, before.edges)
    assert rest < after.edges
    assert len(after.edges - rest) == degree(hub.cluster, before.edges) - 1


def test_a_bad_tree_becomes_better_link_by_link_in_quiet_times_and_for_a_good_gain() -> None:
    names = "abcdef"
    bad = {("a", "f"), ("b", "f"), ("b", "e"), ("c", "e"), ("c", "d")}
    kept = shape(nodes(names), TREE, bad, line(names), settled=False)
    assert kept.edges == bad
    assert kept.reason == "what is linked stays"
    tree = shape(nodes(names), TREE, bad, line(names))
    assert tree.reason.startswith("one link is replaced by a better one; at best ")
    assert len(tree.edges - bad) == 1
    while "replaced" in (after := shape(nodes(names), TREE, tree.edges, line(names))).reason:
        assert len(after.edges - tree.edges) == 1
        tree = after
    assert after.edges == tree.edges
    assert after.reason.startswith("what is linked stays; at best ")
    ideal = shape(nodes(names), TREE, round_trips=line(names))
    total = total_latency(nodes(names), tree.edges, line(names))
    assert total * (1 - GAIN) <= total_latency(nodes(names), ideal.edges, line(names))


def test_a_change_that_has_begun_is_gone_on_with() -> None:
    """Whether the new link is made first or the old one is ended first."""
    names = "abcdef"
    bad = {("a", "f"), ("b", "f"), ("b", "e"), ("c", "e"), ("c", "d")}
    better = shape(nodes(names), TREE, bad, line(names)).edges
    assert shape(nodes(names), TREE, bad | better, line(names), settled=False).edges == better
    assert shape(nodes(names), TREE, bad & better, line(names), settled=False).edges == better


def test_a_lower_limit_takes_effect() -> None:
    placements = nodes("abcde")
    star = {("a", other) for other in "bcde"}
    topology = shape(placements, TopologyWish(kind="tree", degree_limit=2), star, line("abcde"))
    assert max(degree(node.cluster, topology.edges) for node in placements) == 2


def test_a_mesh_that_may_relay_becomes_a_tree_of_links_that_there_are() -> None:
    placements = world(10)
    mesh = shape(placements, TREE, relaying=False)
    tree = shape(placements, TREE, mesh.edges, settled=False)
    assert tree.edges < mesh.edges
    assert tree.edges == shape(placements, TREE).edges


def test_a_limit_that_joins_no_three_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match="degree_limit is 1"):
        TopologyWish(kind="tree", degree_limit=1)


# --- star -------------------------------------------------------------------------------------


def hub_of(topology: Topology) -> str:
    names = {name for edge in topology.edges for name in edge}
    return max(names, key=lambda name: degree(name, topology.edges))


def test_the_hub_is_the_one_nearest_to_all() -> None:
    topology = shape(nodes("abcde"), STAR, round_trips=line("abcde"))
    assert topology.edges == {("a", "c"), ("b", "c"), ("c", "d"), ("c", "e")}
    assert (topology.used, topology.reason) == ("star", "the hub is c: the nearest to all")


def test_the_hub_may_be_named_by_cluster_or_region() -> None:
    placements = [replace(node, region="eu" if node.cluster in "de" else "us") for node in nodes("abcde")]
    for hubs, expected in ((("nowhere", "e", "eu"), "e"), (("eu",), "d"), (("nowhere",), "c")):
        topology = shape(placements, TopologyWish(kind="star", hubs=hubs), round_trips=line("abcde"))
        assert hub_of(topology) == expected


def test_a_join_leaves_the_hub_where_it_is() -> None:
    before = shape(nodes("abcde"), STAR, round_trips=line("abcde"))
    after = shape(nodes("abcdef"), STAR, before.edges, line("abcdef"))
    assert after.edges == before.edges | {("c", "f")}


def test_the_hub_moves_for_a_good_gain_in_quiet_times() -> None:
    star = {("a", other) for other in "bcde"}
    busy = shape(nodes("abcde"), STAR, star, line("abcde"), settled=False)
    assert busy.edges == star
    assert busy.reason == "the hub is a: as before, until all is quiet"
    quiet = shape(nodes("abcde"), STAR, star, line("abcde"))
    assert quiet.reason == "the hub is c: it wins 40% over a"
    near = {("a", "b"), ("b", "c"), ("b", "d"), ("b", "e")}
    stays = shape(nodes("abcde"), STAR, near, line("abcde"))
    assert stays.edges == near
    assert stays.reason == "the hub is b: as before; c would win 14%"


def test_a_hub_that_was_wished_for_takes_its_place_when_it_comes() -> None:
    wish = TopologyWish(kind="star", hubs=("e",))
    before = shape(nodes("abcd"), wish, round_trips=line("abcde"))
    assert hub_of(before) != "e"
    busy = shape(nodes("abcde"), wish, before.edges, line("abcde"), settled=False)
    assert hub_of(busy) == hub_of(before)
    quiet = shape(nodes("abcde"), wish, busy.edges, line("abcde"))
    assert (hub_of(quiet), quiet.reason) == ("e", "the hub is e: as asked for")
    begun = shape(nodes("abcde"), wish, {*busy.edges, ("a", "e")}, line("abcde"), settled=False)
    assert begun.edges == quiet.edges


def test_a_dead_hub_is_replaced() -> None:
    before = shape(nodes("abcde"), STAR, round_trips=line("abcde"))
    rest = [node for node in nodes("abcde") if node.cluster != "c"]
    after = shape(rest, STAR, before.edges, line("abcde"), settled=False)
    assert hub_of(after) in {"b", "d"}
    assert len(after.edges) == 3


# --- latency ----------------------------------------------------------------------------------


def test_measured_round_trips_go_before_distance_before_region() -> None:
    berlin, paris = nodes("bp")
    berlin, paris = replace(berlin, location=BERLIN), replace(paris, location=PARIS)
    assert round_trip(berlin, paris, {("b", "p"): 20.0, ("p", "b"): 30.0}) == 25.0
    assert round_trip(berlin, paris, {("p", "b"): 30.0}) == 30.0
    for nonsense in (nan, inf, -1.0):
        assert 13 < round_trip(berlin, paris, {("b", "p"): nonsense}) < 16
    here, near, far = Node(cluster="h", ordinal=1, region="x"), berlin, replace(berlin, region="y")
    assert round_trip(here, replace(near, region="x"), {}) < round_trip(here, far, {})


def test_distance_makes_a_tree_where_nothing_was_measured() -> None:
    places = {"b": BERLIN, "p": PARIS, "d": DALLAS, "t": TOKYO}
    placements = [replace(node, location=places[node.cluster]) for node in nodes("bpdt")]
    topology = shape(placements, TopologyWish(kind="tree", degree_limit=3))
    assert topology.edges == {("b", "p"), ("p", "d"), ("b", "t")}


# --- a hundred clusters -----------------------------------------------------------------------


@pytest.mark.parametrize("wish", [TopologyWish(kind="tree", degree_limit=4), STAR])
def test_a_hundred_clusters_in_one_conference(wish: TopologyWish) -> None:
    """They come one by one, then every tenth dies, always the one with the most links."""
    placements = world(100)
    links: frozenset[Edge] = frozenset()
    for count in range(1, 101):
        after = edges(placements[:count], wish, {}, links, relaying=True, settled=False)
        if count > 3:
            assert links < after.edges
            assert len(after.edges - links) == 1
        links = after.edges
    left = placements
    for _ in range(10):
        hub = max(left, key=lambda node: degree(node.cluster, links))
        left = [node for node in left if node is not hub]
        after = edges(left, wish, {}, links, relaying=True, settled=False)
        assert_whole(left, after, relaying=True)
        assert {edge for edge in links if hub.cluster not in edge} <= after.edges
        links = after.edges
    direct = sum(round_trip(a, b, {}) for a, b in combinations(left, 2))
    quiet = shape(left, wish, links)
    assert total_latency(left, quiet.edges) < 2.2 * direct


def total_latency(
    placements: Sequence[Node],
    links: Collection[Edge],
    measured: Mapping[tuple[str, str], float] | None = None,
) -> float:
    by_name = {node.cluster: node for node in placements}
    near: dict[str, list[tuple[str, float]]] = {name: [] for name in by_name}
    for a, b in links:
        cost = round_trip(by_name[a], by_name[b], measured or {})
        near[a].append((b, cost))
        near[b].append((a, cost))
    total = 0.0
    for start in by_name:
        away, left = {start: 0.0}, [start]
        for here in left:
            for other, cost in near[here]:
                if other not in away:
                    away[other] = away[here] + cost
                    left.append(other)
        total += sum(away.values())
    return total / 2


# --- anything ---------------------------------------------------------------------------------


NAMES = "abcdefgh"


@given(
    who=st.permutations(NAMES).flatmap(lambda all_: st.integers(0, 8).map(lambda n: "".join(all_[:n]))),
    plain=st.sets(st.sampled_from(NAMES)),
    wish=st.builds(
        TopologyWish,
        kind=st.sampled_from(["mesh", "tree", "star"]),
        degree_limit=st.integers(2, 5),
        hubs=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
    ),
    previous=st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES))),
    measured=st.dictionaries(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), st.floats(allow_nan=True), max_size=20
    ),
    relaying=st.booleans(),
    settled=st.booleans(),
)
@settings(max_examples=50)
def test_whatever_there_was_the_conference_is_whole(  # noqa: PLR0917 - Hypothesis passes them by name
    who: str,
    plain: set[str],
    wish: TopologyWish,
    previous: set[Edge],
    measured: dict[tuple[str, str], float],
    relaying: bool,
    settled: bool,
) -> None:
    placements = [replace(node, can_relay=node.cluster not in plain) for node in nodes(who)]
    shape(placements, wish, previous, measured, relaying=relaying, settled=settled)


class Coming(RuleBasedStateMachine):
    """Clusters come and go; links are made and ended one by one."""

    kind: TopologyKind = "tree"
    ends_first = False
    """Whether old links are ended before new ones are made, so that nothing ever goes round."""

    def __init__(self) -> None:
        super().__init__()
        self.there: list[Node] = []
        self.links: frozenset[Edge] = frozenset()
        self.ordinal = 0
        self.round_trips: dict[tuple[str, str], float] = {}

    def wanted(self, *, settled: bool) -> frozenset[Edge]:
        wish = TopologyWish(kind=self.kind, degree_limit=3, hubs=("d",))
        return shape(self.there, wish, self.links, self.round_trips, settled=settled).edges

    @rule(name=st.sampled_from(NAMES))
    def comes_or_goes(self, name: str) -> None:
        ends = {node.cluster for node in self.there}
        self.there = [node for node in self.there if node.cluster != name]
        if name not in ends:
            self.ordinal += 1
            self.there.append(Node(cluster=name, ordinal=self.ordinal, can_relay=True))
        self.links = frozenset(edge for edge in self.links if name not in edge)

    @rule(a=st.sampled_from(NAMES), b=st.sampled_from(NAMES), value=st.floats(0, 500))
    def is_measured(self, a: str, b: str, value: float) -> None:
        self.round_trips[a, b] = value

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def one_link_changes(self, data: st.DataObject) -> None:
        wanted = self.wanted(settled=data.draw(st.booleans()))
        changes = sorted(wanted ^ self.links, key=lambda edge: ((edge in wanted) == self.ends_first, edge))
        if changes:
            kind = changes[0] in wanted
            self.links ^= {data.draw(st.sampled_from([each for each in changes if (each in wanted) == kind]))}

    @invariant()
    def it_comes_to_rest(self) -> None:
        saved = self.links
        for _ in range(4 * len(NAMES) ** 2):
            wanted = self.wanted(settled=self.ends_first or self.links == self.wanted(settled=False))
            if wanted == self.links:
                break
            self.links ^= {min(wanted ^ self.links, key=lambda e: ((e in wanted) == self.ends_first, e))}
        else:
            pytest.fail("it never comes to rest")
        self.links = saved


class ComingToAStar(Coming):
    kind = "star"


class ComingWithoutLoops(Coming):
    ends_first = True


class ComingToAStarWithoutLoops(Coming):
    kind = "star"
    ends_first = True


for machine in (Coming, ComingToAStar, ComingWithoutLoops, ComingToAStarWithoutLoops):
    machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestTree = Coming.TestCase
TestStar = ComingToAStar.TestCase
TestTreeWithoutLoops = ComingWithoutLoops.TestCase
TestStarWithoutLoops = ComingToAStarWithoutLoops.TestCase


def test_the_gain_is_a_share() -> None:
    assert 0 < GAIN < 1
