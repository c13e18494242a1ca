"""The controller on whole paths: real QUIC connections in virtual time, beside others and alone.

Each story has a seed or two; `bench/bottleneck.py` tells all of them, with more.
"""

from __future__ import annotations

import pytest

from bench._virtual.rivals import BANDWIDTH
from bench._virtual.scenario import OURS, Line, greedy, hole, media

MEGABIT = 1e6


@pytest.mark.parametrize(("round_trip", "loss", "seed"), [(0.02, 0.0, 1), (0.08, 0.02, 2), (0.2, 0.05, 3)])
def test_alone_it_fills_the_line_with_a_short_queue(round_trip: float, loss: float, seed: int) -> None:
    line = Line(round_trip=round_trip, rate=2 * MEGABIT, loss=loss)
    alone = greedy(line, [(OURS, 0.5)], seed=seed, seconds=15)
    assert sum(alone.shares) > 0.82 - loss
    assert alone.queue_p95 <= 0.045


@pytest.mark.parametrize(("rival", "begin", "seed"), [("reno", 2.0, 1), ("cubic", 0.5, 2)])
def test_beside_flows_that_fill_the_queue_it_gets_and_leaves_a_share(
    rival: str, begin: float, seed: int
) -> None:
    line = Line(round_trip=0.08, rate=2 * MEGABIT)
    ours, theirs = greedy(line, [(OURS, 0.5), (rival, begin)], seed=seed, seconds=14).shares
    assert 0.5 <= ours / theirs <= 2
    assert ours + theirs > 0.85


def test_two_of_its_kind_share_evenly_with_a_short_queue() -> None:
    line = Line(round_trip=0.08, rate=2 * MEGABIT)
    both = greedy(line, [(OURS, 0.5), (OURS, 2.0)], seed=1, seconds=12)
    assert 0.6 <= both.shares[0] / both.shares[1] <= 1.6
    assert both.queue_p95 <= 0.08


def test_two_of_its_kind_on_a_short_path_do_not_take_each_other_for_rivals() -> None:
    line = Line(round_trip=0.02, rate=2 * MEGABIT)
    both = greedy(line, [(OURS, 0.5), (OURS, 2.0)], seed=1, seconds=18)
    assert 0.4 <= both.shares[0] / both.shares[1] <= 2.5
    assert both.queue_p95 <= 0.08
    assert both.dropped == 0


@pytest.mark.parametrize(("rival", "least"), [(BANDWIDTH, 0.15), (0.5 * 4 * MEGABIT, 0.3)])
def test_beside_flows_that_do_not_give_way_it_is_not_starved(rival: str | float, least: float) -> None:
    line = Line(round_trip=0.02, rate=4 * MEGABIT)
    ours, theirs = greedy(line, [(OURS, 0.5), (rival, 0.5)], seed=1, seconds=9).shares
    assert ours >= least
    assert theirs >= least


def test_where_the_queue_is_too_short_to_see_it_does_not_live_on_losses() -> None:
    shallow = greedy(Line(round_trip=0.08, rate=2 * MEGABIT, queue=0.012), [(OURS, 0.5)], seed=1, seconds=9)
    assert shallow.dropped < 0.25
    assert sum(shallow.shares) > 0.65


@pytest.mark.parametrize(("round_trip", "seed"), [(0.02, 1), (0.08, 2), (0.2, 3)])
def test_sound_is_back_within_a_round_trip_after_a_hole(round_trip: float, seed: int) -> None:
    recovered = hole(Line(round_trip=round_trip), OURS, seed=seed)
    assert recovered.sound <= max(
        round_trip, 0.02 + round_trip / 2 + 0.02
    )  # captured every 20 ms, probed as well
    assert recovered.video <= 0.1 + 2.5 * round_trip  # a key frame first: what came before it is lost
    assert recovered.sound_missing <= 2


def test_jitter_that_reorders_everything_costs_no_frame() -> None:
    figures = media(Line(round_trip=0.08, jitter=0.02), OURS, seed=1, video=4, sound=4, seconds=5)
    assert figures["video"].in_time >= 0.99
    assert figures["sound"].in_time >= 0.99


def test_losses_are_repaired_in_time() -> None:
    figures = media(Line(round_trip=0.08, loss=0.05), OURS, seed=2, seconds=8)
    assert figures["video"].in_time >= 0.99
    assert figures["sound"].in_time >= 0.99
    assert figures["video"].p99 <= 0.225


def test_key_frames_pass_a_bottleneck_that_reno_overflows() -> None:
    line = Line(round_trip=0.08, rate=2 * MEGABIT)
    ours = media(line, OURS, seed=1, seconds=8)
    assert ours["key"].in_time == 1
    assert ours["video"].in_time >= 0.99
    assert media(line, "reno", seed=1, seconds=8)["key"].in_time < 1


def test_where_too_much_is_offered_sound_goes_on() -> None:
    figures = media(Line(round_trip=0.08, rate=2 * MEGABIT), OURS, seed=1, video=3, sound=3, seconds=6)
    assert figures["sound"].in_time >= 0.99
    assert figures["video"].in_time > 0.2
