from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from lab.portal_client import Address, TrackOffer
from lab.settings import NodeSettings
from tests.lab.cluster_kit import FakeBridge, bridge, lab_cluster, member, until

PEER = "c2"
OFFER = TrackOffer(id="mine", type="video", format={"codec": "vp8"})


def initialize(*, participants: tuple[str, ...] = ("q",), streams: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "initialize",
        "data": {
            "participants": {id_: {"id": id_, "user": "far", "role": "presenter"} for id_ in participants},
            "streams": {
                id_: {
                    "id": id_,
                    "type": "forward",
                    "media": {"tracks": [{"id": f"{id_}-v", "type": "video"}]},
                    "info": {"owner": "q", "type": "webrtc", "inViews": [], "attributes": None},
                    "cluster": PEER,
                }
                for id_ in streams
            },
        },
    }


async def linked(fake: FakeBridge, *, streams: tuple[str, ...] = ()) -> str:
    """Cascade the room to a cluster that has one participant."""
    node = await fake.node()
    assert await fake.call(node, "onCascadingConnected", fake.worker, "session", "4") == "ok"
    await fake.was_asked("notify")
    event = initialize(streams=streams)
    assert await fake.call(node, "handleCascadingEvents", fake.worker, PEER, event) == "ok"
    return node


async def test_without_the_secret_there_is_no_conversation() -> None:
    async with lab_cluster() as cluster:
        for wrong in ("x", "wrong", "a secret of node and bridge", "ä"):
            with pytest.raises(InvalidStatus):
                async with bridge(cluster, secret=wrong):
                    pass


async def test_a_worker_joins_keeps_alive_and_quits() -> None:
    async with lab_cluster() as cluster, bridge(cluster, join=False) as fake:
        assert await fake.call("owt-cluster", "keepAlive", fake.worker) == "whoareyou"
        assert await fake.call("owt-cluster", "schedule", "conference", "r", "p", 1) == (
            "error",
            "join first",
        )
        assert await fake.call("owt-cluster", "join", "eventbridge", fake.worker, {}) == "in-service"
        assert await fake.call("owt-cluster", "keepAlive", fake.worker) == "ok"
        assert await fake.call("owt-cluster", "reportLoad", fake.worker, 0.5) == "ok"
        assert cluster.workers.all[0].load == 0.5
        scheduled = await fake.call("owt-cluster", "schedule", "eventbridge", "r", "p", 1)
        assert scheduled["id"] == fake.worker
        assert await fake.call("owt-cluster", "quit", fake.worker) == "ok"
        assert cluster.workers.all == []


@pytest.mark.parametrize(
    ("to", "method", "args"),
    [
        ("owt-cluster", "join", ["recording", "id", {}]),
        ("owt-cluster", "join", ["eventbridge"]),
        ("owt-cluster", "schedule", ["nothing", "r", "p", 1]),
        ("owt-cluster", "schedule", ["mediabridge", "r", "p", 1]),
        ("owt-cluster", "explode", []),
        ("nobody", "getRoomToken", []),
        ("conference", "getNode", [{"room": "other", "task": "other"}]),
        ("conference", "explode", []),
        ("node", "handleCascadingEvents", ["b", PEER]),
        ("node", "handleCascadingEvents", ["b", PEER, {"type": "explode"}]),
        ("node", "handleCascadingEvents", ["b", "c1", {"type": "removeStream", "data": "s"}]),
        ("node", "unsubscribe", ["admin", "unknown"]),
        ("node", "subscribe", ["admin", "c", {"media": {"tracks": []}}]),
        (
            "node",
            "subscribe",
            ["admin", "c", {"media": {"tracks": [{"id": "t", "type": "video", "from": "s"}]}}],
        ),
        ("node", "explode", []),
    ],
)
async def test_a_call_that_makes_no_sense_fails_and_the_socket_lives(
    to: str, method: str, args: list[Any]
) -> None:
    async with lab_cluster() as cluster, member(cluster), bridge(cluster) as fake:
        target = {"conference": cluster.rooms.worker_id, "node": await fake.node()}.get(to, to)
        assert (await fake.call(target, method, *args))[0] == "error"
        # A refused second join leaves the connection without a worker, so join anew.
        assert await fake.call("owt-cluster", "join", "eventbridge", fake.worker, {}) == "in-service"


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"to":"x"}', b"\x00\xff", '{"method":1}'])
async def test_what_is_no_rpc_ends_the_socket(garbage: str | bytes) -> None:
    async with lab_cluster() as cluster, bridge(cluster) as fake:
        await fake.send(garbage)
        await asyncio.wait_for(fake.closed.wait(), 5)
        await until(lambda: cluster.workers.all == [])


async def test_a_room_has_a_node_and_a_token_only_after_its_first_join() -> None:
    async with lab_cluster() as cluster, bridge(cluster) as fake:
        worker = await fake.call("owt-cluster", "schedule", "conference", "room", "preference", 30000)
        task = {"room": "room", "task": "room"}
        assert (await fake.call(worker["id"], "getNode", task))[0] == "error"
        async with member(cluster):
            node = await fake.call(worker["id"], "getNode", task)
            assert node == f"{worker['id']}_0"
            token = await fake.call(node, "getRoomToken")
            assert len(bytes.fromhex(token)) == 32


