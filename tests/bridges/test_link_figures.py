"""What event bridges measure of their links, and the trail of an event, over real connections."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from structlog.testing import capture_logs

from bridges.figures import BridgeFigures
from bridges.quic import OWN_PROTOCOL
from tests.bridges.event_side import ALICE, EVENT, QUIC, WAIT, initialized, silence, sites

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.figures import LinkFigures
    from bridges.quic import QuicSettings
    from tests.bridges.event_side import Site


OWN = msgspec.structs.replace(QUIC, alpn=(OWN_PROTOCOL, "h3"))
OWT = msgspec.structs.replace(QUIC, alpn=("h3",))


def link(site: Site) -> LinkFigures:
    [found] = site.bridge.figures().links
    return found


async def until(site: Site, condition: Callable[[], object]) -> None:
    """Wait until a site's figures are as they should be."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await site.call("getStats")  # each turn is a call over a real socket


def steps_of(lines: list[Any], subject: Any) -> list[str]:
    return [line["event"] for line in lines if line.get("subject") == subject]


async def said(site: Site, peer: Site, event: dict[str, Any]) -> None:
    """Have a site's node say something, and wait until the peer's node has heard it."""
    before = len(peer.node.rooms["room-1"].of(site.cluster))
    await site.node.emit("room-1", event)
    await peer.node.until(lambda: len(peer.node.rooms["room-1"].of(site.cluster)) > before)


async def test_a_link_is_measured_at_both_ends() -> None:
    async with sites(quic=OWT) as [west, east]:
        nothing = west.bridge.figures()
        assert (nothing.kind, nothing.node_connected, nothing.links, nothing.peers) == ("event", True, [], [])
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        await said(west, east, {"type": "addParticipant", "data": ALICE})
        await until(east, lambda: not link(east).lag_in)
        await until(west, lambda: not link(west).lag_in)

        ours, theirs = link(west), link(east)
        assert (ours.peer, ours.role, theirs.peer, theirs.role) == ("east", "dialer", "west", "listener")
        for one in (ours, theirs):
            assert (one.state, one.wire, one.connects, one.reconnects) == ("up", "owt", 1, 0)
            assert one.since is not None
            assert (one.lag_in, one.lag_ms, one.drops, one.error) == (0, None, 0, "")
            assert one.round_trip_ms is not None
            assert one.round_trip_ms > 0
        assert (ours.messages_out, ours.sequence_out) == (2, 2)
        assert (theirs.messages_in, theirs.sequence_in) == (2, 2)
        assert ours.bytes_out == theirs.bytes_in > 0
        assert ours.bytes_in == theirs.bytes_out > 0

        [connection] = west.bridge.figures().peers
        assert (connection.peer, connection.wires, connection.connections) == ("east", ["owt"], 1)
        assert (connection.streams, connection.links) == (1, 1)
        assert connection.bytes_out > ours.bytes_out
        assert connection.bytes_in > 1000
        told = west.bridge.figures()
        assert msgspec.json.decode(msgspec.json.encode(told), type=BridgeFigures) == told


async def test_a_break_is_counted_and_what_was_moved_before_it_stays() -> None:
    async with sites(quic=OWT) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        before = link(west)
        silence(next(iter(east.bridge._listener._connections)))  # type: ignore[union-attr] # it listens
        await initialized(west, east, times=2)
        await initialized(east, west, times=2)
        for site in (west, east):
            after = link(site)
            assert (after.state, after.connects, after.reconnects, after.snapshots) == ("up", 2, 1, 2)
            assert after.error  # why it was down last
            assert after.since is not None
            assert before.since is not None
            assert after.since > before.since
        after = link(west)
        assert after.messages_in > after.sequence_in == 1
        assert after.bytes_in > before.bytes_in


async def test_a_link_that_is_refused_is_down_and_says_why() -> None:
    async with sites(quic=OWT) as [west, east]:
        await west.cascade(east, "room-1", token="guessed")
        await west.until_link("room-1", lambda seen: seen is not None and "TOKEN_REFUSED" in seen["error"])
        await until(west, lambda: link(west).state == "down" and "TOKEN_REFUSED" in link(west).error)
        assert "guessed" not in str(msgspec.json.encode(west.bridge.figures()))
        assert east.bridge.figures().links == []
        assert east.bridge.figures().counters


@pytest.mark.parametrize("quic", [OWN, OWT])
async def test_events_that_wait_for_a_slow_node_are_a_lag(quic: QuicSettings) -> None:
    async with sites(quic=quic, event=msgspec.structs.replace(EVENT, node_call_timeout=30.0)) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        east.node.deliver.clear()
        for number in range(3):
            await west.node.emit("room-1", {"type": "removeParticipant", "data": f"p{number}"})
        await until(east, lambda: link(east).lag_in == 3)
        lag = link(east)
        assert lag.lag_ms is not None
        assert lag.state == "up"
        east.node.deliver.set()
        await until(east, lambda: not link(east).lag_in)
        assert link(east).lag_ms is None


