"""Both bridges inside OWT clusters: two clusters, a broker each, real QUIC between them, real TCP within."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridges.agent import serve
from bridges.event.settings import EventSettings
from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.media.settings import MediaSettings
from bridges.node.amqp.settings import AmqpSettings
from bridges.quic import QuicSettings
from bridges.settings import BridgeSettings
from bridges.wire.frame import Feedback
from tests.bridges.media_side import Changes, picture, sound
from tests.bridges.owt_cluster import MANAGER, WAIT, OwtCluster, owt_cluster
from tests.rabbitmq import PASSWORD, RABBITMQ, USER, VHOST, Brokers, RabbitMq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bridges.wire.frame import MediaFrame
    from tests.bridges.owt_cluster import Node

pytestmark = RABBITMQ

OWT_WIRE = ("h3",)
BOTH_WIRES = pytest.mark.parametrize("alpn", [OWT_WIRE, ("causeway/1", "h3")], ids=["owt", "own"])

ALICE = {
    "id": "p1",
    "user": "alice",
    "role": "presenter",
    "permission": {"publish": {"video": True, "audio": True}, "subscribe": {"video": True, "audio": True}},
    "origin": {"isp": "isp", "region": "region"},
    "portal": "portal-f2a9",
}
CAMERA = {
    "id": "st1",
    "type": "forward",
    "media": {
        "tracks": [
            {
                "id": "st1-v",
                "type": "video",
                "source": "camera",
                "format": {"codec": "vp8"},
                "parameters": {"resolution": {"width": 640, "height": 480}},
                "status": "active",
                "optional": {"format": []},
            },
            {
                "id": "st1-a",
                "type": "audio",
                "source": "mic",
                "format": {"codec": "opus", "sampleRate": 48000, "channelNum": 2},
                "status": "active",
            },
        ]
    },
    "info": {"owner": "p1", "type": "webrtc", "inViews": [], "attributes": None},
}
BOB = {"id": "p2", "user": "bob", "role": "presenter", "portal": "portal-f2a9", "origin": {"isp": "isp"}}


class Side:
    """One cluster with its bridges, and what its management API does."""

    def __init__(self, cluster: OwtCluster, kinds: tuple[str, ...]) -> None:
        self.cluster = cluster
        self.kinds = kinds
        self.stop = asyncio.Event()

    async def call(self, kind: str, method: str, *args: Any) -> Any:
        """Call a bridge where OWT would: the event bridge's worker, the media bridge's node."""
        worker = await self.cluster.joined(f"{kind}bridge")
        server = worker if kind == "event" else await self.cluster.media_node("management")
        return await self.cluster.bus.call(server, method, *args)

    async def cascade(self, other: Side, room: str) -> None:
        """Order this side to connect a room to another cluster's; plain OWT, so without fingerprints."""
        infos = {kind: await other.call(kind, "getInfo") for kind in self.kinds}
        options: dict[str, Any] = {
            "room": room,
            "token": other.cluster.nodes[room].token,
            "selfCluster": self.cluster.id,
            "targetCluster": other.cluster.id,
        }
        for kind, prefix in (("event", "ev"), ("media", "media")):
            info = infos.get(kind, {"ip": "192.0.2.1", "port": 9})
            options |= {f"{prefix}IP": info["ip"], f"{prefix}Port": info["port"]}
        for kind in self.kinds:
            assert await self.call(kind, "startCascading", options) == "ok"


@asynccontextmanager
async def sides(
    brokers: Brokers, *kinds: str, alpn: tuple[str, ...] = OWT_WIRE
) -> AsyncIterator[tuple[Side, Side]]:
    """Two clusters with their bridges; the bridges ask for their cluster's id."""
    async with AsyncExitStack() as stack:
        made: list[Side] = []
        for name, broker in zip(("east", "west"), brokers, strict=True):
            url = broker.url()
            cluster = await stack.enter_async_context(owt_cluster(f"c-{name}", url))
            side = Side(cluster, kinds)
            settings = BridgeSettings(
                node_carrier="amqp",
                amqp=AmqpSettings(url=url, keep_alive_interval=0.2, retry_cap=0.2),
                kinds=kinds,  # type: ignore[arg-type] # literal words
                quic=QuicSettings(alpn=alpn, insecure_unpinned=True),
                event=EventSettings(retry_cap=0.2),
                media=MediaSettings(redial_base=0.05, redial_cap=0.2, key_frame_interval=0.1),
            )
            running = asyncio.create_task(serve(settings, stop=side.stop))
            stack.push_async_callback(_end, side, running)
            for kind in kinds:
                await cluster.joined(f"{kind}bridge")
            made.append(side)
        yield made[0], made[1]


