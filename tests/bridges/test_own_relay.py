"""Relaying on our own wire: everything arrives once and in order, whatever breaks; nothing goes round."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridges.event.own.origin import draw_incarnation
from bridges.event.own.outputs import Diverged, Repaired, RouteChanged, Vanished
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings
from tests.bridges.own_story import NARROW, WIDE, Story
from tests.bridges.own_world import ROOM, World, participant, stream

if TYPE_CHECKING:
    from tests.bridges.own_world import Bridge, Connection


def active(number: int) -> dict[str, Any]:
    return {"activeInputStream": str(number), "target": None}


def heard(bridge: Bridge, origin: str) -> list[int]:
    return [int(data["activeInputStream"]) for data in bridge.view.events_of(origin, "onAudioActiveness")]


def line(*names: str, settings: OwnWireSettings | None = None) -> tuple[World, list[Bridge]]:
    """Bridges that are linked one after the other, each dialling the one before it."""
    world = World(settings)
    bridges = [world.bridge(name) for name in names]
    for before, after in pairwise(names):
        world.connect(after, before)
    world.settle()
    return world, bridges


def between(world: World, one: str, other: str) -> Connection:
    return next(c for c in world.connections if {e.bridge.name for e in c.ends} == {one, other})


@pytest.mark.parametrize("rings", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("settings", [WIDE, NARROW], ids=["wide", "narrow"])
def test_random_stories_end_well(settings: OwnWireSettings, restarts: bool, rings: bool) -> None:
    for seed in range(9000, 9006):
        Story(seed, settings, bridges=2 + seed % 5, restarts=restarts, rings=rings).run(250)


def test_events_pass_relays_and_say_where_they_came_by() -> None:
    world, (a, b, c, d) = line("a", "b", "c", "d")
    for number in range(5):
        a.relay.publish("onAudioActiveness", active(number))
    d.relay.publish("addParticipant", participant("p9"))
    world.settle()
    world.check()
    assert heard(d, "a") == heard(b, "a") == [0, 1, 2, 3, 4]
    states = {state.origin: state for state in d.relay.origins()}
    assert states["a"].path == ("a", "b", "c")
    assert states["d"].path == ()
    assert sorted(a.view.pictures) == ["b", "c", "d"]
    log = d.relay.origin("a")
    assert log is not None
    assert [event.hops for event in log.log.after(0)] == [("a", "b", "c")] * 5
    assert c.relay.loops == 0


def test_who_does_not_relay_passes_nothing_on() -> None:
    world = World()
    a, b, c = world.bridge("a"), world.bridge("b", relaying=False), world.bridge("c")
    world.connect("b", "a")
    world.connect("c", "b")
    world.settle()
    assert (sorted(a.view.pictures), sorted(b.view.pictures), sorted(c.view.pictures)) == (
        ["b"],
        ["a", "c"],
        ["b"],
    )
    b.relay.set_relaying(relaying=True)
    world.settle()
    world.check()
    b.relay.set_relaying(relaying=False)
    world.settle()
    world.sleep(world.settings.origin_grace + 1)
    assert sorted(a.view.pictures) == ["b"]


def test_what_a_relay_swallowed_comes_on_the_next_link() -> None:
    world, (a, _, c) = line("a", "b", "c")
    a.relay.publish("onAudioActiveness", active(0))
    world.settle()
    between(world, "b", "c").cut()
    for number in range(1, 4):
        a.relay.publish("onAudioActiveness", active(number))  # b has these, c has not
    world.settle()
    between(world, "a", "b").cut()
    a.relay.publish("onAudioActiveness", active(4))
    world.connect("c", "a")
    world.settle()
    assert heard(c, "a") == [0, 1, 2, 3, 4]
    assert [entry[3] for entry in c.view.log if entry[0] == "a"].count("initialize") == 1
    assert between(world, "a", "c").ends[1].conversation.figures()[0].snapshots_out == 0


def test_of_two_ways_the_shorter_is_taken_and_the_other_when_it_breaks() -> None:
    world, (a, b, c) = line("a", "b", "c")
    world.connect("c", "a")
    world.settle()
    assert c.of(RouteChanged)[-1].via == "a"
    between(world, "a", "c").cut()
    a.relay.publish("onAudioActiveness", active(1))
    world.settle()
    assert heard(c, "a") == [1]
    assert [one.via for one in c.of(RouteChanged) if one.origin == "a"] == ["b", "a", "b"]
    assert not c.of(Vanished)
    assert (a.relay.loops, b.relay.loops, c.relay.loops) == (0, 0, 0)


def test_in_a_ring_nothing_goes_round() -> None:
    world, bridges = line("a", "b", "c", "d")
    world.connect("a", "d")
    world.settle()
    for number in range(20):
        bridges[0].relay.publish("onAudioActiveness", active(number))
    world.settle()
    assert all(heard(bridge, "a") == list(range(20)) for bridge in bridges[1:])
    carried = sum(
        channel.events_out
        for connection in world.connections
        for end in connection.ends
        for channel in end.conversation.figures()
    )
    assert carried == 3 * 20  # once for each of the others
    assert all(bridge.relay.loops == 0 for bridge in bridges)


def test_an_origin_that_is_out_of_reach_is_given_up_after_the_grace_time_only() -> None:
    world, (a, b, c) = line("a", "b", "c")
    a.relay.publish("addParticipant", participant("p1"))
    world.settle()
    between(world, "a", "b").cut()
    world.sleep(world.settings.origin_grace - 1)
    assert not b.of(Vanished)
    assert not c.of(Vanished)
    due = c.relay.due()
    assert due is not None
    world.sleep(2)
    assert [one.origin for one in b.of(Vanished)] == ["a"]
    assert [one.origin for one in c.of(Vanished)] == ["a"]
    assert (b.relay.state("a"), c.relay.due()) == (None, None)
    world.connect("a", "b")
    world.settle()
    world.check()


def test_a_break_within_the_grace_time_is_noticed_by_nobody() -> None:
    world, (a, _, c) = line("a", "b", "c")
    a.relay.publish("onAudioActiveness", active(1))
    world.settle()
    between(world, "a", "b").cut()
    a.relay.publish("onAudioActiveness", active(2))
    world.sleep(5)
    world.connect("a", "b")
    world.settle()
    assert [entry[3] for entry in c.view.log if entry[0] == "a"] == ["initialize"] + 2 * ["onAudioActiveness"]
    assert not c.of(Vanished)


def test_beyond_the_log_the_node_is_told_what_the_difference_amounts_to() -> None:
    settings = msgspec.structs.replace(WIDE, log_events=4)
    world, (a, b) = line("a", "b", settings=settings)
    for number in range(3):
        a.relay.publish("addParticipant", participant(f"p{number}"))
    world.settle()
    between(world, "a", "b").cut()
    for number in range(10):
        a.relay.publish("addStream", stream(f"s{number}"))
    for number in range(9):
        a.relay.publish("removeStream", f"s{number}")
    a.relay.publish("removeParticipant", "p0")
    told = len(b.view.log)
    world.connect("b", "a")
    world.settle()
    world.check()
    assert [entry[3] for entry in b.view.log[told:]] == ["removeParticipant", "addStream"]
    assert b.of(Repaired)[-1].changes == 2


def test_large_states_come_in_parts_while_others_have_their_turn() -> None:
    settings = msgspec.structs.replace(NARROW, max_message_bytes=65_536)
    world = World(settings)
    a, b = world.bridge("a"), world.bridge("b")
    a.relay.attach({f"p{n}": participant(f"p{n}", text="x" * 300) for n in range(300)}, {})
    connection = world.connect("b", "a")
    world.settle()
    world.check()
    assert len(b.view.pictures["a"].participants) == 300
    assert connection.ends[1].conversation.figures()[0].bytes_out > 10 * settings.credit_bytes
    assert connection.ends[0].conversation.figures()[0].unconsumed_bytes == 0


def test_a_node_that_attaches_anew_tells_what_has_changed() -> None:
    world, (a, b) = line("a", "b")
    a.relay.attach({"p1": participant("p1"), "p2": participant("p2")}, {})
    world.settle()
    a.relay.detach()
    world.settle()
    assert b.of(RouteChanged)[-1].via is None
    with pytest.raises(ValueError, match="no state"):
        a.relay.publish("removeParticipant", "p1")
    told = len(b.view.log)
    a.relay.attach({"p2": participant("p2"), "p3": participant("p3")}, {})
    world.settle()
    world.check()
    assert [entry[3] for entry in b.view.log[told:]] == ["removeParticipant", "addParticipant"]
    a.relay.attach({f"q{n}": participant(f"q{n}") for n in range(2000)}, {})
    world.settle()
    world.check()


def test_a_node_that_has_forgotten_is_told_everything_anew() -> None:
    world, (a, b, _) = line("a", "b", "c")
    a.relay.publish("addParticipant", participant("p1"))
    world.settle()
    replayed = {told.origin: told.data["participants"] for told in b.relay.replay()}
    assert replayed == {"a": {"p1": participant("p1")}, "c": {}}
    assert all(told.type == "initialize" for told in b.relay.replay())


def test_a_start_whose_clock_went_back_is_believed_all_the_same() -> None:
    world, (_, b, c) = line("a", "b", "c")
    again = world.bridge("a")
    again.relays.clear()
    again.incarnation = 0
    again.room(ROOM).attach({"p1": participant("p1")}, {})
    between(world, "a", "b").cut()
    world.connect("b", "a")
    world.settle()
    world.check()
    origin = c.relay.origin("a")
    assert origin is not None
    assert list(origin.picture.participants) == ["p1"]
    assert not b.of(Vanished)


@pytest.mark.parametrize("first", ["c to b", "a to b"])
def test_a_clock_that_went_back_is_told_of_by_way_of_relays(first: str) -> None:
    world, (_, _, c) = line("x", "a", "c")
    world.bridge("b")
    for connection in world.connections:
        connection.cut()
    world.bridges.pop("x")
    again = world.bridge("a", incarnation=1)
    again.relay.publish("addParticipant", participant("p1"))
    links = [("c", "b"), ("a", "b")]  # b has never heard of the newer start
    for link in links if first == "c to b" else reversed(links):
        world.connect(*link)
        world.settle()
    world.check()
    assert not c.of(Vanished)
    own = again.relay.origin("a")
    assert own is not None
    assert own.log.incarnation > 2


def test_a_divergence_is_found_reported_and_repaired_and_what_follows_from_it() -> None:
    world, (a, b, c) = line("a", "b", "c")
    a.relay.publish("addParticipant", participant("p1"))
    a.relay.publish("addStream", stream("s1"))
    world.settle()
    broken = b.relay.origin("a")
    assert broken is not None
    broken.picture.apply("removeStream", "s1")  # as if it had been lost without a word
    broken.picture.apply("addParticipant", participant("p2"))
    a.relay.publish("onAudioActiveness", active(1))
    world.sleep(2 * world.settings.digest_interval + 4)
    world.check()
    assert [(one.origin, one.peer) for one in b.of(Diverged)] == [("a", "a")]
    assert b.of(Repaired)[0].changes == 2
    assert [entry[3] for entry in b.view.log[-2:]] == ["removeParticipant", "addStream"]
    assert all(one.origin == "a" for one in c.of(Diverged))
    figures = between(world, "a", "b").ends[1].conversation.figures()[0]
    assert figures.divergences == 1  # the other end is told of it


def test_nothing_is_compared_twice_while_nothing_happens() -> None:
    world, _ = line("a", "b")
    world.sleep(20)
    connection = world.connections[0]
    for end in connection.ends:
        for exchange in end.conversation._channels.values():
            assert exchange.outlet is not None
            cursor = exchange.outlet._cursors[end.bridge.name]
            assert cursor.compared is not None
            assert world.now - cursor.compared_at > 10


def test_a_node_that_does_not_keep_up_bounds_what_is_under_way() -> None:
    settings = msgspec.structs.replace(WIDE, credit_bytes=4096, log_events=50)
    world, (a, b) = line("a", "b", settings=settings)
    b.view.consuming = False
    for number in range(1000):
        a.relay.publish("onAudioActiveness", active(number))
        world.settle()
    channel = world.connections[0].ends[0].conversation.figures()[0]
    assert 4000 <= channel.unconsumed_bytes <= 4096 + 200
    assert world.connections[0].ends[1].conversation.figures()[0].owed > 900
    b.view.consuming = True
    b.view.consume()
    world.settle()
    world.check()
    assert heard(b, "a") == list(range(len(heard(b, "a"))))
    assert [state.at.seq for state in b.relay.origins() if state.origin == "a"] == [1000]
    assert channel.duplicates == 0


def test_a_conference_that_is_stuck_does_not_hold_up_another_on_its_lane() -> None:
    world = World(OwnWireSettings(lanes=1, credit_bytes=4096))
    a, b = world.bridge("a"), world.bridge("b")
    for bridge in (a, b):
        bridge.room("other").attach({}, {})
    world.connect("b", "a", rooms=(ROOM, "other"))
    world.settle()
    b.view.consuming = False
    for number in range(500):
        a.relay.publish("onAudioActiveness", active(number))
    a.room("other").publish("addParticipant", participant("p1"))
    world.settle()
    assert len(heard(b, "a")) < 100
    world.check("other")


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("initialize", {"participants": {}, "streams": {}}),
        ("onCascadingDisconnected", None),
        ("addParticipant", {"user": "no id"}),
        ("updateStreamInfo", {"id": "s1", "info": 5}),
        ("of a later version", b"no JSON"),
        ("of a later version", "x" * (1 << 20)),
        ("addParticipant", participant("p1", text="x" * (1 << 20))),
    ],
)
def test_what_is_no_event_is_not_published(type_: str, data: Any) -> None:
    relay = Relay(ROOM, cluster="a", incarnation=1, relaying=False, settings=OwnWireSettings())
    relay.attach({}, {})
    with pytest.raises(ValueError, match=r"."):
        relay.publish(type_, data)
    states = relay.origins()
    assert (states[0].at.seq, states[0].digest) == (0, bytes(16))


def test_events_of_types_that_are_not_known_are_passed_on() -> None:
    world, (a, _, c) = line("a", "b", "c")
    event_id = a.relay.publish("of a later version", {"x": [1, None, "y"]})
    world.settle()
    assert c.view.log[-1] == ("a", a.incarnation, 1, "of a later version", {"x": [1, None, "y"]})
    assert event_id == f"{a.incarnation:x}.1"


def test_incarnations_grow_with_time() -> None:
    drawn = [draw_incarnation(1_800_000_000_000 + ms, bits) for ms, bits in ((0, 2**64), (0, 7), (1, 0))]
    assert drawn[1] < drawn[2]
    assert drawn[0] < drawn[2]
    assert draw_incarnation(0, 0) > 0
    assert draw_incarnation(2**60, 0) == 2**62 - 1
