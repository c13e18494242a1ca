"""Peers that break OWT's wire, lie about who they are, or do not read: what that costs, and whom."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridges.codes import CloseCode, is_fault, name_of
from bridges.quic import Certificate, listen
from bridges.wire import framing
from bridges.wire.frame import Feedback
from bridges.wire.framing import Metadata
from bridges.wire.messages import BridgeHello, Event, Ready
from tests.bridges.event_side import (
    EVENT,
    QUIC,
    WAIT,
    Probe,
    Site,
    encoded,
    initialized,
    knock,
    silence,
    sites,
    up,
)
from tests.bridges.test_quic_flood import strangers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.quic import Connection

READY = encoded(Ready(target="west"))
BARE_READY = encoded(Ready())
SOMETHING = encoded(Event(type="removeParticipant", data="p1"))


def hello(room: str = "room-1", *, token: str | None = None) -> bytes:
    return READY + encoded(BridgeHello(room=room, token=token or f"east-{room}-token"))


def gone(name: str) -> bytes:
    return encoded(Event(type="removeParticipant", data=name))


OWT = msgspec.structs.replace(QUIC, alpn=("h3",))
"""Two bridges of ours that speak OWT's wire with each other."""

FAULTS = {
    "unknown type byte": (b"\0\0\0\x02\x77x", 0x104),
    "unknown message": (framing.encode(Metadata(b'{"type":"shutdown"}')), 0x104),
    "message of the media bridge": (framing.encode(Metadata(b'{"type":"track","id":"t"}')), 0x104),
    "feedback": (framing.encode(Feedback.request_key_frame()), 0x104),
    "oversized": (b"\x7f\xff\xff\xff\x3a", 0x105),
    "a message of no bytes": (b"\0\0\0\0\x3a", 0x101),
    "no JSON": (framing.encode(Metadata(b"{\xff")), 0x102),
    "another shape": (framing.encode(Metadata(b'{"type":"removeParticipant","data":7}')), 0x102),
    "deeply nested": (framing.encode(Metadata(b'{"type":' + b"[" * 2000)), 0x102),
}


