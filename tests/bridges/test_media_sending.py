"""The send queue: order, deadlines, bounds, repeats."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.media.own.sending import Fragment, Frame, Kind, Limits, SendQueue


def frame(kind: Kind, *, track: int = 1, deadline: float = 10.0) -> Frame:
    return Frame(track=track, kind=kind, deadline=deadline)


def drain(queue: SendQueue, now: float = 0.0) -> list[Fragment]:
    taken = []
    while (head := queue.head(now)) is not None:
        assert queue.pop() is head
        taken.append(head)
    return taken


def test_the_most_urgent_goes_first_and_repeats_go_before_everything_but_sound() -> None:
    queue = SendQueue()
    for kind in (Kind.OTHER, Kind.DELTA, Kind.KEY, Kind.SOUND):
        assert queue.offer(0.0, frame(kind), [kind.name.encode()], rate=None)
    repeated = Fragment(frame(Kind.DELTA), b"again")
    assert queue.lost(0.0, repeated)
    assert [each.data for each in drain(queue)] == [b"SOUND", b"again", b"KEY", b"DELTA", b"OTHER"]
    assert queue.waiting == 0


def test_a_frame_that_is_too_late_leaves_whole() -> None:
    queue = SendQueue()
    early, late = frame(Kind.DELTA, deadline=1.0), frame(Kind.DELTA, deadline=2.0)
    queue.offer(0.0, early, [b"a", b"b", b"c"], rate=None)
    queue.offer(0.0, late, [b"d"], rate=None)
    assert queue.head(0.5) is not None
    sent = queue.pop()
    assert [each.data for each in drain(queue, 1.5)] == [b"d"]
    assert early.dead
    assert queue.expired == 1
    assert not queue.lost(1.6, sent)
    assert queue.expired == 1
    assert queue.waiting == 0


def test_a_delta_frame_that_would_wait_too_long_is_refused() -> None:
    queue = SendQueue()
    assert queue.offer(0.0, frame(Kind.KEY), [bytes(20_000)], rate=100_000)
    refused = frame(Kind.DELTA)
    assert not queue.offer(0.0, refused, [bytes(1000)], rate=100_000)
    assert refused.dead
    assert queue.offer(0.0, frame(Kind.SOUND), [bytes(100)], rate=100_000)
    assert queue.offer(0.1, frame(Kind.KEY), [bytes(1000)], rate=100_000)
    drain(queue)
    assert queue.offer(0.8, frame(Kind.DELTA), [bytes(1000)], rate=100_000)


def test_a_track_that_is_offered_far_too_much_costs_its_own_frames_only() -> None:
    queue = SendQueue(Limits(queue_bytes=10_000, track_bytes=4_000))
    assert queue.offer(0.0, frame(Kind.KEY, track=1), [bytes(3_000)], rate=None)
    assert not queue.offer(0.0, frame(Kind.KEY, track=1), [bytes(2_000)], rate=None)
    assert queue.offer(0.0, frame(Kind.KEY, track=2), [bytes(2_000)], rate=None)


def test_a_full_queue_makes_room_by_what_is_too_late() -> None:
    queue = SendQueue(Limits(queue_bytes=5_000, track_bytes=5_000))
    assert queue.offer(0.0, frame(Kind.KEY, deadline=1.0), [bytes(4_000)], rate=None)
    assert not queue.offer(0.5, frame(Kind.KEY, track=2), [bytes(2_000)], rate=None)
    assert queue.offer(1.5, frame(Kind.KEY, track=2), [bytes(2_000)], rate=None)
    assert queue.waiting == 2_000


def test_a_track_that_nobody_wants_any_more_is_forgotten() -> None:
    queue = SendQueue()
    gone = frame(Kind.DELTA, track=1)
    queue.offer(0.0, gone, [b"a", b"b"], rate=None)
    queue.offer(0.0, frame(Kind.DELTA, track=2), [b"c"], rate=None)
    queue.forget(1)
    assert queue.waiting == 1
    assert [each.data for each in drain(queue)] == [b"c"]
    assert not queue.lost(0.0, Fragment(gone, b"a"))


def test_an_empty_queue_has_no_head_and_nothing_to_take() -> None:
    queue = SendQueue()
    assert queue.head(0.0) is None
    with pytest.raises(IndexError):
        queue.pop()


_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("offer"),
            st.sampled_from(list(Kind)),
            st.integers(1, 3),
            st.lists(st.integers(1, 400), max_size=5),
        ),
        st.tuples(st.just("send"), st.integers(1, 4)),
        st.tuples(st.just("lose"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.floats(0, 0.3)),
        st.tuples(st.just("forget"), st.integers(1, 3)),
        st.tuples(st.just("resize"), st.integers(200, 400)),
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(steps=_STEPS)
def test_it_is_bounded_and_nothing_late_or_forgotten_is_ever_sent(steps: list[tuple[object, ...]]) -> None:
    limits = Limits(queue_bytes=3_000, track_bytes=2_000)
    given_up: list[Frame] = []
    queue, now, largest = SendQueue(limits, on_given_up=given_up.append), 0.0, 400
    sent: list[Fragment] = []
    for step in steps:
        match step:
            case ("offer", Kind() as kind, int(track), list(sizes)):
                queue.offer(
                    now,
                    frame(kind, track=track, deadline=now + 0.2),
                    [bytes(min(size, largest)) for size in sizes],
                    rate=5_000,
                )
                assert queue.waiting <= limits.queue_bytes + sum(len(each.data) for each in sent)
            case ("send", int(count)):
                for _ in range(count):
                    if (head := queue.head(now)) is not None:
                        assert not head.frame.dead
                        assert now <= head.frame.deadline
                        assert len(head.data) <= largest
                        sent.append(queue.pop())
            case ("lose", int(index)) if sent:
                queue.lost(now, sent.pop(index % len(sent)))
            case ("resize", int(largest)):
                queue.resize(largest)
            case ("wait", float(seconds)):
                now += seconds
            case ("forget", int(track)):
                queue.forget(track)
    drain(queue, now)
    assert queue.waiting == 0
    assert queue.head(now + 1) is None
    assert len(set(map(id, given_up))) == len(given_up), "told once of each"
    assert all(each.dead for each in given_up)