async def _end(side: Side, running: asyncio.Task[None]) -> None:
    side.stop.set()
    await running


async def heard(node: Node, cluster: str, count: int) -> list[dict[str, Any]]:
    """Wait until a node has been handed so many events of a cluster; return them."""
    await node.cluster.bus.until(lambda: len(node.of(cluster)) >= count)
    return node.of(cluster)


@BOTH_WIRES
async def test_every_event_crosses_in_both_directions_as_owt_has_it(
    brokers: Brokers, alpn: tuple[str, ...]
) -> None:
    async with sides(brokers, "event", alpn=alpn) as (east, west):
        nodes = [await side.cluster.room("room-1") for side in (east, west)]
        nodes[0].participants = {"p1": ALICE}
        nodes[0].streams = {"st1": {**CAMERA, "cluster": "c-east"}}
        await west.cascade(east, "room-1")
        first = await heard(nodes[1], "c-east", 1)
        assert first == [
            {
                "type": "initialize",
                "data": {"participants": {"p1": ALICE}, "streams": {"st1": {**CAMERA, "cluster": "c-east"}}},
            }
        ]
        assert await heard(nodes[0], "c-west", 1) == [
            {"type": "initialize", "data": {"participants": {}, "streams": {}}}
        ]
        for here, there in ((nodes[0], nodes[1]), (nodes[1], nodes[0])):
            own = here.cluster.id
            events = [
                ("addParticipant", BOB),
                ("addStream", {**CAMERA, "id": f"{own}-2", "cluster": own, "data": False}),
                (
                    "updateStreamInfo",
                    {"id": f"{own}-2", "info": {"inViews": ["common"], "x": [1, {"y": None}]}},
                ),
                ("setStreamMute", {"id": f"{own}-2", "track": "video", "muted": True}),
                ("onAudioActiveness", {"activeInputStream": f"{own}-2", "target": {"view": "common"}}),
                ("onAudioActiveness", {"activeInputStream": None, "target": {"view": "common"}}),
                ("removeStream", f"{own}-2"),
                ("removeParticipant", "p2"),
            ]
            for type_, data in events:
                await here.say(type_, data)
            said = await heard(there, own, 1 + len(events))
            assert said[1:] == [{"type": type_, "data": data} for type_, data in events]
        assert nodes[1].remote == {"c-east": {"p1": ALICE, "st1": {**CAMERA, "cluster": "c-east"}}}


async def test_what_a_node_tells_its_portals_is_taken_and_goes_nowhere(brokers: Brokers) -> None:
    async with sides(brokers, "event") as (east, west):
        node, other = [await side.cluster.room("room-1") for side in (east, west)]
        await west.cascade(east, "room-1")
        await heard(other, "c-east", 1)
        await heard(node, "c-west", 1)
        assert await east.call("event", "notify", "p1", "text", {"from": "p2", "message": "hello"}) == "ok"
        assert await east.call("event", "drop", "p1") == "ok"
        assert await east.call("event", "broadcast", node.id, ["p1"], "text", {"message": "hello"}) == "ok"
        event = {"type": "removeParticipant", "data": "p9"}
        assert await east.call("event", "broadcast", node.id, ["c-west"], {}, event) == "ok"
        assert await east.call("event", "broadcast", node.id, [], {}, event) == "ok"
        assert (await heard(other, "c-east", 2))[1:] == [event]


async def test_conferences_share_a_connection_and_end_one_by_one(brokers: Brokers) -> None:
    async with sides(brokers, "event") as (east, west):
        rooms = ("room-1", "room-2", "room-3")
        for side in (east, west):
            for room in rooms:
                await side.cluster.room(room)
        for room in rooms:
            await west.cascade(east, room)
            await heard(west.cluster.nodes[room], "c-east", 1)
            await heard(east.cluster.nodes[room], "c-west", 1)
        await west.cascade(east, "room-1")  # again: it is cascaded, and stays so
        stats = await west.call("event", "getStats")
        assert stats["connections_dialled"] == 1
        # A node that dies takes its room's streams along, and no others.
        gone = east.cluster.nodes["room-1"]
        await east.cluster.kill("room-1")
        assert (await heard(west.cluster.nodes["room-1"], "c-east", 2))[1] == {
            "type": "onCascadingDisconnected"
        }
        # A room that closes likewise.
        about = {"rpcId": east.cluster.nodes["room-2"].id}
        assert await east.call("event", "destroyRoom", "p1", about, {"room": "room-2"}) == "ok"
        west.cluster.nodes["room-2"].events.clear()
        await east.cluster.nodes["room-3"].say("addParticipant", BOB)
        assert await heard(west.cluster.nodes["room-3"], "c-east", 2)
        assert west.cluster.nodes["room-3"].remote == {"c-east": {"p2": BOB}}
        assert [event["type"] for event in gone.of("c-west")] == ["initialize"]


