"""The queue on the way back, told from the peer's clock: pure, with whatever clocks there are."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench._virtual.peer import Stalls
from bench._virtual.scenario import OURS, Line, media
from bridges.congestion import Controller
from bridges.congestion.returning import ReturnPath

PACKET = 1200
INTERVAL = 0.025


class Clocks:
    """A peer whose clock is told every 25 ms: how far it is from ours, and how much it runs fast."""

    def __init__(self, *, offset: float = 1234.5, drift: float = 0.0) -> None:
        self.path = ReturnPath(10.0)
        self.now = 100.0
        self.offset = offset
        self.drift = drift

    def tell(self, waited: float, times: int = 1, *, jitter: Random | None = None) -> float:
        """Let stamps arrive that waited so long; return what is made of the last one."""
        for _ in range(times):
            self.now += INTERVAL
            late = waited + (jitter.uniform(0, 0.02) if jitter else 0.0)
            shows = (self.now - late) * (1 + self.drift) + self.offset
            self.path.heard(self.now, round(shows * 1e6) % 2**32)
        return self.path.queue(self.now)


def test_without_a_clock_there_is_no_queue() -> None:
    assert ReturnPath(10.0).queue(5.0) == 0.0


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(-1e-4, 1e-4), st.floats(0, 0.5))
def test_a_queue_is_seen_whatever_the_peers_clock_shows(offset: float, drift: float, queue: float) -> None:
    clocks = Clocks(offset=offset, drift=drift)
    assert clocks.tell(0.04, 40) == pytest.approx(0.0, abs=0.001)
    if queue <= 0.05:  # one step of half a second more would be jitter at first
        assert clocks.tell(0.04 + queue, 4) == pytest.approx(queue, abs=0.006)
    assert clocks.tell(0.04 + queue, 200) == pytest.approx(queue, abs=0.002)
    assert clocks.tell(0.04, 4) <= 0.001


def test_a_queue_that_stays_for_long_becomes_the_path() -> None:
    clocks = Clocks()
    clocks.tell(0.04, 40)
    assert clocks.tell(0.1, 40) == pytest.approx(0.06, abs=0.002)
    assert clocks.tell(0.1, 400) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("drift", [-2e-4, 2e-4])
def test_clocks_that_run_apart_look_like_no_queue(drift: float) -> None:
    clocks = Clocks(drift=drift)
    assert max(clocks.tell(0.04) for _ in range(4000)) < 0.003


@pytest.mark.parametrize("jump", [-3600.0, -5.0, 5.0, 3600.0])
def test_a_clock_that_is_set_begins_anew(jump: float) -> None:
    clocks = Clocks()
    clocks.tell(0.04, 40)
    clocks.offset += jump
    assert clocks.tell(0.04, 40) == pytest.approx(0.0, abs=1e-6)
    assert clocks.tell(0.09, 40) == pytest.approx(0.05, abs=0.002)


def test_stamps_may_overtake_each_other_and_come_round() -> None:
    path = ReturnPath(10.0)
    for at, stamp in ((1.0, 2**32 - 50_000), (1.02, 2**32 - 10_000), (1.026, 2**32 - 30_000), (1.06, 10_000)):
        path.heard(at, stamp)
    assert path.queue(1.06) == pytest.approx(0.02, abs=0.001)


def test_a_peer_that_tells_its_clock_all_the_time_is_kept_within_bounds() -> None:
    path = ReturnPath(10.0)
    for turn in range(30_000):
        path.heard(1.0 + turn * 1e-3, turn * 900)  # ever later, so that each might be the least of those left
    assert len(path._base._values) <= 2001
    assert len(path._recent) <= 10


def test_jitter_is_no_queue() -> None:
    clocks, chance = Clocks(), Random(1)
    found = [clocks.tell(0.04, jitter=chance) for _ in range(1000)]
    assert sum(found[40:]) / len(found[40:]) < 0.008


def test_after_a_quarter_of_a_second_nothing_is_known_any_more() -> None:
    clocks = Clocks()
    clocks.tell(0.04, 40)
    clocks.tell(0.1, 40)
    assert clocks.path.queue(clocks.now + 0.2) > 0.05
    assert clocks.path.queue(clocks.now + 0.3) == 0.0


def test_the_window_does_not_shrink_for_a_queue_on_the_way_back() -> None:
    windows: dict[bool, list[int]] = {}
    for told in (True, False):
        controller, now = Controller(PACKET), 1.0
        windows[told] = []
        for turn in range(30):
            back = 0.0 if turn < 5 else min((turn - 5) * 0.02, 0.1)
            sent_at, packets = now, min(controller.window // PACKET, 100)
            for _ in range(packets):
                controller.sent(sent_at, PACKET)
            if told:
                controller.heard(now, round((now - 0.04 - back) * 1e6))
            now += 0.08 + back
            for number in range(packets):
                controller.acked(now, sent_at, PACKET, number=100 * turn + number)
            if told:
                controller.heard(now, round((now - 0.04 - back) * 1e6))
            controller.measured(now, 0.08 + back)
            windows[told].append(controller.window)
    assert windows[True] == sorted(windows[True])
    assert min(windows[False][5:]) < 0.7 * max(windows[False])


def test_media_is_in_time_beside_a_flow_that_fills_the_way_back() -> None:
    line = Line(round_trip=0.08, rate=5e6, back_rate=2e6)
    told = media(line, OURS, seed=2, video=3, sound=3, back_rival="reno", seconds=5)
    assert told["video"].in_time >= 0.98  # 0.65 where nobody tells a clock
    assert told["sound"].in_time >= 0.99


def test_a_sender_that_stalls_does_not_take_its_own_lateness_for_a_queue() -> None:
    line = Line(round_trip=0.08, rate=5e6)
    told = media(line, OURS, seed=1, video=3, sound=3, stalls=Stalls(length=0.03, every=0.1), seconds=5)
    assert min(each.in_time for each in told.values()) >= 0.98
