"""Which packets are believed lost, and how soon that is noticed: patience, and probes of the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.congestion import Reordering, Tail


def test_a_late_acknowledgement_is_recognised_once_and_widens_what_is_allowed_for() -> None:
    reordering = Reordering()
    assert reordering.patience(1.0, 0.1, 0.1) == pytest.approx(0.1 * 33 / 32)
    reordering.lost(7, 1.0, 1200)
    reordering.lost(9, 1.0, 300)
    assert reordering.acked(1.12, [range(5)], 0.1) == []
    assert reordering.acked(1.14, [range(3), range(8, 12)], 0.1) == [(1.0, 300)]
    assert reordering.acked(1.14, [range(8, 12)], 0.1) == []
    assert reordering.false_losses == 1
    assert reordering.packet_threshold is None
    assert reordering.patience(1.2, 0.1, 0.1) == pytest.approx(0.1 + 1.1 * 0.04)
    assert reordering.acked(1.9, [range(20)], 0.1) == []  # so long ago that it was forgotten


def test_a_path_that_has_changed_the_order_is_allowed_an_eighth_of_a_round_trip_for_a_while() -> None:
    reordering = Reordering()
    reordering.swapped(1.0)
    assert reordering.patience(10.9, 0.1, 0.1) == pytest.approx(0.1125)
    assert reordering.patience(11.1, 0.1, 0.1) == pytest.approx(0.1 * 33 / 32)
    assert reordering.patience(11.1, 0.002, 0.001) == pytest.approx(0.003), "clocks have steps"


def test_the_allowance_fades_while_nothing_is_late() -> None:
    reordering = Reordering()
    reordering.lost(1, 1.0, 1200)
    reordering.acked(1.19, [range(1, 2)], 0.1)
    widest = reordering.patience(1.2, 0.1, 0.1)
    assert widest == pytest.approx(0.1 + 0.099)
    now = 1.2
    for _ in range(10):
        now += 11
        reordering.patience(now, 0.1, 0.1)
    assert reordering.patience(now, 0.1, 0.1) == pytest.approx(0.1 * 33 / 32)
    assert reordering.packet_threshold is not None


@settings(max_examples=30)
@given(
    numbers=st.lists(st.integers(0, 10_000), unique=True, max_size=60).map(sorted),
    ranges=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 50)), max_size=20),
)
def test_exactly_the_acknowledged_among_the_lost_are_taken_back(
    numbers: list[int], ranges: list[tuple[int, int]]
) -> None:
    reordering = Reordering()
    for number in numbers:
        reordering.lost(number, 1.0, number)
    acked = {number for begin, length in ranges for number in range(begin, begin + length)}
    late = reordering.acked(1.1, [range(begin, begin + length) for begin, length in ranges], 0.1)
    assert sorted(size for _, size in late) == sorted(acked & set(numbers))


def test_the_end_is_probed_where_packets_are_lost_and_behind_large_packets_only() -> None:
    tail = Tail()
    tail.sent(1.0, 1200)
    assert tail.due == math.inf
    tail.lost(2.0)
    assert tail.due == math.inf
    tail.sent(2.0, 1200)
    assert 2.0 < tail.due < 2.02
    tail.sent(2.005, 1200)
    assert 2.005 < tail.due < 2.025
    tail.sent(2.006, 40)
    assert tail.due == math.inf, "this one is acknowledged as a probe would be"
    tail.sent(3.0, 1200)
    tail.postpone(3.5)
    assert tail.due == 3.5
    tail.postpone()
    assert tail.due == math.inf
    tail.sent(12.1, 1200)
    assert tail.due == math.inf, "nothing was lost for a while"


def test_what_is_remembered_is_bounded() -> None:
    reordering = Reordering()
    for number in range(10_000):
        reordering.lost(number, 1.0, 1200)
    assert len(reordering.acked(1.0, [range(10_000)], 0.1)) == 4096
