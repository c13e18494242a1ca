from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridges.internal.gate import FrameGate, Throttle
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo

PREFIX = 5
LIMIT = 10_000


def picture(*, key: bool = False, timestamp: int = 0, size: int = 100) -> MediaFrame:
    info = VideoInfo(width=64, height=48, key_frame=key)
    return MediaFrame.build(FrameFormat.VP8, timestamp=timestamp, info=info, payload=bytes(size))


def sound(*, timestamp: int = 0, size: int = 100) -> MediaFrame:
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2)
    return MediaFrame.build(FrameFormat.OPUS, timestamp=timestamp, info=info, payload=bytes(size))


def gate(*, max_delay: float = 1000.0) -> FrameGate:
    return FrameGate(max_backlog_bytes=LIMIT, max_delay=max_delay)


def test_pictures_begin_with_a_key_frame() -> None:
    subject = gate()
    waits = [subject.waiting_for_key_frame]
    for frame, passes in ((picture(), False), (picture(key=True), True), (picture(), True)):
        assert subject.offer(frame, 0) is passes
        waits.append(subject.waiting_for_key_frame)
    assert waits == [False, True, False, False]
    assert (subject.sent, subject.dropped) == (2, 1)


def test_after_a_dropped_picture_all_are_dropped_up_to_a_key_frame() -> None:
    subject = gate()
    assert subject.offer(picture(key=True), 0)
    assert not subject.offer(picture(), LIMIT + 1)
    assert not subject.offer(picture(), 0)
    assert subject.offer(picture(key=True), 0)


def test_a_late_key_frame_is_dropped_too() -> None:
    subject = gate()
    assert subject.offer(picture(key=True), 0)
    assert not subject.offer(picture(key=True), LIMIT + 1)
    assert not subject.offer(picture(), 0)


def test_a_key_frame_that_ends_a_gap_needs_half_of_the_limit_free() -> None:
    subject = gate()
    assert subject.offer(picture(key=True), 0)
    assert not subject.offer(picture(), LIMIT + 1)
    assert not subject.offer(picture(key=True), LIMIT // 2 + 1)
    assert subject.offer(picture(key=True), LIMIT // 2)


def test_sound_is_dropped_frame_by_frame() -> None:
    subject = gate()
    assert subject.offer(sound(), LIMIT)
    assert not subject.offer(sound(), LIMIT + 1)
    assert subject.offer(sound(), LIMIT)
    assert not subject.waiting_for_key_frame
    assert not subject.wants_key_frame(0.0)


def test_a_frame_larger_than_the_limit_passes_when_nothing_waits() -> None:
    assert gate().offer(picture(key=True, size=10 * LIMIT), 0)


def test_media_that_waits_too_long_is_late_however_few_bytes_it_has() -> None:
    subject = gate(max_delay=1.0)
    size = len(sound().raw) + PREFIX
    passed = [subject.offer(sound(timestamp=i * 960), i * size) for i in range(60)]  # nothing is delivered
    assert passed == [True] * 51 + [False] * 9
    assert subject.offer(sound(timestamp=60 * 960), 40 * size), "eleven were delivered, forty wait"


def test_the_delay_survives_the_wrap_of_the_clock_and_pictures_in_decoding_order() -> None:
    subject = gate(max_delay=1.0)
    size = len(picture().raw) + PREFIX
    begin = (1 << 32) - 45_000
    assert subject.offer(picture(key=True, timestamp=begin), 0)
    assert subject.offer(picture(timestamp=begin + 90_000), size)
    assert subject.offer(picture(timestamp=begin - 3_000), 2 * size)
    assert not subject.offer(picture(timestamp=begin + 90_001), 3 * size)


def test_a_key_frame_is_asked_for_only_when_it_would_pass() -> None:
    subject = gate()
    assert not subject.wants_key_frame(0.0)
    subject.offer(picture(), LIMIT)
    assert not subject.wants_key_frame(0.0), "the way is blocked"
    subject.offer(picture(), 0)
    assert subject.wants_key_frame(0.0)
    assert not subject.wants_key_frame(0.2)
    assert subject.wants_key_frame(0.25)
    subject.offer(picture(key=True), 0)
    assert not subject.wants_key_frame(10.0)


def test_a_throttle_lets_the_first_pass_and_then_one_per_interval() -> None:
    throttle = Throttle(0.5)
    assert [throttle.ready(now) for now in (5.0, 5.1, 5.49, 5.5, 5.6, 7.0)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


steps = st.lists(
    st.tuples(
        st.booleans(),  # picture or sound
        st.booleans(),  # key frame
        st.integers(0, 3 * LIMIT),  # backlog
        st.integers(0, (1 << 32) - 1),  # timestamp
        st.integers(0, 2 * LIMIT),  # size
    ),
    max_size=60,
)


@given(steps, st.floats(0.001, 10.0))
def test_what_passes_is_always_decodable(
    offers: list[tuple[bool, bool, int, int, int]], max_delay: float
) -> None:
    """A delta frame passes only when every picture since the last key frame that passed has passed."""
    subject = FrameGate(max_backlog_bytes=LIMIT, max_delay=max_delay)
    intact = False
    sent = 0
    for is_picture, key, backlog, timestamp, size in offers:
        if is_picture:
            frame = picture(key=key, timestamp=timestamp, size=size)
        else:
            frame = sound(timestamp=timestamp, size=size)
        passed = subject.offer(frame, backlog)
        sent += passed
        assert not (passed and backlog > LIMIT), "the bound of what waits"
        if not is_picture:
            assert passed or backlog > 0, "sound does not wait for pictures"
            continue
        assert not passed or key or intact
        assert not (key and backlog == 0) or passed, "a free way lets a key frame pass"
        intact = passed
        assert subject.waiting_for_key_frame == (not intact)
    assert subject.sent == sent
    assert subject.dropped == len(offers) - sent


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4000), st.integers(0, 4000)), max_size=80))
def test_what_waits_stays_bounded_whatever_the_transport_delivers(
    rounds: list[tuple[bool, int, int]],
) -> None:
    subject = gate()
    backlog = 0
    for key, size, delivered in rounds:
        frame = picture(key=key, size=size)
        if subject.offer(frame, backlog):
            backlog += len(frame.raw) + PREFIX
        assert backlog <= LIMIT + 4000 + 40 + PREFIX
        backlog = max(0, backlog - delivered)
