"""Where more is offered than the path takes; whole connections in virtual time at the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench._virtual.pressed import Camera, pressed
from bench._virtual.scenario import Line
from bridges.media.own.pressure import Pressure, Stage, Strain, _level
from bridges.media.own.sender import Outcome

PICTURE, SOUND = 1, 2
STEP = 1 / 30
HEADERS = 1.1


class Path:
    """A path of `rate` bytes a second before which everything queues that goes in, up to 0.4 s of it."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.waiting = self.sent = 0.0

    def offer(self, size: float) -> Outcome:
        if self.waiting > 0.4 * self.rate:
            return Outcome.REFUSED
        self.waiting += size * HEADERS
        return Outcome.TAKEN

    def pass_time(self, seconds: float) -> None:
        sent = min(self.waiting, self.rate * seconds)
        self.waiting -= sent
        self.sent += sent

    @property
    def strain(self) -> Strain:
        return Strain(self.rate, int(self.waiting), int(self.sent))


class Sources:
    """Cameras that send `full` bytes a second each, or what they are asked for; and a microphone."""

    def __init__(self, *full: float, follow: bool = True, layers: int = 1) -> None:
        self.full = full
        self.follow = follow
        self.rates = list(full)
        self.highest: list[int | None] = [None] * len(full)
        self.layers = layers
        self.asked: list[tuple[float, int, int]] = []
        """When, whom, kilobits a second."""
        self.targets: list[tuple[float, float]] = []
        self.pressure = Pressure()
        for alias in range(len(full)):
            self.pressure.open(alias, sound=False)
        self.sound = len(full)
        self.pressure.open(self.sound, sound=True)
        self.now = 0.0
        self.count = 0

    def run(self, path: Path, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.count += 1
            for alias, rate in enumerate(self.rates):
                temporal = self.count % self.layers
                highest = self.highest[alias]
                passes = highest is None or temporal <= highest
                outcome = path.offer(rate * STEP) if passes else Outcome.LEFT_OUT
                self.pressure.offered(self.now, alias, int(rate * STEP), outcome, temporal=temporal)
            path.offer(200)
            self.pressure.offered(self.now, self.sound, 200, Outcome.TAKEN)
            decision = self.pressure.look(self.now, path.strain)
            for alias, kbps in decision.ask.items():
                self.asked.append((self.now, alias, kbps))
                if self.follow:
                    self.rates[alias] = min(self.full[alias], kbps * 125)
            for alias, each in decision.layers.items():
                self.highest[alias] = each
            if not self.targets or self.targets[-1][1] != self.pressure.target:
                self.targets.append((self.now, self.pressure.target))
            path.pass_time(STEP)
            self.now += STEP

    @property
    def cuts(self) -> list[float]:
        return [at for (_, before), (at, after) in pairwise(self.targets) if after < before]


def test_where_everything_fits_nobody_is_asked_for_anything() -> None:
    sources = Sources(80_000, 80_000, layers=2)
    sources.run(Path(200_000), 20)
    assert sources.asked == []
    assert sources.highest == [None, None]
    assert sources.pressure.stage is Stage.FREE
    assert sources.pressure.sound_copies(20) == 0


def test_too_much_is_cut_and_stays_below_what_the_path_takes() -> None:
    path, sources = Path(100_000), Sources(200_000)
    sources.run(path, 8)
    assert len(sources.cuts) <= 2
    assert sources.cuts[0] < 1.5
    assert 70_000 < sources.rates[0] * HEADERS < 100_000
    assert path.waiting < 0.05 * path.rate
    assert sources.pressure.sound_copies(8) > 0
    sources.run(path, 52)
    assert len(sources.cuts) <= 6, "it is tried again ever more rarely whether more can be sent"
    assert path.waiting < 0.3 * path.rate


def test_when_the_path_takes_more_again_the_sources_send_all_of_it() -> None:
    path, sources = Path(100_000), Sources(150_000, 150_000)
    sources.run(path, 5)
    path.rate = 500_000
    sources.run(path, 90)
    assert sources.pressure.stage is Stage.FREE
    assert sources.rates == [150_000, 150_000]
    before = len(sources.asked)
    for _, _, kbps in sources.asked[-2:]:
        assert 1200 <= kbps <= 1450, "as much as they sent, and some room"
    sources.run(path, 5)
    assert len(sources.asked) == before


def test_the_highest_layer_goes_at_once_and_comes_back_when_the_source_has_followed() -> None:
    path, sources = Path(100_000), Sources(180_000, layers=2)
    sources.run(path, 1.0)
    assert sources.highest == [0]
    sources.run(path, 3)
    assert sources.highest == [None]
    assert sources.pressure.stage is not Stage.FREE


def test_a_source_that_does_not_follow_loses_its_layers_and_is_not_asked_for_nothing_at_all() -> None:
    path, sources = Path(100_000), Sources(300_000, follow=False, layers=2)
    sources.run(path, 30)
    assert sources.highest == [0]
    assert min(target for _, target in sources.targets) > 0.6 * path.rate


def test_what_is_asked_is_said_again_and_again_but_to_no_microphone() -> None:
    sources = Sources(200_000)
    sources.run(Path(100_000), 6)
    times = [at for at, _, _ in sources.asked]
    assert {alias for _, alias, _ in sources.asked} == {0}
    assert max(later - earlier for earlier, later in pairwise(times)) < 1.5


def test_small_sources_are_left_alone() -> None:
    sources = Sources(10_000, 300_000)
    sources.run(Path(150_000), 5)
    assert {alias for _, alias, _ in sources.asked} == {1}


def test_a_track_that_ends_is_forgotten() -> None:
    sources = Sources(200_000)
    sources.run(Path(100_000), 3)
    sources.pressure.close(0)
    with pytest.raises(KeyError):
        sources.pressure.offered(3, 0, 1000, Outcome.TAKEN)
    assert sources.pressure.look(10, Strain(1e5, 0, 0)).ask == {}


@given(st.floats(0, 1e7), st.lists(st.floats(1, 1e7), max_size=20))
def test_shares_use_up_what_there_is_and_no_more(budget: float, wanted: list[float]) -> None:
    level = _level(budget, wanted)
    assert sum(min(each, level) for each in wanted) == pytest.approx(min(budget, sum(wanted)), abs=1e-3)


# --- whole connections ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_trip", "rate", "cameras"),
    [
        (0.08, 1e6, [Camera(rate=2e6)]),
        (0.02, 2e6, [Camera(rate=1.3e6, layers=2)] * 3),
    ],
)
def test_twice_as_much_as_the_path_takes(round_trip: float, rate: float, cameras: list[Camera]) -> None:
    outcome = pressed(Line(round_trip=round_trip, rate=rate), cameras, seed=1, seconds=8)
    sound = outcome.sound[25:]  # in the first half second nothing is known of the path
    assert outcome.in_time(sound, round_trip) >= 0.999
    assert outcome.undecodable == 0
    assert outcome.share(5, 7.5) >= 0.97, "once the sources have followed, their pictures come"
    assert len(outcome.cuts) <= 3


def test_cameras_that_do_not_follow_cost_their_own_pictures_only() -> None:
    camera = Camera(rate=1.4e6, layers=2, follows=False)
    outcome = pressed(Line(round_trip=0.08, rate=2e6), [camera, camera], seed=2, seconds=6)
    assert outcome.in_time(outcome.sound, 0.08) >= 0.99
    assert outcome.undecodable == 0
    assert outcome.left_out > 80
    assert outcome.wishes <= 2 * 2 * 6
