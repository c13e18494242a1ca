"""One connection of our own wire: greeting, conferences, and whatever a peer does wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridges.event.own.conversation import Conversation, Role
from bridges.event.own.outputs import (
    ChannelClosed,
    ChannelOpened,
    Greeted,
    OpenRequested,
    Output,
    Refused,
    RoundTripMeasured,
    RouteChanged,
    Told,
    Violated,
)
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings
from bridges.wire.own.codec import OwnDeframer, encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import (
    NOTHING,
    Close,
    Credit,
    Digest,
    Happened,
    Hello,
    HelloLimits,
    Leave,
    Message,
    Offer,
    Open,
    Opened,
    Ping,
    Pong,
    Position,
    Reach,
    Resume,
    Snapshot,
    Take,
    Withdraw,
)
from bridges.wire.own.values import canonical
from tests.bridges.own_world import ROOM, TOKEN, World, participant, stream

if TYPE_CHECKING:
    from collections.abc import Callable

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


# --- what costs the connection -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lane", "data", "code"),
    [
        (0, encode(Hello([2], "us", LIMITS)), OwnCode.VERSION),
        (0, encode(Hello([1], "eu", LIMITS)), OwnCode.IDENTITY),
        (0, encode(Ping(1)), OwnCode.SEQUENCE),
        (0, b"\0\0\0\0", OwnCode.FRAMING),
        (0, b"\0\1\0\0", OwnCode.FRAMING),
        (0, b"\0\0\0\1\xc1", OwnCode.MESSAGE),
        (1, encode(Open(1, ROOM, TOKEN, {}, 1, NOTHING)), OwnCode.SEQUENCE),
    ],
)
def test_before_the_greeting_nothing_else_is_taken(lane: int, data: bytes, code: OwnCode) -> None:
    peer = Peer(greeted=False)
    outputs = peer.send(data, lane=lane)
    assert [one.code for one in outputs if isinstance(one, Violated)] == [code]
    assert peer.conversation.closed
    assert peer.conversation.counters[f"closed_{code.name.lower()}"] == 1
    assert peer.send(encode(Hello([1], "us", LIMITS)), lane=0) == []


def test_a_dialer_insists_on_the_cluster_that_it_dialled() -> None:
    conversation = Conversation(
        Role.DIALER, cluster="eu", peer="us", settings=SETTINGS, now=0.0, wake=lambda: None
    )
    outputs = conversation.receive(0, encode(Hello([1], "ap", LIMITS)), 0.0)
    assert [one.code for one in outputs if isinstance(one, Violated)] == [OwnCode.IDENTITY]


@pytest.mark.parametrize(
    ("lane", "data", "code"),
    [
        (0, encode(Hello([1], "us", LIMITS)), OwnCode.SEQUENCE),
        (0, encode(Credit(1, 5)), OwnCode.SEQUENCE),
        (1, encode(Ping(1)), OwnCode.SEQUENCE),
        (1, encode(Open(1, ROOM, TOKEN, {}, 1, NOTHING)), OwnCode.SEQUENCE),  # the channel is in use
        (99, encode(Credit(1, 5)), OwnCode.LIMIT),
        (1, b"\x00\x20\x00\x00", OwnCode.FRAMING),
        (1, b"\0\0\0\1\xc1", OwnCode.MESSAGE),
    ],
)
def test_what_concerns_no_single_conference_costs_the_connection(
    lane: int, data: bytes, code: OwnCode
) -> None:
    peer = Peer()
    peer.open()
    outputs = peer.send(data, lane=lane)
    assert [type(one) for one in outputs] == [ChannelClosed, Violated]
    assert [one.code for one in outputs if isinstance(one, Violated)] == [code]
    assert peer.relay(ROOM).peers() == []


def test_a_listener_opens_no_conferences() -> None:
    conversation = Conversation(
        Role.DIALER, cluster="eu", peer="us", settings=SETTINGS, now=0.0, wake=lambda: None
    )
    conversation.receive(0, encode(Hello([1], "us", LIMITS)), 0.0)
    relay = Relay(ROOM, cluster="eu", incarnation=1, relaying=False, settings=SETTINGS)
    conversation.open(relay, TOKEN, 0.0)
    outputs = conversation.receive(1, encode(Open(2, ROOM, TOKEN, {}, 1, NOTHING)), 0.0)
    assert [one.code for one in outputs if isinstance(one, Violated)] == [OwnCode.SEQUENCE]


def test_unknown_messages_are_passed_over_and_counted_up_to_a_limit() -> None:
    peer = Peer(msgspec.structs.replace(SETTINGS, max_unknown=10))
    unknown = msgspec.msgpack.encode([200, 1, "new"])
    data = len(unknown).to_bytes(4, "big") + unknown
    assert peer.send(data * 5, lane=0) + peer.send(data * 5, lane=1) == []
    assert peer.conversation.counters["unknown_messages"] == 10
    assert [one.code for one in peer.send(data) if isinstance(one, Violated)] == [OwnCode.LIMIT]


def test_wrong_messages_of_no_conference_are_counted_up_to_a_limit() -> None:
    peer = Peer()
    for _ in range(SETTINGS.max_strikes):
        assert peer.say(Credit(50, 1)) == []
    assert [one.code for one in peer.say(Credit(50, 1)) if isinstance(one, Violated)] == [OwnCode.LIMIT]


# --- what costs one conference -----------------------------------------------------------------------------

WRONG: dict[str, tuple[OwnCode, list[Message]]] = {
    "opened twice": (OwnCode.SEQUENCE, [Opened(1, {}, 1)]),
    "less credit than before": (OwnCode.SEQUENCE, [Credit(1, 5)]),
    "a take that is not newer": (OwnCode.SEQUENCE, [Take(1, "eu", 1, NOTHING), Take(1, "eu", 1, NOTHING)]),
    "too many origins taken": (OwnCode.LIMIT, [Take(1, f"o{n}", 1, NOTHING) for n in range(6)]),
    "an offer of our own": (OwnCode.PATH, [Offer(1, "eu", 1, ["eu", "us"])]),
    "an offer from elsewhere": (OwnCode.PATH, [Offer(1, "ap", 1, ["ap", "xx"])]),
    "an offer that does not begin at its origin": (OwnCode.PATH, [Offer(1, "ap", 1, ["us"])]),
    "an offer of a ring": (OwnCode.PATH, [Offer(1, "ap", 1, ["ap", "us", "us"])]),
    "a run that was not asked for": (OwnCode.SEQUENCE, [Resume(1, "us", 7, NOTHING)]),
    "a run that begins elsewhere": (OwnCode.GAP, [Resume(1, "us", 1, Position(3, 4))]),
    "a run that begins twice": (OwnCode.SEQUENCE, [Resume(1, "us", 1, NOTHING)] * 2),
    "an event too many": (OwnCode.GAP, [snapshot(), happened(2)]),
    "an event twice": (OwnCode.GAP, [snapshot(), happened(1), happened(1)]),
    "an event of another start": (OwnCode.GAP, [snapshot(), happened(1, at=Position(4, 1))]),
    "an event that came by nowhere": (OwnCode.PATH, [snapshot(), happened(1, hops=["ap"])]),
    "an event of ours": (OwnCode.PATH, [happened(1, origin="eu", hops=["eu"])]),
    "an event that came too far": (OwnCode.PATH, [snapshot(), happened(1, hops=["us"] * 17)]),
    "a forged disconnection": (
        OwnCode.MESSAGE,
        [snapshot(), happened(1, type="onCascadingDisconnected", data=None)],
    ),
    "a forged initialize": (OwnCode.MESSAGE, [snapshot(), happened(1, type="initialize", data={})]),
    "data of another shape": (OwnCode.MESSAGE, [snapshot(), happened(1, data=5)]),
    "data that is no JSON": (
        OwnCode.MESSAGE,
        [snapshot(), Happened(1, "us", Position(3, 1), ["us"], "x", msgspec.Raw(b"\xc4\x01a"))],
    ),
    "an info that makes no stream": (
        OwnCode.MESSAGE,
        [snapshot(), happened(1, type="updateStreamInfo", data={"id": "s1", "info": 5})],
    ),
    "parts of two snapshots": (OwnCode.SEQUENCE, [snapshot(1, more=True), snapshot(2)]),
    "an event between parts": (OwnCode.GAP, [snapshot(), snapshot(5, more=True), happened(1)]),
    "a state at no position": (OwnCode.SEQUENCE, [snapshot(at=NOTHING)]),
    "a participant under another id": (
        OwnCode.MESSAGE,
        [snapshot(participants={"p1": raw(participant("p2"))})],
    ),
    "a stream that is none": (OwnCode.MESSAGE, [snapshot(streams={"s1": raw({"id": "s1"})})]),
    "a digest of nine bytes": (OwnCode.MESSAGE, [Digest(1, "us", NOTHING, b"123456789")]),
    "an empty id": (OwnCode.MESSAGE, [Withdraw(1, "")]),
    "credit that was not given": (
        OwnCode.LIMIT,
        [snapshot(), *(happened(n, type="x", data="y" * 1000) for n in range(1, 7))],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_in_one_conference_costs_that_conference_only(wrong: str) -> None:
    code, messages = WRONG[wrong]
    peer = Peer()
    peer.open()
    peer.open(2, room="other")
    if wrong == "credit that was not given":
        peer.conversation._channels[1].intake._consume = lambda size: None  # type: ignore[union-attr, method-assign] # our node is slow
    outputs = peer.say(Offer(1, "us", 3, ["us"]), *messages)
    refused = [one for one in outputs if isinstance(one, Refused)]
    assert [(one.room, one.code) for one in refused] == [(ROOM, code)], refused
    assert [(one.room, one.code) for one in outputs if isinstance(one, ChannelClosed)] == [(ROOM, code)]
    assert peer.conversation.counters[f"refused_{code.name.lower()}"] == 1
    assert [one.code for one in peer.heard() if isinstance(one, Close)] == [code]
    # The other conference goes on, and this one may be opened anew.
    assert peer.say(Offer(2, "us", 3, ["us"]), snapshot(channel=2), happened(1, channel=2))
    assert peer.of(Told)[-1].room == "other"
    peer.say(Close(1, 0), Open(3, ROOM, TOKEN, {}, BIG, Position(1, 3)))
    assert peer.of(ChannelOpened)[-1].channel == 3
    assert not peer.of(Violated)


def test_messages_before_the_token_was_looked_at_are_refused() -> None:
    peer = Peer()
    peer.decide = lambda asked: []  # type: ignore[method-assign] # it is under examination
    outputs = peer.say(Open(1, ROOM, TOKEN, {}, 1, Position(1, 1)), Credit(1, 100))
    assert [type(one) for one in outputs] == [OpenRequested, Refused, ChannelClosed]
    assert peer.conversation.accept(1, peer.relay(ROOM), peer.now) == []
    assert peer.relay(ROOM).peers() == []


def test_what_is_offered_when_a_conference_is_opened_is_looked_at_like_any_offer() -> None:
    peer = Peer()
    wrong = {"ap": Reach(1, ["ap", "xx"])}
    outputs = peer.say(Open(1, ROOM, TOKEN, {}, 1, Position(1, 1), wrong))
    assert [type(one) for one in outputs] == [OpenRequested, Refused, ChannelClosed]
    assert [one.code for one in outputs if isinstance(one, Refused)] == [OwnCode.PATH]
    right = {"ap": Reach(1, ["ap", "us"]), "us": Reach(1, ["us"])}
    peer.say(Open(2, ROOM, TOKEN, {}, 1, Position(1, 2), right))
    assert [(one.origin, one.via) for one in peer.of(RouteChanged)] == [("ap", "us"), ("us", "us")]
    assert [message.origin for message in peer.heard() if isinstance(message, Take)] == ["ap"]


def test_conferences_beyond_the_limits_are_refused_one_by_one() -> None:
    peer = Peer()
    peer.decide = lambda asked: []  # type: ignore[method-assign] # they are under examination
    for channel in range(1, 6):
        peer.say(Open(channel, f"room {channel}", TOKEN, {}, 1, Position(1, 1)))
    assert [(one.channel, one.code) for one in peer.of(ChannelClosed)] == [(5, OwnCode.BUSY)]
    for channel in range(6, 10):
        peer.say(Open(channel, f"room {channel}", TOKEN, {}, 1, Position(1, 1)))
    assert peer.of(ChannelClosed)[-1].code == OwnCode.LIMIT
    for channel in range(10, 14):
        peer.say(Open(channel, f"room {channel}", TOKEN, {}, 1, Position(1, 1)))
    assert [one.code for one in peer.of(Violated)] == [OwnCode.LIMIT]


def test_what_the_peer_would_not_take_is_not_sent() -> None:
    peer = Peer(greeted=False)
    peer.say(Hello([1], "us", HelloLimits(message=1024, channels=9, lanes=4, waiting=9)), lane=0)
    peer.say(Open(1, ROOM, TOKEN, {"eu": NOTHING}, BIG, Position(1, 1)))
    peer.heard()
    peer.relay(ROOM).publish("x", "y" * 2000)
    assert [message.code for message in peer.heard() if isinstance(message, Close)] == [OwnCode.LIMIT]
    assert peer.conversation.due() <= peer.now
    assert [type(one) for one in peer.conversation.poll(peer.now)] == [Refused, ChannelClosed]


def test_states_are_bounded_for_an_origin_and_for_the_conference() -> None:
    settings = OwnWireSettings(max_state_bytes=65_536, max_conference_bytes=100_000)
    peer = Peer(settings)
    peer.open()
    states = {f"p{n}": raw(participant(f"p{n}", text="x" * 600)) for n in range(80)}
    peer.say(Offer(1, "us", 3, ["us"]), snapshot(participants=states))
    peer.say(Offer(1, "ap", 3, ["ap", "us"]))
    take = next(message for message in peer.heard() if isinstance(message, Take))
    assert not peer.of(Refused)
    peer.say(snapshot(origin="ap", hops=["ap", "us"], number=take.number, participants=states))
    assert [one.code for one in peer.of(Refused)] == [OwnCode.LIMIT]
    peer.open(2)
    more = {**states, **{f"q{n}": raw(participant(f"q{n}", text="x" * 600)) for n in range(80)}}
    peer.say(Offer(2, "us", 3, ["us"]), snapshot(9, channel=2, participants=more))
    assert [one.code for one in peer.of(Refused)] == [OwnCode.LIMIT] * 2


# --- anything at all ----------------------------------------------------------------------------------------

names = st.sampled_from(["us", "eu", "ap", "xx"])
small = st.integers(0, 4)
places = st.builds(Position, small, small)
ways = st.lists(names, min_size=1, max_size=3)
things = st.sampled_from([raw("s1"), raw(participant("p1")), raw(stream("s1")), raw(7), msgspec.Raw(b"\xc1")])
kinds = st.sampled_from(
    ["removeStream", "addParticipant", "addStream", "updateStreamInfo", "x", "initialize"]
)
channel_numbers = st.integers(1, 3)
reaches = st.dictionaries(names, st.builds(Reach, small, ways), max_size=2)
anything: st.SearchStrategy[Callable[[], Message] | Message] = st.one_of(
    st.builds(
        Open,
        channel_numbers,
        names,
        st.sampled_from([TOKEN, "no"]),
        st.dictionaries(names, places),
        small,
        places,
        reaches,
    ),
    st.builds(Opened, channel_numbers, st.dictionaries(names, places), small, reaches),
    st.builds(Close, channel_numbers, small),
    st.builds(Offer, channel_numbers, names, small, ways),
    st.builds(Withdraw, channel_numbers, names),
    st.builds(Take, channel_numbers, names, small, places, st.booleans()),
    st.builds(Leave, channel_numbers, names),
    st.builds(Resume, channel_numbers, names, small, places),
    st.builds(
        Snapshot,
        channel_numbers,
        names,
        small,
        places,
        ways,
        st.dictionaries(st.just("p1"), things),
        st.dictionaries(st.just("s1"), things),
        st.booleans(),
    ),
    st.builds(Happened, channel_numbers, names, places, ways, kinds, things),
    st.builds(Digest, channel_numbers, names, places, st.just(bytes(16))),
    st.builds(Credit, channel_numbers, st.integers(0, 10_000)),
    st.builds(
        Snapshot,
        channel_numbers,
        st.just("us"),
        st.just(1),
        places,
        st.just(["us"]),
        st.just({}),
        st.just({}),
    ),
    st.builds(Offer, channel_numbers, st.just("us"), small, st.just(["us"])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(1, 2), anything), max_size=25))
def test_whatever_messages_come_one_documented_end_is_all_that_happens(said: list[tuple[int, Any]]) -> None:
    peer = Peer(msgspec.structs.replace(SETTINGS, max_strikes=50))
    peer.open(lane=1)
    peer.open(2, lane=2, room="other")
    gone: set[int] = set()
    for lane, message in said:
        for output in peer.say(message, lane=lane):
            assert not (isinstance(output, ChannelClosed) and output.channel in gone), "closed once"
            if isinstance(output, ChannelClosed):
                gone.add(output.channel)
            if isinstance(output, OpenRequested):
                gone.discard(output.channel)
        peer.heard()
        peer.now += 0.7
        peer.outputs += peer.conversation.poll(peer.now)
    assert len(peer.of(Violated)) <= 1
    assert peer.conversation.closed == bool(peer.of(Violated))
    for room, relay in peer.relays.items():
        own = relay.origin("eu")
        assert own is not None
        assert list(own.picture.participants) == ["p1"], room
        assert all(state.origin == "eu" or state.log_events <= 25 for state in relay.origins())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=80)), max_size=6))
def test_whatever_bytes_come_nothing_else_happens(said: list[tuple[int, bytes]]) -> None:
    peer = Peer()
    peer.open()
    try:
        for lane, data in said:
            peer.send(data, lane=lane)
            peer.heard()
    except OwnWireError as error:  # pragma: no cover - what must not be
        raise AssertionError from error
    assert peer.conversation.closed == bool(peer.of(Violated))
