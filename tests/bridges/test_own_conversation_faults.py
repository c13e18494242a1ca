"""What a peer does wrong on our own wire, and what it costs: the connection, one conference, or nothing."""

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
    OpenRequested,
    Refused,
    RouteChanged,
    Told,
    Violated,
)
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings
from bridges.wire.own.codec import encode
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
    Position,
    Reach,
    Resume,
    Snapshot,
    Take,
    Withdraw,
)
from tests.bridges.own_world import ROOM, TOKEN, participant, stream
from tests.bridges.test_own_conversation import BIG, LIMITS, SETTINGS, Peer, happened, raw, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable


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
