"""The agent's shell: a real WebSocket to a scripted control of release 0.1; the bridges are scripted, too."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridges.control.channel import Agent
from bridges.control.core import AgentCore
from bridges.control.port import everybody_is_expected, nobody_watches
from bridges.control.settings import ControlSettings
from bridges.figures import BridgeFigures, LinkFigures, PeerFigures
from bridges.node.port import RpcError
from bridges.quic import RoundTrip
from causeway.api.agents import AgentAddress, AgentAddresses, AgentCapacity, AgentRegistration, ProtocolRange
from causeway.backoff import Backoff
from causeway.channel import Resync
from tests.bridges import frozen_channel as frozen
from tests.bridges.control_stub import KEY, ControlStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bridges.control.orders import Kind, Ways
    from bridges.control.port import LegWatcher, PeerJudge
    from bridges.figures import LinkKey
    from bridges.node.cascading import CascadingOptions

PIN = "0" * 64
EVENT = frozen.Address(host="192.0.2.1", port=1, fingerprint=PIN)
MEDIA = frozen.Address(host="192.0.2.1", port=2, fingerprint=PIN)


class Bridge:
    """A bridge that notes its orders."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.on_leg: LegWatcher = nobody_watches
        self.expects: PeerJudge = everybody_is_expected
        self.wanted: dict[tuple[str, str], CascadingOptions] = {}
        self.orders: list[str] = []
        self.refuses = ""
        self.measured: dict[str, RoundTrip] = {}
        self.ways: dict[str, Ways] = {}
        self._changed = changed

    def start_cascading(self, options: CascadingOptions) -> None:
        self.orders.append("start")
        self._changed()
        if self.refuses:
            raise RpcError(self.refuses)
        self.wanted[options.target_cluster, options.room] = options

    def stop_cascading(self, peer: str, room: str) -> None:
        self.orders.append("stop")
        self._changed()
        if self.wanted.pop((peer, room), None) is not None:
            self.on_leg(peer, room, "gone", "called off")

    def set_relays(self, room: str, ways: Ways) -> None:
        self.ways[room] = ways
        self._changed()

    def round_trips(self) -> dict[str, RoundTrip]:
        return self.measured


class Measured:
    """A bridge that measures, and has one link."""

    def overview(self) -> BridgeFigures:
        return BridgeFigures(kind="event", counters={"framing": 1})

    def link_keys(self) -> list[LinkKey]:
        return [("east", "c")]

    def link_figures(self, keys: Sequence[LinkKey]) -> list[LinkFigures]:
        return [LinkFigures(kind="event", conference=room, peer=peer) for peer, room in keys]


class Moving(Measured):
    """One that moves twice as much to its peer as it gets."""

    def __init__(self) -> None:
        self.moved = 0

    def overview(self) -> BridgeFigures:
        self.moved += 1000
        east = PeerFigures(kind="event", peer="east", bytes_in=self.moved, bytes_out=2 * self.moved)
        return BridgeFigures(kind="event", peers=[east])


class World:
    shell: Agent

    def __init__(self, control: ControlStub) -> None:
        self.control = control
        self.event, self.media = Bridge(control.note), Bridge(control.note)
        self.measured: list[Measured] = []
        self.core = AgentCore(
            cluster="west",
            kinds=("event", "media"),
            backoff=lambda: Backoff(base=0.01, cap=0.05, floor=0.001),
        )

    def legs(self, state: Any, error: str = "") -> None:
        for bridge in (self.event, self.media):
            bridge.on_leg("east", "c", state, error)

    async def acknowledged(self, version: int) -> None:
        await self.control.until(lambda: frozen.Ack(version=version) in self.control.heard)

    async def reported(self, *states: str) -> None:
        """Wait until the last report says so; none: nothing is known."""
        await self.control.until(
            lambda: (
                (reports := self.control.of(frozen.Report))
                and tuple(each.state for each in reports[-1].links) == states
            )
        )


@asynccontextmanager
async def agent(control: ControlStub, **settings: Any) -> AsyncIterator[World]:
    """Run an agent for a control that is there, or will be."""
    world = World(control)
    address = AgentAddress(host="127.0.0.1", port=7700, fingerprint=PIN)
    kinds: dict[Kind, Bridge] = {"event": world.event, "media": world.media}
    shell = Agent(
        "bridge-west",
        world.core,
        kinds,
        registration=AgentRegistration(
            cluster="west",
            region="eu",
            kinds=["event", "media"],
            addresses=AgentAddresses(event=address, media=address),
            capacity=AgentCapacity(conferences=7),
            version="0.1",
            protocol=ProtocolRange(min=1, max=1),
            instance="start-1",
        ),
        settings=msgspec.structs.replace(
            ControlSettings(url=control.url, key=KEY, region="eu", retry_base=0.02, retry_cap=0.1), **settings
        ),
        sources=world.measured,
    )
    world.shell = shell
    task = asyncio.create_task(shell.run())
    try:
        yield world
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


