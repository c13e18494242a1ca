from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lab.portal_client import Address, PortalRefusedError, TrackOffer
from lab.settings import PortalSettings
from tests.lab.cluster_kit import TIMEOUT, lab_cluster, member, rest, until

if TYPE_CHECKING:
    from lab.cluster import Cluster

VIDEO = TrackOffer(id="video-1", type="video", format={"codec": "vp8"})
AUDIO = TrackOffer(id="audio-1", type="audio", format={"codec": "opus"})
SOURCE = Address("127.0.0.1", 9)


def raw(cluster: Cluster) -> connect:
    return connect(f"ws://127.0.0.1:{cluster.port}/portal", compression=None, proxy=None)


async def ask(socket_: ClientConnection, method: str, params: Any = None, *, id_: int = 1) -> Any:
    request = {"id": id_, "method": method, "params": {} if params is None else params}
    await socket_.send(msgspec.json.encode(request).decode())
    while True:
        answer = msgspec.json.decode(await asyncio.wait_for(socket_.recv(), TIMEOUT))
        if "event" not in answer:
            return answer


def refused(code: str) -> Any:
    return pytest.raises(PortalRefusedError, match=code)


async def test_two_clients_see_each_other_come_publish_and_go() -> None:
    async with lab_cluster() as cluster, member(cluster, user="alice") as alice:
        assert alice.joined.room == "room"
        assert alice.joined.internal == Address("127.0.0.1", cluster.hub.port)
        assert [one.user for one in alice.joined.participants] == ["alice"]
        async with member(cluster, user="bob") as bob:
            assert [one.user for one in bob.joined.participants] == ["alice", "bob"]
            assert (await alice.event("participantJoined"))["user"] == "bob"
            published = await bob.portal.publish([VIDEO, AUDIO], SOURCE)
            assert [(track.id, track.type) for track in published.tracks] == [
                ("video-1", "video"),
                ("audio-1", "audio"),
            ]
            added = await alice.event("streamAdded")
            assert added["id"] == published.stream
            assert added["cluster"] == "c1"
            assert added["info"]["owner"] == bob.id
            subscribed = await alice.portal.subscribe(published.stream, ["video", "audio"])
            assert {track.type for track in subscribed.tracks} == {"video", "audio"}
            ids = {track.id for track in subscribed.tracks}
            assert len(ids) == 2
            assert ids.isdisjoint({"video-1", "audio-1"})
            assert len(cluster.hub.counters) == 2
            await bob.portal.unpublish(published.stream)
            ended = await alice.event("subscriptionEnded")
            assert ended == {"subscription": subscribed.subscription, "reason": "stream-removed"}
            assert await alice.event("streamRemoved") == {"id": published.stream}
            assert cluster.hub.counters == []
            await bob.portal.leave()
            assert await alice.event("participantLeft") == {"id": bob.id}
            async with asyncio.timeout(TIMEOUT):
                await bob.portal._socket.wait_closed()


async def test_a_client_that_is_gone_has_left() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        async with member(cluster) as bob:
            stream = (await bob.portal.publish([AUDIO], SOURCE)).stream
            await bob.portal.subscribe(stream, ["audio"])
        assert await alice.event("streamRemoved") == {"id": stream}
        assert await alice.event("participantLeft") == {"id": bob.id}
        assert cluster.hub.counters == []


async def test_mute_and_attributes_reach_the_others() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, member(cluster) as bob:
        stream = (await bob.portal.publish([AUDIO], SOURCE)).stream
        await bob.portal.mute(stream, "audio", muted=True)
        assert (await alice.event("streamUpdated"))["media"]["tracks"][0]["status"] == "inactive"
        await bob.portal._call("update", {"stream": stream, "attributes": {"x": 1}}, dict)
        assert (await alice.event("streamUpdated"))["info"]["attributes"] == {"x": 1}
        with refused("no-such-stream"):
            await alice.portal.mute(stream, "audio", muted=True)


async def test_a_subscription_that_pauses_has_nothing_pulled_for_it() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, member(cluster) as bob:
        stream = (await bob.portal.publish([AUDIO], SOURCE)).stream
        subscription = (await alice.portal.subscribe(stream, ["audio"])).subscription
        await alice.portal.pause(subscription, "av", paused=True)
        assert [relay.wanted for relay in cluster.hub._relays.values()] == [False]
        await alice.portal.pause(subscription, "audio", paused=False)
        assert [relay.wanted for relay in cluster.hub._relays.values()] == [True]
        with refused("no-such-subscription"):
            await bob.portal.pause(subscription, "audio", paused=True)
        with refused("no-such-track"):
            await alice.portal.pause(subscription, "video", paused=True)


async def test_unsubscribing_ends_the_route_without_an_event() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        stream = (await alice.portal.publish([AUDIO], SOURCE)).stream
        subscription = (await alice.portal.subscribe(stream, ["audio"])).subscription
        await alice.portal.unsubscribe(subscription)
        assert cluster.hub.counters == []
        with refused("no-such-subscription"):
            await alice.portal.unsubscribe(subscription)


async def test_a_role_can_do_what_it_may_and_no_more() -> None:
    async with lab_cluster() as cluster, member(cluster, role="viewer") as viewer:
        with refused("forbidden"):
            await viewer.portal.publish([AUDIO], SOURCE)


async def test_tracks_are_fetched_from_the_clients_own_address_only() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        for elsewhere in ("192.0.2.1", "localhost", "::1"):
            with refused("bad-source"):
                await alice.portal.publish([AUDIO], Address(elsewhere, 22))
    settings = PortalSettings(foreign_sources=True)
    async with lab_cluster(portal=settings) as cluster, member(cluster) as alice:
        await alice.portal.publish([AUDIO], Address("192.0.2.1", 22))


