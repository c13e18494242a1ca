from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.media.own.ages import Ages

SECONDS = 1_000_000


def stamp(at: float) -> int:
    """Return what a clock says that runs 1234.5 s ahead of ours."""
    return round((at + 1234.5) * SECONDS) % 2**32


def test_what_comes_fastest_is_as_old_as_nothing_and_the_rest_by_how_much_later_it_came() -> None:
    ages = Ages()
    assert ages.captured(100.05, stamp(100.0)) == pytest.approx(100.05)
    assert ages.captured(100.25, stamp(100.1)) == pytest.approx(100.15)
    assert ages.captured(100.24, stamp(100.2)) == pytest.approx(100.24), "a faster one"
    assert ages.captured(100.35, stamp(100.3)) == pytest.approx(100.34)


def test_another_way_is_got_used_to() -> None:
    ages = Ages()
    ages.captured(0.05, stamp(0.0))
    assert ages.captured(5.15, stamp(5.0)) == pytest.approx(5.05)
    assert ages.captured(15.25, stamp(15.1)) == pytest.approx(15.25)
    assert ages.captured(16.06, stamp(16.0)) == pytest.approx(16.06), "a shorter one is believed at once"


@given(st.lists(st.tuples(st.floats(2.0, 300.0), st.floats(0.02, 2.0)), min_size=1, max_size=50))
def test_a_clock_that_comes_round_is_no_reason_to_be_old(steps: list[tuple[float, float]]) -> None:
    ages, sent = Ages(), 4_290.0 - 1234.5
    transits = [transit for _, transit in steps]
    for pause, transit in steps:
        sent += pause
        now = sent + transit
        age = now - ages.captured(now, stamp(sent))
        assert -1e-6 <= age <= transit - min(transits) + 1e-5
