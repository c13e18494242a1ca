"""Who stops reading costs its own frames only, and memory that is bounded and shown; on both wires."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from bridges.internal.settings import InternalSettings
from bridges.quic import QuicSettings
from bridges.wire.frame import Feedback
from bridges.wire.framing import encode
from tests.bridges.media_side import QUICK, ROOM, Side, Taken, picture, side, two_sides
from tests.bridges.test_media_peer import OWT_WIRE
from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from bridges.figures import LinkFigures
    from bridges.internal.listener import Source

WIRES = pytest.mark.parametrize("quic", [QuicSettings(), OWT_WIRE], ids=["ours", "owt"])
LIMIT = 48 << 10
KERNEL = 16 << 10
FRAMES = 200
SIZE = 2000
PATIENT = structs.replace(QUICK, own=structs.replace(QUICK.own, deadline=1.0, useful=1.0, backlog=1.0))
"""A machine that is busy otherwise shall not make pictures late that are waited for."""


async def deaf(at: Side, track: str) -> socket.socket:
    """Return an agent of a cluster that asks for a track and never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", at.bridge.internal_port))
    await loop.sock_sendall(sock, encode(Feedback.init_stream(track)))
    return sock


def figures(at: Side, peer: str) -> LinkFigures:
    [link] = [each for each in at.bridge.figures().links if each.peer == peer]
    return link


async def shows(source: Source, taken: Taken, at: Side, peer: str) -> int:
    """Let a camera run, each picture as soon as the one before has come out; return the most that waited."""
    most = 0
    for number in range(FRAMES):
        frame = picture(number, key=number % 20 == 0, size=SIZE)
        source.write(frame)
        await taken.until(lambda frame=frame: taken.frames and taken.frames[-1] == frame)  # type: ignore[misc] # bound now
        link = figures(at, peer)
        most = max(most, link.internal_bytes + link.queued_bytes + link.backlog)
    assert len(taken.frames) == FRAMES, "whoever reads loses nothing"
    return most


@WIRES
async def test_an_agent_that_does_not_read_costs_its_own_frames_only(quic: QuicSettings) -> None:
    internal = InternalSettings(max_backlog_bytes=LIMIT, max_delay=60.0, send_buffer_bytes=KERNEL)
    media = structs.replace(PATIENT, internal=internal)
    async with two_sides(quic=quic, media=media) as (east, west):
        source = east.source("stream-1", "video")
        await west.publish("deaf", east, ("track-1", "video", "stream-1"))
        await west.publish("hears", east, ("track-2", "video", "stream-1"))
        with closing(await deaf(west, "track-1")):
            taken = await Taken.of(west, "track-2")
            await east.changes.until(lambda: source.subscribers)
            await west.poll(lambda stats: stats["tracks"])
            most = await shows(source, taken, west, "east")
            assert 0 < figures(west, "east").internal_bytes <= LIMIT + 2 * SIZE
            [track] = (await west.stats())["tracks"]
            assert 0 < track["waiting_bytes"] <= LIMIT + 2 * SIZE
            assert track["dropped_frames"] > FRAMES / 3
            assert most <= LIMIT + 4 * SIZE
            assert figures(east, "west").drops == 0, "its source, and the link, know nothing of it"
            taken.close()


@WIRES
async def test_a_relays_listener_that_does_not_answer_costs_its_own_frames_only(quic: QuicSettings) -> None:
    quic = structs.replace(quic, idle_timeout=20.0)
    own = structs.replace(PATIENT.own, max_queue_bytes=1 << 16, max_track_queue_bytes=1 << 16)
    media = structs.replace(PATIENT, own=own, max_backlog_bytes=1 << 16, max_delay=60.0)
    async with AsyncExitStack() as stack:
        a, b, c, d = [
            await stack.enter_async_context(side(name, quic=quic, media=media))
            for name in ("a", "b", "c", "d")
        ]
        port = (await b.call("getInfo"))["port"]
        path = await stack.enter_async_context(Relay.running(("127.0.0.1", port)))
        await b.cascade(a)
        await c.cascade(b, port=path.port)
        await d.cascade(b)
        await b.poll(lambda stats: len(stats["links"]) == 3)
        a.bridge.set_relays(ROOM, {"b": ("c", "d")})
        b.bridge.set_relays(ROOM, {"a": (), "c": (), "d": ()})
        c.bridge.set_relays(ROOM, {"b": ("a", "d")})
        d.bridge.set_relays(ROOM, {"b": ("a", "c")})
        source = a.source("stream-1", "video")
        both = []
        for each in (c, d):
            await each.publish(f"session-{each.cluster}", a, ("track", "video", "stream-1"))
            both.append(await Taken.of(each, "track"))
        cut, taken = both
        await b.poll(lambda stats: len(stats["tracks"]) == 3)
        await a.changes.until(lambda: source.subscribers)
        source.write(picture(999, key=True))
        for one in both:
            await one.until(lambda one=one: one.frames)  # type: ignore[misc] # bound now
        taken.frames.clear()
        path.cut(60.0)
        most = await shows(source, taken, b, "c")
        assert len(cut.frames) == 1
        assert figures(b, "c").drops > 0, "more was offered than may wait: it was refused, or has expired"
        assert 0 < most <= (1 << 16) + (1 << 17), "what waits, and what is under way"
        assert figures(b, "d").drops == 0
        assert figures(b, "a").drops == 0
        for one in both:
            one.close()