async def test_streams_are_limited() -> None:
    async with lab_cluster(max_streams_per_participant=1) as cluster, member(cluster) as alice:
        await alice.portal.publish([AUDIO], SOURCE)
        with refused("too-many-streams"):
            await alice.portal.publish([VIDEO], SOURCE)


async def test_a_token_lets_in_once() -> None:
    async with lab_cluster() as cluster, rest(cluster) as call:
        await call("POST", "rooms", {"name": "room", "options": {"_id": "room"}})
        _, token = await call("POST", "rooms/room/tokens", {"user": "u", "role": "presenter"})
        async with raw(cluster) as one, raw(cluster) as two:
            assert (await ask(one, "join", {"token": token}))["ok"] is True
            again = await ask(one, "join", {"token": token}, id_=2)
            assert again["error"]["code"] == "already-joined"
            assert (await ask(two, "join", {"token": token}))["error"]["code"] == "bad-token"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("join", {}, "bad-request"),
        ("join", {"token": "nonsense"}, "bad-token"),
        ("join", {"token": "x" * 5000}, "bad-request"),
        ("publish", {}, "not-joined"),
        ("explode", {}, "not-joined"),
    ],
)
async def test_strangers_get_nothing(method: str, params: Any, code: str) -> None:
    async with lab_cluster() as cluster, raw(cluster) as client:
        answer = await ask(client, method, params)
        assert answer["ok"] is False
        assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("publish", {"tracks": [{"type": "smell"}], "source": {"ip": "127.0.0.1", "port": 1}}),
        ("publish", {"tracks": [{"type": "audio"}], "source": {"ip": "127.0.0.1", "port": 0}}),
        (
            "publish",
            {"tracks": [{"type": "audio", "id": "x" * 200}], "source": {"ip": "127.0.0.1", "port": 1}},
        ),
        ("publish", {"tracks": 1}),
        ("subscribe", {"stream": "s"}),
        ("unsubscribe", {}),
        ("mute", {"stream": "s"}),
        ("pause", {"subscription": "s", "track": "audio"}),
        ("explode", {}),
    ],
)
async def test_calls_that_make_no_sense_are_refused(method: str, params: Any) -> None:
    async with lab_cluster() as cluster, member(cluster) as alice:
        with refused("bad-request|no-such-method"):
            await alice.portal._call(method, params, dict)
        assert len(cluster.rooms.running[0].room.participants) == 1


@pytest.mark.parametrize(
    "garbage", ["", "{", "[1]", '{"id":"x","method":"join"}', '{"method":"join"}', b"\x00"]
)
async def test_what_is_no_message_ends_the_connection(garbage: str | bytes) -> None:
    async with lab_cluster() as cluster, raw(cluster) as client:
        await client.send(garbage)
        await asyncio.wait_for(client.wait_closed(), TIMEOUT)
        assert cluster.rooms.running == []


async def test_a_message_too_large_ends_the_connection() -> None:
    async with lab_cluster(portal=PortalSettings(max_message_bytes=1024)) as cluster, raw(cluster) as client:
        await client.send("x" * 1025)
        with pytest.raises(ConnectionClosed, match="1009"):
            await asyncio.wait_for(client.recv(), TIMEOUT)


async def test_who_does_not_join_is_sent_away() -> None:
    async with lab_cluster(portal=PortalSettings(join_timeout=0.05)) as cluster, raw(cluster) as client:
        with pytest.raises(ConnectionClosed, match="join first"):
            await asyncio.wait_for(client.recv(), TIMEOUT)


async def test_a_full_portal_takes_nobody() -> None:
    async with lab_cluster(portal=PortalSettings(max_clients=1)) as cluster, raw(cluster) as first:
        assert (await ask(first, "leave"))["error"]["code"] == "not-joined"
        with pytest.raises(Exception, match="403"):
            await raw(cluster)


async def test_a_client_that_does_not_read_is_disconnected_and_nobody_waits() -> None:
    settings = PortalSettings(max_unsent=5, max_message_bytes=1 << 20)
    async with lab_cluster(portal=settings, ping_timeout=60) as cluster, member(cluster) as alice:
        stream = (await alice.portal.publish([AUDIO], SOURCE)).stream
        async with rest(cluster) as call:
            _, token = await call("POST", "rooms/room/tokens", {"user": "slow", "role": "viewer"})
        async with raw(cluster) as slow:
            assert (await ask(slow, "join", {"token": token}))["ok"] is True
            sock = slow.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.transport.pause_reading()
            await alice.event("participantJoined")
            for number in range(1000):
                big = {"n": number, "padding": "x" * 100_000}
                await alice.portal._call("update", {"stream": stream, "attributes": big}, dict)
                await alice.event("streamUpdated")
                if len(cluster.rooms.running[0].room.local_participants) == 1:
                    break
            await until(lambda: len(cluster.rooms.running[0].room.local_participants) == 1)
            slow.transport.abort()


async def test_a_removed_participant_is_disconnected() -> None:
    async with (
        lab_cluster() as cluster,
        member(cluster) as alice,
        member(cluster) as bob,
        rest(cluster) as call,
    ):
        status, _ = await call("DELETE", f"rooms/room/participants/{bob.id}")
        assert status == 200
        async with asyncio.timeout(TIMEOUT):
            await bob.portal._socket.wait_closed()
        assert await alice.event("participantLeft") == {"id": bob.id}


async def test_a_deleted_room_disconnects_everybody() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, rest(cluster) as call:
        status, _ = await call("DELETE", "rooms/room")
        assert status == 200
        async with asyncio.timeout(TIMEOUT):
            await alice.portal._socket.wait_closed()
        assert cluster.rooms.running == []
