"""Two event bridges over real QUIC, each with a real WebSocket to a scripted cluster."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from bridges.codes import CloseCode
from bridges.wire.messages import BridgeHello, Event, Ready
from tests.bridges.event_side import ALICE, EVENT, WAIT, Site, encoded, initialized, knock, silence, sites, up
from tests.bridges.node_stub import StubRpcError


async def test_info_names_address_and_fingerprint() -> None:
    async with sites("west") as [west]:
        assert await west.call("getInfo") == {
            "id": west.carrier.worker_id,
            "ip": "127.0.0.1",
            "port": west.bridge.port,
            "fingerprint": west.certificate.fingerprint,
        }
        purpose, worker, info = west.node.joins[0]
        assert purpose == "eventbridge"
        assert worker == west.carrier.worker_id
        assert info["port"] == west.bridge.port
        assert info["purpose"] == "eventbridge"
        assert info["state"] == 2


async def test_state_and_events_cross_both_ways_unchanged() -> None:
    async with sites() as [west, east]:
        west.node.rooms["room-1"].initialize = {"participants": {"p1": ALICE}, "streams": {}}
        east.node.rooms["room-1"].initialize = {
            "participants": {},
            "streams": {"s1": {"id": "s1", "media": {"tracks": []}, "odd": {"x": [True]}}},
        }
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        assert east.node.rooms["room-1"].of("west") == [
            {"type": "initialize", "data": west.node.rooms["room-1"].initialize}
        ]
        assert west.node.rooms["room-1"].of("east") == [
            {"type": "initialize", "data": east.node.rooms["room-1"].initialize}
        ]
        said: list[dict[str, Any]] = [
            {"type": "addParticipant", "data": {**ALICE, "id": "p2"}},
            {"type": "setStreamMute", "data": {"id": "s1", "track": "audio", "muted": True, "new": 1}},
            {"type": "removeParticipant", "data": "p2"},
        ]
        for event in said:
            await west.node.emit("room-1", event)
            await east.node.emit("room-1", event)
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 4)
        await west.node.until(lambda: len(west.node.rooms["room-1"].of("east")) == 4)
        assert east.node.rooms["room-1"].of("west")[1:] == said
        assert west.node.rooms["room-1"].of("east")[1:] == said

        dialer, listener = await west.link("room-1"), await east.link("room-1")
        expected = {
            "room": "room-1",
            "state": "up",
            "events_in": 4,
            "events_out": 4,
            "connects": 1,
            "error": "",
        }
        assert dialer == {"peer": "east", "role": "dialer", **expected}
        assert listener == {"peer": "west", "role": "listener", **expected}


async def test_wrong_token_is_refused_and_a_right_one_replaces_it() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1", token="guessed")
        await west.until_link("room-1", lambda link: link is not None and "TOKEN_REFUSED" in link["error"])
        stats = await east.call("getStats")
        assert stats["refused_tokens"] >= 1
        assert not any(method == "onCascadingConnected" for _, method, _ in east.node.calls)
        assert east.node.rooms["room-1"].events == []
        assert await east.link("room-1") is None
        await west.cascade(east, "room-1")
        await initialized(east, west)


async def test_unknown_room_at_the_listener_is_refused() -> None:
    async with sites() as [west, east]:
        west.node.room("only-west")
        await west.cascade(east, "only-west")
        await west.until_link("only-west", lambda link: link is not None and "TOKEN_REFUSED" in link["error"])


async def test_room_unknown_to_the_own_node_ends_the_link() -> None:
    async with sites() as [west, east]:
        east.node.room("only-east")
        await west.cascade(east, "only-east")
        await west.until_link("only-east", lambda link: link is None)
        assert not any(method == "getRoomToken" for _, method, _ in east.node.calls)


async def test_nothing_is_taken_before_the_token() -> None:
    async with sites("east") as [east]:
        connection, probe = await knock(east)
        stream = connection.open_stream()
        connection.send(stream, encoded(Ready(target="liar")))
        connection.send(stream, encoded(Event(type="removeParticipant", data="p1")))
        assert await probe.reset_code(stream) == 0x103
        early = connection.open_stream()
        connection.send(
            early,
            encoded(Ready(target="liar"))
            + encoded(BridgeHello(room="room-1", token="wrong"))
            + encoded(Event(type="removeParticipant", data="p1")),
        )
        assert await probe.reset_code(early) == CloseCode.TOKEN_REFUSED
        assert east.node.rooms["room-1"].events == []
        assert not any(method == "onCascadingConnected" for _, method, _ in east.node.calls)
        connection.close()
        await connection.wait_closed()


async def test_the_first_streams_token_does_not_open_the_second() -> None:
    async with sites("east", rooms=("room-1", "room-2")) as [east]:
        connection, probe = await knock(east)
        good = connection.open_stream()
        connection.send(
            good,
            encoded(Ready(target="west")) + encoded(BridgeHello(room="room-1", token="east-room-1-token")),
        )
        await east.node.until(lambda: any(m == "onCascadingConnected" for _, m, _ in east.node.calls))
        bad = connection.open_stream()
        connection.send(
            bad,
            encoded(Ready(target="west")) + encoded(BridgeHello(room="room-2", token="east-room-1-token")),
        )
        assert await probe.reset_code(bad) == CloseCode.TOKEN_REFUSED
        assert good not in probe.resets
        connection.close()
        await connection.wait_closed()


async def test_a_peer_that_poses_as_us_is_refused() -> None:
    async with sites("east") as [east]:
        connection, probe = await knock(east)
        stream = connection.open_stream()
        hello = BridgeHello(room="room-1", token="east-room-1-token")
        connection.send(stream, encoded(Ready(target="east")) + encoded(hello))
        assert await probe.reset_code(stream) == CloseCode.IDENTITY
        connection.close()
        await connection.wait_closed()


async def test_a_stream_that_says_nothing_is_ended() -> None:
    hasty = msgspec.structs.replace(EVENT, hello_timeout=0.1)
    async with sites("east", event=hasty) as [east]:
        connection, probe = await knock(east)
        stream = connection.open_stream()
        connection.send(stream, b"\0")
        assert await probe.reset_code(stream) == CloseCode.TIMED_OUT
        connection.close()
        await connection.wait_closed()


async def test_several_conferences_share_a_connection_and_end_alone() -> None:
    rooms = ("room-1", "room-2", "room-3")
    async with sites(rooms=rooms) as [west, east]:
        for room in rooms:
            await west.cascade(east, room)
        for room in rooms:
            await initialized(east, west, room)
            await initialized(west, east, room)
        assert (await west.call("getStats"))["connections_dialled"] == 1
        assert (await east.call("getStats"))["connections_accepted"] == 1
        assert await west.call("destroyRoom", "room-2") == "ok"
        await east.node.until(
            lambda: east.node.rooms["room-2"].types("west")[-1] == "onCascadingDisconnected"
        )
        assert await west.link("room-2") is None
        for room in ("room-1", "room-3"):
            await west.node.emit(room, {"type": "removeParticipant", "data": "x"})
            await east.node.until(
                lambda room=room: east.node.rooms[room].types("west")[-1] == "removeParticipant"  # type: ignore[misc] # mypy: lambda default
            )
            assert "onCascadingDisconnected" not in east.node.rooms[room].types("west")
        assert (await west.call("getStats"))["connections_dialled"] == 1
        for room in ("room-1", "room-3"):
            await west.call("destroyRoom", room)
        async with asyncio.timeout(WAIT):
            while (await east.call("getStats"))["connections_accepted"]:
                pass


async def test_listener_destroys_its_room_and_the_dialer_hears_it() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        del east.node.rooms["room-1"]
        await east.call("destroyRoom", "room-1")
        await west.node.until(
            lambda: west.node.rooms["room-1"].types("east")[-1] == "onCascadingDisconnected"
        )


async def test_killed_peer_is_reported_redialled_and_resynchronised() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        silence(next(iter(east.bridge._listener._connections)))  # type: ignore[union-attr] # it listens
        # Both notice the silence, tell their nodes, and the dialer comes back with the whole state.
        await initialized(west, east, times=2)
        await initialized(east, west, times=2)
        for site, peer in ((west, "east"), (east, "west")):
            assert site.node.rooms["room-1"].types(peer) == [
                "initialize",
                "onCascadingDisconnected",
                "initialize",
            ]
        link = await west.link("room-1")
        assert link is not None
        assert link["connects"] == 2


async def test_restarted_listener_with_another_certificate_is_refused_until_it_is_ordered() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await east.stop()
        settings = msgspec.structs.replace(east.settings, event_port=east.bridge.port)
        again = Site("east", east.node, settings)
        await east.node.until(lambda: not east.node.workers)
        await again.start()
        try:
            await west.until_link(
                "room-1", lambda link: link is not None and "another certificate" in link["error"]
            )
            assert west.node.rooms["room-1"].types("east")[-1] == "onCascadingDisconnected"
            await west.cascade(again, "room-1")
            await initialized(west, again, times=2)
        finally:
            await again.stop()


async def test_same_order_twice_changes_nothing() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await west.cascade(east, "room-1")
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "x"})
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 2)
        assert east.node.rooms["room-1"].types("west") == ["initialize", "removeParticipant"]


async def test_changed_order_replaces_the_session_at_once() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        east.node.rooms["room-1"].token = "new-token"
        await west.cascade(east, "room-1")
        await initialized(east, west, times=2)
        await initialized(west, east, times=2)
        assert east.node.rooms["room-1"].types("west") == [
            "initialize",
            "onCascadingDisconnected",
            "initialize",
        ]


async def test_newer_stream_of_a_peer_supersedes_the_older() -> None:
    async with sites("east") as [east]:
        connection, probe = await knock(east)
        hello = encoded(Ready(target="west")) + encoded(BridgeHello(room="room-1", token="east-room-1-token"))
        a = connection.open_stream()
        connection.send(a, hello + encoded(Event(type="removeParticipant", data="old")))
        await east.node.until(lambda: east.node.rooms["room-1"].types("west") == ["removeParticipant"])
        b = connection.open_stream()
        connection.send(b, hello + encoded(Event(type="removeParticipant", data="new")))
        assert await probe.reset_code(a) == CloseCode.SUPERSEDED
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 3)
        assert east.node.rooms["room-1"].of("west") == [
            {"type": "removeParticipant", "data": "old"},
            {"type": "onCascadingDisconnected"},
            {"type": "removeParticipant", "data": "new"},
        ]
        assert b not in probe.resets
        connection.close()
        await connection.wait_closed()


async def test_both_dialling_each_other_settles_on_one_stream() -> None:
    async with sites() as [west, east]:
        await asyncio.gather(west.cascade(east, "room-1"), east.cascade(west, "room-1"))

        def said() -> list[str]:
            room = east.node.rooms.get("room-1")
            events = [] if room is None else room.of("west")
            return [event["data"] for event in events if event["type"] == "removeParticipant"]

        async with asyncio.timeout(WAIT):
            for number in itertools.count():
                links = [await west.link("room-1"), await east.link("room-1")]
                if all(up(link) for link in links) and {link["role"] for link in links if link} == {
                    "dialer",
                    "listener",
                }:
                    if len(said()) >= 5:
                        break
                    # What is said on a stream that is just being given up is lost: something else is said.
                    await west.node.emit("room-1", {"type": "removeParticipant", "data": f"x{number}"})
        assert len(said()) == len(set(said())), "nothing is said twice"


async def test_lost_cluster_ends_all_streams_and_its_return_brings_them_back() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        await west.node.stop()
        await east.node.until(
            lambda: east.node.rooms["room-1"].types("west")[-1] == "onCascadingDisconnected"
        )
        await west.node.start()
        await west.node.joined("eventbridge")
        await initialized(east, west, times=2)
        await initialized(west, east, times=2)
        # The node itself had forgotten us: nobody tells it of a disconnection that it made.
        assert west.node.rooms["room-1"].types("east") == ["initialize", "initialize"]


async def test_lost_cluster_of_the_listener() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await east.node.stop()
        await west.node.until(
            lambda: west.node.rooms["room-1"].types("east")[-1] == "onCascadingDisconnected"
        )
        await east.node.start()
        await initialized(east, west, times=2)


async def test_slow_node_costs_the_stream_not_the_memory() -> None:
    small = msgspec.structs.replace(EVENT, max_queued_events=20, node_call_timeout=300.0)
    async with sites(event=small) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        east.node.deliver.clear()
        for number in range(30):
            await west.node.emit("room-1", {"type": "removeParticipant", "data": f"p{number}"})
        async with asyncio.timeout(WAIT):
            while (await east.call("getStats"))["overflows"] < 1:
                pass
        await west.node.until(lambda: "onCascadingDisconnected" in west.node.rooms["room-1"].types("east"))
        east.node.deliver.set()
        # Once the node takes events again, the disconnection comes first and then the whole state.
        await initialized(east, west, times=2)
        types = east.node.rooms["room-1"].types("west")
        assert types.index("onCascadingDisconnected") < len(types) - 1
        assert types[types.index("onCascadingDisconnected") + 1] == "initialize"


async def test_stuck_node_costs_the_stream_and_hears_of_the_end_later() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        east.node.deliver.clear()
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "x"})
        await west.node.until(lambda: "onCascadingDisconnected" in west.node.rooms["room-1"].types("east"))
        east.node.deliver.set()
        await initialized(east, west, times=2)


async def test_event_that_the_node_refuses_is_counted_and_the_stream_stays() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)

        async def refuse(_to: str, args: list[Any]) -> Any:
            if args[2]["type"] == "removeStream":
                raise StubRpcError("no")
            east.node.rooms["room-1"].events.append((args[1], args[2]))
            return "ok"

        east.node.handlers["handleCascadingEvents"] = refuse
        await west.node.emit("room-1", {"type": "removeStream", "data": "s"})
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "p"})
        await east.node.until(lambda: east.node.rooms["room-1"].types("west")[-1] == "removeParticipant")
        assert (await east.call("getStats"))["rejected_events"] == 1


async def test_room_that_vanishes_at_the_node_ends_stream_and_link() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        del west.node.rooms["room-1"]
        await east.node.emit("room-1", {"type": "removeParticipant", "data": "p"})
        await west.until_link("room-1", lambda link: link is None)
        await east.node.until(
            lambda: east.node.rooms["room-1"].types("west")[-1] == "onCascadingDisconnected"
        )