async def test_a_new_link_gets_initialize_and_then_every_event_in_order() -> None:
    async with lab_cluster() as cluster, member(cluster, user="alice") as alice, bridge(cluster) as fake:
        node = await fake.node()
        assert await fake.call(node, "onCascadingConnected", fake.worker, "session", "4") == "ok"
        [first] = await fake.was_asked("notify")
        assert first.args[:2] == [
            node,
            {"session": "session", "stream": "4", "type": "initialize", "rpcId": node},
        ]
        assert first.args[2]["type"] == "initialize"
        assert list(first.args[2]["data"]["participants"]) == [alice.id]
        async with member(cluster, user="bob") as bob:
            pass
        await until(lambda: len(cluster.rooms.running[0].room.participants) == 1)
        calls = (await fake.was_asked("notify", 3))[1:]
        assert [call.args[1] for call in calls] == [{"rpcId": node}] * 2
        assert [(call.args[2]["type"]) for call in calls] == ["addParticipant", "removeParticipant"]
        assert calls[1].args[2]["data"] == bob.id


async def test_what_another_cluster_brings_is_shown_and_goes_with_the_link() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, bridge(cluster) as fake:
        node = await linked(fake, streams=("s",))
        assert (await alice.event("participantJoined"))["cascading"] is True
        assert (await alice.event("streamAdded"))["cluster"] == PEER
        event = {"type": "onCascadingDisconnected"}
        assert await fake.call(node, "handleCascadingEvents", fake.worker, PEER, event) == "ok"
        assert await alice.event("streamRemoved") == {"id": "s"}
        assert await alice.event("participantLeft") == {"id": "q"}


async def test_a_lost_bridge_takes_what_came_through_it() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        async with bridge(cluster) as fake:
            await linked(fake)
            await alice.event("participantJoined")
        assert await alice.event("participantLeft") == {"id": "q"}
        assert cluster.workers.all == []


async def test_the_same_bridge_coming_twice_drops_the_older_connection() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, bridge(cluster) as old:
        await linked(old)
        async with bridge(cluster) as new:
            await asyncio.wait_for(old.closed.wait(), 5)
            assert await alice.event("participantLeft") == {"id": "q"}
            assert [worker.id for worker in cluster.workers.all] == [new.worker]
            await linked(new)


async def test_a_bridge_that_does_not_answer_an_event_is_dropped() -> None:
    async with lab_cluster() as cluster, member(cluster), bridge(cluster) as fake:
        fake.answers["notify"] = None
        node = await fake.node()
        await fake.call(node, "onCascadingConnected", fake.worker, "session", "4")
        await asyncio.wait_for(fake.closed.wait(), 5)
        await until(lambda: cluster.workers.all == [])


async def test_a_bridge_that_refuses_an_event_stays() -> None:
    async with lab_cluster() as cluster, member(cluster), bridge(cluster) as fake:
        fake.answers["notify"] = RuntimeError("no such stream any more")
        node = await fake.node()
        await fake.call(node, "onCascadingConnected", fake.worker, "session", "4")
        async with member(cluster):
            await fake.was_asked("notify", 2)
        assert len(cluster.workers.all) == 1


async def test_too_many_orders_for_a_bridge_drop_it() -> None:
    settings = NodeSettings(max_unsent=3, call_timeout=60)
    async with lab_cluster(node=settings) as cluster, member(cluster) as alice, bridge(cluster) as fake:
        stream = (await alice.portal.publish([OFFER], Address("127.0.0.1", 9))).stream
        fake.answers["notify"] = None
        node = await fake.node()
        await fake.call(node, "onCascadingConnected", fake.worker, "session", "4")
        for number in range(6):
            await alice.portal._call("update", {"stream": stream, "attributes": {"n": number}}, dict)
        await asyncio.wait_for(fake.closed.wait(), 5)


async def test_a_media_bridge_subscribes_and_is_told_where_to_fetch() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, bridge(cluster, "mediabridge") as fake:
        published = await alice.portal.publish([OFFER], Address("127.0.0.1", 9))
        node = await fake.node()
        options = {
            "type": "mediabridge",
            "room": "room",
            "cluster": PEER,
            "connectionId": "conn",
            "media": {"tracks": [{"id": "t", "type": "video", "from": published.stream}]},
            "originType": "webrtc",
            "locality": {"agent": fake.worker, "node": fake.worker},
        }
        assert await fake.call(node, "subscribe", "admin", "conn", options) == "ok"
        [linkup] = await fake.was_asked("linkup")
        connection, source = linkup.args
        assert connection == "conn"
        assert source["video"]["port"] == cluster.hub.port
        assert (await fake.call(node, "subscribe", "admin", "conn", options))[0] == "error"
        assert await fake.call(node, "unsubscribe", "admin", "conn") == "ok"
        assert cluster.hub.counters == []
        # The stream goes while somebody else wants it: the bridge hears it.
        assert await fake.call(node, "subscribe", "admin", "conn2", options) == "ok"
        await alice.portal.unpublish(published.stream)
        [cutoff] = await fake.was_asked("cutoff")
        assert cutoff.args == ["conn2"]
        assert cluster.hub.counters == []


async def test_a_lost_media_bridge_subscribes_to_nothing_any_more() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        published = await alice.portal.publish([OFFER], Address("127.0.0.1", 9))
        async with bridge(cluster, "mediabridge") as fake:
            tracks = [{"id": "t", "type": "video", "from": published.stream}]
            node = await fake.node()
            assert await fake.call(node, "subscribe", "admin", "c", {"media": {"tracks": tracks}}) == "ok"
            assert len(cluster.hub.counters) == 1
        await until(lambda: cluster.hub.counters == [])


async def test_a_closed_room_is_taken_from_the_bridges() -> None:
    async with lab_cluster() as cluster, bridge(cluster) as fake, member(cluster):
        await linked(fake)
        cluster.rooms.delete("room")
        [destroyed] = await fake.was_asked("destroyRoom")
        assert destroyed.args == ["room"]
