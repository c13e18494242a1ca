from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from control.shares import share_out

if TYPE_CHECKING:
    from collections.abc import Mapping

DUTIES = [f"d{n}" for n in range(6)]
REPLICAS = list("abcde")

able = st.dictionaries(st.sampled_from(REPLICAS), st.frozensets(st.sampled_from(DUTIES)))
alike = st.sets(st.sampled_from(REPLICAS)).map(lambda ids: dict.fromkeys(sorted(ids), frozenset(DUTIES)))
holders = st.dictionaries(st.sampled_from(DUTIES), st.none() | st.sampled_from(REPLICAS))


def loads(shares: Mapping[str, str], replicas: Mapping[str, frozenset[str]]) -> list[int]:
    return sorted(list(shares.values()).count(each) for each in replicas)


@given(holders, able)
def test_everything_that_somebody_can_do_is_done_by_somebody_who_can(
    holders: dict[str, str | None], able: dict[str, frozenset[str]]
) -> None:
    shares = share_out(holders, able)
    assert all(duty in able[holder] for duty, holder in shares.items())
    assert shares.keys() == {duty for duty in holders if any(duty in can for can in able.values())}


@given(holders, able)
def test_what_came_out_stays_as_it_is(
    holders: dict[str, str | None], able: dict[str, frozenset[str]]
) -> None:
    shares = share_out(holders, able)
    assert share_out(holders | shares, able) == shares


@given(holders, alike)
def test_among_equals_nobody_has_two_more_than_another(
    holders: dict[str, str | None], alike: dict[str, frozenset[str]]
) -> None:
    if alike:
        found = loads(share_out(holders, alike), alike)
        assert found[-1] - found[0] <= 1


@given(holders, alike)
def test_a_death_moves_only_what_the_dead_one_had(
    holders: dict[str, str | None], alike: dict[str, frozenset[str]]
) -> None:
    before = share_out(holders, alike)
    for dead in alike:
        rest = {each: can for each, can in alike.items() if each != dead}
        after = share_out(holders | before, rest)
        if rest:
            assert {d: h for d, h in before.items() if h != dead}.items() <= after.items()


def test_somebody_new_gets_a_part_and_an_old_release_keeps_what_only_it_can() -> None:
    everything = frozenset(DUTIES)
    alone = share_out(dict.fromkeys(DUTIES), {"a": everything})
    assert set(alone.values()) == {"a"}
    both = share_out(alone, {"a": everything, "b": everything})
    assert loads(both, {"a": everything, "b": everything}) == [3, 3]
    older = {"a": everything, "b": everything - {"d5"}, "c": frozenset[str]()}
    assert share_out(dict.fromkeys(DUTIES), older)["d5"] == "a"
    assert share_out({"d0": "a"}, {}) == {}
