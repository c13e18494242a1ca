"""What comes in: whatever is lost, doubled, reordered, made up, frames are handed on once and in order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.media.own.incoming import TrackLimits
from bridges.media.own.parity import protect
from bridges.media.own.receiver import KeyFrameWanted, MediaReceiver, Output, Received, ReceiverLimits
from bridges.wire.own_media.datagram import (
    FrameHead,
    Parity,
    encode_bundle,
    encode_fragment,
    encode_parity,
)
from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

ALIAS = 5
LINGER = 25  # 100 ms


def frame(number: int, parts: int = 1, *, needs: tuple[int, ...] = (), linger: int = LINGER) -> list[bytes]:
    head = FrameHead(ALIAS, number, 33_000 * number % 2**32, linger, needs)
    return [encode_fragment(head, part, parts, f"{number}.{part} ".encode()) for part in range(parts)]


def body(number: int, parts: int = 1) -> bytes:
    return b"".join(f"{number}.{part} ".encode() for part in range(parts))


def receiver(*, sound: bool = False, limits: ReceiverLimits | None = None) -> MediaReceiver:
    made = MediaReceiver(limits)
    made.open(ALIAS, sound=sound)
    return made


def due(media: MediaReceiver) -> float:
    """Return when something is due, exactly: the receiver may be early, but not by more than one tick."""
    if media.due() < math.inf:
        media.tick(-1.0)
    return media.due()


def numbers(outputs: Sequence[Output]) -> list[int]:
    return [each.head.frame for each in outputs if isinstance(each, Received)]


def test_frames_are_put_together_and_handed_on_in_order() -> None:
    media = receiver()
    first, second = frame(0, 3), frame(1, 2, needs=(1,))
    assert media.receive(0.0, second[1]) == []
    assert media.receive(0.0, first[2]) == []
    assert media.receive(0.0, second[0]) == []
    assert media.receive(0.0, first[0]) == []
    outputs = media.receive(0.0, first[1])
    assert [each.body for each in outputs if isinstance(each, Received)] == [body(0, 3), body(1, 2)]
    assert due(media) == math.inf


def test_what_misses_something_is_waited_for_as_long_as_the_sender_may_send_it() -> None:
    media = receiver()
    assert numbers(media.receive(0.8, frame(0)[0])) == [0]
    assert media.receive(1.0, frame(2)[0]) == []
    assert due(media) == pytest.approx(1.1)
    assert media.tick(1.09) == []
    assert numbers(media.tick(1.1)) == [2]
    assert media.receive(1.2, frame(1)[0]) == []
    assert media.totals() == {"handed": 2, "given_up": 1, "spare": 1}


def test_what_a_silent_path_has_swallowed_is_not_waited_for() -> None:
    media = receiver()
    assert numbers(media.receive(0.0, frame(0)[0])) == [0]
    assert media.receive(0.1, frame(2, linger=150)[0]) == []
    assert numbers(media.receive(2.0, frame(60, linger=150)[0])) == [2, 60]
    assert media.totals() == {"handed": 3, "given_up": 58}


def test_a_silence_in_which_something_may_still_be_repeated_says_nothing() -> None:
    media = receiver()
    assert numbers(media.receive(0.0, frame(0)[0])) == [0]
    assert media.receive(0.5, frame(2, linger=150)[0]) == []
    assert numbers(media.receive(0.6, frame(1, linger=150)[0])) == [1, 2]


def test_patience_has_an_end_whatever_the_sender_says() -> None:
    media = receiver(sound=True)
    assert media.receive(1.0, frame(1, linger=255)[0]) == []
    assert due(media) == pytest.approx(1.2)


def test_half_a_frame_with_nothing_behind_it_is_given_up_too() -> None:
    media = receiver()
    assert media.receive(0.0, frame(0, 2)[0]) == []
    assert due(media) == 1.0
    assert media.tick(1.0) == []
    assert media.size < 100
    assert due(media) == math.inf


def test_what_cannot_be_decoded_is_not_handed_on_and_a_key_frame_is_wished_for() -> None:
    media = receiver()
    media.receive(0.0, frame(0)[0])
    media.receive(0.0, frame(2, needs=(1,))[0])
    media.receive(0.0, frame(3, needs=(1,))[0])
    outputs = media.tick(0.1)
    assert outputs == [KeyFrameWanted(ALIAS)]
    assert media.receive(0.2, frame(4, needs=(1,))[0]) == []
    assert due(media) == pytest.approx(0.6)
    assert media.tick(0.6) == [KeyFrameWanted(ALIAS)]
    assert numbers(media.receive(0.7, frame(5)[0])) == [5]
    assert numbers(media.receive(0.7, frame(6, needs=(1,))[0])) == [6]
    assert due(media) == math.inf
    assert media.totals()["undecodable"] == 3
    assert media.totals()["wishes"] == 2


def test_where_nothing_can_be_decoded_a_key_frame_does_not_wait_for_what_is_before_it() -> None:
    media = receiver()
    assert numbers(media.receive(0.0, frame(0)[0])) == [0]
    assert media.receive(0.05, frame(2, needs=(1,))[0]) == []
    assert media.receive(0.06, frame(5, needs=())[0]) == [], "1 may come, and 2 be decodable"
    outputs = media.tick(0.151)
    assert numbers(outputs) == [5], "2 cannot be decoded, so nobody waits for 3 and 4"
    assert media.receive(0.16, frame(7, 2, needs=(1,))[0]) == []
    assert media.receive(0.17, frame(9)[0]) == [], "nothing is broken"


def test_a_lost_frame_of_an_upper_layer_costs_itself_only() -> None:
    media = receiver()
    for number, needs in [(0, ()), (2, (2,)), (3, (1,))]:
        media.receive(0.0, frame(number, needs=needs)[0])
    outputs = media.tick(0.1)
    assert numbers(outputs) == [2, 3]
    # Whoever passes them on has not had frame 1.
    assert [each.needs for each in outputs if isinstance(each, Received)] == [(1,), (1,)]


def test_nothing_is_wished_for_where_nothing_comes() -> None:
    media = receiver()
    media.receive(0.0, frame(1, needs=(1,))[0])
    assert media.tick(0.1) == [KeyFrameWanted(ALIAS)]
    assert media.tick(5.0) == []
    assert due(media) == math.inf


def test_sound_that_is_carried_again_comes_in_order() -> None:
    media = receiver(sound=True)
    assert numbers(media.receive(0.0, encode_bundle((frame(1)[0], frame(0)[0])))) == [0, 1]
    assert numbers(media.receive(0.1, encode_bundle((frame(2)[0], frame(1)[0])))) == [2]


@settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms(), st.data())
def test_any_loss_up_to_the_parity_is_repaired(
    rows: int, counts: list[int], random: Random, data: st.DataObject
) -> None:
    media = receiver()
    frames = [frame(number, parts) for number, parts in enumerate(counts)]
    sources = [each for datagrams in frames for each in datagrams]
    parity = [
        encode_parity(Parity(ALIAS, 0, 0, row, tuple(counts), symbol))
        for row, symbol in enumerate(protect(sources, rows))
    ]
    everything = sources + parity
    lost = set(random.sample(range(len(everything)), data.draw(st.integers(0, rows))))
    arriving = [each for place, each in enumerate(everything) if place not in lost]
    random.shuffle(arriving)
    outputs = [output for datagram in arriving for output in media.receive(0.0, datagram)]
    assert numbers(outputs) == list(range(len(counts)))
    assert [each.body for each in outputs if isinstance(each, Received)] == [
        body(number, parts) for number, parts in enumerate(counts)
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.randoms(), st.data())
def test_reordering_and_doubling_change_nothing(
    counts: list[int], random: Random, data: st.DataObject
) -> None:
    media = receiver()
    sent = [
        each
        for number, parts in enumerate(counts)
        for each in frame(number, parts, needs=(1,) if number else ())
    ]
    sent += [each for each in sent if data.draw(st.booleans())]
    random.shuffle(sent)
    outputs = [output for datagram in sent for output in media.receive(0.0, datagram)]
    assert numbers(outputs) == list(range(len(counts)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=25), st.randoms(), st.floats(0, 0.5))
def test_whatever_is_lost_what_comes_out_is_whole_in_order_and_decodable(
    counts: list[int], random: Random, loss: float
) -> None:
    media = receiver()
    handed: list[int] = []
    for number, parts in enumerate(counts):
        needs = (1,) if number % 6 else ()
        now = number * 0.033
        for datagram in frame(number, parts, needs=needs):
            if random.random() >= loss:
                handed += numbers(media.receive(now + random.random() * 0.01, datagram))
        if due(media) <= now:
            handed += numbers(media.tick(now + 0.01))
    handed += numbers(media.tick(9.0))
    assert handed == sorted(set(handed))
    assert all(number - 1 in handed for number in handed if number % 6)
    assert loss or due(media) == math.inf


@settings(deadline=None)
@given(st.randoms(), st.data())
def test_garbage_raises_nothing_but_the_one_error(random: Random, data: st.DataObject) -> None:
    media = receiver(limits=ReceiverLimits(malformed=10))
    media.open(6, sound=True)
    seeds = [*frame(0, 2), *frame(3, 4, needs=(1, 2)), encode_bundle((frame(2)[0], frame(1)[0]))]
    seeds.append(encode_parity(Parity(ALIAS, 0, 0, 1, (2, 1), random.randbytes(20))))
    for now in range(data.draw(st.integers(1, 25))):
        datagram = bytearray(random.choice(seeds))
        for _ in range(random.randrange(4)):
            datagram[random.randrange(len(datagram))] = random.randrange(256)
        try:
            media.receive(float(now), bytes(datagram[: random.randint(0, len(datagram) + 9)]))
            media.tick(now + 0.5)
        except MediaDatagramError:
            assert media.figures["malformed"] >= 10
    assert media.size >= 0


def test_too_much_that_is_malformed_is_too_much() -> None:
    media = receiver(limits=ReceiverLimits(malformed=2))
    assert media.receive(0.0, b"\xff") == []
    with pytest.raises(MediaDatagramError):
        media.receive(0.0, b"")


SMALL = TrackLimits(frame_bytes=3000, track_bytes=10_000, window=50)


@settings(deadline=None, max_examples=15)
@given(st.randoms())
def test_memory_is_bounded(random: Random) -> None:
    media = receiver(limits=ReceiverLimits(total_bytes=15_000, picture=SMALL))
    media.open(6, sound=False)
    for _ in range(150):
        number, parts = random.randrange(400), random.randint(2, 9)
        head = FrameHead(random.choice([ALIAS, 6]), number, 0, LINGER)
        datagram = encode_fragment(head, random.randrange(parts), parts, bytes(random.randint(1, 1000)))
        if random.random() < 0.3:
            counts = (random.randint(1, 9),)
            datagram = encode_parity(Parity(head.alias, number, 0, random.randrange(9), counts, bytes(1000)))
        media.receive(0.0, datagram)
        sizes = [media.track(alias).size for alias in (ALIAS, 6)]
        assert max(sizes) <= SMALL.track_bytes
        assert sum(sizes) == media.size <= 15_000


def test_a_frame_that_is_too_large_is_passed_over() -> None:
    media = receiver(limits=ReceiverLimits(picture=SMALL))
    head = FrameHead(ALIAS, 0, 0, LINGER)
    for part in range(4):
        assert media.receive(0.0, encode_fragment(head, part, 4, bytes(900))) == []
    assert media.totals()["oversized"] == 1
    assert media.size == 0
    assert numbers(media.receive(0.0, frame(1)[0])) == [1]


def test_a_jump_gives_up_what_is_too_far_behind() -> None:
    media = receiver(limits=ReceiverLimits(picture=SMALL))
    assert media.receive(0.0, frame(3, linger=255)[0]) == []
    outputs = media.receive(0.0, frame(2**32 - 1, linger=255)[0])
    assert numbers(outputs) == [3]
    assert numbers(media.tick(2.0)) == [2**32 - 1]


def test_fragments_that_contradict_each_other_are_passed_over() -> None:
    media = receiver()
    media.receive(0.0, frame(0, 2)[0])
    assert media.receive(0.0, frame(0, 3)[1]) == []
    assert media.totals()["conflicting"] == 1
    assert numbers(media.receive(0.0, frame(0, 2)[1])) == [0]


def test_tracks_that_are_not_open_are_passed_over() -> None:
    media = MediaReceiver(ReceiverLimits(tracks=1))
    assert media.receive(0.0, frame(0)[0]) == []
    assert media.figures["unknown_track"] == 1
    media.open(1, sound=True)
    with pytest.raises(ValueError, match="cannot"):
        media.open(1, sound=True)
    with pytest.raises(ValueError, match="already"):
        media.open(2, sound=True)
    with pytest.raises(ValueError, match="cannot"):
        media.open(2**14, sound=True)
    media.close(1)
    media.close(1)
    media.open(2, sound=True)


def test_closing_a_track_gives_its_memory_back_and_keeps_its_figures() -> None:
    media = receiver()
    media.receive(0.0, frame(0)[0])
    media.receive(0.0, frame(2)[0])
    media.close(ALIAS)
    assert media.size == 0
    assert media.totals()["handed"] == 1
    assert due(media) == math.inf
