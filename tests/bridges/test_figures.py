from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridges import trail
from bridges.control.figures import FiguresTelling
from bridges.figures import BridgeFigures, Counters, LinkFigures, PeerFigures, Tallies, Tally, named, sendable
from bridges.wire.messages import Event
from causeway import channel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridges.figures import LinkKey

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
    told = LinkFigures(kind="event", conference="c", peer=named(text), error=sendable(text))
    assert msgspec.json.decode(msgspec.json.encode(told), type=LinkFigures) == told


# --- telling control --------------------------------------------------------------------------


class Bridges:
    """The links of two bridges as they are now: how much each has moved."""

    def __init__(self, events: dict[str, int], media: dict[str, int] | None = None) -> None:
        self._moved = (("event", events), ("media", media or {}))

    def keys(self) -> list[list[LinkKey]]:
        return [sorted(("east", name) for name in moved) for _, moved in self._moved]

    def links(self, bridge: int, keys: Iterable[LinkKey]) -> list[LinkFigures]:
        kind, moved = self._moved[bridge]
        return [
            LinkFigures(kind=kind, conference=name, peer=peer, messages_in=moved[name]) for peer, name in keys
        ]

    def told(self, telling: FiguresTelling) -> tuple[dict[tuple[str, str], int], int]:
        """Return what the next message says of links, and how many were looked at for it."""
        telling.begin(self.keys())
        looked = 0
        while (batch := telling.look()) is not None:
            assert batch.keys
            looked += len(batch.keys)
            telling.take(batch.bridge, self.links(batch.bridge, batch.keys))
        message = telling.message([BridgeFigures(kind=kind) for kind, _ in self._moved])
        links = [link for each in message.bridges for link in each.links]
        assert all(link.kind == each.kind for each in message.bridges for link in each.links)
        said = {(link.kind, link.conference): link.messages_in for link in links}
        assert len(said) == len(links)
        return said, looked


MOMENTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 3))


@given(st.lists(st.tuples(MOMENTS, MOMENTS), max_size=6), st.integers(1, 4), st.integers(1, 9))
def test_whatever_moves_is_told_in_the_end_with_bounded_work(
    moments: list[tuple[dict[str, int], dict[str, int]]], most: int, looked_at_most: int
) -> None:
    telling = FiguresTelling(max_links=most, max_looked=looked_at_most)
    known: dict[tuple[str, str], int] = {}

    def tell(events: dict[str, int], media: dict[str, int]) -> int:
        said, looked = Bridges(events, media).told(telling)
        assert len(said) <= most
        assert looked <= looked_at_most
        known.update(said)
        return len(said)

    for events, media in moments:
        tell(events, media)
    events, media = moments[-1] if moments else ({}, {})
    for _ in range(2 * (len(events) + len(media))):  # Nothing moves any more: all is told soon, then nothing.
        tell(events, media)
    assert all(known["event", name] == count for name, count in events.items())
    assert all(known["media", name] == count for name, count in media.items())
    assert tell(events, media) == 0


def test_links_that_all_move_take_turns() -> None:
    telling = FiguresTelling(max_links=2)
    turns = [set(Bridges(dict.fromkeys("abcde", n)).told(telling)[0]) for n in range(10)]
    assert all(len(turn) == 2 for turn in turns)
    for begin in range(8):
        assert {name for turn in turns[begin : begin + 3] for _, name in turn} == set("abcde")


def test_what_always_moves_is_no_reason_to_tell_a_link_and_connections_are_told_each_time() -> None:
    telling = FiguresTelling(max_links=9)
    link = LinkFigures(kind="event", conference="c", peer="east", round_trip_ms=1.0)

    def tell(now: LinkFigures, count: int) -> channel.Figures:
        telling.begin([[("east", "c")]])
        batch = telling.look()
        assert batch is not None
        telling.take(batch.bridge, [now])
        assert telling.look() is None
        return telling.message([BridgeFigures(kind="event", counters={"framing": count})])

    assert tell(link, 1).bridges[0].links == [link]
    again = tell(msgspec.structs.replace(link, round_trip_ms=2.0, lag_ms=3.0, backlog=4), 2)
    assert again.bridges[0].links == []
    assert again.bridges[0].counters == {"framing": 2}
    assert channel.decode_from_agent(channel.encode(again)) == again
    assert tell(msgspec.structs.replace(link, drops=1), 3).bridges[0].links != []


@pytest.mark.parametrize("name", ["", "no/such", "x" * 129, "a\n", "ü"])
def test_names_that_control_could_not_know_are_left_out(name: str) -> None:
    telling = FiguresTelling(max_links=9)
    telling.begin([[(name, "c"), ("east", name)]])
    assert telling.look() is not None
    telling.take(0, [LinkFigures(kind="event", conference="c", peer=name)])
    telling.take(0, [LinkFigures(kind="event", conference=name, peer="east")])
    peers = [PeerFigures(kind="event", peer=each) for each in (name, "east")]
    (bridge,) = telling.message([BridgeFigures(kind="event", peers=peers)]).bridges
    assert (bridge.links, bridge.peers) == ([], peers[1:])


def test_a_link_that_went_while_it_was_looked_at_is_left_out() -> None:
    telling = FiguresTelling(max_links=9)
    telling.begin([[("east", "a"), ("east", "b")]])
    assert telling.look() is not None
    telling.take(0, [])
    assert telling.message([BridgeFigures(kind="event")]).bridges[0].links == []


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
