"""One connection of our own wire: greeting, conferences, and whatever a peer does wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bridges.event.own.conversation import Conversation, Role
from bridges.event.own.outputs import (
    ChannelClosed,
    ChannelOpened,
    Greeted,
    OpenRequested,
    Output,
    RoundTripMeasured,
    Told,
    Violated,
)
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings
from bridges.wire.own.codec import OwnDeframer, encode
from bridges.wire.own.errors import OwnCode
from bridges.wire.own.messages import (
    NOTHING,
    Close,
    Happened,
    Hello,
    HelloLimits,
    Message,
    Offer,
    Open,
    Opened,
    Ping,
    Pong,
    Position,
    Reach,
    Snapshot,
)
from bridges.wire.own.values import canonical
from tests.bridges.own_world import ROOM, TOKEN, World, participant, stream

LIMITS = HelloLimits(message=1 << 20, channels=100, lanes=4, waiting=10)
SETTINGS = OwnWireSettings(max_channels=8, max_waiting=4, max_origins=4, credit_bytes=4096, max_strikes=5)
BIG = 1 << 30


class Peer:
    """A listener of ours, and what a dialer says to it message by message. It calls itself `us`."""

    def __init__(self, settings: OwnWireSettings = SETTINGS, *, greeted: bool = True) -> None:
        self.now = 10.0
        self.outputs: list[Output] = []
        self.relays: dict[str, Relay] = {}
        self.conversation = Conversation(
            Role.LISTENER, cluster="eu", peer=None, settings=settings, now=self.now, wake=lambda: None
        )
        self.settings = settings
        self._readers: dict[int, OwnDeframer] = {}
        if greeted:
            self.say(Hello([1], "us", LIMITS), lane=0)

    def say(self, *messages: Message, lane: int = 1) -> list[Output]:
        return self.send(b"".join(map(encode, messages)), lane=lane)

    def send(self, data: bytes, *, lane: int = 1) -> list[Output]:
        outputs = self.conversation.receive(lane, data, self.now)
        for output in list(outputs):
            if isinstance(output, OpenRequested):
                outputs += self.decide(output)
        for output in outputs:
            if isinstance(output, Told):
                output.consumed()
        self.outputs += outputs
        return outputs

    def decide(self, asked: OpenRequested) -> list[Output]:
        if asked.token != TOKEN:
            return self.conversation.close_channel(asked.channel, OwnCode.TOKEN_REFUSED, "wrong", self.now)
        return self.conversation.accept(asked.channel, self.relay(asked.room), self.now)

    def relay(self, room: str) -> Relay:
        if room not in self.relays:
            relay = Relay(room, cluster="eu", incarnation=5, relaying=True, settings=self.settings)
            relay.attach({"p1": participant("p1")}, {})
            self.relays[room] = relay
        return self.relays[room]

    def open(self, channel: int = 1, *, lane: int = 1, room: str = ROOM, credit: int = BIG) -> None:
        self.say(Open(channel, room, TOKEN, {}, credit, Position(1, channel)), lane=lane)
        self.heard()

    def heard(self) -> list[Any]:
        """Return what we say."""
        found: list[Any] = []
        while lanes := self.conversation.lanes_to_send():
            size = len(found)
            for lane in lanes:
                reader = self._readers.setdefault(lane, OwnDeframer(1 << 21))
                reader.feed(self.conversation.data_to_send(lane, BIG, self.now))
                while (framed := reader.next_message()) is not None:
                    found.append(framed.message)
            if len(found) == size:
                break
        return found

    def of(self, kind: type[Any]) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]


def happened(seq: int, *, channel: int = 1, origin: str = "us", data: Any = "s1", **more: Any) -> Happened:
    fields: dict[str, Any] = {"at": Position(3, seq), "hops": [origin], "type": "removeStream", **more}
    return Happened(channel, origin, data=msgspec.Raw(canonical(data)), **fields)


def snapshot(seq: int = 0, *, channel: int = 1, number: int = 1, **more: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "origin": "us",
        "at": Position(3, seq),
        "hops": ["us"],
        "participants": {},
        "streams": {},
        **more,
    }
    return Snapshot(channel, number=number, **fields)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(canonical(value))


# --- what is as it should be --------------------------------------------------------------------------------


def test_the_greeting_and_the_first_conference() -> None:
    peer = Peer()
    assert peer.of(Greeted) == [Greeted(peer="us", version=1, features=frozenset())]
    first = peer.heard()
    assert [type(message) for message in first] == [Hello, Ping]
    assert (first[0].cluster, first[0].versions) == ("eu", [1])
    peer.say(Open(1, ROOM, TOKEN, {"eu": NOTHING}, 4096, Position(1, 1)))
    assert peer.of(ChannelOpened) == [ChannelOpened(channel=1, room=ROOM)]
    said = peer.heard()
    assert [type(message) for message in said] == [Opened, Snapshot]
    assert said[0].takes == {"us": NOTHING}
    assert said[0].offers == {"eu": Reach(5, ["eu"])}
    assert list(said[1].participants) == ["p1"]
    peer.relay(ROOM).publish("removeParticipant", "p1")
    assert [(message.at, message.hops, message.type) for message in peer.heard()] == [
        (Position(5, 1), ["eu"], "removeParticipant")
    ]
    peer.say(Offer(1, "us", 3, ["us"]), snapshot(), happened(1))
    assert [(told.type, told.at.seq, told.id) for told in peer.of(Told)] == [
        ("initialize", 0, "3.0"),
        ("removeStream", 1, "3.1"),
    ]


def test_round_trips_are_measured_and_pings_answered() -> None:
    peer = Peer()
    ping = peer.heard()[1]
    peer.now += 0.25
    peer.say(Ping(77), Pong(ping.count), Pong(ping.count), lane=0)
    assert peer.of(RoundTripMeasured) == [RoundTripMeasured(seconds=0.25)]
    assert peer.conversation.round_trip == 0.25
    assert peer.heard() == [Pong(77)]
    due = peer.conversation.due()
    peer.now = max(due, peer.now + peer.settings.ping_interval)
    assert not peer.conversation.poll(peer.now)
    assert [type(message) for message in peer.heard()] == [Ping]


def test_many_pings_of_a_peer_that_does_not_read_are_not_kept() -> None:
    peer = Peer()
    peer.say(*map(Ping, range(1000)), lane=0)
    assert len(peer.heard()) < 20


def test_a_dialer_spreads_its_conferences_over_the_lanes() -> None:
    world = World(OwnWireSettings(lanes=3))
    world.bridge("a")
    world.bridge("b")
    rooms = tuple(f"room {number}" for number in range(9))
    for bridge in world.bridges.values():
        for room in rooms:
            bridge.room(room).attach({}, {})
    connection = world.connect("b", "a", rooms=rooms)
    world.settle()
    lanes = [channel.lane for channel in connection.ends[0].conversation.figures()]
    assert sorted(lanes) == sorted([1, 2, 3] * 3)
    assert all(channel.open for channel in connection.ends[1].conversation.figures())
    for room in rooms:
        world.check(room)


def test_one_conference_is_closed_and_the_others_go_on() -> None:
    world = World()
    a, b = world.bridge("a"), world.bridge("b")
    for bridge in (a, b):
        bridge.room("other").attach({}, {})
    connection = world.connect("b", "a", rooms=(ROOM, "other"))
    world.settle()
    dialer, listener = (end.conversation for end in connection.ends)
    channel = connection.ends[0].opened[ROOM]
    connection.ends[0].carry_out(dialer.close_channel(channel, OwnCode.NOT_WANTED, "called off", world.now))
    assert dialer.close_channel(channel, OwnCode.NOT_WANTED, "again", world.now) == []
    world.settle()
    closed = a.of(ChannelClosed)
    assert [(one.room, one.code, one.by_peer) for one in closed] == [(ROOM, OwnCode.NOT_WANTED, True)]
    assert (len(dialer), len(listener)) == (1, 1)
    a.room("other").publish("addParticipant", participant("p1"))
    world.settle()
    world.check("other")
    assert a.relay.peers() == []


def test_both_close_at_once() -> None:
    world = World()
    world.bridge("a"), world.bridge("b")
    connection = world.connect("b", "a")
    world.settle()
    for end in connection.ends:
        end.carry_out(end.conversation.close_channel(1, OwnCode.DONE, "", world.now))
    world.settle()
    assert [len(end.conversation) for end in connection.ends] == [0, 0]
    assert all(end.conversation.counters["strikes"] == 0 for end in connection.ends)


def test_a_wrong_token_is_refused_and_may_be_tried_again() -> None:
    world = World()
    world.bridge("a"), world.bridge("b")
    connection = world.connect("b", "a", token="wrong")
    world.settle()
    closed = world.bridges["b"].of(ChannelClosed)
    assert [(one.code, one.by_peer) for one in closed] == [(0x210, True)]
    end = connection.ends[0]
    end.conversation.open(world.bridges["b"].relay, TOKEN, world.now)
    world.settle()
    world.check()


def test_of_two_connections_the_one_that_was_asked_for_later_carries_the_conference() -> None:
    world = World()
    a, b = world.bridge("a"), world.bridge("b")
    early, late = world.connect("b", "a"), world.connect("b", "a")
    for _ in range(3):  # the late one is faster
        late.flush()
        for way in late.ways():
            late.step(way, 1 << 20)
    world.settle()
    world.check()
    assert [len(end.conversation) for end in (*early.ends, *late.ends)] in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert len([one for one in a.of(ChannelClosed) if one.code == OwnCode.SUPERSEDED]) == 1
    assert len([one for one in b.of(ChannelClosed) if one.code == OwnCode.SUPERSEDED]) == 1


def test_a_thousand_conferences_on_one_connection_are_asked_for_in_their_turn() -> None:
    world = World(window=1 << 20)
    a, b = world.bridge("a"), world.bridge("b")
    rooms = tuple(f"room-{number}" for number in range(1000))
    for bridge in (a, b):
        for room in rooms:
            bridge.room(room).attach({}, {})
    connection = world.connect("b", "a", rooms=rooms)
    world.settle()
    for room in rooms:
        a.room(room).publish("addParticipant", participant("p1"))
    world.settle()
    assert all(list(b.views[room].pictures["a"].participants) == ["p1"] for room in rooms)
    assert len(connection.ends[1].conversation) == 1000


def test_a_lost_connection_ends_every_conference_once() -> None:
    world = World()
    _, b = world.bridge("a"), world.bridge("b")
    connection = world.connect("b", "a")
    world.settle()
    connection.cut()
    assert [(one.code, one.reason) for one in b.of(ChannelClosed)] == [(0, "cut")]
    end = connection.ends[0].conversation
    assert end.lost("again", world.now) == []
    assert end.receive(0, b"anything", world.now) == []
    assert end.poll(world.now + 100) == []
    assert (end.lanes_to_send(), end.data_to_send(0, BIG, world.now)) == ([], b"")
    with pytest.raises(RuntimeError):
        end.open(b.relay, TOKEN, world.now)


def test_what_waits_for_a_peer_that_does_not_read_is_not_queued() -> None:
    peer = Peer()
    peer.open()
    for _ in range(3):
        for number in range(500):
            peer.relay(ROOM).publish("addStream", stream(f"s{number}"))
        peer.relay(ROOM).attach({}, {})
        peer.say(Ping(1), lane=0)
    exchange = peer.conversation._channels[1]
    assert exchange._first == []
    assert exchange.outlet is not None
    assert len(exchange.outlet._changed) <= 1


# --- limits of time ---------------------------------------------------------------------------------------


def test_who_does_not_greet_is_given_up() -> None:
    peer = Peer(greeted=False)
    assert peer.conversation.due() == 10.0 + peer.settings.hello_timeout
    outputs = peer.conversation.poll(10.0 + peer.settings.hello_timeout)
    assert [(type(one), one.code) for one in outputs if isinstance(one, Violated)] == [
        (Violated, OwnCode.TIMED_OUT)
    ]


def test_who_does_not_answer_pings_is_given_up() -> None:
    peer = Peer()
    peer.heard()
    peer.open()
    peer.now += peer.settings.ping_timeout
    outputs = peer.conversation.poll(peer.now)
    assert [type(one) for one in outputs] == [ChannelClosed, Violated]
    assert peer.conversation.due() == float("inf")


def test_a_token_that_is_not_looked_at_in_time_is_refused() -> None:
    peer = Peer()
    peer.decide = lambda asked: []  # type: ignore[method-assign] # nobody does
    peer.say(Open(1, ROOM, TOKEN, {}, 1, Position(1, 1)))
    peer.say(Pong(peer.heard()[1].count), lane=0)
    peer.now += peer.settings.open_timeout
    assert [one.code for one in peer.conversation.poll(peer.now)] == [OwnCode.TIMED_OUT]  # type: ignore[union-attr] # it is a ChannelClosed
    assert [message.code for message in peer.heard() if isinstance(message, Close)] == [OwnCode.TIMED_OUT]
    assert peer.conversation.accept(1, peer.relay(ROOM), peer.now) == []
