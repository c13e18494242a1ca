"""An agent that lets in only the clusters that control has named, on every wire."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridges.agent import serve
from bridges.codes import CloseCode
from bridges.control.settings import ControlSettings
from bridges.quic import QuicSettings, dial
from bridges.settings import BridgeSettings
from bridges.wire.messages import BridgeHello, ClusterHello, Ready
from tests.bridges import frozen_channel as frozen
from tests.bridges.control_stub import KEY, ControlStub
from tests.bridges.event_side import Probe, encoded, initialized, sites
from tests.bridges.node_stub import SECRET, NodeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.quic import Connection


@asynccontextmanager
async def east(node: NodeStub, control: ControlStub) -> AsyncIterator[None]:
    told = ControlSettings(url=control.url, key=KEY, region="eu", expected_only=True)
    settings = BridgeSettings(cluster="east", node_url=node.url, node_secret=SECRET, control=told)
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop=stop))
    try:
        await control.said_hello()
        yield
    finally:
        stop.set()
        await running


def desired(version: int, *peers: str) -> frozen.Desired:
    links = [frozen.DesiredLink(peer=peer, role="listen", attempt=1) for peer in peers]
    assignment = frozen.Assignment(conference="room-1", kinds=["event", "media"], links=links)
    return frozen.Desired(version=version, conferences=[assignment])


async def knocked(node: NodeStub, purpose: str, words: bytes) -> tuple[Connection, Probe]:
    """Dial a bridge of the process and say something on the first stream."""
    info: dict[str, Any] = await node.call(await node.joined(purpose), "getInfo")
    connection = await dial(
        info["ip"], info["port"], fingerprint=info["fingerprint"], settings=QuicSettings(), alpn=("h3",)
    )
    probe = Probe()
    connection.handler = probe
    connection.send(connection.open_stream(), words)
    return connection, probe


async def test_a_name_that_control_has_not_said_is_not_let_in() -> None:
    async with NodeStub() as node, ControlStub().up() as control, east(node, control):
        node.room("room-1", token="t")
        hellos = {
            "eventbridge": encoded(Ready(target="west")) + encoded(BridgeHello(room="room-1", token="t")),
            "mediabridge": encoded(Ready()) + encoded(ClusterHello(room="room-1", token="t", cluster="west")),
        }
        for version, peers in ((1, ("north",)), (2, ())):
            await control.say(desired(version, *peers))
            await control.until(lambda version=version: len(control.of(frozen.Ack)) == version)  # type: ignore[misc] # mypy: lambda default
            for purpose, words in hellos.items():
                connection, probe = await knocked(node, purpose, words)
                await probe.until(lambda p: p.resets or p.lost)
                told = [*map(hex, probe.resets.values()), *probe.lost]
                assert f"0x{CloseCode.IDENTITY:x}" in told[0]
                connection.close()
                await connection.wait_closed()
        await control.say(desired(3, "west", "north"))
        await control.until(lambda: len(control.of(frozen.Ack)) == 3)
        for purpose, words in hellos.items():
            connection, probe = await knocked(node, purpose, words)
            stats = await node.call(await node.joined(purpose), "getStats")
            async with asyncio.timeout(10):
                while not any(link["peer"] == "west" for link in stats["links"]):
                    stats = await node.call(await node.joined(purpose), "getStats")
            assert probe.resets == {}
            connection.close()
            await connection.wait_closed()


@pytest.mark.parametrize("protocol", ["causeway/1", "h3"])
async def test_on_either_wire_a_link_comes_up_once_its_peer_is_expected(protocol: str) -> None:
    quic = QuicSettings(alpn=(protocol,), idle_timeout=5.0)
    async with sites(quic=quic) as [west, listening]:
        known: set[tuple[str, str]] = set()
        listening.bridge.expects = lambda peer, room: (peer, room) in known
        await west.cascade(listening, "room-1")
        await west.until_link("room-1", lambda link: link is not None and "IDENTITY" in link["error"].upper())
        assert listening.node.rooms["room-1"].types("west") == []
        known.add(("west", "room-1"))
        await initialized(listening, west)
        await initialized(west, listening)
