from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bridges.wire.objects import Track
from lab.room import Room
from lab.room_outputs import (
    BridgeEvent,
    LinkDown,
    LinkUp,
    Output,
    ParticipantJoined,
    ParticipantLeft,
    StreamRemoved,
    StreamUpdated,
    Subscribed,
    SubscriptionEnded,
    SubscriptionKey,
    TrackKey,
    TrackMuted,
    TracksGone,
)
from lab.room_rules import Kinds, RoleRules, RoomError, RoomRules

AUDIO = Track(id="a", type="audio", format={"codec": "opus"})
VIDEO = Track(id="v", type="video", format={"codec": "vp8"})


def make_room(cluster: str = "c1", **rules: Any) -> Room:
    return Room("room", cluster=cluster, token="t" * 64, rules=RoomRules(**rules))


def wire(value: Any) -> Any:
    """What a value is after a trip over the wire."""
    return msgspec.json.decode(msgspec.json.encode(value))


def kinds_of(outputs: list[Output]) -> list[str]:
    return [type(output).__name__ for output in outputs]


def published(room: Room, participant: str = "p", stream: str = "s") -> Room:
    room.join(participant, user="u", role="presenter")
    room.publish(participant, stream, [AUDIO, VIDEO])
    return room


def remote(room: Room, *, cluster: str = "c2", bridge: str = "b") -> list[Output]:
    """Have another cluster with one participant `q` and one stream `s` of theirs."""
    peer = published(make_room(cluster), "q", "s")
    return room.cascading_event(bridge, cluster, "initialize", wire(peer.snapshot()))


def refused(reason: str) -> Any:
    return pytest.raises(RoomError, check=lambda error: error.reason == reason)


# --- local participants --------------------------------------------------------------------------


def test_a_join_is_told_here_and_to_bridges() -> None:
    room = make_room()
    outputs = room.join("p", user="alice", role="presenter", portal="portal-1", origin={"region": "eu"})
    joined, event = outputs
    assert isinstance(joined, ParticipantJoined)
    assert joined.participant.cascading is None
    assert event == BridgeEvent("addParticipant", joined.participant)
    assert wire(joined.participant) == {
        "id": "p",
        "user": "alice",
        "role": "presenter",
        "portal": "portal-1",
        "origin": {"region": "eu"},
        "permission": {
            "publish": {"audio": True, "video": True},
            "subscribe": {"audio": True, "video": True},
        },
    }


def test_leaving_ends_subscriptions_then_streams_then_the_participant() -> None:
    room = published(make_room())
    room.join("w", user="w", role="viewer")
    room.subscribe("w", "sub", "s", ["video"])
    room.subscribe("p", "own", "s", ["audio"])
    assert room.leave("p") == [
        SubscriptionEnded(SubscriptionKey("p", "own"), "participant-left"),
        SubscriptionEnded(SubscriptionKey("w", "sub"), "stream-removed"),
        TracksGone((TrackKey("c1", "s", "audio"), TrackKey("c1", "s", "video"))),
        StreamRemoved("s"),
        BridgeEvent("removeStream", "s"),
        ParticipantLeft("p", local=True),
        BridgeEvent("removeParticipant", "p"),
    ]
    assert [one.id for one in room.participants] == ["w"]
    assert room.streams == []
    assert room.subscriptions == []


def test_limits_and_roles_are_kept() -> None:
    roles = (RoleRules("talker", publish=Kinds(audio=True), subscribe=Kinds(audio=True)),)
    room = make_room(roles=roles, participant_limit=1, input_limit=2, max_streams_per_participant=1)
    with refused("unknown-role"):
        room.join("p", user="u", role="presenter")
    room.join("p", user="u", role="talker")
    with refused("room-full"):
        room.join("p2", user="u", role="talker")
    with refused("forbidden"):
        room.publish("p", "s", [VIDEO])
    with refused("bad-tracks"):
        room.publish("p", "s", [AUDIO, AUDIO])
    with refused("bad-tracks"):
        room.publish("p", "s", [])
    room.publish("p", "s", [AUDIO])
    with refused("too-many-streams"):
        room.publish("p", "s2", [AUDIO])
    with refused("no-such-track"):
        room.subscribe("p", "x", "s", [])
    with refused("forbidden"):
        room.subscribe("p", "x", "s", ["video"])
    assert len(room.streams) == 1


