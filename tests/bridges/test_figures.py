from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridges import trail
from bridges.control.figures import FiguresTelling
from bridges.figures import BridgeFigures, Counters, LinkFigures, Tallies, Tally, sendable
from bridges.wire.messages import Event
from causeway import channel

if TYPE_CHECKING:
    import pytest

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=3)


# --- counting ---------------------------------------------------------------------------------


def test_a_tally_keeps_since_when_the_link_is_as_it_is() -> None:
    tally = Tally()
    assert (tally.is_up, tally.since, tally.reconnects) == (False, None, 0)
    tally.down("no route", now=NOON)
    tally.down("refused", now=LATER)
    assert (tally.since, tally.error, tally.connects) == (NOON, "refused", 0)
    tally.up(now=LATER)
    assert (tally.is_up, tally.since, tally.connects, tally.reconnects) == (True, LATER, 1, 0)
    tally.down("lost", now=LATER + timedelta(seconds=1))
    tally.up(now=LATER + timedelta(seconds=2))
    assert (tally.connects, tally.reconnects, tally.error) == (2, 1, "lost")


def test_tallies_are_kept_until_their_conference_is_gone_and_bounded() -> None:
    tallies = Tallies(max_entries=2)
    tallies.of("east", "a").drops += 1
    assert tallies.of("east", "a").drops == 1
    assert tallies.get("north", "a") is None
    tallies.of("north", "b")
    tallies.of("south", "b")
    assert len(tallies) == 2
    assert tallies.get("east", "a") is None
    tallies.forget("b")
    assert len(tallies) == 0


def test_counters_are_bounded_and_leave_out_what_is_zero() -> None:
    counters = Counters()
    counters.count("framing")
    counters.count("framing", 2)
    counters.count("message", 0)
    assert counters.snapshot() == {"framing": 3}
    for number in range(2 * Counters.MAX_NAMES):
        counters.count(f"made up {number}")
    told = counters.snapshot()
    assert len(told) <= Counters.MAX_NAMES + 1
    assert sum(told.values()) == 3 + 2 * Counters.MAX_NAMES
    assert told[Counters.OTHER] >= Counters.MAX_NAMES
    assert counters["framing"] == 3


@given(st.text(st.characters(), max_size=600))
def test_any_text_can_be_told(text: str) -> None:
    told = LinkFigures(kind="event", conference="c", peer="p", error=sendable(text))
    assert msgspec.json.decode(msgspec.json.encode(told), type=LinkFigures) == told


# --- telling control --------------------------------------------------------------------------


def bridge(moved: dict[str, int], kind: str = "event", **fields: Any) -> BridgeFigures:
    links = [
        LinkFigures(kind=kind, conference=name, peer="east", messages_in=count)
        for name, count in moved.items()
    ]
    return BridgeFigures(kind=kind, links=links, **fields)


def told_links(message: channel.Figures) -> list[str]:
    return [link.conference for each in message.bridges for link in each.links]


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 3)), max_size=8),
    st.integers(1, 4),
)
def test_whatever_moves_is_told_in_the_end_and_never_more_than_allowed_at_once(
    moments: list[dict[str, int]], most: int
) -> None:
    telling = FiguresTelling(max_links=most)
    known: dict[str, int] = {}
    for moved in moments:
        known = {name: count for name, count in known.items() if name in moved}
        message = telling.next([bridge(moved)])
        assert len(told_links(message)) <= most
        known |= {link.conference: link.messages_in for link in message.bridges[0].links}
    last = moments[-1] if moments else {}
    for _ in range(len(last)):  # Nothing moves any more: everything is told soon, and then nothing.
        message = telling.next([bridge(last)])
        known |= {link.conference: link.messages_in for link in message.bridges[0].links}
    assert known == last
    assert told_links(telling.next([bridge(last)])) == []


def test_links_that_all_move_take_turns_and_those_told_longest_ago_come_first() -> None:
    telling = FiguresTelling(max_links=2)
    turns = [told_links(telling.next([bridge(dict.fromkeys("abcde", n))])) for n in range(9)]
    assert all(len(turn) == 2 for turn in turns)
    for begin in range(7):
        assert {name for turn in turns[begin : begin + 3] for name in turn} == set("abcde")


def test_what_always_moves_is_no_reason_to_tell_a_link_and_connections_are_told_each_time() -> None:
    telling = FiguresTelling(max_links=9)
    link = LinkFigures(kind="event", conference="c", peer="east", round_trip_ms=1.0)
    first = telling.next([BridgeFigures(kind="event", links=[link], counters={"framing": 1})])
    assert told_links(first) == ["c"]
    link = msgspec.structs.replace(link, round_trip_ms=2.0, lag_ms=3.0, backlog=4)
    again = telling.next([BridgeFigures(kind="event", links=[link], counters={"framing": 2})])
    assert told_links(again) == []
    assert again.bridges[0].counters == {"framing": 2}
    assert channel.decode_from_agent(channel.encode(again)) == again


def test_events_and_media_of_a_conference_are_two_links() -> None:
    telling = FiguresTelling(max_links=9)
    assert told_links(telling.next([bridge({"c": 1}), bridge({"c": 1}, "media")])) == ["c", "c"]


# --- following an event -----------------------------------------------------------------------

EVENT = Event(type="addParticipant", data={"id": "p1", "user": "a secret of theirs"})


def test_steps_are_off_until_the_log_is_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bridges.trail"):
        assert not trail.following()
    with caplog.at_level(logging.DEBUG, logger="bridges.trail"):
        assert trail.following()


def test_a_step_says_what_an_event_is_about_and_not_what_it_says() -> None:
    with capture_logs() as lines:
        trail.step("sent", EVENT, id="x/0/d1", conference="c", peer="east", seq=1)
        trail.step("told", Event(type="removeStream", data="s1"), id="x", conference="c", peer="east")
        trail.step("told", Event(type="initialize", data={"id": 3}), id="x", conference="c", peer="east")
    assert lines[0] == {
        "event": "event.sent",
        "log_level": "debug",
        "id": "x/0/d1",
        "conference": "c",
        "peer": "east",
        "type": "addParticipant",
        "subject": "p1",
        "seq": 1,
    }
    assert [line["subject"] for line in lines] == ["p1", "s1", ""]


def test_the_two_directions_of_a_stream_are_told_apart() -> None:
    assert trail.owt_id("0af1", 4, by_dialer=True, number=1) == "0af1/4/d1"
    assert trail.owt_id("0af1", "4", by_dialer=False, number=1) == "0af1/4/l1"
