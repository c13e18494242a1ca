"""What goes out, and what is sent again; both ends together over a path that loses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.media.own.receiver import MediaReceiver, Received
from bridges.media.own.sender import Flight, MediaSender, Outcome, SenderLimits, Source
from bridges.media.own.sending import Limits
from bridges.wire.own_media.datagram import Bundle, Fragment, Parity, decode

if TYPE_CHECKING:
    from random import Random

PICTURE, SOUND = 1, 2
KEY_BYTES, DELTA_BYTES = 5000, 3500


def made(*, round_trip: float = 0.08, loss: float = 0.0, limits: SenderLimits | None = None) -> MediaSender:
    media = MediaSender(limits)
    media.open(PICTURE, sound=False)
    media.open(SOUND, sound=True)
    media.measured(round_trip)
    media.meter.loss = loss
    return media


def offer(media: MediaSender, now: float, *, key: bool = False, needs: tuple[int, ...] = (1,)) -> Outcome:
    body = bytes(KEY_BYTES if key else DELTA_BYTES)
    return media.offer(now, PICTURE, Source(body, now, () if key else needs), rate=None)


def sound(media: MediaSender, now: float, body: bytes = b"sound") -> Outcome:
    return media.offer(now, SOUND, Source(body, now, ()), rate=None)


def drain(media: MediaSender, now: float) -> list[tuple[Fragment | Parity | Bundle, Flight]]:
    sent = []
    while (data := media.head(now)) is not None:
        sent.append((decode(data), media.taken()))
    return sent


def test_a_frame_leaves_in_fragments_that_fit_of_one_size_but_the_last() -> None:
    media = made()
    assert offer(media, 0.0, key=True) is Outcome.TAKEN
    sent = [content for content, _ in drain(media, 0.0)]
    assert all(isinstance(each, Fragment) for each in sent)
    sizes = [len(each.payload) for each in sent if isinstance(each, Fragment)]
    assert len(sizes) == 5
    assert sum(sizes) == KEY_BYTES
    assert set(sizes[:-1]) == {max(sizes)}
    assert max(sizes) - 5 < sizes[-1] <= max(sizes)


@settings(deadline=None)
@given(st.integers(1, 40_000), st.integers(600, 1400), st.sampled_from([0.08, 0.2]))
def test_no_datagram_is_larger_than_the_path_takes(size: int, largest: int, round_trip: float) -> None:
    media = made(round_trip=round_trip, loss=0.05, limits=SenderLimits(largest=largest))
    media.offer(0.0, PICTURE, Source(bytes(size), 0.0, ()), rate=None)
    while (data := media.head(0.0)) is not None:
        assert len(data) <= largest
        media.taken()


def test_what_the_path_takes_may_change_between_two_frames() -> None:
    media = made(loss=0.05)

    def sizes(now: float, *, key: bool = False) -> list[int]:
        assert offer(media, now, key=key) is Outcome.TAKEN
        sizes = []
        while (data := media.head(now)) is not None:
            sizes.append(len(data))
            media.taken()
        return sizes

    small = sizes(0.0, key=True)
    media.resize(1400)
    large = sizes(0.03)
    assert max(small) <= 1150 < max(large) <= 1400
    assert sizes(0.06) == large
    media.resize(1150)
    assert 3 < len(sizes(0.09)) <= len(small)


def test_what_has_become_too_large_for_the_path_is_given_up() -> None:
    media = made()
    media.resize(1400)
    offer(media, 0.0, key=True)
    (_, flight), *_ = drain(media, 0.0)
    offer(media, 0.03)
    media.resize(1150)
    assert drain(media, 0.03) == []
    assert media.queue.waiting == 0
    assert offer(media, 0.06) is Outcome.UNDECODABLE, "the one before was given up"
    assert media.given_up(PICTURE) == 1
    offer(media, 0.09, key=True)
    assert drain(media, 0.09)
    media.settled(0.1, flight, arrived=False)
    assert drain(media, 0.1) == [], "nor is it repeated"


@settings(deadline=None)
@given(st.lists(st.integers(700, 1400), min_size=2, max_size=12), st.integers(0, 3))
def test_no_datagram_is_larger_than_the_path_takes_now(largest: list[int], waits: int) -> None:
    media = made(round_trip=0.25, loss=0.05)
    for arrived in ([False] * 3 + [True] * 20) * 6:
        media.meter.settled(media.meter.sent(), arrived=arrived)
    flights = []
    for number, each in enumerate(largest):
        now = number / 30
        media.resize(each)
        media.offer(now, PICTURE, Source(bytes(3000), now, (1,) if number else ()), rate=None)
        sound(media, now)
        for _ in range(waits and 100):
            if (data := media.head(now)) is None:
                break
            assert len(data) <= each
            flights.append(media.taken())
        for flight in flights[::3]:
            media.settled(now, flight, arrived=False)
        flights.clear()


def test_a_layer_that_is_left_out_leaves_no_gap_and_asks_for_no_key_frame() -> None:
    media = made()
    media.let_through(PICTURE, 0)

    def layered(now: float, temporal: int, needs: tuple[int, ...]) -> Outcome:
        source = Source(bytes(DELTA_BYTES), now, needs, discardable=temporal == 2, temporal=temporal)
        return media.offer(now, PICTURE, source, rate=None)

    assert offer(media, 0.0, key=True) is Outcome.TAKEN
    assert layered(0.03, 1, (1,)) is Outcome.LEFT_OUT
    assert layered(0.06, 0, (2,)) is Outcome.TAKEN
    heads = [content.head for content, _ in drain(media, 0.06) if isinstance(content, Fragment)]
    assert {(head.frame, head.needs) for head in heads} == {(0, ()), (1, (1,))}
    media.let_through(PICTURE, None)
    assert layered(0.09, 1, (1, 2)) is Outcome.UNDECODABLE, "it needs the one that was left out"
    assert layered(0.12, 2, (2,)) is Outcome.TAKEN
    assert media.due() == math.inf
    assert media.sent_bytes > KEY_BYTES + DELTA_BYTES
    assert media.figures["left_out"] == 1


def test_what_is_lost_is_repeated_while_that_is_of_use() -> None:
    media = made()
    offer(media, 0.0, key=True)
    (_, flight), *_ = drain(media, 0.0)
    media.meter.loss = 0.05
    media.settled(0.09, flight, arrived=False)
    ((again, second),) = drain(media, 0.09)
    assert again == decode(flight.fragment.data)
    media.settled(0.7, second, arrived=False)
    assert drain(media, 0.7) == []
    assert media.figures["given_up"] == 1
    assert offer(media, 0.7) is Outcome.UNDECODABLE


def test_what_was_taken_for_nothing_is_counted_for_its_track() -> None:
    media = made()
    offer(media, 0.0, key=True)
    offer(media, 0.03)
    sound(media, 0.03)
    _, (_, flight), *_ = drain(media, 0.03)
    assert offer(media, 0.06) is Outcome.TAKEN
    sound(media, 0.06)
    assert drain(media, 0.9) == [], "too late, all that waits"
    assert (media.given_up(PICTURE), media.given_up(SOUND)) == (1, 1)
    media.settled(0.9, flight, arrived=False)
    assert media.given_up(PICTURE) == 3, "nor is the first one repeated, and what has arrived needs it"


def test_what_needs_a_frame_that_is_given_up_is_given_up_with_it_and_a_key_frame_wanted() -> None:
    media = made()
    offer(media, 0.0, key=True)
    drain(media, 0.0)
    offer(media, 0.03)
    (_, lost), *_ = drain(media, 0.03)
    for now in (0.06, 0.5, 0.62):
        offer(media, now)
    waiting = media.queue.waiting
    assert waiting
    media.settled(0.65, lost, arrived=False)
    assert media.due() <= 0.65, "before the next frame is offered"
    assert media.wishes(0.65, rate=None) == [PICTURE]
    assert media.given_up(PICTURE) == 4
    assert drain(media, 0.65) == [], "though most would still be of use in themselves"
    assert offer(media, 0.66) is Outcome.UNDECODABLE
    assert offer(media, 0.69, key=True) is Outcome.TAKEN
    assert offer(media, 0.72) is Outcome.TAKEN
    assert drain(media, 0.72)


def test_what_nothing_needs_is_given_up_alone() -> None:
    media = made()
    offer(media, 0.0, key=True)
    drain(media, 0.0)
    upper = Source(bytes(DELTA_BYTES), 0.03, (1,), discardable=True, temporal=1)
    media.offer(0.03, PICTURE, upper, rate=None)
    (_, lost), *_ = drain(media, 0.03)
    offer(media, 0.06, needs=(2,))
    drain(media, 0.06)
    media.settled(0.9, lost, arrived=False)
    assert media.given_up(PICTURE) == 1
    assert media.due() == math.inf
    assert offer(media, 0.9) is Outcome.TAKEN


def test_on_a_silent_path_the_latest_sound_goes_again_and_no_key_frame_is_asked_for() -> None:
    media = made()
    media.knock(0.0)
    assert drain(media, 0.0) == [], "there was none yet"
    offer(media, 0.0, needs=(1,))
    sound(media, 0.0, b"first")
    sound(media, 0.02, b"second")
    (_, flight), *_ = drain(media, 0.02)
    for now in (0.03, 0.04):
        media.knock(now)
        ((again, _),) = drain(media, now)
        assert isinstance(again, Fragment)
        assert (again.head.alias, again.payload) == (SOUND, b"second")
    media.knock(0.3)
    assert drain(media, 0.3) == [], "too late to be heard"
    assert media.wishes(0.3, rate=None) == []
    assert media.due() == math.inf
    media.settled(0.31, flight, arrived=True)
    assert media.wishes(0.31, rate=None) == [PICTURE]


def test_so_many_sounds_go_again_as_some_packets_hold() -> None:
    media = MediaSender()
    for alias in range(100):
        media.open(alias, sound=True)
        media.offer(0.0, alias, Source(b"sound", 0.0, ()), rate=None)
    drain(media, 0.0)
    media.knock(0.01)
    assert len(drain(media, 0.01)) == 16


def test_the_last_repeat_that_can_be_in_time_is_sent_twice() -> None:
    media = made()
    offer(media, 0.0, key=True)
    (_, flight), *_ = drain(media, 0.0)
    media.settled(0.15, flight, arrived=False)
    (_, one), (_, other) = drain(media, 0.15)
    media.settled(0.3, one, arrived=False)
    assert drain(media, 0.3) == []  # the other is on its way
    media.settled(0.3, other, arrived=True)
    assert media.figures["given_up"] == 0


def test_repeats_are_sent_twice_where_they_are_few_and_there_is_room() -> None:
    media = made()
    media.offer(0.0, PICTURE, Source(bytes(KEY_BYTES), 0.0, ()), rate=1e6)
    (_, flight), *_ = drain(media, 0.0)
    media.settled(0.09, flight, arrived=False)
    assert len(drain(media, 0.09)) == 2

    media = made()
    media.offer(0.0, PICTURE, Source(bytes(20 * KEY_BYTES), 0.0, ()), rate=1e6)
    assert media.head(0.0) is not None
    flight = media.taken()
    media.offer(0.01, PICTURE, Source(bytes(DELTA_BYTES), 0.01), rate=1e6)
    before = media.queue.waiting
    media.settled(0.09, flight, arrived=False)
    assert media.queue.waiting == before + len(flight.fragment.data)


def test_sound_is_carried_again_instead_of_twice_in_one_packet() -> None:
    media = made()
    sound(media, 0.0)
    ((_, flight),) = drain(media, 0.0)
    media.settled(0.1, flight, arrived=False)
    sound(media, 0.105)
    sent = [content for content, _ in drain(media, 0.105)]
    assert [type(each) for each in sent] == [Bundle, Fragment]


def test_what_parity_makes_up_for_is_not_repeated() -> None:
    media = made(round_trip=0.2, loss=0.05)
    offer(media, 0.0, key=True)
    drain(media, 0.0)
    offer(media, 0.033)
    sent = drain(media, 0.033)
    assert [isinstance(content, Parity) for content, _ in sent] == [False] * 4 + [True] * 3
    for _, flight in sent[:3]:
        media.settled(0.26, flight, arrived=False)
    assert drain(media, 0.26) == []
    media.settled(0.26, sent[6][1], arrived=False)
    again = drain(media, 0.26)
    assert again
    assert all(isinstance(content, Fragment) for content, _ in again)


def test_in_runs_of_losses_parity_goes_over_several_frames() -> None:
    media = made(round_trip=0.2)
    for number in range(10_000):
        media.meter.settled(media.meter.sent(), arrived=number % 200 >= 4)
    offer(media, 0.0, key=True)
    drain(media, 0.0)
    kinds = []
    for number in range(1, 5):
        offer(media, number / 30)
        kinds.append([content for content, _ in drain(media, number / 30)])
    assert all(isinstance(each, Fragment) for sent in kinds[:3] for each in sent)
    parity = [each for each in kinds[3] if isinstance(each, Parity)]
    assert [each.counts for each in parity] == [(4, 4, 4, 4)] * 12
    assert {each.frame for each in parity} == {1}


def test_a_key_frame_ends_a_span() -> None:
    media = made(round_trip=0.2)
    for number in range(10_000):
        media.meter.settled(media.meter.sent(), arrived=number % 200 >= 4)
    offer(media, 0.0, key=True)
    offer(media, 0.033)
    drain(media, 0.033)
    offer(media, 0.066, key=True)
    parity = [content for content, _ in drain(media, 0.066) if isinstance(content, Parity)]
    assert {each.counts for each in parity} == {(4,), (5,)}


def test_frames_that_need_what_was_refused_are_not_sent_and_a_key_frame_is_wished_for() -> None:
    media = MediaSender(queue=Limits(queue_bytes=6000))
    media.open(PICTURE, sound=False)
    assert offer(media, 0.0, key=True) is Outcome.TAKEN
    assert offer(media, 0.03) is Outcome.REFUSED
    assert media.wishes(0.03, rate=None) == [PICTURE]
    drain(media, 0.03)
    assert offer(media, 0.06) is Outcome.UNDECODABLE
    assert offer(media, 0.07, needs=(2,)) is Outcome.UNDECODABLE
    assert offer(media, 0.08, needs=(4,)) is Outcome.TAKEN
    (content, _), *_ = drain(media, 0.08)
    assert isinstance(content, Fragment)
    assert (content.head.frame, content.head.needs) == (1, (1,))  # there is no gap in what was sent


def test_key_frames_are_wished_for_now_and_then_and_only_if_they_fit() -> None:
    media = made()
    assert offer(media, 0.0) is Outcome.UNDECODABLE
    assert media.wishes(0.0, rate=None) == [PICTURE]
    assert media.wishes(0.4, rate=None) == []
    assert media.due() == 0.5
    sound(media, 0.5, bytes(1000))
    assert media.wishes(0.5, rate=1000.0) == []
    assert media.due() > 0.5
    drain(media, 0.5)
    assert media.wishes(0.6, rate=1000.0) == [PICTURE]
    assert offer(media, 0.7, key=True) is Outcome.TAKEN
    assert media.due() == math.inf


def test_a_receivers_wish_counts_unless_it_has_not_seen_the_last_key_frame() -> None:
    media = made()
    offer(media, 0.0, key=True)
    media.peer_wishes(0.05, PICTURE)
    assert media.wishes(0.05, rate=None) == []
    media.peer_wishes(0.2, PICTURE)
    media.peer_wishes(0.2, 99)
    assert media.wishes(0.2, rate=None) == [PICTURE]


def test_tracks_have_limits() -> None:
    media = MediaSender(SenderLimits(tracks=1))
    media.open(1, sound=True)
    with pytest.raises(ValueError, match="cannot"):
        media.open(1, sound=False)
    with pytest.raises(ValueError, match="already"):
        media.open(2, sound=False)
    media.close(1)
    media.close(1)
    with pytest.raises(KeyError):
        media.offer(0.0, 1, Source(b"x", 0.0), rate=None)


def test_a_closed_track_sends_nothing_more() -> None:
    media = made()
    offer(media, 0.0, key=True)
    media.close(PICTURE)
    assert drain(media, 0.0) == []


def test_a_frame_of_nothing_is_refused() -> None:
    assert sound(made(), 0.0, b"") is Outcome.REFUSED


@settings(deadline=None, max_examples=50)
@given(st.randoms(), st.sampled_from([0.02, 0.08, 0.2]), st.floats(0, 0.3))
def test_both_ends_over_a_path_that_loses_and_reorders(
    random: Random, round_trip: float, loss: float
) -> None:
    """Everything that comes out is what went in, once, in order; nothing is kept of what is over."""
    media, receiver = made(round_trip=round_trip, loss=loss), MediaReceiver()
    receiver.open(PICTURE, sound=False)
    receiver.open(SOUND, sound=True)
    handed: dict[int, list[bytes]] = {PICTURE: [], SOUND: []}
    offered: dict[int, list[bytes]] = {PICTURE: [], SOUND: []}
    events: list[tuple[float, int, bytes | None, Flight]] = []

    def run(until: float) -> None:
        while events and min(events)[0] <= until:
            event = min(events)
            events.remove(event)
            now, _, data, flight = event
            outputs = receiver.tick(now)
            if data is not None:
                outputs += receiver.receive(now, data)
            for output in outputs:
                if isinstance(output, Received):
                    handed[output.alias].append(output.body)
            media.settled(now, flight, arrived=data is not None)

    for number in range(20):
        now = number / 30
        run(now)
        alias = random.choice([PICTURE, PICTURE, SOUND])
        body = number.to_bytes(2, "big") * random.randint(1, 900 if alias == PICTURE else 60)
        needs = (1,) if alias == PICTURE and number % 7 else ()
        if media.offer(now, alias, Source(body, now, needs), rate=None) is Outcome.TAKEN:
            offered[alias].append(body)
        while media.head(now) is not None:
            flight = media.taken()
            arrives = random.random() >= loss
            at = now + (round_trip * random.uniform(0.5, 0.7) if arrives else 1.2 * round_trip)
            events.append((at, flight.number, flight.fragment.data if arrives else None, flight))
    run(math.inf)
    receiver.tick(9.0)
    for alias, bodies in handed.items():
        assert [each for each in offered[alias] if each in bodies] == bodies
    assert receiver.due() == math.inf
    assert not any(each.flying for each in [flight.fragment.frame for *_, flight in events])  # type: ignore[attr-defined] # all are ours