def test_only_the_rooms_codecs_may_be_published() -> None:
    room = make_room(codecs={"video": frozenset({"vp9", "h264"})})
    room.join("p", user="ann", role="presenter")
    with refused("bad-format"):
        room.publish("p", "s", [AUDIO, VIDEO])
    with refused("bad-format"):
        room.publish("p", "s", [Track(id="v", type="video")])
    assert room.publish("p", "s", [AUDIO, Track(id="v", type="video", format={"codec": "h264"})])


def test_the_rooms_input_limit_counts_everybodys_streams() -> None:
    room = make_room(input_limit=1)
    published(room)
    room.join("p2", user="u", role="presenter")
    with refused("too-many-streams"):
        room.publish("p2", "s2", [AUDIO])


def test_nobody_acts_for_somebody_else() -> None:
    room = published(make_room())
    room.join("q", user="u", role="presenter")
    room.subscribe("q", "sub", "s", ["audio"])
    with refused("no-such-stream"):
        room.unpublish("q", "s")
    with refused("no-such-stream"):
        room.set_mute("q", "s", "av", muted=True)
    with refused("no-such-subscription"):
        room.unsubscribe("p", "sub")
    with refused("not-joined"):
        room.leave("nobody")
    with refused("not-joined"):
        room.publish("nobody", "s2", [AUDIO])
    with refused("id-taken"):
        room.join("q", user="u", role="presenter")
    with refused("id-taken"):
        room.publish("q", "s", [AUDIO])
    with refused("id-taken"):
        room.subscribe("q", "sub", "s", ["audio"])


def test_mute_and_attributes_are_told_once() -> None:
    room = published(make_room())
    muted = room.set_mute("p", "s", "video", muted=True)
    assert kinds_of(muted) == ["TrackMuted", "StreamUpdated", "BridgeEvent"]
    assert muted[0] == TrackMuted(TrackKey("c1", "s", "video"), True)
    assert [track.status for track in room.streams[0].media.tracks] == ["active", "inactive"]
    assert room.set_mute("p", "s", "video", muted=True) == []
    assert kinds_of(room.set_attributes("p", "s", {"title": "x"})) == ["StreamUpdated", "BridgeEvent"]
    assert room.set_attributes("p", "s", {"title": "x"}) == []
    with refused("no-such-track"):
        room.set_mute("p", "s", "smell", muted=True)


# --- other clusters ------------------------------------------------------------------------------


def test_initialize_shows_participants_and_streams_marked_with_their_cluster() -> None:
    room = make_room()
    outputs = remote(room)
    assert kinds_of(outputs) == ["ParticipantJoined", "StreamAdded", "LinkUp"]
    assert room.participants[0].cascading is True
    assert room.streams[0].cluster == "c2"
    assert room.links == ["c2"]


def test_what_was_cascaded_is_not_told_on() -> None:
    room = published(make_room())
    assert not any(isinstance(output, BridgeEvent) for output in remote(room))
    snapshot = room.snapshot()
    assert list(snapshot["participants"]) == ["p"]
    assert list(snapshot["streams"]) == ["s"]


def test_initialize_again_changes_only_what_changed() -> None:
    room = make_room()
    peer = published(make_room("c2"), "q", "s")
    room.cascading_event("b", "c2", "initialize", wire(peer.snapshot()))
    assert room.cascading_event("b", "c2", "initialize", wire(peer.snapshot())) == []
    peer.join("q2", user="u", role="viewer")
    peer.set_mute("q", "s", "audio", muted=True)
    outputs = room.cascading_event("b", "c2", "initialize", wire(peer.snapshot()))
    assert kinds_of(outputs) == ["ParticipantJoined", "StreamUpdated"]
    peer.leave("q")
    outputs = room.cascading_event("other-bridge", "c2", "initialize", wire(peer.snapshot()))
    assert outputs == [StreamRemoved("s"), ParticipantLeft("q", local=False)]


