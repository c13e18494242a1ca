from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.errors import ConfigError
from control.placement import (
    Board,
    Candidate,
    Conference,
    Decision,
    Place,
    PolicySettings,
    Rules,
    Wish,
    decide,
    load_of,
    load_rules,
    make_policies,
    pack,
    sentence,
    unpack,
)
from control.placement import policy as policy_module
from control.placement.facts import distance_km

PLACES = {
    "eu": Place(groups=frozenset({"west"}), location=(50.1, 8.7)),
    "uk": Place(groups=frozenset({"west"}), location=(51.5, -0.1)),
    "us": Place(groups=frozenset({"america"}), location=(39.0, -77.5)),
    "ap": Place(location=(1.3, 103.8)),
}


def cluster(name: str, region: str = "eu", **facts: Any) -> Candidate:
    return Candidate(cluster=name, region=region, **facts)


def pick(
    *candidates: Candidate,
    wish: Wish | None = None,
    region: str | None = "eu",
    already: tuple[str, ...] = (),
    tried: tuple[str, ...] = (),
    policy: PolicySettings | None = None,
    rules: Rules | None = None,
    seed: int = 1,
    conference: str = "k",
    everybody: bool = False,
) -> Decision:
    policies = make_policies({} if policy is None else {"p": policy}, rules or Rules())
    return decide(
        Board(candidates, PLACES),
        policies["default" if policy is None else "p"],
        wish or Wish(region=region),
        Conference(id=conference, clusters=frozenset(already)),
        rng=random.Random(seed),
        tried=tried,
        everybody=everybody,
    )


def reasons(decision: Decision) -> dict[str, str]:
    return {name: each.filter for each in decision.rejected for name in each.clusters}


def test_nothing_to_choose_from() -> None:
    decision = pick()
    assert (decision.cluster, decision.considered) == (None, 0)
    assert sentence(decision) == "no cluster is registered"


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"liveness": "gone"}, "state"),
        ({"blocked": True}, "blocked"),
        ({"draining": True}, "draining"),
        ({"modules": frozenset({"portal"})}, "modules"),
        ({"labels": {"gpu": "no"}}, "labels"),
        ({"region": "us"}, "residency"),
        ({"participants": 10, "max_participants": 10}, "room"),
        ({"conferences": 3, "max_conferences": 3}, "room"),
        ({"bandwidth": 1.0}, "room"),
        ({"room_ids": "[0-9]+"}, "id"),
    ],
)
def test_each_filter_rejects_and_says_so(facts: dict[str, Any], rule: str) -> None:
    good = {"modules": frozenset({"conference"}), "labels": {"gpu": "yes"}}
    wish = Wish(
        region="eu",
        modules=frozenset({"conference"}),
        selector=(("gpu", "yes"),),
        residency=frozenset({"eu"}),
    )
    decision = pick(Candidate(**{"cluster": "bad", "region": "eu", **good, **facts}), wish=wish)
    assert decision.cluster is None
    assert reasons(decision) == {"bad": rule}
    assert "bad: " in sentence(decision)
    assert pick(Candidate(cluster="fine", region="eu", **good), wish=wish).cluster == "fine"  # type: ignore[arg-type]  # a dict of mixed facts


def test_who_serves_already_may_go_on_while_draining_or_with_all_its_conferences() -> None:
    serving = cluster("a", draining=True, conferences=3, max_conferences=3)
    assert pick(serving, already=("a",)).cluster == "a"


def test_a_cluster_without_any_module_told_may_have_it() -> None:
    assert pick(cluster("quiet"), wish=Wish(modules=frozenset({"conference"}))).cluster == "quiet"


def test_suspects_only_if_there_is_nothing_else() -> None:
    far, near = cluster("far", "ap"), cluster("near", liveness="suspect")
    assert pick(far, near).cluster == "far"
    alone = pick(near)
    assert (alone.cluster, alone.suspect) == ("near", True)
    assert pick(near, policy=PolicySettings(suspects="never")).cluster is None


def test_a_conference_stays_within_a_cluster_that_cannot_cascade() -> None:
    island, other = cluster("island", "us", cascades=False), cluster("other")
    decision = pick(island, other, already=("island",))
    assert (decision.cluster, reasons(decision)) == ("island", {"other": "cascade"})
    decision = pick(island, other, region="us", already=("other",))
    assert (decision.cluster, reasons(decision)) == ("other", {"island": "cascade"})
    assert pick(island, other, region="us").cluster == "island"


def test_region_goes_before_load_and_before_who_serves_already() -> None:
    decision = pick(cluster("far", "us"), cluster("near", cpu=1.0, participants=499), already=("far",))
    assert (decision.cluster, decision.placed) == ("near", "region")


def test_in_a_region_who_serves_already_goes_before_an_emptier_one() -> None:
    assert pick(cluster("empty"), cluster("busy", cpu=0.9), already=("busy",)).cluster == "busy"


