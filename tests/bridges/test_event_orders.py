"""What a cluster orders of its event bridge, and what the bridge says of its links."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.bridges.event_side import EVENT, WAIT, initialized, sites, up
from tests.bridges.node_stub import StubRpcError


@pytest.mark.parametrize(
    "changes",
    [
        {"selfCluster": "other"},
        {"targetCluster": "west"},
        {"evFingerprint": None},
        {"evPort": 0},
        {"evPort": "1"},
        {"room": ""},
        {"token": 5},
    ],
)
async def test_orders_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    async with sites("west") as [west]:
        options = {
            "room": "room-1",
            "token": "secret-token",
            "selfCluster": "west",
            "targetCluster": "east",
            "evIP": "127.0.0.1",
            "evPort": 1,
            "evFingerprint": "0" * 64,
        }
        with pytest.raises(StubRpcError) as refused:
            await west.call("startCascading", {**options, **changes})
        assert "secret-token" not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("nonsense", []),
        ("notify", ["node"]),
        ("notify", ["node", {}, {"type": "nonsense", "data": 1}]),
        ("notify", ["node", 5, {"type": "removeStream", "data": "x"}]),
        ("destroyRoom", [5]),
        ("startCascading", []),
        ("stopCascading", []),
        ("stopCascading", [{"room": "room-1"}]),
        ("stopCascading", [{"room": "room-1", "targetCluster": ""}]),
        ("getInfo", [1]),
    ],
)
async def test_calls_that_make_no_sense_are_refused(method: str, args: list[Any]) -> None:
    async with sites("west") as [west]:
        with pytest.raises(StubRpcError):
            await west.call(method, *args)


async def test_a_link_that_is_called_off_ends_and_is_not_dialled_again() -> None:
    async with sites(rooms=("room-1", "room-2")) as [west, east]:
        legs: list[tuple[str, str, str]] = []
        west.bridge.on_leg = lambda peer, room, state, error: legs.append((peer, room, state))
        await west.cascade(east, "room-1")
        await west.cascade(east, "room-2")
        for room in ("room-1", "room-2"):
            await initialized(east, west, room)
            await west.until_link(room, up)
            await east.until_link(room, up)
        assert await west.call("stopCascading", {"room": "room-1", "targetCluster": "east"}) == "ok"
        for site, peer in ((west, "east"), (east, "west")):
            heard = site.node.rooms["room-1"]
            await site.node.until(
                lambda heard=heard, peer=peer: heard.types(peer)[-1] == "onCascadingDisconnected"  # type: ignore[misc] # bound now
            )
        assert await west.link("room-1") is None
        assert up(await west.link("room-2")), "the other conference goes on, on the same connection"
        assert legs.index(("east", "room-1", "gone")) > legs.index(("east", "room-1", "up"))
        # Again, and for what never was: as good.
        for room in ("room-1", "elsewhere"):
            assert await west.call("stopCascading", {"room": room, "targetCluster": "east"}) == "ok"
        assert legs.count(("east", "room-1", "gone")) == 1
        # What the peer dialled stays: only its own cluster calls that off.
        assert await east.call("stopCascading", {"room": "room-2", "targetCluster": "west"}) == "ok"
        assert up(await east.link("room-2"))
        # Wanted again, it comes back.
        await west.cascade(east, "room-1")
        await west.until_link("room-1", up)


async def test_the_watcher_hears_of_refusals_losses_and_closed_rooms() -> None:
    async with sites() as [west, east]:
        legs: list[tuple[str, str]] = []
        heard = asyncio.Event()

        def watch(peer: str, room: str, state: str, error: str) -> None:
            assert (peer, room) == ("east", "room-1")
            legs.append((state, error))
            heard.set()

        async def until(state: str, word: str = "") -> None:
            async with asyncio.timeout(WAIT):
                while not any(said == state and word in error for said, error in legs):
                    heard.clear()
                    await heard.wait()
            legs.clear()

        west.bridge.on_leg = watch
        await west.cascade(east, "room-1", token="guessed")
        await until("down", "TOKEN_REFUSED")
        await west.cascade(east, "room-1")
        await until("up")
        await east.stop()
        await until("down")
        await west.call("destroyRoom", "room-1")
        await until("gone", "the room is gone")
        del west.node.rooms["room-1"]
        order = {
            "room": "room-1",
            "token": "t",
            "selfCluster": "west",
            "targetCluster": "east",
            "evIP": "127.0.0.1",
            "evPort": 1,
            "evFingerprint": "0" * 64,
        }
        assert await west.call("startCascading", order) == "ok"
        await until("gone", "no such room")


async def test_round_trips_are_measured_on_both_ends() -> None:
    async with sites() as [west, east]:
        assert west.bridge.round_trips() == {}
        await west.cascade(east, "room-1")
        await initialized(east, west)
        await initialized(west, east)
        for site, peer in ((west, "east"), (east, "west")):
            ((measured, round_trip),) = site.bridge.round_trips().items()
            assert measured == peer
            assert 0 < round_trip.seconds < WAIT
            assert round_trip.variation >= 0


async def test_link_limit() -> None:
    async with sites(event=msgspec.structs.replace(EVENT, max_links=1)) as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(west, east)
        with pytest.raises(StubRpcError, match="links already"):
            await west.cascade(east, "room-2")


async def test_stopping_tells_the_peers_at_once() -> None:
    async with sites() as [west, east]:
        await west.cascade(east, "room-1")
        await initialized(east, west)
        began = asyncio.get_running_loop().time()
        await west.stop()
        assert asyncio.get_running_loop().time() - began < 3
        await east.node.until(
            lambda: east.node.rooms["room-1"].types("west")[-1] == "onCascadingDisconnected"
        )