@pytest.mark.parametrize(("sent", "code"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_on_one_conference_is_told_counted_and_costs_no_other(sent: bytes, code: int) -> None:
    async with sites("east", rooms=("room-1", "room-2")) as [east]:
        connection, probe = await knock(east)
        good, bad = connection.open_stream(), connection.open_stream()
        connection.send(good, hello("room-1") + gone("a"))
        connection.send(bad, hello("room-2") + gone("b"))
        await east.node.until(lambda: all(room.of("west") for room in east.node.rooms.values()))
        connection.send(bad, sent + gone("never"))
        assert await probe.reset_code(bad) == code
        connection.send(good, gone("c"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 2)
        await east.node.until(
            lambda: (
                east.node.rooms["room-2"].types("west") == ["removeParticipant", "onCascadingDisconnected"]
            )
        )
        assert east.bridge.figures().counters[name_of(code)] == 1
        assert list(probe.resets) == [bad]
        connection.close()
        await connection.wait_closed()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (SOMETHING, 0x103),
        (READY + SOMETHING, 0x103),
        (encoded(BridgeHello(room="room-1", token="east-room-1-token")), 0x103),
        (READY + READY, 0x106),
        (BARE_READY, 0x102),
        (hello(token="guessed"), CloseCode.TOKEN_REFUSED),
        (hello("elsewhere"), CloseCode.TOKEN_REFUSED),
        (hello().replace(b"west", b"east"), CloseCode.IDENTITY),
        (b"\0\0\x20\0\x3a" + b" " * 5000, 0x105),
        (hello() + bytes([0, 255, 255, 255, 0x3A]) + b" " * (1 << 19), 0x105),
    ],
)
async def test_what_comes_before_its_time_or_twice_is_told_counted_and_not_looked_at(
    sent: bytes, code: int
) -> None:
    async with sites("east") as [east]:
        connection, probe = await knock(east)
        bad = connection.open_stream()
        connection.send(bad, sent)
        assert await probe.reset_code(bad) == code
        assert east.bridge.figures().counters[name_of(code)] == 1
        assert east.node.rooms["room-1"].types("west") in ([], ["onCascadingDisconnected"])
        connection.close()
        await connection.wait_closed()


@pytest.mark.parametrize("again", [READY, encoded(BridgeHello(room="room-1", token="east-room-1-token"))])
async def test_a_greeting_that_is_said_again_ends_the_stream_and_the_next_one_begins_anew(
    again: bytes,
) -> None:
    async with sites("east") as [east]:
        connection, probe = await knock(east)
        stream = connection.open_stream()
        connection.send(stream, hello() + gone("a"))
        await east.node.until(lambda: east.node.rooms["room-1"].of("west"))
        connection.send(stream, again)
        assert await probe.reset_code(stream) == 0x106
        second = connection.open_stream()
        connection.send(second, hello() + gone("b"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 3)
        connection.close()
        await connection.wait_closed()


async def test_a_connection_with_nothing_but_faults_is_closed_and_one_that_was_let_in_is_not() -> None:
    few = msgspec.structs.replace(EVENT, max_faults=3)
    async with sites("east", event=few) as [east]:
        stranger, probe = await knock(east)
        for _ in range(3):
            stranger.send(stranger.open_stream(), hello(token="guessed"))
        await probe.until(lambda p: p.lost)
        assert f"0x{CloseCode.FAULTS:x}" in probe.lost[0]
        known, known_probe = await knock(east)
        good = known.open_stream()
        known.send(good, hello() + gone("a"))
        await east.node.until(lambda: east.node.rooms["room-1"].of("west"))
        for _ in range(5):
            bad = known.open_stream()
            known.send(bad, hello(token="guessed"))
            assert await known_probe.reset_code(bad) == CloseCode.TOKEN_REFUSED
        known.send(good, gone("b"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 2)
        assert known_probe.lost == []
        counters = east.bridge.figures().counters
        assert counters["token_refused"] == 8
        assert counters["faults"] == 1
        known.close()
        await known.wait_closed()


async def test_a_connection_is_of_one_cluster() -> None:
    async with sites("east", rooms=("room-1", "room-2")) as [east]:
        connection, probe = await knock(east)
        good, bad = connection.open_stream(), connection.open_stream()
        connection.send(good, hello("room-1") + gone("a"))
        await east.node.until(lambda: east.node.rooms["room-1"].of("west"))
        connection.send(bad, hello("room-2").replace(b"west", b"nord"))
        assert await probe.reset_code(bad) == CloseCode.IDENTITY
        assert east.node.rooms["room-2"].events == []
        connection.send(good, gone("b"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 2)
        connection.close()
        await connection.wait_closed()


async def test_two_names_at_once_on_one_connection_are_one_too_many() -> None:
    async with sites("east", rooms=("room-1", "room-2")) as [east]:
        connection, probe = await knock(east)
        one, other = connection.open_stream(), connection.open_stream()
        connection.send(one, hello("room-1"))
        connection.send(other, hello("room-2").replace(b"west", b"nord"))
        await probe.until(lambda p: p.resets)
        assert list(probe.resets.values()) == [CloseCode.IDENTITY]
        connection.close()
        await connection.wait_closed()


async def test_a_name_belongs_to_the_connection_that_has_it_until_that_one_is_silent() -> None:
    async with sites("east") as [east]:
        first, first_probe = await knock(east)
        stream = first.open_stream()
        first.send(stream, hello() + gone("true"))
        await east.node.until(lambda: east.node.rooms["room-1"].of("west"))
        second, second_probe = await knock(east)
        posing = second.open_stream()
        second.send(posing, hello() + gone("false"))
        assert await second_probe.reset_code(posing) == CloseCode.IDENTITY
        first.send(stream, gone("true too"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 2)
        assert first_probe.resets == {}

        silence(first)  # as if it had been killed: another start of the same cluster is let in
        third, third_probe = await knock(east)
        anew = third.open_stream()
        third.send(anew, hello() + gone("new"))
        await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 4)
        assert [event.get("data") for event in east.node.rooms["room-1"].of("west")] == [
            "true",
            "true too",
            None,
            "new",
        ]
        assert third_probe.resets == {}
        for connection in (first, second, third):
            connection.close()
            await connection.wait_closed()


async def test_a_name_that_is_held_on_our_own_wire_is_not_to_be_had_on_owts() -> None:
    own = msgspec.structs.replace(QUIC, alpn=("causeway/1", "h3"))
    async with sites(quic=own) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        posing, probe = await knock(east)
        stream = posing.open_stream()
        posing.send(stream, hello() + gone("false"))
        assert await probe.reset_code(stream) == CloseCode.IDENTITY
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "true"})
        await east.node.until(
            lambda: east.node.rooms["room-1"].types("west") == ["initialize", "removeParticipant"]
        )
        posing.close()
        await posing.wait_closed()


@asynccontextmanager
async def rogue() -> AsyncIterator[tuple[dict[str, Any], asyncio.Queue[tuple[Connection, Probe]]]]:
    """Listen as another cluster's bridge that a test leads by hand; yields how it is cascaded to."""
    certificate = Certificate.self_signed("rogue")
    connections: list[Connection] = []
    accepted: asyncio.Queue[tuple[Connection, Probe]] = asyncio.Queue()

    def accept(connection: Connection) -> Probe:
        probe = Probe()
        connections.append(connection)
        accepted.put_nowait((connection, probe))
        return probe

    listener = await listen("127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=OWT)
    where = {"evIP": "127.0.0.1", "evPort": listener.port, "evFingerprint": certificate.fingerprint}
    try:
        yield where, accepted
    finally:
        listener.close()
        for connection in connections:
            await connection.wait_closed()


async def ordered(west: Site, where: dict[str, Any], room: str) -> None:
    options = {"room": room, "token": "t", "selfCluster": "west", "targetCluster": "rogue", **where}
    assert await west.call("startCascading", {**options, "mediaIP": "127.0.0.1", "mediaPort": 1}) == "ok"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (SOMETHING, 0x103),
        (BARE_READY + BARE_READY, 0x106),
        (BARE_READY + FAULTS["unknown message"][0], 0x104),
        (BARE_READY + FAULTS["oversized"][0], 0x105),
        (BARE_READY + FAULTS["no JSON"][0], 0x102),
    ],
)
async def test_a_listener_that_breaks_the_wire_loses_that_stream_only(sent: bytes, code: int) -> None:
    async with sites("west", rooms=("room-1", "room-2")) as [west], rogue() as (where, accepted):
        await ordered(west, where, "room-1")
        async with asyncio.timeout(WAIT):
            connection, probe = await accepted.get()
        await probe.until(lambda p: p.data)
        (good,) = probe.data
        connection.send(good, BARE_READY + gone("a"))
        await west.node.until(lambda: west.node.rooms["room-1"].of("rogue"))
        await ordered(west, where, "room-2")
        await probe.until(lambda p: len(p.data) == 2)
        bad = max(probe.data)
        connection.send(bad, sent)
        assert await probe.reset_code(bad) == code
        connection.send(good, gone("b"))
        await west.node.until(lambda: len(west.node.rooms["room-1"].of("rogue")) == 2)
        assert good not in probe.resets
        assert west.bridge.figures().counters[name_of(code)] >= 1


async def test_a_reader_that_is_slow_costs_bounded_memory_and_gets_the_whole_state_when_it_is_back() -> None:
    limit = 20_000
    slow = msgspec.structs.replace(EVENT, max_backlog_bytes=limit)
    patient = msgspec.structs.replace(OWT, idle_timeout=30.0)
    async with sites(event=slow, quic=patient) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        (stream,) = west.bridge._delivery.table.sessions()
        deaf: Any = stream.connection.quic
        deaf.receive_datagram = lambda *_, **__: None  # what the peer acknowledges is not heard
        for number in range(60):
            await west.node.emit("room-1", {"type": "removeParticipant", "data": f"{number}-" + "x" * 1000})
            assert stream.backlog <= limit + 2000
        assert stream.ended
        del deaf.receive_datagram
        await initialized(east, west, times=2)
        await west.until_link("room-1", up)
        assert west.bridge.figures().counters["too_slow"] == 1
        await west.node.emit("room-1", {"type": "removeParticipant", "data": "last"})
        await east.node.until(
            lambda: {"type": "removeParticipant", "data": "last"} in east.node.rooms["room-1"].of("west")
        )
        types = east.node.rooms["room-1"].types("west")
        assert types.index("onCascadingDisconnected") < len(types) - 1 - types[::-1].index("initialize")


async def test_a_crowd_at_the_door_disturbs_nobody_inside_and_keeps_no_peer_out() -> None:
    crowded = msgspec.structs.replace(OWT, retry_above=8, max_unverified_per_address=16, idle_timeout=30.0)
    # The crowd is made in this very process, which holds everything up for a while.
    patient = msgspec.structs.replace(EVENT, node_call_timeout=WAIT)
    async with sites(rooms=("room-1", "room-2"), quic=crowded, event=patient) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        with strangers(east.bridge.port, 60, host="127.0.0.7"):
            idlers = [await knock(east) for _ in range(8)]  # handshakes done, and not a word
            for connection, _ in idlers[:4]:
                connection.send(connection.open_stream(), b"\xff" * 4000)
            for _, probe in idlers[:4]:
                assert await probe.reset_code(0) == 0x104
            for number in range(20):
                await west.node.emit("room-1", {"type": "removeParticipant", "data": str(number)})
            await east.node.until(lambda: len(east.node.rooms["room-1"].of("west")) == 21)
            await west.cascade(east, "room-2")
            await initialized(east, west, "room-2")
            counters = east.bridge.figures().counters
            assert counters["retry_sent"] >= 50
            assert counters["unknown"] == 4
        assert east.node.rooms["room-1"].types("west")[0] == "initialize"
        assert west.node.rooms["room-1"].types("east").count("initialize") == 1
        for connection, _ in idlers:
            connection.close()
            await connection.wait_closed()


async def test_conferences_go_on_further_connections_and_one_that_ends_leaves_the_others() -> None:
    rooms = tuple(f"room-{number}" for number in range(7))
    two = msgspec.structs.replace(EVENT, conferences_per_connection=2)
    async with sites(rooms=rooms, event=two, quic=OWT) as [west, east]:
        for room in rooms:
            await west.cascade(east, room)
        for room in rooms:
            await initialized(east, west, room)
            await initialized(west, east, room)
        assert (await west.call("getStats"))["connections_dialled"] == 4
        assert (await east.call("getStats"))["connections_accepted"] == 4
        carriers = {s.room: s.connection for s in west.bridge._delivery.table.sessions()}
        await west.call("stopCascading", {"room": "room-0", "targetCluster": "east"})
        await east.node.until(lambda: "onCascadingDisconnected" in east.node.rooms["room-0"].types("west"))
        assert not carriers["room-0"].closed
        for room in rooms[1:]:
            await west.node.emit(room, {"type": "removeParticipant", "data": room})
            await east.node.until(lambda room=room: east.node.rooms[room].of("west")[-1].get("data") == room)  # type: ignore[misc] # mypy: lambda default
        silence(carriers["room-1"])  # a lost connection takes its own conferences only, and they come back
        await initialized(east, west, "room-1", times=2)
        assert all(
            east.node.rooms[room].types("west").count("initialize") == 1
            for room in rooms
            if carriers[room] is not carriers["room-1"]
        )
        for room in rooms[1:]:
            await west.call("stopCascading", {"room": room, "targetCluster": "east"})
        await west.node.until(lambda: len(west.bridge._dialler) == 0)


async def test_a_peer_that_takes_few_streams_or_connections_is_believed() -> None:
    rooms = ("room-1", "room-2", "room-3")
    limited = msgspec.structs.replace(EVENT, connections_per_peer=2)
    async with sites(rooms=rooms, event=limited, quic=OWT) as [west, east]:
        await west.cascade(east, rooms[0])
        await initialized(east, west, rooms[0])
        (stream,) = west.bridge._delivery.table.sessions()
        stream.connection.quic._remote_max_streams_bidi = 1
        await west.cascade(east, rooms[1])
        await initialized(east, west, rooms[1])
        for other in west.bridge._delivery.table.sessions():
            other.connection.quic._remote_max_streams_bidi = 1
        await west.cascade(east, rooms[2])
        await west.until_link(rooms[2], lambda link: link is not None and "all are full" in link["error"])
        assert len(west.bridge._dialler) == 2


async def test_nobody_at_the_address_is_learnt_once_for_all_conferences() -> None:
    rooms = tuple(f"room-{number}" for number in range(30))
    async with sites(
        rooms=rooms,
        event=msgspec.structs.replace(EVENT, conferences_per_connection=1),
        quic=msgspec.structs.replace(OWT, handshake_timeout=0.2),
    ) as [west, east]:
        port = east.bridge.port
        await east.stop()
        options = {
            "evIP": "127.0.0.1",
            "evPort": port,
            "evFingerprint": east.certificate.fingerprint,
        }
        for room in rooms:
            order = {"room": room, "token": "t", "selfCluster": "west", "targetCluster": "east", **options}
            await west.call("startCascading", {**order, "mediaIP": "127.0.0.1", "mediaPort": 1})
        for room in rooms:
            await west.until_link(room, lambda link: link is not None and link["error"])
        east._tasks = []


def test_codes_have_names() -> None:
    assert name_of(0x104) == "unknown"
    assert name_of(CloseCode.TOO_SLOW) == "too_slow"
    assert name_of(0xABC) == "0xabc"
    assert is_fault(0x101)
    assert is_fault(CloseCode.TOKEN_REFUSED)
    assert not is_fault(CloseCode.NOT_WANTED)
