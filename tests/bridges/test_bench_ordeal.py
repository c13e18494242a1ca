"""Random events over a bad path that breaks, in virtual time; and a judge who finds what is wrong."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from bench._bridges.happenings import Happenings, Occupancy
from bench._bridges.judge import Hearing, Origin, UnfaithfulError
from bench._bridges.ordeal import BAD_PATH, Ordeal, undergo
from bench.resync import WAYS, Way, measure
from bridges.wire import framing, messages
from tests.impairment.core import Bursts, Profile
from tests.impairment.virtual import VirtualLoop

PATHS = {
    "as told": BAD_PATH,
    "bursts": Profile(delay=0.05, bursts=Bursts(share=0.03, length=8), duplicate=0.02),
    "jumbled": Profile(delay=0.02, jitter=0.06, loss=0.01, reorder=0.1, reorder_delay=0.1),
}


@pytest.mark.parametrize("path", list(PATHS))
def test_on_our_wire_every_event_arrives_once_and_in_order_and_no_node_notices_a_break(path: str) -> None:
    ordeal = Ordeal(events=1000, conferences=5, rate=60, protocol="causeway/1", path=PATHS[path])
    with VirtualLoop.running() as loop:
        outcome = loop.run_until_complete(undergo(ordeal))
    assert outcome.resets == 0
    assert sum(outcome.breaks.values()) >= 4
    assert outcome.datagrams_lost > 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_both_ends_know_everything_again_after_a_break(way: Way) -> None:
    with VirtualLoop.running() as loop:
        found = loop.run_until_complete(measure(way, conferences=3, rounds=1))
    assert found["seconds"] > 0


def test_owts_wire_ends_up_with_equal_states_however_often_it_breaks() -> None:
    with VirtualLoop.running() as loop:
        outcome = loop.run_until_complete(undergo(Ordeal(events=600, conferences=4, rate=40, protocol="h3")))
    assert sum(outcome.breaks.values()) >= 4
    assert outcome.resets > 0
    assert outcome.datagrams_lost > 0


@pytest.mark.parametrize(("deaf_for", "error"), [(1, UnfaithfulError), (10_000, TimeoutError)])
def test_a_bridge_that_swallows_events_is_found(
    deaf_for: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class HardOfHearing(Hearing):
        def take(self, event: dict[str, Any]) -> None:
            nonlocal deaf_for
            if self.heard == 5 and deaf_for:
                deaf_for -= 1
            else:
                super().take(event)

    monkeypatch.setattr("bench._bridges.ordeal.Hearing", HardOfHearing)
    ordeal = Ordeal(events=60, conferences=1, rate=40, protocol="h3", path=Profile(), patience=5)
    with VirtualLoop.running() as loop, pytest.raises(error):
        loop.run_until_complete(undergo(ordeal))


def hearing(events: int) -> tuple[Origin, Hearing]:
    """Return a conference with so many events behind it, and somebody who was there from the beginning."""
    origin = Origin("west", "room", random.Random(1))
    heard = Hearing(origin)
    heard.take(origin.happenings.now.initialize())
    for _ in range(events):
        origin.happen()
    return origin, heard


def test_what_came_once_and_in_order_is_right() -> None:
    origin, heard = hearing(200)
    for event in origin.told:
        assert heard.behind > 0
        heard.take(event)
    heard.check_equal()
    assert (heard.heard, heard.resets, heard.began) == (200, 0, True)


def test_beginning_in_the_middle_is_right_whatever_the_state_was() -> None:
    origin, _ = hearing(0)
    for _ in range(300):
        state = origin.happenings.now.initialize()
        late = Hearing(origin)
        late.take(state)
        late.take(origin.happen())
        late.take(origin.happen())
        late.check_equal()


def test_being_told_anew_is_right_and_counted() -> None:
    origin, heard = hearing(10)
    heard.take(origin.told[0])
    heard.take({"type": "onCascadingDisconnected"})
    assert heard.state.digest() == Occupancy().digest()
    assert not heard.began
    heard.take(origin.happenings.now.initialize())
    heard.take(origin.happen())
    heard.take(origin.happenings.now.initialize())
    heard.check_equal()
    assert heard.resets == 2


@pytest.mark.parametrize("wrong", [[0, 1, 3], [0, 0], [1], [0, 1, 0], [0, 2]])
def test_lost_repeated_and_reordered_events_are_found(wrong: list[int]) -> None:
    origin, heard = hearing(20)
    for number in wrong[:-1]:
        heard.take(origin.told[number])
    with pytest.raises(UnfaithfulError, match=f"event {wrong[-1]}, "):
        heard.take(origin.told[wrong[-1]])


def test_what_never_happened_is_found() -> None:
    origin, heard = hearing(20)
    with pytest.raises(UnfaithfulError, match="event None, "):
        heard.take({"type": "addParticipant", "data": {"id": "nobody"}})
    with pytest.raises(UnfaithfulError, match="never was"):
        Hearing(origin).take({"type": "initialize", "data": {"participants": {"x": {}}, "streams": {}}})


def test_what_is_missing_at_the_end_is_found() -> None:
    origin, heard = hearing(3)
    for event in origin.told[:2]:
        heard.take(event)
    with pytest.raises(UnfaithfulError, match="1 events are missing"):
        heard.check_equal()
    heard.take(origin.told[2])
    heard.check_equal()
    heard.state.participants.clear()
    with pytest.raises(UnfaithfulError, match="states differ"):
        heard.check_equal()


def test_all_kinds_of_events_happen_and_the_wire_takes_them() -> None:
    happenings = Happenings("west", "room", random.Random(1))
    seen = set()
    for _ in range(300):
        event = happenings.next()
        seen.add(event["type"])
        message = framing.Metadata(payload=msgspec.json.encode(event))
        assert messages.decode_event_message(message).type == event["type"]
    assert seen == {
        "addParticipant",
        "removeParticipant",
        "addStream",
        "updateStreamInfo",
        "removeStream",
        "setStreamMute",
        "onAudioActiveness",
    }
