from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridges.internal.wishes import RateWishes


def test_the_least_goes_upstream_and_the_same_only_now_and_then() -> None:
    wishes = RateWishes(lapse=5, repeat=1)
    assert wishes.least(0) is None
    assert wishes.ask(0.0, "a", 500) == 500
    assert wishes.ask(0.5, "b", 800) is None
    assert wishes.ask(0.6, "b", 300) == 300
    assert wishes.ask(0.9, "a", 500) is None
    assert wishes.ask(1.7, "a", 500) == 300
    assert wishes.ask(1.8, "b", 900) == 500


def test_a_wish_lapses_unless_it_is_said_again() -> None:
    wishes = RateWishes(lapse=5, repeat=1)
    wishes.ask(0, "a", 300)
    wishes.ask(4, "b", 700)
    assert wishes.least(5) == 300
    assert wishes.least(5.1) == 700
    assert wishes.least(9.1) is None


def test_who_is_gone_holds_nobody_down() -> None:
    wishes = RateWishes()
    wishes.ask(0, "a", 300)
    wishes.ask(0, "b", 700)
    assert wishes.forget(1, "a") == 700
    assert wishes.forget(1, "a") is None
    assert wishes.forget(1, "b") is None


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3000), st.integers(0, 65_535)), max_size=50))
def test_what_is_said_is_wished_by_somebody_and_never_more_than_the_last_wish(
    asked: list[tuple[float, int, int]],
) -> None:
    wishes, now = RateWishes(), 0.0
    said = set()
    for pause, who, kbps in asked:
        now += pause
        said.add(kbps)
        told = wishes.ask(now, who, kbps)
        assert told is None or told in said
        assert (wishes.least(now) or 0) <= kbps
