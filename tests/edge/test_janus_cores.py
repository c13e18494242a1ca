"""The connector's pure parts: the plan, who is admitted, simulcast, names."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.objects import Stream, StreamMedia
from bridges.wire.objects import Track as StreamTrack
from causeway.errors import ConfigError
from edge.janus import plan as planning
from edge.janus.admissions import Admissions, Admitted
from edge.janus.layers import LayerChoice
from edge.janus.messages import Offered
from edge.janus.names import Portal, RoomNames, invitation, new_id
from edge.janus.plan import Done, FarStream, Person, Seen, Track, far_stream, grouped, plan, tracks_of
from edge.rtp.track import Codec

if TYPE_CHECKING:
    from edge.janus.plan import Action

PICTURE, SOUND = Track("video", Codec.VP8, 0), Track("audio", Codec.OPUS, 1)
SCREEN = Track("video", Codec.H264, 2)
_PEOPLE = st.dictionaries(
    st.integers(1, 5),
    st.sampled_from([Person(), Person("Ada", (PICTURE, SOUND)), Person("Ada", (PICTURE, SOUND, SCREEN))]),
)
_FAR = st.dictionaries(
    st.sampled_from("abc"),
    st.sampled_from([FarStream("Bob", (("video", Codec.VP8),)), FarStream("Bob", (("audio", Codec.OPUS),))]),
)
_SEEN = st.builds(Seen, people=_PEOPLE, far=_FAR, pulled=st.sets(st.integers(1, 6)))


def do(action: Action, done: Done) -> None:
    """Do as the connector does, and assert what it relies on."""
    match action:
        case planning.Join(person):
            assert person not in done.joined
            done.joined.add(person)
        case planning.Leave(person):
            done.joined.remove(person)
        case planning.Publish(person, tracks):
            assert tracks
            assert person in done.joined
            assert person not in done.published
            done.published[person] = tracks
        case planning.Unpublish(person):
            assert person not in done.forwarded
            del done.published[person]
        case planning.Forward(person):
            assert person in done.published
            done.forwarded.add(person)
        case planning.StopForwarding(person):
            done.forwarded.remove(person)
        case planning.Add(stream, shown):
            assert stream not in done.added
            done.added[stream] = shown
        case planning.Remove(stream):
            del done.added[stream]


@given(st.lists(_SEEN, min_size=1, max_size=4))
def test_step_by_step_everything_is_as_it_should_be(states: list[Seen]) -> None:
    done = Done()
    for seen in states:
        for _ in range(100):
            action = next(plan(seen, done), None)
            if action is None:
                break
            do(action, done)
        assert next(plan(seen, done), None) is None
        publishing = {id_: one.tracks for id_, one in seen.people.items() if one.tracks}
        assert done.joined == seen.people.keys()
        assert done.published == publishing
        assert done.forwarded == seen.pulled & publishing.keys()
        assert done.added == (seen.far if seen.people else {})


@given(_SEEN, st.sets(st.integers(1, 5)))
def test_who_is_refused_holds_nobody_else_up(seen: Seen, refused: set[int]) -> None:
    done = Done()
    impossible = {planning.Join(person) for person in refused}
    for _ in range(100):
        action = next((one for one in plan(seen, done) if one not in impossible), None)
        if action is None:
            break
        do(action, done)
    there = seen.people.keys() - refused
    assert done.joined == there
    assert done.published.keys() == {id_ for id_ in there if seen.people[id_].tracks}
    assert done.added == (seen.far if there else {})


def test_no_more_is_shown_than_may_be() -> None:
    stream = FarStream("Bob", (("video", Codec.VP8),))
    seen, done = Seen(people={1: Person()}, far={"a": stream, "b": stream}, max_shown=1), Done(joined={1})
    assert list(plan(seen, done)) == [planning.Add("a", stream), planning.Add("b", stream)]
    done.added["a"] = stream
    assert list(plan(seen, done)) == []
    del seen.far["a"]
    assert list(plan(seen, done)) == [planning.Remove("a")]
    del done.added["a"]
    assert list(plan(seen, done)) == [planning.Add("b", stream)]


def test_tracks_that_others_can_have() -> None:
    offered = [
        Offered(type="video", mindex=0, mid="0", codec="vp8", simulcast=True),
        Offered(type="audio", mindex=1, mid="1", codec="opus"),
        Offered(type="audio", mindex=2, mid="2", codec="pcmu"),
        Offered(type="video", mindex=3, mid="3", codec="H264"),
        Offered(type="video", mindex=4, mid="4", disabled=True),
        Offered(type="data", mindex=5, mid="5"),
    ]
    tracks = tracks_of(offered)
    assert tracks == (
        Track("video", Codec.VP8, 0, simulcast=True),
        Track("audio", Codec.OPUS, 1),
        Track("video", Codec.H264, 3),
    )
    assert grouped(tracks) == [(tracks[0], tracks[1]), (tracks[2],)]


def test_streams_that_can_be_shown() -> None:
    def stream(*tracks: StreamTrack) -> Stream:
        return Stream(id="s", media=StreamMedia(tracks=list(tracks)))

    picture = StreamTrack(id="v", type="video", format={"codec": "vp9"})
    sound = StreamTrack(id="a", type="audio", format={"codec": "opus", "sampleRate": 48000})
    shown = far_stream(stream(picture, sound), display="Bob")
    assert shown == FarStream("Bob", (("video", Codec.VP9), ("audio", Codec.OPUS)))
    strange = StreamTrack(id="a", type="audio", format={"codec": "vp8"})
    assert far_stream(stream(strange, StreamTrack(id="b", type="video")), display="Bob") is None


def test_tokens_are_good_until_somebody_came_or_for_a_while() -> None:
    admissions = Admissions(ttl=10.0, limit=2)
    ada, bob, eve = (Admitted(name, "presenter") for name in ("ada", "bob", "eve"))
    admissions.add(0.0, 1, ada, "a")
    admissions.add(1.0, 2, bob, "b")
    assert admissions.due() == 10.0
    assert admissions.arrived(1) == ada
    assert admissions.void(2.0) == ["a"]
    assert admissions.arrived(1) == ada  # seen anew, after a lost connection
    admissions.left(1)
    assert admissions.arrived(1) is None
    assert admissions.void(10.9) == []
    assert admissions.void(11.0) == ["b"]
    assert admissions.arrived(2) is None
    for number, who in enumerate([ada, bob, eve]):
        admissions.add(20.0, number, who, f"t{number}")
    assert admissions.tokens == ["t1", "t2"]
    assert admissions.void(20.0) == ["t0"]
    admissions.left(1)
    assert admissions.arrived(1) == bob


def test_the_highest_layer_that_comes_is_passed_on() -> None:
    choice = LayerChoice(silence=0.5)

    def wanted() -> int | None:
        return choice.wanted

    assert choice.take(0.0, 0, key_frame=True)
    assert not choice.take(0.01, 2, key_frame=False)
    assert wanted() == 2
    assert choice.take(0.03, 0, key_frame=False)  # until the other one can be decoded
    assert choice.take(0.05, 2, key_frame=True)
    assert wanted() is None
    assert not choice.take(0.06, 0, key_frame=True)
    assert not choice.take(0.5, 0, key_frame=False)
    assert not choice.take(0.6, 0, key_frame=False)  # the upper one is not sent any more
    assert wanted() == 0
    assert choice.take(0.7, 0, key_frame=True)


@pytest.mark.parametrize("string_ids", [False, True])
def test_names_of_rooms(string_ids: bool) -> None:
    names = RoomNames.of("standup", key="k", string_ids=string_ids)
    assert names == RoomNames.of("standup", key="k", string_ids=string_ids)
    other = RoomNames.of("standup", key="another", string_ids=string_ids)
    assert names.room == other.room
    assert {names.secret, names.pin, names.token}.isdisjoint({other.secret, other.pin, other.token})
    assert names.secret not in repr(names)
    drawn = new_id(b"\xff" * 8, string_ids=string_ids)
    if string_ids:
        assert names.room == "standup"
    else:
        assert isinstance(names.room, int)
        assert isinstance(drawn, int)
        assert 0 < names.room < 2**53
        assert 0 < drawn < 2**53


@pytest.mark.parametrize(
    ("url", "host", "secure"),
    [
        ("ws://janus.example:8188/path", "janus.example:8188", False),
        ("wss://janus.example", "janus.example:443", True),
        ("ws://[2001:db8::1]:8188", "[2001:db8::1]:8188", False),
    ],
)
def test_what_a_client_is_given(url: str, host: str, secure: bool) -> None:
    portal, names = Portal.of(url), RoomNames.of("standup", key="k", string_ids=False)
    text = json.loads(b64decode(invitation(portal, names, id_=7, token="t")))
    assert (text["host"], text["secure"]) == (host, secure)
    assert text["janus"] == {"url": url, "room": names.room, "id": 7, "pin": names.pin, "token": "t"}


@pytest.mark.parametrize("url", ["ws://", "ws://host:port", "", "ws://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError):
        Portal.of(url)
