"""Which tracks of pictures pause where too much is offered, and when they go on."""

from __future__ import annotations

from itertools import count

from bridges.media.own.relief import Relief, Tuning

TUNING = Tuning()
FRAME = 1 / 30


class Offering:
    """Pictures of some tracks, offered in turn at thirty a second; key frames are those asked for."""

    def __init__(self, tracks: int) -> None:
        self.relief = Relief()
        self.now = 0.0
        self.tracks = tracks
        for track in range(tracks):
            assert self.relief.passes(0.0, track, key=True, wait=0.0)

    def go_on(self, seconds: float, wait: float, *, key: int | None = None) -> set[int]:
        """Return the tracks of which every frame passed."""
        passing = set(range(self.tracks))
        until = self.now + seconds
        for _ in count():
            self.now += FRAME
            if self.now >= until:
                return passing
            for track in range(self.tracks):
                if not self.relief.passes(self.now, track, key=track == key, wait=wait):
                    passing.discard(track)
        raise AssertionError


def test_a_short_wait_or_a_long_one_that_does_not_last_pauses_nobody() -> None:
    offering = Offering(3)
    assert offering.go_on(5, 0.09) == {0, 1, 2}
    for _ in range(5):
        assert offering.go_on(0.5, 0.3) == {0, 1, 2}
        assert offering.go_on(0.1, 0.09) == {0, 1, 2}


def test_where_the_wait_stays_long_one_after_the_other_pauses_but_the_last() -> None:
    offering = Offering(3)
    assert len(offering.go_on(0.75, 0.2)) == 2
    assert len(offering.go_on(0.75, 0.2)) == 1
    assert len(offering.go_on(5, 0.2)) == 1


def test_a_single_track_is_never_paused() -> None:
    offering = Offering(1)
    assert offering.go_on(5, 0.3) == {0}
    offering.relief.refused(offering.now, 0)
    assert offering.go_on(1, 0.3) == {0}


def test_a_track_goes_on_with_a_key_frame_when_the_queue_has_been_short_for_a_while() -> None:
    offering = Offering(2)
    (left,) = offering.go_on(1, 0.2)
    paused = 1 - left
    assert offering.go_on(0.3, 0.2, key=paused) == {left}
    assert not offering.relief.may_go_on(offering.now, paused)
    offering.go_on(TUNING.calm + 2 * FRAME, 0.01)
    assert offering.relief.may_go_on(offering.now, paused)
    offering.go_on(2 * FRAME, 0.01, key=paused)
    assert offering.go_on(1, 0.01) == {0, 1}


def test_who_went_on_last_pauses_first_and_waits_for_longer() -> None:
    offering = Offering(2)
    (left,) = offering.go_on(1, 0.2)
    paused = 1 - left
    calm = TUNING.calm
    for _ in range(3):
        offering.go_on(calm + 2 * FRAME, 0.01)
        offering.go_on(2 * FRAME, 0.01, key=paused)
        assert offering.go_on(0.3, 0.01) == {0, 1}
        assert offering.go_on(1, 0.2) == {left}
        calm *= 2
        offering.go_on(calm - 2 * FRAME, 0.01)
        assert not offering.relief.may_go_on(offering.now, paused)


def test_a_refused_frame_pauses_its_track_if_there_is_another() -> None:
    offering = Offering(2)
    offering.relief.refused(offering.now, 0)
    offering.relief.refused(offering.now, 1)
    assert offering.go_on(0.2, 0.2) == {1}
    offering.relief.forget(0)
    assert offering.relief.may_go_on(offering.now, 0)
