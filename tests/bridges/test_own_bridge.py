"""Event bridges that speak our own wire, over real QUIC, each with a real WebSocket to a scripted cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridges.event.own.settings import OwnWireSettings
from bridges.quic import QuicSettings
from tests.bridges.event_side import ALICE, EVENT, WAIT, initialized, sites, up

if TYPE_CHECKING:
    from tests.bridges.event_side import Site

QUIC = QuicSettings(alpn=("causeway/1", "h3"), idle_timeout=0.6, keepalive=0.15, handshake_timeout=2.0)
OWN = msgspec.structs.replace(EVENT, own=OwnWireSettings(ping_interval=0.1, origin_grace=0.5))
STREAM = {"id": "s1", "media": {"tracks": []}, "odd": {"x": [True]}}


def said(site: Site, by: str, room: str = "room-1") -> list[dict[str, Any]]:
    return site.node.rooms[room].of(by)


async def heard(site: Site, by: str, count: int, room: str = "room-1") -> list[dict[str, Any]]:
    await site.node.until(lambda: len(said(site, by, room)) >= count)
    return said(site, by, room)


async def gone(site: Site, by: str) -> None:
    await site.node.until(lambda: said(site, by)[-1]["type"] == "onCascadingDisconnected")


async def test_state_and_events_cross_both_ways_unchanged() -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        west.node.rooms["room-1"].initialize = {"participants": {"p1": ALICE}, "streams": {}}
        east.node.rooms["room-1"].initialize = {"participants": {}, "streams": {"s1": STREAM}}
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        assert said(east, "west")[0]["data"] == west.node.rooms["room-1"].initialize
        assert said(west, "east")[0]["data"] == east.node.rooms["room-1"].initialize
        events: list[dict[str, Any]] = [
            {"type": "addParticipant", "data": {**ALICE, "id": "p2"}},
            {"type": "setStreamMute", "data": {"id": "s1", "track": "audio", "muted": True, "new": 1}},
            {"type": "removeParticipant", "data": "p2"},
        ]
        for event in events:
            await west.node.emit("room-1", event)
            await east.node.emit("room-1", event)
        assert (await heard(east, "west", 4))[1:] == events
        assert (await heard(west, "east", 4))[1:] == events
        for site, peer, role in ((west, "east", "dialer"), (east, "west", "listener")):
            link = await site.link("room-1")
            assert link is not None
            assert (link["peer"], link["role"], link["state"]) == (peer, role, "up")
            figures = next(iter(site.bridge.figures().links))
            assert (figures.wire, figures.peer) == ("causeway/1", peer)
            assert figures.sequence_out == 3
        assert "east" in west.bridge.round_trips()


async def test_a_break_is_resumed_and_nobody_notices() -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        for number in range(20):
            if number % 5 == 2:
                for connection in list(west.bridge._own._connections):
                    connection.close(reason="cut by the test")
            await west.node.emit("room-1", {"type": "addParticipant", "data": {"id": f"w{number}"}})
            await east.node.emit("room-1", {"type": "addParticipant", "data": {"id": f"e{number}"}})
        for site, peer, letter in ((east, "west", "w"), (west, "east", "e")):
            events = (await heard(site, peer, 21))[1:]
            assert [event["data"]["id"] for event in events] == [f"{letter}{n}" for n in range(20)]


async def test_a_wrong_token_is_refused_and_other_conferences_go_on() -> None:
    async with sites(rooms=("room-1", "room-2"), event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-2")
        await initialized(east, west, "room-2")
        await west.cascade(east, "room-1", token="guessed")
        await west.until_link("room-1", lambda link: link is not None and "wrong token" in link["error"])
        assert (await east.call("getStats"))["refused_tokens"] >= 1
        await west.node.emit("room-2", {"type": "addParticipant", "data": ALICE})
        await heard(east, "west", 2, "room-2")
        await west.cascade(east, "room-1")
        await initialized(east, west)


async def test_a_peer_out_of_reach_is_given_up_after_the_grace_time_and_comes_back() -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        await west.call("stopCascading", {"room": "room-1", "targetCluster": "east"})
        await gone(west, "east")
        await gone(east, "west")
        await west.cascade(east, "room-1")
        await initialized(west, east, times=2)
        await initialized(east, west, times=2)


async def test_a_closed_room_ends_its_link_and_no_other() -> None:
    async with sites(rooms=("room-1", "room-2"), event=OWN, quic=QUIC) as [west, east]:
        for room in ("room-1", "room-2"):
            await west.cascade(east, room)
            await initialized(east, west, room)
        del west.node.rooms["room-1"]
        await west.call("destroyRoom", "room-1")
        await west.until_link("room-1", lambda link: link is None)
        await gone(east, "west")
        await west.node.emit("room-2", {"type": "addParticipant", "data": ALICE})
        await heard(east, "west", 2, "room-2")


@pytest.mark.parametrize("which", ["dialer", "listener"])
async def test_a_lost_cluster_comes_back_and_is_told_everything_anew(which: str) -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        lost, other = (west, east) if which == "dialer" else (east, west)
        other.node.rooms["room-1"].initialize = {"participants": {"p1": ALICE}, "streams": {}}
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        for worker in list(lost.node.workers.values()):
            worker.transport.abort()
        await initialized(lost, other, times=2)
        assert said(lost, other.cluster)[-1]["data"]["participants"] == {"p1": ALICE}
        assert "onCascadingDisconnected" not in other.node.rooms["room-1"].types(lost.cluster)
        await lost.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": "p9"}})
        await other.node.until(lambda: said(other, lost.cluster)[-1]["type"] == "addParticipant")


async def test_a_node_that_refuses_or_does_not_answer_is_told_anew_and_peers_wait() -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        east.node.deliver.clear()  # stuck
        for number in range(3):
            await west.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": f"p{number}"}})
        await east.until_link("room-1", lambda link: link is not None and link["state"] == "down")
        east.node.deliver.set()
        await initialized(east, west, times=2)
        await east.node.until(lambda: set(last_state(east, "west")) == {"p0", "p1", "p2"})
        await west.until_link("room-1", up)


def last_state(site: Site, by: str) -> dict[str, Any]:
    """Return the participants that the node has been told of since the last `initialize`."""
    state: dict[str, Any] = {}
    for event in said(site, by):
        if event["type"] == "initialize":
            state = dict(event["data"]["participants"])
        elif event["type"] == "addParticipant":
            state[event["data"]["id"]] = event["data"]
    return state


async def test_events_are_passed_on_where_links_relay_and_only_there() -> None:
    async with sites("west", "hub", "east", event=OWN, quic=QUIC) as [west, hub, east]:
        west.node.rooms["room-1"].initialize = {"participants": {"p1": ALICE}, "streams": {}}
        await hub.cascade(west, "room-1")
        await hub.cascade(east, "room-1")
        await initialized(hub, west)
        await initialized(hub, east)
        assert said(east, "west") == []
        hub.bridge.set_relays("room-1", {"west": (), "east": ()})
        await initialized(east, west)
        await initialized(west, east)
        assert said(east, "west")[0]["data"]["participants"] == {"p1": ALICE}
        await west.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": "p2"}})
        assert (await heard(east, "west", 2))[1]["data"]["id"] == "p2"
        hub.bridge.set_relays("room-1", {})
        await gone(east, "west")


async def test_a_peer_without_our_wire_is_spoken_to_as_owt() -> None:
    owt = msgspec.structs.replace(QUIC, alpn=("h3",))
    async with (
        sites("west", event=OWN, quic=QUIC) as [west],
        sites("east", event=OWN, quic=owt) as [east],
    ):
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        assert {link.wire for link in west.bridge.figures().links} == {"owt"}
        await east.until_link("room-1", up)


async def test_many_conferences_share_one_connection_and_come_back_together() -> None:
    rooms = tuple(f"room-{number}" for number in range(30))
    async with sites(rooms=rooms, event=OWN, quic=QUIC) as [west, east]:
        await asyncio.gather(*(west.cascade(east, room) for room in rooms))
        for room in rooms:
            await initialized(east, west, room)
        (connection,) = west.bridge._own._connections
        assert (await west.call("getStats"))["connections_dialled"] == 1
        assert connection.connection.streams <= OWN.own.lanes + 1
        connection.close(reason="cut by the test")
        async with asyncio.timeout(WAIT):
            await connection.connection.wait_closed()
        for room in rooms:
            await west.until_link(room, up)
            await west.node.emit(room, {"type": "addParticipant", "data": ALICE})
            await heard(east, "west", 2, room)
        assert (await west.call("getStats"))["connections_dialled"] == 1


async def test_what_a_relays_death_swallowed_comes_over_the_next_link() -> None:
    event = msgspec.structs.replace(OWN, own=OwnWireSettings(ping_interval=0.1, origin_grace=WAIT))
    async with sites("west", "hub", "east", event=event, quic=QUIC) as [west, hub, east]:
        hub.bridge.set_relays("room-1", {"west": (), "east": ()})
        await hub.cascade(west, "room-1")
        await hub.cascade(east, "room-1")
        await initialized(east, west)
        for number in range(10):
            await west.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": f"p{number}"}})
        await heard(east, "west", 11)
        await hub.stop()
        for number in range(10, 20):
            await west.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": f"p{number}"}})
        await east.cascade(west, "room-1")
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "p0"})
        events = await heard(east, "west", 22)
        assert [event["type"] for event in events] == [
            "initialize",
            *["addParticipant"] * 20,
            "removeParticipant",
        ]
        assert [event["data"]["id"] for event in events[1:-1]] == [f"p{number}" for number in range(20)]
