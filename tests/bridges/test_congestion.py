"""The congestion controller's parts, without any connection: what goes in, what comes out."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.congestion import Controller, Pacer, Silence, Tuning
from bridges.congestion.delay import Delay
from bridges.congestion.extreme import Extreme
from bridges.congestion.losses import LossCap
from bridges.congestion.rivals import Rivals
from bridges.congestion.trains import Trains

PACKET = 1200
TUNING = Tuning()


class Flow:
    """A controller on an ideal path: what is sent comes back a round trip later, however much it is."""

    def __init__(self, round_trip: float = 0.08, *, tuning: Tuning = TUNING) -> None:
        self.controller = Controller(PACKET, tuning)
        self.round_trip = round_trip
        self.now = 1.0
        self.number = 0

    def rounds(self, count: int, packets: int | None = None, *, lost: int = 0) -> None:
        """Send full windows (or so many packets) and let `lost` of them be lost, once a round trip."""
        for _ in range(count):
            room = self.controller.window // PACKET if packets is None else packets
            for _ in range(room):
                self.controller.sent(self.now, PACKET)
            sent_at = self.now
            self.now += self.round_trip
            for number in range(room - lost):
                self.controller.acked(self.now, sent_at, PACKET, number=self.number + number)
            self.number += room
            if lost:
                self.controller.lost([(sent_at, PACKET)] * lost)
            self.controller.measured(self.now, self.round_trip)


# --- windows ------------------------------------------------------------------------------------


def test_the_first_window_takes_a_key_frame_and_there_is_no_pacing_yet() -> None:
    controller = Controller(PACKET)
    assert controller.window == 32 * PACKET
    assert controller.pacing_rate is None
    assert controller.rate is None


def test_a_window_that_is_used_grows_as_long_as_there_is_no_queue() -> None:
    flow = Flow()
    flow.rounds(4)
    assert flow.controller.window > 200 * PACKET


def test_a_window_that_is_not_used_does_not_grow_and_is_not_taken_away() -> None:
    flow = Flow()
    flow.rounds(50, packets=5)
    assert flow.controller.window == 32 * PACKET
    flow.rounds(20, packets=30)
    assert 32 * PACKET <= flow.controller.window <= 60 * PACKET
    flow.rounds(5, packets=1)
    assert flow.controller.window >= 32 * PACKET


def test_a_queue_shrinks_the_window_and_the_fast_start_is_over() -> None:
    flow = Flow()
    flow.rounds(3)
    before = flow.controller.window
    flow.round_trip = 0.16
    flow.rounds(3)
    assert flow.controller.window < 0.6 * before


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_losses_as_lines_have_them_change_nothing(lost: int) -> None:
    clean, lossy = Flow(), Flow()
    clean.rounds(30, packets=31)
    lossy.rounds(30, packets=31, lost=lost)  # up to 10 %
    assert lossy.controller.window == clean.controller.window


def test_more_losses_than_that_cut_the_window_and_false_ones_give_it_back() -> None:
    flow = Flow()
    flow.rounds(4, packets=60)
    before = flow.controller.window
    flow.rounds(1, packets=60, lost=20)
    assert flow.controller.losses.bound < before
    assert flow.controller.window < before
    assert flow.controller.burst < TUNING.burst * PACKET
    flow.controller.regained([(flow.now - flow.round_trip, PACKET)] * 20)
    assert flow.controller.window >= before
    assert flow.controller.burst >= TUNING.burst * PACKET
    assert flow.controller.losses.bound == math.inf


def test_even_the_worst_path_leaves_a_few_packets() -> None:
    flow = Flow()
    flow.rounds(40, packets=30, lost=29)
    assert flow.controller.window == TUNING.floor_after_loss * PACKET


def test_on_a_short_path_they_are_fewer() -> None:
    flow = Flow(0.02)
    flow.rounds(60, packets=30, lost=29)
    assert flow.controller.window == TUNING.floor * PACKET


def test_what_this_process_delays_itself_is_no_queue() -> None:
    busy, idle = Flow(), Flow()
    for flow in (busy, idle):
        flow.rounds(3)
        flow.round_trip = 0.11
    for _ in range(40):
        busy.controller.late(0.032)
    before = busy.controller.window
    busy.rounds(5)
    idle.rounds(5)
    assert busy.controller.window >= before
    assert idle.controller.window < before


# --- holes --------------------------------------------------------------------------------------


def test_a_silent_path_is_probed_beyond_the_window_at_the_rate_of_before() -> None:
    flow = Flow()
    flow.rounds(10, packets=32)
    controller = flow.controller
    while controller.in_flight < controller.window:
        controller.sent(flow.now, PACKET)
    full = controller.window
    controller.timed_out(flow.now + 0.1)
    assert controller.window == full + TUNING.hole_least_packets * PACKET
    controller.timed_out(flow.now + 0.2)
    assert controller.window == controller.in_flight + TUNING.hole_most_packets * PACKET


def test_the_losses_of_a_hole_are_not_held_against_the_path() -> None:
    flow = Flow()
    flow.rounds(10, packets=32)
    controller, sent_at = flow.controller, flow.now
    before = controller.window
    for _ in range(32):
        controller.sent(sent_at, PACKET)
    for count in range(1, 5):
        controller.timed_out(sent_at + count * 0.1)
    controller.sent(sent_at + 2, PACKET)
    controller.acked(sent_at + 2.08, sent_at + 2, PACKET, number=999)
    controller.lost([(sent_at, PACKET)] * 32)
    controller.measured(sent_at + 2.08, 0.08)
    assert TUNING.hole_exit * before <= controller.window <= TUNING.hole_exit * before + PACKET
    assert controller.losses.bound == math.inf


def test_one_timeout_is_not_a_hole() -> None:
    flow = Flow()
    flow.rounds(10, packets=32)
    before = flow.controller.window
    flow.controller.timed_out(flow.now)
    flow.rounds(1, packets=2)
    assert flow.controller.window == before


def test_a_silent_path_is_probed_evenly_for_three_seconds_and_then_ever_more_rarely() -> None:
    silence = Silence()
    now = sent_at = 10.0
    assert silence.probe_at(sent_at, 0.2) == pytest.approx(10.2)
    times = []
    while now < 20:
        now = silence.probe_at(sent_at, 0.2)
        silence.timed_out(now)
        sent_at = now
        times.append(now)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[:70] == pytest.approx([0.04] * 70)
    assert gaps[-1] >= 2 * gaps[-2] * 0.99
    silence.broken()
    assert silence.probe_at(sent_at, 0.2) == pytest.approx(sent_at + 0.2)


def test_a_probe_that_could_not_be_sent_does_not_make_the_timer_due_at_once() -> None:
    silence = Silence()
    silence.timed_out(5.0)
    assert silence.probe_at(1.0, 0.2) > 5.0


# --- any order of events ------------------------------------------------------------------------

_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("ack"), st.integers(1, 40)),
        st.tuples(st.just("lose"), st.integers(1, 40)),
        st.tuples(st.just("regain"), st.integers(1, 5)),
        st.tuples(st.just("measure"), st.floats(0.001, 2.0)),
        st.tuples(st.just("timeout"), st.just(0)),
        st.tuples(st.just("late"), st.floats(0, 1.0)),
        st.tuples(st.just("wait"), st.floats(0, 5.0)),
    ),
    max_size=60,
)


@settings(max_examples=50)
@given(events=_EVENTS)
def test_whatever_happens_the_window_stays_within_its_bounds(  # noqa: C901 - one case for each event
    events: list[tuple[str, float]],
) -> None:
    controller, now = Controller(PACKET), 0.0
    flying: list[tuple[float, int]] = []
    for name, value in events:
        now += 0.001
        count = min(int(value), len(flying)) if name in {"ack", "lose"} else int(value)
        match name:
            case "send":
                flying += [(now, PACKET)] * count
                for _ in range(count):
                    controller.sent(now, PACKET)
            case "ack":
                for number, (sent_at, size) in enumerate(flying[:count]):
                    controller.acked(now, sent_at, size, number=number)
                del flying[:count]
            case "lose":
                controller.lost(flying[:count])
                del flying[:count]
            case "regain":
                controller.regained([(now, PACKET)] * count)
            case "measure":
                controller.measured(now, value)
            case "timeout":
                controller.timed_out(now)
            case "late":
                controller.late(value)
            case "wait":
                now += value
        assert controller.in_flight == len(flying) * PACKET
        assert 2 * PACKET <= controller.window <= max(32, 2 * 60 * 40) * PACKET
        assert controller.burst > 0
        assert controller.pacing_rate is None or 0 < controller.pacing_rate < math.inf


# --- parts --------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(values=st.lists(st.tuples(st.floats(0, 1), st.floats(-10, 10)), min_size=1, max_size=50))
def test_the_extreme_is_that_of_what_is_not_too_old(values: list[tuple[float, float]]) -> None:
    extreme, now, kept = Extreme(), 0.0, []
    for gap, value in values:
        now += gap
        kept.append((now, value))
        assert extreme.add(now, value, 2.0) == min(each for at, each in kept if at >= now - 2.0)


def test_a_stretched_train_shows_the_capacity_and_others_that_there_is_more() -> None:
    trains, now = Trains(TUNING), 1.0
    for _ in range(12):
        for _ in range(6):
            trains.sent(now, PACKET)
        for n in range(6):
            trains.acked(now + 0.1 + 0.005 * n, now, PACKET, number=n)
        now += 0.2
    assert trains.capacity == pytest.approx(PACKET / 0.005)
    for _ in range(12):
        for _ in range(6):
            trains.sent(now, PACKET)
        for n in range(6):
            trains.acked(now + 0.1, now, PACKET, number=n)
        now += 0.2
    assert trains.capacity == math.inf


def test_packets_that_overtake_each_other_show_jitter_and_no_bottleneck() -> None:
    trains, now, order = Trains(TUNING), 1.0, [3, 0, 5, 1, 4, 2]
    for _ in range(12):
        for _ in range(6):
            trains.sent(now, PACKET)
        for n, number in enumerate(order):
            trains.acked(now + 0.1 + 0.004 * n, now, PACKET, number=number)
        now += 0.2
    assert trains.capacity == math.inf


@settings(max_examples=30)
@given(
    events=st.lists(st.tuples(st.booleans(), st.floats(0, 0.01), st.integers(1, 1500)), max_size=200),
)
def test_trains_take_acknowledgements_in_any_order(events: list[tuple[bool, float, int]]) -> None:
    trains, now, sent = Trains(TUNING), 0.0, [(0.0, 1)]
    for sending, gap, size in events:
        now += gap
        if sending:
            trains.sent(now, size)
            sent.append((now, size))
        else:
            trains.acked(now, *sent[size % len(sent)], number=size)
        assert trains.capacity > 0


def test_a_queue_that_stays_while_half_is_sent_is_a_rivals() -> None:
    delay = Delay(TUNING)
    rivals = Rivals(TUNING, delay)
    now = 0.0

    def run(seconds: float, queue: float, queue_in_test: float) -> int:
        nonlocal now
        end, tests, testing = now + seconds, 0, rivals.testing
        while now < end:
            now += 0.01
            round_trip = 0.08 + (queue_in_test if rivals.testing else queue)
            delay.measured(now, round_trip)
            rivals.measured(now, round_trip, 200)
            tests += rivals.testing and not testing
            testing = rivals.testing
        return tests

    def competing() -> bool:
        return rivals.competing

    assert run(2, 0.0, 0.0) == 0
    assert run(4, 0.03, 0.0) > 1
    assert not competing()
    assert run(2, 0.05, 0.05) > 0
    assert competing()
    eager = rivals.eagerness
    assert eager > TUNING.eagerness  # it keeps its rate
    rivals.round_over(lost=False)
    assert rivals.eagerness == eager + TUNING.rival_step
    rivals.round_over(lost=True)
    assert rivals.eagerness == (eager + TUNING.rival_step) / 2
    assert run(5, 0.05, 0.0) > 0
    assert not competing()
    assert rivals.eagerness == TUNING.eagerness


def _finds_a_rival(*, base: float, queue: float, in_test: float, rate: float, spacing: float = 0.0) -> bool:
    """Let a queue stand for three seconds; `in_test` is what is left of it while half is sent."""
    delay = Delay(TUNING)
    rivals = Rivals(TUNING, delay)
    delay.measured(0.0, base)
    for tick in range(1, 300):
        round_trip = base + (in_test if rivals.testing else queue)
        delay.measured(tick / 100, round_trip)
        rivals.measured(tick / 100, round_trip, rate, spacing=spacing)
        if rivals.competing:
            return True
    return False


def test_a_round_trip_that_half_the_window_halves_was_our_own_doing() -> None:
    assert not _finds_a_rival(base=0.02, queue=0.1, in_test=0.04, rate=200)
    assert _finds_a_rival(base=0.02, queue=0.1, in_test=0.08, rate=200)


def test_a_handful_of_packets_in_flight_leaves_others_of_our_kind_their_queue() -> None:
    assert not _finds_a_rival(base=0.027, queue=0.035, in_test=0.035, rate=60, spacing=0.005)
    assert _finds_a_rival(base=0.027, queue=0.035, in_test=0.035, rate=60)  # the line shows no limit
    assert _finds_a_rival(base=0.027, queue=0.06, in_test=0.06, rate=60, spacing=0.005)
    assert _finds_a_rival(base=0.027, queue=0.05, in_test=0.035, rate=200, spacing=0.005)


@pytest.mark.parametrize(("round_trip", "rate", "packets"), [(0.08, 600, 2), (0.2, 100, 3), (0.2, 600, 5)])
def test_on_long_paths_more_packets_may_stand(round_trip: float, rate: float, packets: float) -> None:
    delay = Delay(TUNING)
    rivals = Rivals(TUNING, delay)
    delay.measured(1.0, round_trip)
    rivals.measured(1.0, round_trip, rate)
    assert rivals.eagerness == pytest.approx(packets)


def test_a_cut_is_kept_for_a_while_then_the_bound_rises_and_is_forgotten() -> None:
    losses = LossCap(TUNING)
    losses.lost(20)
    for _ in range(80):
        losses.acked()
    assert losses.judge(1.0, 100_000, hold=0.1, queue=0.0) == 80_000
    assert losses.held(2.9)
    assert not losses.held(3.1)
    now, window = 2.0, 80_000.0
    while losses.bound < math.inf and now < 10:
        for _ in range(60):
            losses.acked()
        before = losses.bound
        window = losses.judge(now, window, hold=0.1, queue=0.0)
        assert losses.bound > before or losses.held(now)
        now += 0.2
    assert now < 10


@pytest.mark.parametrize(("queue", "cuts"), [(0.02, False), (0.08, True)])
def test_of_few_packets_more_may_be_lost_by_chance_but_not_behind_a_long_queue(
    queue: float, *, cuts: bool
) -> None:
    losses = LossCap(TUNING)
    losses.lost(9)
    for _ in range(46):
        losses.acked()
    assert (losses.judge(1.0, 100_000, hold=0.1, queue=queue) < 100_000) is cuts
    if cuts:
        assert losses.regained(80_000) == 100_000, "8 of 55 are not too many"


def test_too_few_packets_are_not_judged() -> None:
    losses = LossCap(TUNING)
    losses.lost(TUNING.loss_sample - 1)
    assert losses.judge(1.0, 100_000, hold=0.1, queue=0.0) == 100_000


# --- pacing -------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(rate=st.floats(1e3, 1e9), sizes=st.lists(st.integers(1, 1500), min_size=1, max_size=200))
def test_the_pacer_lets_a_burst_out_and_then_keeps_its_rate(rate: float, sizes: list[int]) -> None:
    pacer, now, sent = Pacer(6 * PACKET), 0.0, 0
    pacer.rate = rate
    for size in sizes:
        while (at := pacer.ready_at(now)) is not None:
            assert at > now
            now = at
        pacer.spend(size)
        sent += size
        assert sent <= 6 * PACKET + 1500 + now * rate * 1.000001


def test_without_a_rate_nothing_waits_and_what_was_too_much_comes_back() -> None:
    pacer = Pacer(PACKET)
    for _ in range(100):
        assert pacer.ready_at(1.0) is None
        pacer.spend(PACKET)
    pacer.rate = 1e6
    assert pacer.ready_at(1.0) is None
    pacer.spend(PACKET)
    assert pacer.ready_at(1.0) is not None
    pacer.spend(-PACKET)
    assert pacer.ready_at(1.0) is None


def test_a_controller_takes_other_constants() -> None:
    controller = Controller(PACKET, replace(TUNING, initial_window=10))
    assert controller.window == 10 * PACKET