def test_a_stream_whose_tracks_changed_is_a_new_stream() -> None:
    room = make_room()
    remote(room)
    room.join("p", user="u", role="viewer")
    room.subscribe("p", "sub", "s", ["video"])
    changed = {"id": "s", "media": {"tracks": [{"id": "v2", "type": "video"}]}, "info": {"owner": "q"}}
    outputs = room.cascading_event("b", "c2", "addStream", changed)
    assert kinds_of(outputs) == ["SubscriptionEnded", "StreamRemoved", "StreamAdded"]


def test_colliding_ids_are_kept_apart() -> None:
    room = published(make_room(), "q", "s")
    remote(room, cluster="c2")
    remote(room, cluster="c3")
    assert [one.id for one in room.participants] == ["q", "q~2", "q~3"]
    assert [(one.id, one.cluster, one.info.owner) for one in room.streams] == [
        ("s", "c1", "q"),
        ("s~2", "c2", "q~2"),
        ("s~3", "c3", "q~3"),
    ]
    assert room.subscribe("q", "sub", "s~2", ["audio"]) == [
        Subscribed(SubscriptionKey("q", "sub"), (TrackKey("c2", "s", "audio"),))
    ]
    assert room.cascading_event("b", "c2", "removeStream", "s") == [
        SubscriptionEnded(SubscriptionKey("q", "sub"), "stream-removed"),
        StreamRemoved("s~2"),
    ]
    assert room.cascading_event("b", "c3", "onCascadingDisconnected") == [
        StreamRemoved("s~3"),
        ParticipantLeft("q~3", local=False),
        LinkDown("c3"),
    ]


def test_a_lost_bridge_takes_everything_with_it_that_came_through_it() -> None:
    room = published(make_room(), "p", "mine")
    remote(room, cluster="c2", bridge="b1")
    remote(room, cluster="c3", bridge="b2")
    room.bridge_subscribe("b1", "conn", "mine", ["audio"])
    outputs = room.bridge_lost("b1")
    assert outputs == [
        SubscriptionEnded(SubscriptionKey("b1", "conn", by_bridge=True), "bridge-lost"),
        StreamRemoved("s"),
        ParticipantLeft("q", local=False),
        LinkDown("c2"),
    ]
    assert room.links == ["c3"]
    assert room.bridge_lost("b1") == []


def test_a_superseded_bridge_is_not_heard() -> None:
    room = make_room()
    remote(room, bridge="old")
    remote(room, bridge="new")
    assert room.cascading_event("old", "c2", "onCascadingDisconnected") == []
    assert room.cascading_event("old", "c2", "removeStream", "s") == []
    assert room.bridge_lost("old") == []
    assert room.links == ["c2"]


def test_events_before_initialize_are_taken_and_reconciled_by_it() -> None:
    room = make_room()
    peer = make_room("c2")
    [_, added] = peer.join("q", user="u", role="viewer")
    assert isinstance(added, BridgeEvent)
    assert kinds_of(room.cascading_event("b", "c2", added.type, wire(added.data))) == ["ParticipantJoined"]
    assert room.links == []
    assert room.cascading_event("b", "c2", "initialize", wire(peer.snapshot())) == [LinkUp("c2")]


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("initialize", {"participants": 1}),
        ("initialize", None),
        ("addParticipant", {"user": "x"}),
        ("addStream", {"id": "x"}),
        ("removeStream", 5),
        ("updateStreamInfo", {"id": "s"}),
        ("setStreamMute", {"id": "s", "track": "av"}),
        ("explode", {}),
    ],
)
def test_a_malformed_event_is_refused_and_changes_nothing(type_: str, data: Any) -> None:
    room = make_room()
    remote(room)
    before = (room.participants, room.streams, room.links)
    with refused("bad-event"):
        room.cascading_event("b", "c2", type_, data)
    assert (room.participants, room.streams, room.links) == before


def test_our_own_events_and_streams_are_not_taken_back() -> None:
    room = published(make_room())
    with refused("bad-event"):
        room.cascading_event("b", "c1", "removeStream", "s")
    assert room.cascading_event("b", "c2", "addStream", wire(room.streams[0])) == []
    assert room.cascading_event("b", "c2", "onAudioActiveness", {}) == []