def link(peer: str = "east", *, attempt: int = 0, token: str | None = "t") -> frozen.DesiredLink:
    return frozen.DesiredLink(peer=peer, role="dial", attempt=attempt, token=token, event=EVENT, media=MEDIA)


def desired(version: int, *links: frozen.DesiredLink) -> frozen.Desired:
    served = [frozen.Assignment(conference="c", kinds=["event", "media"], links=list(links))]
    return frozen.Desired(version=version, conferences=served if links else [])


async def test_orders_reach_the_bridges_and_what_they_see_reaches_control() -> None:
    async with ControlStub().up() as control, agent(control) as world:
        assert await control.said_hello() == frozen.Hello(epoch=4, version=None)
        assert control.registrations[0] == {
            "cluster": "west",
            "region": "eu",
            "kinds": ["event", "media"],
            "addresses": {
                kind: {"host": "127.0.0.1", "port": 7700, "fingerprint": PIN} for kind in ("event", "media")
            },
            "capacity": {"conferences": 7},
            "version": "0.1",
            "protocol": {"min": 1, "max": 1},
            "instance": "start-1",
        }
        await control.say(desired(1, link()))
        await world.acknowledged(1)
        event, media = world.event.wanted["east", "c"], world.media.wanted["east", "c"]
        assert (event.ev_ip, event.ev_port, event.ev_fingerprint) == ("192.0.2.1", 1, PIN)
        assert (event.media_ip, media.ev_ip) == (None, None)
        assert (media.media_ip, media.media_port, media.token) == ("192.0.2.1", 2, "t")
        world.legs("up")
        await world.reported("up")
        world.legs("down", "lost")
        await world.reported("down")
        await control.say(frozen.Delta(base=1, version=2, drop=["c"]))
        await world.acknowledged(2)
        assert world.event.wanted == world.media.wanted == {}
    assert control.taken_back == ["4"], "an orderly stop takes the registration back"


async def test_losing_control_changes_nothing_and_its_return_finds_everything() -> None:
    control = ControlStub()
    async with control.up():
        port = control.port
    async with agent(control) as world:
        async with control.up(port):
            await control.said_hello()
            await control.say(desired(5, link()))
            await world.acknowledged(5)
            world.legs("up")
            await world.reported("up")
        assert world.core.version == 5
        orders = [*world.event.orders]
        assert list(world.event.wanted) == [("east", "c")]
        # While control is away a bridge gives up, because its room closes, and is told again.
        world.event.on_leg("east", "c", "gone", "the room is gone")
        await control.until(lambda: len(world.event.orders) == len(orders) + 1)
        world.event.on_leg("east", "c", "up", "")
        async with control.up(port):
            assert await control.said_hello(2) == frozen.Hello(epoch=4, version=5)
            control.heard.clear()
            await control.say(desired(6, link()))
            await world.acknowledged(6)
            await world.reported("up")
            assert control.of(frozen.Report)[0].full
            assert len(control.registrations) >= 2
        assert world.event.orders == [*orders, "start"]
        assert world.media.orders == ["start"]


async def test_a_registration_that_is_refused_is_tried_again() -> None:
    async with ControlStub().up() as control:
        control.refuse = 401
        async with agent(control):
            await control.until(lambda: len(control.registrations) >= 3)
            control.refuse = None
            await control.said_hello()


async def test_goodbye_is_followed_after_the_time_it_names() -> None:
    async with ControlStub().up() as control, agent(control) as world:
        await control.said_hello()
        await control.say(desired(1, link()))
        await world.acknowledged(1)
        asked_at = asyncio.get_running_loop().time()
        await control.say(frozen.Goodbye(reason="something new", retry_after=0.3))
        assert (await control.said_hello(2)).version == 1
        assert asyncio.get_running_loop().time() - asked_at >= 0.3
        assert len(control.registrations) == 2


@pytest.mark.parametrize("frame", ["{", "[]", '{"type":"desired"}', '{"type":"delta","base":"x"}'])
async def test_what_is_no_message_ends_the_channel_and_nothing_else(frame: str) -> None:
    async with ControlStub().up() as control, agent(control) as world:
        await control.said_hello()
        await control.say(desired(1, link()))
        await world.acknowledged(1)
        await control.say_text(frame)
        assert (await control.said_hello(2)).version == 1
        assert world.event.orders == ["start"]


