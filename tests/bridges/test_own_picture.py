"""Pictures of origins and their logs: digests, differences, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.event.own.log import EventLog, LogBudget, Logged
from bridges.event.own.picture import Picture, PictureFullError, difference
from bridges.wire.own.messages import Position
from tests.bridges.own_world import empty_picture, participant, stream

names = st.sampled_from(["x", "y", "z"])
infos = st.fixed_dictionaries(
    {"owner": names, "type": st.just("webrtc"), "inViews": st.lists(names, max_size=1)}
)
events = st.one_of(
    st.tuples(st.just("addParticipant"), st.builds(participant, names, n=st.integers(0, 3))),
    st.tuples(st.just("removeParticipant"), names),
    st.tuples(st.just("addStream"), st.builds(stream, names, names, muted=st.booleans())),
    st.tuples(st.just("removeStream"), names),
    st.tuples(st.just("updateStreamInfo"), st.fixed_dictionaries({"id": names, "info": infos})),
    st.tuples(
        st.just("setStreamMute"),
        st.fixed_dictionaries(
            {"id": names, "track": st.sampled_from(["audio", "video", "av", "x-a"]), "muted": st.booleans()}
        ),
    ),
    st.tuples(st.just("onAudioActiveness"), st.just({"activeInputStream": "x", "target": None})),
    st.tuples(st.just("of a later version"), st.integers()),
)
histories = st.lists(events, max_size=12)


def picture_after(history: list[tuple[str, Any]]) -> Picture:
    picture = empty_picture()
    for type_, data in history:
        picture.apply(type_, data)
    return picture


def fresh(picture: Picture) -> Picture:
    """The same content, put in anew."""
    copy, data = empty_picture(), picture.initialize()
    for id_, value in data["participants"].items():
        copy.put_participant(id_, value)
    for id_, value in data["streams"].items():
        copy.put_stream(id_, value)
    return copy


@given(histories)
def test_the_digest_is_of_the_content_however_it_came_about(history: list[tuple[str, Any]]) -> None:
    picture = picture_after(history)
    copy = fresh(picture)
    assert copy.digest == picture.digest
    assert copy.bytes == picture.bytes
    assert (copy.participants, copy.streams) == (picture.participants, picture.streams)


@given(histories, histories)
def test_the_difference_makes_one_picture_into_the_other(
    one: list[tuple[str, Any]], other: list[tuple[str, Any]]
) -> None:
    before, after = picture_after(one), picture_after(other)
    changes = difference(before, after)
    assert bool(changes) == (before.digest != after.digest)
    for change in changes:
        before.apply(change.type, change.data)
    assert before.digest == after.digest
    assert difference(before, after) == []


def test_the_digest_by_hand() -> None:
    """What another implementation has to come to."""
    picture = empty_picture()
    assert picture.digest == bytes(16)
    picture.put_participant("p", {"id": "p"})
    alone = picture.digest
    assert alone.hex() == "b24692804ae3592cc6f05789db43d2fb"
    picture.put_stream("s", stream("s"))
    picture.apply("removeStream", "s")
    assert picture.digest == alone


def test_what_changed_in_a_stream_is_said_as_shortly_as_can_be() -> None:
    before, muted, told, other = (empty_picture() for _ in range(4))
    before.apply("addStream", stream("s"))
    muted.apply("addStream", stream("s", muted=True))
    told.apply("addStream", stream("s", "p2"))
    other.apply("addStream", {**stream("s"), "data": "other"})
    assert [change.type for change in difference(before, muted)] == ["setStreamMute"]
    assert [change.type for change in difference(before, told)] == ["updateStreamInfo"]
    assert [change.type for change in difference(before, other)] == ["removeStream", "addStream"]


def test_a_picture_that_is_full_does_not_change() -> None:
    picture = Picture(max_entries=2, max_bytes=300, max_entry_bytes=200)
    picture.put_participant("a", participant("a"))
    digest = picture.digest
    with pytest.raises(PictureFullError, match="an entry"):
        picture.put_participant("b", participant("b", long="x" * 200))
    picture.put_participant("b", participant("b"))
    picture.put_participant("b", participant("b", more="x" * 80))
    with pytest.raises(PictureFullError, match="all that is taken"):
        picture.put_participant("c", participant("c"))
    with pytest.raises(PictureFullError, match="all that is taken"):
        picture.put_participant("a", participant("a", more="x" * 100))
    picture.apply("removeParticipant", "b")
    assert picture.digest == digest


# --- the log -----------------------------------------------------------------------------------------------


def logged(seq: int, size: int = 10) -> Logged:
    return Logged(seq, (), "event", b"x" * size)


def test_a_log_has_the_newest_events_and_says_how_far_it_reaches() -> None:
    log = EventLog(Position(7, 4), max_events=3, max_bytes=10_000, budget=LogBudget(1 << 20))
    assert log.end == Position(7, 4)
    assert log.reaches(Position(7, 4))
    for seq in range(5, 10):
        log.append(logged(seq))
    assert [event.seq for event in log.after(log.base)] == [7, 8, 9]
    assert [event.seq for event in log.after(8)] == [9]
    assert (log.get(6), log.get(10)) == (None, None)
    assert log.get(9) == logged(9)
    assert log.reaches(Position(7, 6))
    assert log.reaches(Position(7, 12))  # what it has not got itself yet
    assert not log.reaches(Position(7, 5))
    assert not log.reaches(Position(6, 8))
    with pytest.raises(ValueError, match="does not follow"):
        log.append(logged(11))


def test_a_log_is_bounded_in_bytes_but_keeps_the_newest() -> None:
    log = EventLog(Position(1, 0), max_events=100, max_bytes=1000, budget=LogBudget(1 << 20))
    for seq in range(1, 6):
        log.append(logged(seq, 100))
    assert log.bytes <= 1000
    assert log.base == 2
    log.append(logged(6, 5000))
    assert [event.seq for event in log.after(log.base)] == [6]
    log.reset(Position(2, 3))
    assert (len(log), log.bytes, log.end) == (0, 0, Position(2, 3))


def test_all_logs_together_are_bounded_and_give_back_what_they_took() -> None:
    budget = LogBudget(2000)
    logs = [EventLog(Position(1, 0), max_events=100, max_bytes=10_000, budget=budget) for _ in range(3)]
    for number in range(27):
        logs[number % 3].append(logged(number // 3 + 1, 100))
    assert budget.bytes == sum(log.bytes for log in logs) <= 2000
    assert all(log.reaches(Position(1, 8)) for log in logs)
    logs[0].reset(Position(2, 0))
    while len(logs) > 1:
        logs.pop()
    assert budget.bytes == logs[0].bytes == 0
