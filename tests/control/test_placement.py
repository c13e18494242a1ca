from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.placement import Candidate, Decision, choose

if TYPE_CHECKING:
    from random import Random

NOBODY: frozenset[str] = frozenset()


def cluster(
    name: str,
    region: str = "eu",
    *,
    online: bool = True,
    modules: frozenset[str] = NOBODY,
    participants: int = 0,
    streams: int = 0,
    cpu: float = 0.0,
) -> Candidate:
    return Candidate(
        cluster=name,
        region=region,
        online=online,
        modules=modules,
        participants=participants,
        streams=streams,
        cpu=cpu,
    )


def pick(
    *candidates: Candidate,
    region: str | None = "eu",
    already: frozenset[str] = NOBODY,
    required: frozenset[str] = NOBODY,
) -> Decision:
    return choose(candidates, region=region, already=already, required_modules=required)


def test_nothing_to_choose_from() -> None:
    assert pick() == Decision(cluster=None, ranked=(), rejected={})


def test_region_goes_before_load() -> None:
    decision = pick(cluster("far", "us"), cluster("near", "eu", cpu=1.0, participants=9999))
    assert decision.ranked == ("near", "far")


def test_far_cluster_is_better_than_none() -> None:
    decision = pick(cluster("near", online=False), cluster("far", "us"))
    assert decision.cluster == "far"
    assert decision.rejected == {"near": "it is offline"}


def test_cluster_that_serves_already_goes_before_an_emptier_one() -> None:
    decision = pick(cluster("empty"), cluster("busy", cpu=0.9), already=frozenset({"busy"}))
    assert decision.ranked == ("busy", "empty")


def test_region_goes_before_a_cluster_that_serves_already() -> None:
    decision = pick(cluster("far", "us"), cluster("near", cpu=0.9), already=frozenset({"far"}))
    assert decision.ranked == ("near", "far")


def test_elsewhere_too_a_cluster_that_serves_already_goes_first() -> None:
    decision = pick(cluster("a", "us"), cluster("b", "us", cpu=0.5), already=frozenset({"b"}))
    assert decision.ranked == ("b", "a")


@pytest.mark.parametrize("busy", [{"cpu": 0.5}, {"participants": 10}, {"streams": 10}])
def test_then_the_least_loaded(busy: dict[str, float]) -> None:
    loaded = cluster("a", cpu=busy.get("cpu", 0.0), participants=int(busy.get("participants", 0)))
    if "streams" in busy:
        loaded = cluster("a", streams=int(busy["streams"]))
    assert pick(loaded, cluster("b")).ranked == ("b", "a")


def test_then_the_id() -> None:
    assert pick(cluster("c"), cluster("a"), cluster("b")).ranked == ("a", "b", "c")


def test_without_a_region_load_decides_and_then_who_serves_already() -> None:
    decision = pick(
        cluster("busy", "us", cpu=0.5),
        cluster("a", "eu"),
        cluster("b", "us"),
        region=None,
        already=frozenset({"busy", "b"}),
    )
    assert decision.ranked == ("b", "a", "busy")


def test_cluster_without_a_module() -> None:
    required = frozenset({"conference", "portal", "eventbridge"})
    decision = pick(
        cluster("some", modules=frozenset({"portal"})),
        cluster("all", modules=required | {"recording"}),
        required=required,
    )
    assert decision.ranked == ("all",)
    assert decision.rejected == {"some": "it lacks conference, eventbridge"}


def test_cluster_that_declared_no_module_at_all_may_have_it() -> None:
    assert pick(cluster("quiet"), required=frozenset({"conference"})).cluster == "quiet"


names = st.sampled_from(["a", "b", "c", "d", "e"])
modules = st.frozensets(st.sampled_from(["conference", "portal"]))
clusters = st.builds(
    Candidate,
    cluster=names,
    region=st.sampled_from(["eu", "us", "ap"]),
    online=st.booleans(),
    modules=modules,
    participants=st.integers(0, 5),
    streams=st.integers(0, 5),
    cpu=st.sampled_from([0.0, 0.25, 0.5]),
)
crowds = st.lists(clusters, unique_by=lambda c: c.cluster, max_size=5)


@given(crowds, st.sampled_from(["eu", "us", None]), st.frozensets(names), modules, st.randoms())
def test_decision_is_complete_sound_and_the_same_everywhere(
    crowd: list[Candidate],
    region: str | None,
    already: frozenset[str],
    required: frozenset[str],
    random: Random,
) -> None:
    decision = choose(crowd, region=region, already=already, required_modules=required)
    assert sorted([*decision.ranked, *decision.rejected]) == sorted(c.cluster for c in crowd)
    assert decision.cluster == (decision.ranked[0] if decision.ranked else None)
    by_name = {c.cluster: c for c in crowd}
    chosen = [by_name[name] for name in decision.ranked]
    assert all(c.online and (not c.modules or required <= c.modules) for c in chosen)
    if region is not None:
        here = [c.region == region for c in chosen]
        assert here == sorted(here, reverse=True)
        serving = [(c.region == region, c.cluster in already) for c in chosen]
        assert serving == sorted(serving, reverse=True)
    shuffled = list(crowd)
    random.shuffle(shuffled)
    assert choose(shuffled, region=region, already=already, required_modules=required) == decision