async def test_words_of_a_later_release_are_passed_over() -> None:
    async with ControlStub().up() as control, agent(control) as world:
        await control.said_hello()
        await control.say_text('{"type":"praise","for":"everything"}')
        await control.say_text('{"type":"desired","version":9,"conferences":[],"mood":"sunny"}')
        await world.acknowledged(9)
        assert world.core.unknown == 1


async def test_a_control_that_does_not_renew_the_lease_is_left() -> None:
    async with ControlStub().up() as control:
        control.ttl, control.renews = 0.3, False
        async with agent(control) as world:
            await control.said_hello()
            await control.say(desired(1, link()))
            await control.said_hello(3)
            assert list(world.event.wanted) == [("east", "c")]


async def test_heartbeats_carry_load_and_the_best_round_trips() -> None:
    async with ControlStub().up() as control:
        control.beat = 0.05
        async with agent(control) as world:
            world.event.measured = {"east": RoundTrip(0.020, 0.001), "north": RoundTrip(10_000.0, 0.0)}
            world.media.measured = {
                "east": RoundTrip(0.010, 0.002),
                "a peer may call itself anything": RoundTrip(0.001, 0.0),
            }
            world.measured.append(Moving())
            await control.said_hello()
            await control.say(desired(1, link()))
            world.legs("up")
            await control.until(lambda: any(beat.load.links == 1 for beat in control.of(frozen.Heartbeat)))
            beat = control.of(frozen.Heartbeat)[-1]
            assert beat.round_trips == [
                frozen.RoundTrip(cluster="east", ms=10.0, jitter_ms=2.0),
                frozen.RoundTrip(cluster="north", ms=600_000.0),
            ]
            assert beat.load.conferences == 1
            assert 0 <= beat.load.cpu <= 1
            await control.until(
                lambda: any(
                    beat.load.bandwidth_out > beat.load.bandwidth_in > 0
                    for beat in control.of(frozen.Heartbeat)
                )
            )


async def test_an_order_that_a_bridge_does_not_take_is_reported_and_given_again() -> None:
    async with ControlStub().up() as control, agent(control) as world:
        world.media.refuses = "the bridge is not running"
        await control.said_hello()
        await control.say(desired(1, link()))
        await world.reported("down")
        assert control.of(frozen.Report)[-1].links[0].error == "media: the bridge is not running"
        world.media.refuses = ""
        await control.until(lambda: ("east", "c") in world.media.wanted)


async def test_what_cannot_be_done_is_refused() -> None:
    async with ControlStub().up() as control, agent(control) as world:
        await control.said_hello()
        await control.say(desired(1, link(token=None), link("north")))
        await control.until(lambda: control.of(frozen.Refuse))
        (refuse,) = control.of(frozen.Refuse)
        assert [(each.conference, each.peer) for each in refuse.problems] == [("c", "east")]
        assert list(world.event.wanted) == [("north", "c")]


async def test_a_control_that_does_not_read_is_left_and_come_back_to() -> None:
    async with ControlStub().up() as control, agent(control, max_unsent=16) as world:
        await control.said_hello()
        await control.say(desired(1, link()))
        await world.acknowledged(1)
        for _ in range(17):  # in one turn of the loop: nothing is written meanwhile
            world.shell._say(Resync())
        assert (await control.said_hello(2)).version == 1
        assert world.event.orders == ["start"]


async def test_figures_are_told_and_an_older_control_passes_them_over() -> None:
    async with ControlStub().up() as control, agent(control, figures_interval=0.1) as world:
        await control.said_hello()
        world.measured.append(Measured())
        await control.say(desired(1, link()))
        await world.acknowledged(1)
        await control.until(lambda: control.passed_over.count("figures") >= 2)
        assert set(control.passed_over) == {"figures"}
        shown = world.shell.figures()
        assert (shown.agent, shown.connected, shown.version) == ("bridge-west", True, 1)
        assert (shown.conferences, shown.links_wanted, shown.links_up) == (1, 1, 0)
        world.legs("up")
        await world.reported("up")
        assert world.shell.figures().links_up == 1


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with ControlStub().up() as elsewhere, ControlStub().up() as control:
        control.redirect = elsewhere.url.replace("http", "ws") + "/v1/agents/bridge-west/channel"
        async with agent(control):
            await control.until(lambda: len(control.registrations) >= 3)
            assert elsewhere.hellos == []
            control.redirect = ""
            await control.said_hello()


async def test_control_that_never_comes_does_not_hold_up_the_stop() -> None:
    control = ControlStub()
    async with control.up():
        pass
    async with agent(control) as world:
        assert world.core.version is None
