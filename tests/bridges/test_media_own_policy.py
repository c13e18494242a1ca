from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.media.own.measuring import LossMeter
from bridges.media.own.policy import Level, Path, Policy, Repair, Tuning
from bridges.wire.own_media.datagram import MAX_ROWS

DEADLINE = 0.2


def choose(round_trip: float, loss: float, run_length: float = 1.0) -> Repair:
    return Policy(deadline=DEADLINE).choose(
        0.0, Path(round_trip=round_trip, loss=loss, run_length=run_length)
    )


def test_where_a_repeat_is_in_time_nothing_is_sent_in_advance() -> None:
    repair = choose(0.15, 0.05)
    assert repair.in_time
    assert (repair.rows(4), repair.copies, repair.span(0.033, DEADLINE)) == (0, 0, 1)
    assert (repair.key_rows(8), repair.key_rows(27), repair.key_rows(60)) == (2, 3, 4)
    assert choose(0.15, 0.0).key_rows(27) == 0


@pytest.mark.parametrize(("loss", "rows"), [(0.0, 0), (0.002, 1), (0.01, 2), (0.05, 3)])
def test_where_it_is_not_parity_goes_with_every_frame(loss: float, rows: int) -> None:
    repair = choose(0.16, loss)
    assert not repair.in_time
    assert repair.rows(4) == rows
    assert repair.copies == int(repair.level)
    assert repair.span(0.033, DEADLINE) == 1


def test_parity_is_spared_where_the_path_takes_no_more() -> None:
    path = Path(round_trip=0.2, loss=0.05, run_length=1.0, room=False)
    assert Policy(deadline=DEADLINE).choose(0.0, path).rows(4) == 2
    assert Policy(deadline=DEADLINE).choose(0.0, replace(path, loss=0.02)).rows(4) == 1


def test_key_frames_are_protected_by_what_is_lost() -> None:
    assert choose(0.2, 0.01).key_rows(26) == 3
    assert choose(0.2, 0.05).key_rows(26) == 5
    assert choose(0.2, 0.5).key_rows(200) == MAX_ROWS


def test_runs_of_losses_spread_parity_over_frames() -> None:
    repair = choose(0.2, 0.02, 4.0)
    assert repair.rows(4) == 0
    assert repair.copies == 2
    assert repair.span(1 / 30, DEADLINE) == 4
    assert repair.span(1 / 15, DEADLINE) == 2
    assert repair.span(1 / 5, DEADLINE) == 1
    assert repair.span_rows(16) == 12
    assert repair.key_rows(27) == 12
    assert replace(repair, room=False).span_rows(16) == 6
    assert replace(repair, room=False).key_rows(27) == 4
    assert choose(0.08, 0.02, 4.0).span(1 / 30, DEADLINE) == 1


def test_more_protection_comes_at_once_and_less_after_a_while() -> None:
    policy = Policy(deadline=DEADLINE)

    def level(now: float, loss: float) -> Level:
        return policy.choose(now, Path(round_trip=0.2, loss=loss)).level

    assert level(0.0, 0.01) is Level.SOME
    assert level(1.0, 0.03) is Level.MUCH
    assert level(2.0, 0.025) is Level.MUCH  # between the thresholds: as it was
    assert level(3.0, 0.01) is Level.MUCH
    assert level(5.0, 0.025) is Level.MUCH  # not enough for long enough
    assert level(6.0, 0.01) is Level.MUCH
    assert level(10.9, 0.01) is Level.MUCH
    assert level(11.0, 0.01) is Level.SOME
    assert level(12.0, 0.0) is Level.SOME
    assert level(17.0, 0.0) is Level.NOTHING


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.4), st.floats(1, 9)), max_size=30))
def test_it_never_changes_to_less_twice_within_the_dwell(
    measured: list[tuple[float, float, float]],
) -> None:
    policy = Policy(deadline=DEADLINE)
    changes: list[float] = []
    before: Repair | None = None
    for second, (loss, round_trip, runs) in enumerate(measured):
        repair = policy.choose(second, Path(round_trip=round_trip, loss=loss, run_length=runs))
        if before is not None and repair.level < before.level:
            changes.append(second)
        before = repair
    assert all(later - earlier >= 5 for earlier, later in pairwise(changes))


def test_the_meter_finds_the_share_and_the_runs() -> None:
    meter = LossMeter()
    numbers = [meter.sent() for _ in range(4000)]
    for number in reversed(numbers):  # in whatever order it is told
        meter.settled(number, arrived=number % 100 >= 4)
    assert meter.loss == pytest.approx(0.04, abs=0.01)
    assert meter.run_length == pytest.approx(4.0, abs=0.2)


def test_single_losses_are_no_runs() -> None:
    meter = LossMeter()
    for _ in range(2000):
        number = meter.sent()
        meter.settled(number, arrived=number % 50 != 0)
    assert meter.run_length == pytest.approx(1.0)


def longest_run_length(seed: int, *, goes_on: float) -> float:
    """Return the most that is believed in the first 1,000 datagrams, of which a tenth is lost.

    `goes_on` is how likely a loss is after a loss.
    """
    rng, meter, lost, longest = random.Random(seed), LossMeter(), False, 0.0
    for _ in range(1000):
        lost = rng.random() < (goes_on if lost else 0.1)
        meter.settled(meter.sent(), arrived=not lost)
        longest = max(longest, meter.run_length)
    return longest


def test_chance_is_not_taken_for_runs() -> None:
    runs = Tuning().runs
    assert not any(longest_run_length(seed, goes_on=0.1) >= runs for seed in range(300))
    assert all(longest_run_length(seed, goes_on=0.75) >= runs for seed in range(300))


def test_a_path_is_believed_good_once_it_has_shown_it() -> None:
    meter = LossMeter()
    assert meter.loss > 0.001
    for _ in range(2000):
        meter.settled(meter.sent(), arrived=True)
    assert meter.loss < 0.0005


@settings(deadline=None)
@given(st.lists(st.booleans() | st.none(), max_size=60))
def test_the_meter_is_bounded_and_takes_any_order(story: list[bool | None]) -> None:
    meter = LossMeter(memory=5, run_memory=2)
    numbers = []
    for each in story:
        numbers.append(meter.sent())
        if each is not None:
            meter.settled(numbers.pop(len(numbers) // 2), arrived=each)
    assert 0 <= meter.loss <= 1
    assert meter.run_length >= 1


def test_what_is_never_told_is_forgotten() -> None:
    meter = LossMeter()
    first = meter.sent()
    for _ in range(10_000):
        meter.sent()
    meter.settled(first, arrived=False)
    assert meter.loss == 0.02