async def test_a_wrong_token_is_refused_for_each_conference_anew(brokers: Brokers) -> None:
    async with sides(brokers, "event") as (east, west):
        for side in (east, west):
            for room in ("room-1", "room-2"):
                await side.cluster.room(room)
        await west.cascade(east, "room-1")
        await heard(west.cluster.nodes["room-1"], "c-east", 1)
        east.cluster.nodes["room-2"].token = "another"
        right = east.cluster.nodes["room-2"]
        options: dict[str, Any] = {"room": "room-2", "token": "guessed"}
        options |= {"selfCluster": "c-west", "targetCluster": "c-east"}
        info = await east.call("event", "getInfo")
        options |= {"evIP": info["ip"], "evPort": info["port"], "mediaIP": "192.0.2.1", "mediaPort": 9}
        assert await west.call("event", "startCascading", options) == "ok"
        async with asyncio.timeout(WAIT):
            while (await east.call("event", "getStats"))["refused_tokens"] < 2:
                pass
        assert right.events == []
        assert right.bridges == []


async def test_a_dead_bridge_is_taken_down_by_its_peer_and_comes_back(brokers: Brokers) -> None:
    """The manager announces a worker that it does not hear: what came through it is gone, and comes anew."""
    async with sides(brokers, "event") as (east, west):
        node, other = [await side.cluster.room("room-1") for side in (east, west)]
        node.participants = {"p1": ALICE}
        await west.cascade(east, "room-1")
        await heard(other, "c-east", 1)
        await heard(node, "c-west", 1)
        await east.cluster.drop(await east.cluster.joined("eventbridge"))
        types = [event["type"] for event in await heard(other, "c-east", 3)]
        assert types == ["initialize", "onCascadingDisconnected", "initialize"]
        assert other.remote == {"c-east": {"p1": ALICE}}


async def test_a_session_outlives_a_restart_of_both_brokers(brokers: Brokers) -> None:
    async with sides(brokers, "event") as (east, west):
        node, other = [await side.cluster.room("room-1") for side in (east, west)]
        await west.cascade(east, "room-1")
        await heard(other, "c-east", 1)
        await heard(node, "c-west", 1)
        await asyncio.gather(*(broker.restart() for broker in brokers))
        for side in (east, west):
            # A manager drops what it does not hear, and nobody hears it say so. Not before its broker is
            # gone: the worker would have joined again by then, and would not be waited for.
            side.cluster.workers.clear()
            await side.cluster.start()
        for side in (east, west):
            await side.cluster.joined("eventbridge")
        for number in range(20):
            await node.say("addParticipant", {**BOB, "id": f"e{number}"})
            await other.say("addParticipant", {**BOB, "id": f"w{number}"})
        await heard(other, "c-east", 21)
        await heard(node, "c-west", 21)
        assert [event["type"] for event in other.of("c-east")] == ["initialize"] + ["addParticipant"] * 20
        assert list(node.remote["c-west"]) == [f"w{number}" for number in range(20)]
        (link,) = (await west.call("event", "getStats"))["links"]
        assert (link["state"], link["connects"]) == ("up", 1)