def test_another_cluster_cannot_bring_more_than_its_share() -> None:
    room = make_room(max_per_peer=2)
    many = {f"q{n}": {"id": f"q{n}"} for n in range(3)}
    with refused("too-many"):
        room.cascading_event("b", "c2", "initialize", {"participants": many, "streams": {}})
    for number in range(2):
        room.cascading_event("b", "c2", "addParticipant", {"id": f"q{number}"})
    with refused("too-many"):
        room.cascading_event("b", "c2", "addParticipant", {"id": "q3"})
    assert len(room.participants) == 2


def test_remote_updates_are_shown_once() -> None:
    room = make_room()
    remote(room)
    mute = {"id": "s", "track": "av", "muted": True}
    assert kinds_of(room.cascading_event("b", "c2", "setStreamMute", mute)) == ["StreamUpdated"]
    assert room.cascading_event("b", "c2", "setStreamMute", mute) == []
    update = {"id": "s", "info": {"owner": "q", "attributes": {"x": 1}}}
    [updated] = room.cascading_event("b", "c2", "updateStreamInfo", update)
    assert isinstance(updated, StreamUpdated)
    assert updated.stream.info.attributes == {"x": 1}
    assert room.cascading_event("b", "c2", "removeStream", "unknown") == []
    assert room.cascading_event("b", "c2", "removeParticipant", "unknown") == []
    assert room.cascading_event("b", "c2", "setStreamMute", {**mute, "id": "unknown"}) == []
    assert room.cascading_event("b", "c2", "updateStreamInfo", {**update, "id": "unknown"}) == []


def test_a_bridge_subscribes_to_local_streams_only() -> None:
    room = published(make_room(), "p", "mine")
    remote(room)
    key = SubscriptionKey("m", "conn", by_bridge=True)
    assert room.bridge_subscribe("m", "conn", "mine", ["video"]) == [
        Subscribed(key, (TrackKey("c1", "mine", "video"),))
    ]
    with refused("no-such-stream"):
        room.bridge_subscribe("m", "conn2", "s", ["video"])
    assert room.bridge_unsubscribe("m", "conn") == [SubscriptionEnded(key, "unsubscribed")]
    with refused("no-such-subscription"):
        room.bridge_unsubscribe("m", "conn")


def test_a_part_of_the_cluster_subscribes_without_being_anybody() -> None:
    room = make_room()
    remote(room)
    (shown,) = room.streams
    (subscribed,) = room.subscribe_for("gateway", "1", shown.id, ["video", "video"])
    key = SubscriptionKey("gateway", "1")
    assert subscribed == Subscribed(key, (TrackKey("c2", "s", "video"),))
    assert room.local_participants == []
    with refused("no-such-stream"):
        room.subscribe_for("gateway", "2", "another", ["video"])
    with refused("not-joined"):
        room.subscribe("gateway", "2", shown.id, ["video"])
    assert room.unsubscribe_for("gateway", "1") == [SubscriptionEnded(key, "unsubscribed")]
    room.subscribe_for("gateway", "3", shown.id, ["audio"])
    ended = room.cascading_event("b", "c2", "removeStream", "s")
    assert SubscriptionEnded(SubscriptionKey("gateway", "3"), "stream-removed") in ended


def test_one_owner_cannot_hold_subscriptions_without_end() -> None:
    room = published(make_room(max_subscriptions_per_owner=1))
    room.subscribe("p", "1", "s", ["audio"])
    with refused("too-many-subscriptions"):
        room.subscribe("p", "2", "s", ["audio"])


def test_closing_leaves_nothing() -> None:
    room = published(make_room())
    remote(room)
    room.subscribe("p", "sub", "s", ["audio"])
    outputs = room.close()
    assert SubscriptionEnded(SubscriptionKey("p", "sub"), "room-closed") in outputs
    assert LinkDown("c2") in outputs
    assert (room.participants, room.streams, room.subscriptions, room.links) == ([], [], [], [])
