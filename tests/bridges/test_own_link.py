"""Our own wire's shell against peers that a test leads by hand, over real QUIC; and nodes that are stuck."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridges.event.own.settings import OwnWireSettings
from bridges.quic import dial
from bridges.wire.own.codec import OwnDeframer, encode
from bridges.wire.own.errors import OwnCode
from bridges.wire.own.messages import Close, Hello, HelloLimits, Open, Opened, Position
from tests.bridges.event_side import ALICE, Probe, initialized, sites
from tests.bridges.test_own_bridge import OWN, QUIC, last_state, said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.quic import Connection
    from tests.bridges.event_side import Site

LIMITS = HelloLimits(message=1 << 20, channels=100, lanes=4, waiting=16)
LANE = 4
"""QUIC's number of the first lane that conferences go on."""


class Peer:
    """A dialer that says what a test wants."""

    def __init__(self, connection: Connection, probe: Probe) -> None:
        self.connection = connection
        self.probe = probe

    def say(self, stream: int, data: bytes) -> None:
        while self.connection.streams <= stream // 4:
            self.connection.open_stream()
        self.connection.send(stream, data)

    def greet(self, cluster: str = "west") -> None:
        self.say(0, encode(Hello([1], cluster, LIMITS)))

    def open(self, room: str, token: str, channel: int = 1) -> None:
        self.say(LANE, encode(Open(channel, room, token, {}, 100_000, Position(1, channel))))

    async def heard(self, stream: int, kind: type[Any]) -> Any:
        """Return the first message of a kind on a stream."""
        found: list[Any] = []

        def look(probe: Probe) -> bool:
            deframer = OwnDeframer(1 << 20)
            deframer.feed(probe.data.get(stream, b""))
            found.clear()
            while (framed := deframer.next_message()) is not None:
                found.append(framed.message)
            return any(isinstance(each, kind) for each in found)

        await self.probe.until(look)
        return next(each for each in found if isinstance(each, kind))

    async def closed(self) -> str:
        await self.probe.until(lambda probe: probe.lost)
        return self.probe.lost[0]


@asynccontextmanager
async def peer(site: Site) -> AsyncIterator[Peer]:
    connection = await dial(
        "127.0.0.1",
        site.bridge.port,
        fingerprint=site.certificate.fingerprint,
        settings=QUIC,
        alpn=("causeway/1",),
    )
    connection.handler = probe = Probe()
    try:
        yield Peer(connection, probe)
    finally:
        connection.close()
        await connection.wait_closed()


async def test_a_token_opens_a_conference_and_a_wrong_one_only_costs_that() -> None:
    async with sites("east", event=OWN, quic=QUIC) as [east], peer(east) as west:
        west.greet()
        assert (await west.heard(0, Hello)).cluster == "east"
        west.open("room-1", "guessed")
        assert (await west.heard(LANE, Close)).code == OwnCode.TOKEN_REFUSED
        west.open("room-9", "east-room-1-token", channel=2)
        west.open("room-1", "east-room-1-token", channel=3)
        assert (await west.heard(LANE, Opened)).channel == 3
        assert (await east.call("getStats"))["refused_tokens"] == 2


@pytest.mark.parametrize(
    ("stream", "sent", "code"),
    [
        (0, b"\x00\x00\x00\x00", OwnCode.FRAMING),
        (0, b"\x7f\xff\xff\xff", OwnCode.FRAMING),
        (0, b"\x00\x00\x00\x03abc", OwnCode.MESSAGE),
        (0, encode(Hello([99], "west", LIMITS)), OwnCode.VERSION),
        (0, encode(Hello([1], "east", LIMITS)), OwnCode.IDENTITY),
        (LANE, encode(Open(1, "room-1", "token", {}, 100, Position(1, 1))), OwnCode.SEQUENCE),
    ],
)
async def test_what_breaks_the_wire_closes_that_connection_and_no_other(
    stream: int, sent: bytes, code: OwnCode
) -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        async with peer(east) as rogue:
            rogue.say(stream, sent)
            assert f"0x{code:x}" in await rogue.closed()
        assert east.bridge.figures().counters[f"closed_{code.name.lower()}"] == 1
        await west.node.emit("room-1", {"type": "addParticipant", "data": ALICE})
        await east.node.until(lambda: "p1" in last_state(east, "west"))


async def test_a_lane_that_ends_or_is_given_up_ends_the_connection() -> None:
    async with sites("east", event=OWN, quic=QUIC) as [east]:
        async with peer(east) as west:
            west.greet()
            await west.heard(0, Hello)
            west.connection.reset_stream(0, 0)
            assert f"0x{OwnCode.SEQUENCE:x}" in await west.closed()
        async with peer(east) as west:
            west.greet()
            await west.heard(0, Hello)
            west.connection.send(0, b"", end=True)
            assert f"0x{OwnCode.SEQUENCE:x}" in await west.closed()


async def test_a_peer_that_says_nothing_is_given_up() -> None:
    event = msgspec.structs.replace(OWN, own=OwnWireSettings(hello_timeout=0.2))
    async with sites("east", event=event, quic=QUIC) as [east], peer(east) as west:
        west.say(0, b"\x00")
        assert f"0x{OwnCode.TIMED_OUT:x}" in await west.closed()


async def test_nobody_takes_a_living_clusters_name() -> None:
    async with sites(event=OWN, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        async with peer(east) as posing:
            posing.greet("west")
            posing.open("room-1", "east-room-1-token")
            assert (await posing.heard(LANE, Close)).code == OwnCode.IDENTITY
        await west.node.emit("room-1", {"type": "addParticipant", "data": ALICE})
        await east.node.until(lambda: "p1" in last_state(east, "west"))


async def test_a_stuck_node_costs_bounded_memory_and_has_the_same_state_in_the_end() -> None:
    own = OwnWireSettings(ping_interval=0.1, origin_grace=5.0, log_events=20, credit_bytes=4096)
    event = msgspec.structs.replace(OWN, own=own, node_call_timeout=20.0)
    async with sites(event=event, quic=QUIC) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        east.node.deliver.clear()
        for number in range(300):
            await west.node.emit("room-1", {"type": "addParticipant", "data": {**ALICE, "id": f"p{number}"}})
        room = east.bridge._own._rooms["room-1"]
        await east.until_link("room-1", lambda _link: room.waiting)
        assert room.waiting < 100
        assert len(said(east, "west")) <= 2
        east.node.deliver.set()
        await east.node.until(lambda: len(last_state(east, "west")) == 300)


async def test_a_listener_that_is_silent_on_our_wire_is_tried_again() -> None:
    event = msgspec.structs.replace(OWN, own=OwnWireSettings(hello_timeout=0.1, origin_grace=0.5))
    async with sites(event=event, quic=QUIC) as [west, east]:
        taken = east.bridge._own.take

        def deaf(connection: Connection, peer: str | None) -> Any:
            east.bridge._own.take = taken  # type: ignore[method-assign] # heard from the second time on
            del connection, peer
            return Probe()

        east.bridge._own.take = deaf  # type: ignore[method-assign] # a peer that hears nothing
        await west.cascade(east, "room-1")
        await initialized(east, west)