async def test_media_crosses_byte_for_byte(brokers: Brokers) -> None:
    async with sides(brokers, "media") as (east, west):
        node, other = [await side.cluster.room("room-1") for side in (east, west)]
        await west.cascade(east, "room-1")
        hub = await InternalListener.start()
        asked = Changes()
        feedback: list[Feedback] = []

        def note(message: Feedback) -> None:
            feedback.append(message)
            asked.note()

        video = hub.add_source("v", on_feedback=note, on_joined=lambda _: asked.note())
        audio = hub.add_source("a", on_joined=lambda _: asked.note())
        node.sources = {
            ("st1", "video"): {"id": "v", "ip": "127.0.0.1", "port": hub.port},
            ("st1", "audio"): {"id": "a", "ip": "127.0.0.1", "port": hub.port},
        }
        publish = {
            "controller": other.id,
            "type": "mediabridge",
            "originType": "webrtc",
            "cluster": "c-east",
            "room": "room-1",
            "pubArgs": [
                {"id": "0001", "type": "video", "from": "st1"},
                {"id": "0002", "type": "audio", "from": "st1"},
            ],
            "media": {"tracks": []},
            "formatPreference": {},
        }
        server = await west.cluster.media_node("session-1")
        call = west.cluster.bus.call
        assert await call(server, "publish", "session-1", "mediabridge", publish) == "ok"
        address = await call(server, "getInternalAddress")
        assert set(address) == {"ip", "port"}
        got: dict[str, list[MediaFrame]] = {"0001": [], "0002": []}
        came = Changes()
        receivers = []
        for track, frames in got.items():

            def take(frame: MediaFrame, frames: list[MediaFrame] = frames) -> None:
                frames.append(frame)
                came.note()

            receivers.append(
                await InternalReceiver.connect(
                    address["ip"], address["port"], track, on_frame=take, on_lost=lambda _: came.note()
                )
            )
        await asked.until(lambda: video.subscribers and audio.subscribers)
        worker = await east.cluster.joined("mediabridge")
        connection = "c-west:quic-session-1-0001"
        assert node.subscribed[connection] == {
            "type": "mediabridge",
            "room": "room-1",
            "cluster": "c-west",
            "connectionId": connection,
            "media": {"tracks": [{"id": "0001", "type": "video", "from": "st1"}]},
            "originType": "webrtc",
            "locality": {"agent": worker, "node": f"{worker}_0"},
        }
        await asked.until(lambda: feedback)
        assert feedback[0] == Feedback.request_key_frame()
        pictures = [picture(n, key=n % 10 == 0, size=1 + 977 * n) for n in range(30)]
        sounds = [sound(n) for n in range(30)]
        for n in range(30):
            video.write(pictures[n])
            audio.write(sounds[n])
            await came.until(lambda n=n: len(got["0001"]) > n and len(got["0002"]) > n)  # type: ignore[misc] # bound now
        assert got == {"0001": pictures, "0002": sounds}
        # The sending side takes the track away, and names it again.
        east_node = await east.cluster.media_node("x")
        assert await east.cluster.bus.call(east_node, "cutoff", connection) == "ok"
        await asked.until(lambda: not video.subscribers)
        again = {"video": {"id": "v", "ip": "127.0.0.1", "port": hub.port}}
        assert await east.cluster.bus.call(east_node, "linkup", connection, again) == "ok"
        await asked.until(lambda: video.subscribers)
        # The receiving side's conference node dies: nobody is left who wanted the tracks.
        await west.cluster.kill("room-1")
        await came.until(lambda: all(receiver.closed for receiver in receivers))
        await east.cluster.bus.until(lambda: len(node.unsubscribed) == 2)
        about = {"room": "session-1", "task": "session-1"}
        assert await call(await west.cluster.joined("mediabridge"), "recycleNode", server, about) == "ok"
        await hub.close()


async def test_the_manager_schedules_a_bridge_that_has_joined(brokers: Brokers) -> None:
    async with sides(brokers, "event", "media") as (east, west):
        for purpose in ("eventbridge", "mediabridge"):
            found = await east.cluster.bus.call(MANAGER, "schedule", purpose, "room-1", "preference", 30_000)
            assert found["id"] == east.cluster.worker(purpose)
            assert found["info"]["purpose"] == purpose
        info = await west.call("media", "getInfo")
        assert (info["ip"], info["port"] > 0) == ("127.0.0.1", True)


async def test_the_command_with_owts_own_file(rabbitmq: RabbitMq, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        f"""
[rabbit]
host = "127.0.0.1"
port = {rabbitmq.port}
vhost = "{VHOST}"
username = "{USER}"
[cluster]
name = "{MANAGER}"
[bridge]
ip_address = "$BRIDGE_IP"
port = 0
"""
    )
    environment = {
        **os.environ,
        "BRIDGE_IP": "127.0.0.1",
        "CAUSEWAY_BRIDGE__AMQP__PASSWORD": PASSWORD,
        "CAUSEWAY_BRIDGE__STATUS__LISTEN": "off",
    }
    arguments = ["bridge", "--owt-config", str(file), "--kinds", "event"]
    async with owt_cluster("c-east", rabbitmq.url()) as cluster:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "causeway",
            *arguments,
            env=environment,
            stderr=asyncio.subprocess.STDOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                while cluster.worker("eventbridge") is None:
                    await cluster.bus.changed.wait()
                    cluster.bus.changed.clear()
            worker = await cluster.joined("eventbridge")
            info = await cluster.bus.call(worker, "getInfo")
            assert (info["id"], info["ip"]) == (worker, "127.0.0.1")
            process.terminate()
            output, _ = await process.communicate()
            await cluster.bus.until(lambda: cluster.quits == [worker])
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, output.decode()
    assert PASSWORD not in output.decode()