def test_without_the_region_the_group_then_the_distance_then_anybody() -> None:
    uk, us, ap = cluster("uk", "uk"), cluster("us", "us"), cluster("ap", "ap")
    assert (pick(uk, us, ap).cluster, pick(uk, us, ap).placed) == ("uk", "group")
    assert (pick(us, ap).cluster, pick(us, ap).placed) == ("us", "distance")
    nowhere = pick(cluster("x", "x"), region="y")
    assert (nowhere.cluster, nowhere.placed) == ("x", "any")


def test_a_location_finds_the_nearest_and_latencies_the_soonest() -> None:
    crowd = (cluster("eu"), cluster("us", "us"), cluster("ap", "ap"))
    near_tokyo = pick(*crowd, wish=Wish(location=(35.7, 139.7)))
    assert (near_tokyo.cluster, near_tokyo.placed) == ("ap", "distance")
    measured = pick(*crowd, wish=Wish(latencies=(("ap", 180.0), ("eu", 90.0), ("us", 12.0))))
    assert (measured.cluster, measured.placed, measured.home) == ("us", "region", "us")


def test_elsewhere_can_be_forbidden() -> None:
    decision = pick(cluster("us", "us"), policy=PolicySettings(elsewhere=False))
    assert (decision.cluster, reasons(decision)) == (None, {"us": "elsewhere"})
    assert pick(cluster("us", "us"), region=None, policy=PolicySettings(elsewhere=False)).cluster == "us"


def test_the_cheaper_one_if_weighed_so() -> None:
    dear, cheap = cluster("dear", cost=9.0), cluster("cheap", cost=1.0, cpu=0.5)
    assert pick(dear, cheap, policy=PolicySettings(weights={"cost": 20.0})).cluster == "cheap"


@pytest.mark.parametrize("busy", [{"cpu": 0.5}, {"participants": 10}, {"streams": 10}, {"bandwidth": 0.1}])
def test_the_less_loaded_of_the_two_drawn(busy: dict[str, Any]) -> None:
    for seed in range(10):
        assert pick(cluster("a", **busy), cluster("b"), seed=seed).cluster == "b"


def test_of_two_draws_the_worst_of_three_never_wins() -> None:
    crowd = (cluster("a", cpu=0.9), cluster("b", cpu=0.5), cluster("c", cpu=0.1))
    won = {pick(*crowd, seed=seed).cluster for seed in range(50)}
    assert won == {"b", "c"}


def test_those_that_failed_are_not_taken_again() -> None:
    decision = pick(cluster("a"), cluster("b"), tried=("a",))
    assert (decision.cluster, reasons(decision)) == ("b", {"a": "tried"})


@pytest.mark.parametrize("many", [10, 40, 500])
def test_joins_over_equal_clusters_spread_within_ten_percent(many: int) -> None:
    candidates = [cluster(f"c{n}") for n in range(many)]
    board = Board(candidates, {})
    policy = make_policies({}, Rules())["default"]
    rng = random.Random(7)
    for n in range(many * 100):
        chosen = decide(board, policy, Wish(region="eu"), Conference(id=f"k{n}"), rng=rng).cluster
        assert chosen is not None
        board.candidates[chosen].participants += 1
    taken = [candidate.participants for candidate in candidates]
    assert min(taken) >= 90
    assert max(taken) <= 110


def test_full_clusters_of_the_best_hundred_do_not_hide_the_others() -> None:
    full = [cluster(f"f{n:03}", participants=1, max_participants=1) for n in range(200)]
    decision = pick(*full, cluster("far", "us"))
    assert (decision.cluster, decision.placed) == ("far", "distance")
    none = pick(*full)
    assert none.cluster is None
    assert sum(each.count for each in none.rejected) == 200
    assert len(sentence(none)) < 300


def test_explained_a_decision_accounts_for_everybody() -> None:
    crowd = [cluster(f"c{n}", draining=n % 2 == 0) for n in range(100)]
    decision = pick(*crowd, everybody=True)
    assert decision.considered == 100
    assert sum(each.count for each in decision.rejected) == 50
    assert decision.scored[0].cluster == decision.cluster
    assert decision.scored[0].total == pytest.approx(sum(decision.scored[0].points.values()))
    assert unpack(pack(decision)) == decision
    assert len(pack(decision)) < 1500


names = st.sampled_from(["a", "b", "c", "d", "e"])
clusters = st.builds(
    Candidate,
    cluster=names,
    region=st.sampled_from(["eu", "us", "ap"]),
    cascades=st.booleans(),
    modules=st.frozensets(st.sampled_from(["conference", "portal"])),
    participants=st.integers(0, 5),
    max_participants=st.none() | st.integers(0, 5),
    draining=st.booleans(),
    blocked=st.booleans(),
    liveness=st.sampled_from(["online", "suspect", "gone"]),
    cpu=st.sampled_from([0.0, 0.25, 0.5]),
)
crowds = st.lists(clusters, unique_by=lambda c: c.cluster, max_size=5)