async def test_an_event_is_followed_by_one_id_through_both_bridges(caplog: pytest.LogCaptureFixture) -> None:
    async with sites(quic=OWT) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        with caplog.at_level(logging.DEBUG, logger="bridges.trail"), capture_logs() as lines:
            await said(west, east, {"type": "addParticipant", "data": ALICE})
            await said(east, west, {"type": "removeParticipant", "data": "p7"})
            await until(east, lambda: "event.told" in steps_of(lines, ALICE["id"]))
            await until(west, lambda: "event.told" in steps_of(lines, "p7"))
        there = [line for line in lines if line.get("subject") == ALICE["id"]]
        back = [line for line in lines if line.get("subject") == "p7"]
        for steps, begins, ends in ((there, "east", "west"), (back, "west", "east")):
            assert [line["event"] for line in steps] == ["event.sent", "event.received", "event.told"]
            assert len({line["id"] for line in steps}) == 1
            assert [line["peer"] for line in steps] == [begins, ends, ends]
            assert {line["conference"] for line in steps} == {"room-1"}
        assert there[0]["id"] != back[0]["id"]
        assert "alice" not in str(lines)


async def test_following_costs_nothing_when_it_is_off() -> None:
    async with sites(quic=OWT) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        with capture_logs() as lines:
            await said(west, east, {"type": "addParticipant", "data": ALICE})
        assert not [line for line in lines if line["log_level"] == "debug"]


async def test_on_our_wire_the_numbers_of_every_origin_are_known() -> None:
    async with sites(quic=OWN) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        await said(west, east, {"type": "addParticipant", "data": ALICE})
        await until(east, lambda: not link(east).lag_in)
        await until(west, lambda: not link(west).lag_out)
        ours, theirs = link(west), link(east)
        for one, peer, role in ((ours, "east", "dialer"), (theirs, "west", "listener")):
            assert (one.peer, one.role, one.state, one.wire) == (peer, role, "up", "causeway/1")
            assert (one.connects, one.reconnects, one.drops, one.divergences) == (1, 0, 0, 0)
            assert one.round_trip_ms is not None
            assert {origin.origin for origin in one.origins} == {"west", "east"}
        mine = {each.origin: each for each in ours.origins}["west"]
        here = {each.origin: each for each in theirs.origins}["west"]
        assert (mine.seq, mine.told, mine.hops) == (1, 1, 0)
        assert (here.seq, here.hops, here.incarnation) == (1, 1, mine.incarnation)
        assert (ours.sequence_out, theirs.sequence_in) == (1, 1)
        assert (ours.messages_out, theirs.messages_in) == (1, 1)
        assert theirs.bytes_in > 0
        [connection] = west.bridge.figures().peers
        assert (connection.wires, connection.connections, connection.links) == (["causeway/1"], 1, 1)


@pytest.mark.parametrize("quic", [OWN, OWT])
async def test_a_wrong_token_is_counted(quic: QuicSettings) -> None:
    async with sites(quic=quic) as [west, east]:
        await west.cascade(east, "room-1", token="guessed")
        await until(east, lambda: east.bridge.figures().counters.get("token_refused"))


async def test_on_our_wire_a_break_is_a_resume_and_its_totals_stay() -> None:
    async with sites(quic=OWN) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        await said(west, east, {"type": "addParticipant", "data": ALICE})
        silence(next(iter(east.bridge._listener._connections)))  # type: ignore[union-attr] # it listens
        await until(west, lambda: link(west).state == "down" or link(west).reconnects)
        assert link(west).messages_out == 1
        await until(west, lambda: link(west).state == "up" and link(west).reconnects == 1)
        await until(east, lambda: link(east).state == "up" and link(east).resumes)
        assert (link(east).reconnects, link(east).snapshots) == (1, link(west).snapshots)


async def test_on_our_wire_an_event_is_followed_by_the_id_that_it_bears(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with sites(quic=OWN) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        await initialized(east, west)
        with caplog.at_level(logging.DEBUG, logger="bridges.trail"), capture_logs() as lines:
            await said(west, east, {"type": "addParticipant", "data": ALICE})
            await until(east, lambda: "event.told" in steps_of(lines, ALICE["id"]))
        steps = [line for line in lines if line.get("subject") == ALICE["id"]]
        assert [line["event"] for line in steps] == ["event.sent", "event.received", "event.told"]
        incarnation = {each.origin: each for each in link(east).origins}["west"].incarnation
        assert {line["id"] for line in steps} == {f"{incarnation}.1"}
        assert "alice" not in str(lines)
