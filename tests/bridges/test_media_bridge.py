"""Two media bridges over real QUIC, TCP and WebSockets on loopback; only the nodes are scripted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from bridges.media.settings import MediaSettings
from bridges.wire.frame import Feedback
from tests.bridges.media_side import QUICK, ROOM, Side, Taken, picture, side, sound, two_sides
from tests.bridges.node_stub import StubRpcError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY_FRAME = Feedback.request_key_frame()


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_track_flows_byte_for_byte_from_publish_to_unpublish() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "video")
        assert (await east.stats())["tracks"] == [], "nothing crosses before it is wanted"
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers)
        assert east.subscribed == [
            {
                "type": "mediabridge",
                "room": ROOM,
                "cluster": "west",
                "connectionId": "west:quic-session-1-track-1",
                "media": {"tracks": [{"id": "track-1", "type": "video", "from": "stream-1"}]},
                "originType": "webrtc",
                "locality": {"agent": east.worker, "node": east.worker},
            }
        ]
        frames = [picture(i, key=i % 10 == 0, size=1 + 977 * i) for i in range(40)]
        for i, frame in enumerate(frames):
            source.write(frame)
            await taken.until(lambda i=i: len(taken.frames) > i)  # type: ignore[misc] # bound now
        assert taken.frames == frames
        (pushed,) = (await east.stats())["tracks"]
        (pulled,) = (await west.stats())["tracks"]
        told = {
            "id": "track-1",
            "room": ROOM,
            "peer": "west",
            "direction": "out",
            "kind": "video",
            "frames": 40,
            "bytes": sum(len(frame.raw) for frame in frames),
            "dropped_frames": 0,
        }
        assert {name: pushed[name] for name in told} == told
        assert (pulled["direction"], pulled["frames"], pulled["bytes"]) == ("in", 40, pushed["bytes"])
        await west.call("unpublish", "session-1")
        await taken.until(lambda: taken.lost)
        await east.changes.until(lambda: east.unsubscribed == ["west:quic-session-1-track-1"])
        await east.changes.until(lambda: source.subscribers == 0)
        assert (await east.poll(lambda stats: not stats["tracks"]))["links"]


async def test_tracks_flow_against_the_direction_of_dialling_too() -> None:
    async with two_sides() as (east, west):
        source = west.source("stream-1", "audio")
        await east.publish("session-1", west, ("track-1", "audio", "stream-1"))
        taken = await Taken.of(east, "track-1")
        await west.changes.until(lambda: source.subscribers)
        frames = [sound(i) for i in range(50)]
        for frame in frames:
            source.write(frame)
        await taken.until(lambda: len(taken.frames) == 50)
        assert taken.frames == frames
        taken.close()


async def test_key_frames_are_asked_for_until_one_comes_and_nothing_is_forwarded_before() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "video")
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers)
        await east.changes.until(lambda: len(east.feedback) >= 4)
        assert set(east.feedback) == {KEY_FRAME}
        source.write(picture(1))
        source.write(picture(2, key=True))
        source.write(picture(3))
        await taken.until(lambda: len(taken.frames) == 2)
        assert taken.frames == [picture(2, key=True), picture(3)]
        # A later subscriber's gate lacks a key frame: its wish travels to the origin.
        asked = len(east.feedback)
        late = await Taken.of(west, "track-1")
        assert late.receiver is not None
        late.receiver.request_key_frame()
        await east.changes.until(lambda: len(east.feedback) > asked)
        taken.close()
        late.close()


async def test_a_wrong_token_is_refused_before_anything_else() -> None:
    async with side("east") as east, side("west") as west:
        await west.cascade(east, token="guessed")
        await east.poll(lambda stats: stats["refused_tokens"] >= 2)
        stats = await west.stats()
        assert [link["state"] for link in (await east.stats())["links"]] == []
        assert [(link["peer"], link["role"]) for link in stats["links"]] == [("east", "dialer")]
        source = east.source("stream-1", "audio")
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        await east.poll(lambda stats: stats["refused_tokens"] >= 4)
        assert east.subscribed == []
        # The right token, ordered later, replaces the wrong one at once.
        await west.cascade(east)
        await east.changes.until(lambda: source.subscribers)


async def test_a_room_that_is_not_there_is_refused() -> None:
    async with side("east") as east, side("west") as west:
        west.node.room("other")
        await west.cascade(east, room="other")
        await east.poll(lambda stats: stats["refused_tokens"])


@pytest.mark.parametrize("link_first", [False, True])
async def test_linkup_may_come_before_or_after_the_reply(link_first: bool) -> None:
    async with two_sides() as (east, west):
        east.link_first = link_first
        source = east.source("stream-1", "audio")
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        await east.changes.until(lambda: source.subscribers)


async def test_twenty_tracks_at_once() -> None:
    patient = structs.replace(QUICK.own, deadline=1.0, useful=1.0, backlog=1.0)  # 600 frames come in a moment
    async with two_sides(media=structs.replace(QUICK, own=patient)) as (east, west):
        names = [f"stream-{i}" for i in range(10)]
        sources = {(name, kind): east.source(name, kind) for name in names for kind in ("video", "audio")}
        for name in names:
            await west.publish(
                f"session-{name}", east, (f"{name}-v", "video", name), (f"{name}-a", "audio", name)
            )
        await east.changes.until(lambda: all(source.subscribers for source in sources.values()))
        taken = {key: await Taken.of(west, f"{key[0]}-{key[1][0]}") for key in sources}
        await west.poll(lambda stats: len(stats["tracks"]) == 20)
        for i in range(30):
            for (_, kind), source in sources.items():
                source.write(picture(i, key=i == 0) if kind == "video" else sound(i))
        for one in taken.values():
            await one.until(lambda one=one: len(one.frames) == 30)  # type: ignore[misc] # bound now
        for (_, kind), one in taken.items():
            expected = [picture(i, key=i == 0) if kind == "video" else sound(i) for i in range(30)]
            assert one.frames == expected
            one.close()


async def test_tracks_wait_for_the_link_and_survive_its_loss() -> None:
    async with side("east") as east, side("west") as west:
        source = east.source("stream-1", "video")
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await west.cascade(east)
        await east.changes.until(lambda: source.subscribers)
        source.write(picture(0, key=True))
        await taken.until(lambda: len(taken.frames) == 1)
        for connection in list(east.bridge._links._accepted.values()):
            connection.close("cut by the test")
        await east.changes.until(lambda: source.subscribers == 0)
        await east.changes.until(lambda: source.subscribers == 1)
        assert east.unsubscribed == ["west:quic-session-1-track-1"]
        assert len(east.subscribed) == 2
        source.write(picture(1))  # nobody can decode this: the picture before may be lost
        source.write(picture(2, key=True))
        await taken.until(lambda: len(taken.frames) == 2)
        assert taken.frames[1] == picture(2, key=True)
        assert taken.lost == [], "inside the cluster nothing was interrupted"
        taken.close()


async def test_a_source_that_vanishes_ends_the_track_until_it_is_back() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "audio")
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers)
        source.close()
        await east.changes.until(lambda: east.unsubscribed)
        source = east.source("stream-1", "audio")
        await east.changes.until(lambda: source.subscribers)
        source.write(sound(1))
        await taken.until(lambda: taken.frames == [sound(1)])
        taken.close()


async def test_cutoff_takes_the_source_away_and_a_new_linkup_brings_another() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "video")
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers)
        assert await east.call("cutoff", "west:quic-session-1-track-1") == "ok"
        await east.changes.until(lambda: source.subscribers == 0)
        await east.linkup("west:quic-session-1-track-1", east.subscribed[0])
        await east.changes.until(lambda: source.subscribers == 1)
        source.write(picture(5, key=True))
        await taken.until(lambda: taken.frames)
        assert await east.call("unsubscribe", "west:quic-session-1-track-1") == "ok"
        await east.changes.until(lambda: source.subscribers == 0)
        assert east.unsubscribed == [], "who unsubscribes need not be told"
        taken.close()


async def test_a_node_that_never_links_up_is_unsubscribed_again() -> None:
    hasty = MediaSettings(redial_base=5.0, link_timeout=0.1)
    async with two_sides(media=hasty) as (east, west):
        east.linking = False
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        await east.changes.until(lambda: east.unsubscribed)


async def test_a_destroyed_room_closes_its_connections() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "audio")
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        await east.changes.until(lambda: source.subscribers)
        del east.node.rooms[ROOM]
        await east.call("destroyRoom", ROOM)
        await east.changes.until(lambda: source.subscribers == 0)
        assert (await east.poll(lambda stats: not stats["links"]))["tracks"] == []
        assert east.unsubscribed == []
        await west.call("destroyRoom", ROOM)
        stats = await west.poll(lambda stats: not stats["links"])
        assert stats["tracks"] == []


async def test_a_lost_node_tears_everything_down_and_wanted_links_come_back() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "audio")
        await west.publish("session-1", east, ("track-1", "audio", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers)
        await west.node.stop()
        await taken.until(lambda: taken.lost)
        await east.changes.until(lambda: source.subscribers == 0)
        await east.poll(lambda stats: not stats["links"])
        await west.node.start()
        await west.node.joined("mediabridge")
        await east.poll(lambda stats: stats["links"])
        assert (await west.stats())["tracks"] == [], "the node has forgotten what it had asked for"


async def test_the_same_order_again_changes_nothing_and_a_restarted_peer_is_found() -> None:
    async with side("west") as west:
        async with side("east") as east:
            await west.cascade(east)
            await west.poll(lambda stats: [link["state"] for link in stats["links"]] == ["up"])
            await west.cascade(east)
            stats = await west.stats()
            assert [(link["state"], link["connects"]) for link in stats["links"]] == [("up", 1)]
        await west.poll(lambda stats: [link["state"] for link in stats["links"]] == ["down"])
        async with side("east") as east:
            await west.cascade(east)  # another port, another certificate
            await west.poll(lambda stats: [link["state"] for link in stats["links"]] == ["up"])


async def test_a_link_that_is_called_off_ends_and_is_not_dialled_again() -> None:
    async with two_sides() as (east, west):
        legs: list[tuple[str, str, str]] = []
        assert west.bridge is not None
        west.bridge.on_leg = lambda peer, room, state, error: legs.append((peer, room, state))
        await west.poll(lambda stats: [link["state"] for link in stats["links"]] == ["up"])
        ((peer, round_trip),) = west.bridge.round_trips().items()
        assert peer == "east"
        assert round_trip.seconds > 0
        # What the peer dialled stays: only its own cluster calls that off.
        assert await east.call("stopCascading", {"room": ROOM, "targetCluster": "west"}) == "ok"
        assert [link["state"] for link in (await east.stats())["links"]] == ["up"]
        assert await west.call("stopCascading", {"room": ROOM, "targetCluster": "east"}) == "ok"
        await east.poll(lambda stats: not stats["links"])
        assert (await west.stats())["links"] == []
        assert ("east", ROOM, "gone") in legs
        assert await west.call("stopCascading", {"room": ROOM, "targetCluster": "east"}) == "ok"
        assert west.bridge.round_trips() == {}
        await west.cascade(east)
        await west.poll(lambda stats: [link["state"] for link in stats["links"]] == ["up"])
        assert legs[-1] == ("east", ROOM, "up")
        west.node.rooms.clear()
        await west.call("destroyRoom", ROOM)
        assert ("east", ROOM, "gone") in legs[2:]


async def test_calls_that_make_no_sense_fail_and_change_nothing() -> None:
    async with side("east") as east:
        track = {"id": "t", "type": "video", "from": "s"}
        good = {"cluster": "west", "room": ROOM, "pubArgs": [track]}
        calls: list[tuple[str, list[object]]] = [
            ("nonsense", []),
            ("getInfo", [1]),
            ("startCascading", [{}]),
            ("stopCascading", [{"room": ROOM}]),
            ("startCascading", [_order(east, targetCluster="east")]),
            ("startCascading", [_order(east, selfCluster="other")]),
            ("startCascading", [_order(east, mediaIP=None)]),
            ("startCascading", [_order(east, mediaFingerprint=None)]),
            ("publish", ["s", "webrtc", good]),
            ("publish", ["s", "mediabridge", {**good, "pubArgs": []}]),
            (
                "publish",
                ["s", "mediabridge", {**good, "pubArgs": [{**track, "type": "smell"}]}],
            ),
            ("publish", ["s", "mediabridge", {**good, "pubArgs": [track, track]}]),
            ("unpublish", ["nobody"]),
            ("linkup", ["nobody", {}]),
            ("cutoff", ["nobody"]),
            ("subscribe", ["nobody", "mediabridge", {}]),
            ("unsubscribe", ["nobody"]),
        ]
        for method, args in calls:
            with pytest.raises(StubRpcError):
                await east.call(method, *args)
        assert await east.stats() == {"links": [], "tracks": [], "refused_tokens": 0}
        assert await east.call("publish", "s", "mediabridge", good) == "ok"
        with pytest.raises(StubRpcError):
            await east.call("publish", "s", "mediabridge", good)
        assert await east.call("getNode", {"room": ROOM, "task": ROOM}) == east.worker
        assert await east.call("getInternalAddress") == {"ip": "127.0.0.1", "port": east.bridge.internal_port}


def _order(own: Side, **changes: object) -> dict[str, object]:
    order: dict[str, object] = {
        "room": ROOM,
        "token": "t",
        "selfCluster": own.cluster,
        "targetCluster": "west",
        "evIP": "127.0.0.1",
        "evPort": 9,
        "mediaIP": "127.0.0.1",
        "mediaPort": 9,
        "mediaFingerprint": "0" * 64,
    }
    return {**order, **changes}


async def test_cancellation_in_full_flow_leaves_nothing() -> None:
    async with two_sides() as (east, west):
        source = east.source("stream-1", "video")
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        await east.changes.until(lambda: source.subscribers)
        source.write(picture(0, key=True))
        # Leaving the block cancels both bridges; the fixture asserts that no task is left of either.