@given(crowds, st.sampled_from(["eu", "us", None]), st.frozensets(names, max_size=2), st.integers())
def test_a_decision_is_sound_complete_and_repeatable(
    crowd: list[Candidate], region: str | None, already: frozenset[str], seed: int
) -> None:
    here = already & {c.cluster for c in crowd}
    decision = pick(*crowd, region=region, already=tuple(here), seed=seed, everybody=True)
    assert decision == pick(*crowd, region=region, already=tuple(here), seed=seed, everybody=True)
    rejected = Counter(name for each in decision.rejected for name in each.clusters)
    assert set(rejected.values()) <= {1}
    by_name = {c.cluster: c for c in crowd}
    if decision.cluster is None:
        assert set(rejected) | {c.cluster for c in crowd if c.liveness == "suspect"} == set(by_name)
        return
    chosen = by_name[decision.cluster]
    assert chosen.cluster not in rejected
    assert chosen.liveness != "gone"
    assert not chosen.blocked
    assert not chosen.draining or chosen.cluster in here
    assert chosen.max_participants is None or chosen.participants < chosen.max_participants
    assert not (here - {chosen.cluster}) or chosen.cascades


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_distances_are_symmetric_and_within_half_the_globe(a: float, b: float, c: float, d: float) -> None:
    there, back = distance_km((a, b), (c, d)), distance_km((c, d), (a, b))
    assert there == pytest.approx(back, abs=1e-6)
    assert 0 <= there <= 20_016


def test_a_known_distance() -> None:
    assert distance_km((52.5, 13.4), (48.9, 2.35)) == pytest.approx(878, rel=0.01)


def test_load_is_between_nothing_and_all() -> None:
    assert load_of(cluster("a")) == 0
    busy = cluster("a", participants=999, streams=999, cpu=1, bandwidth=1)
    assert load_of(busy) == 1


# --- policies and plug-ins --------------------------------------------------------------------


def test_a_policy_that_names_an_unknown_rule_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"policies\.p\.weights: no scorer moon; there are "):
        make_policies({"p": PolicySettings(weights={"moon": 1.0})}, Rules())
    with pytest.raises(ConfigError, match=r"\.p\.filters: no installed filter x; installed are: none"):
        make_policies({"p": PolicySettings(filters=("x",))}, Rules())


class Point:
    """An installed entry point."""

    def __init__(self, name: str, rule: Any) -> None:
        self.name, self.value, self._rule = name, f"somewhere:{name}", rule

    def load(self) -> Any:
        if isinstance(self._rule, Exception):
            raise self._rule
        return self._rule


def installed(monkeypatch: pytest.MonkeyPatch, **groups: list[Point]) -> None:
    def found(*, group: str) -> list[Point]:
        return groups.get(group.rpartition(".")[2], [])

    monkeypatch.setattr(policy_module, "entry_points", found)


def test_installed_rules_count_where_a_policy_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(
        monkeypatch,
        filters=[Point("odd", lambda candidate, *_: None if candidate.cost else "it costs nothing")],
        scorers=[Point("dear", lambda candidate, *_: candidate.cost)],
    )
    rules = load_rules()
    crowd = (cluster("free"), cluster("a", cost=10.0), cluster("b", cost=90.0))
    policy = PolicySettings(filters=("odd",), weights={"dear": 10.0})
    decision = pick(*crowd, policy=policy, rules=rules)
    assert (decision.cluster, reasons(decision)) == ("b", {"free": "odd"})
    assert pick(cluster("free"), rules=rules).cluster == "free"


def test_installed_rules_that_fail_take_nobody_and_give_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise KeyError("oops")

    installed(monkeypatch, filters=[Point("bad", broken)], scorers=[Point("worse", broken)])
    rules = load_rules()
    decision = pick(cluster("a"), policy=PolicySettings(filters=("bad",)), rules=rules)
    assert (decision.cluster, decision.rejected[0].reason) == (None, "filter bad failed: KeyError")
    assert pick(cluster("a"), policy=PolicySettings(weights={"worse": 1.0}), rules=rules).cluster == "a"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (Point("mine", ImportError("no\nmodule")), r"plug-in mine \(somewhere:mine.*ImportError: no module$"),
        (Point("mine", 7), "is not a function"),
        (Point("labels", lambda *_: None), "already a rule of that name"),
    ],
)
def test_a_broken_plug_in_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, point: Point, said: str) -> None:
    installed(monkeypatch, filters=[point])
    with pytest.raises(ConfigError, match=said) as caught:
        load_rules()
    assert "\n" not in str(caught.value)
