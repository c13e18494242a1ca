"""Three clusters in a row over bad paths, in virtual time; the middle one passes on what it hears, and dies.

Whatever happens at one end arrives at the other, once and in order, though the relay took some of it to its
grave: the ends are linked with each other in its place, and say from where on they have it.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from bench._bridges.judge import Hearing, Origin
from bench._bridges.ordeal import BAD_PATH
from bench._bridges.site import Nodes, Site
from bridges.event.own.settings import OwnWireSettings
from bridges.event.settings import EventSettings
from bridges.quic import QuicSettings
from tests.impairment.virtual import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

NORTH, HUB, SOUTH = "north", "hub", "south"
CLUSTERS = (NORTH, HUB, SOUTH)
ROOMS = ("room-0", "room-1", "room-2")
QUIC = QuicSettings(alpn=("causeway/1",), idle_timeout=1.0, keepalive=0.25)
GRACE = 8.0
EVENT = EventSettings(retry_base=0.05, retry_cap=0.5, own=OwnWireSettings(origin_grace=GRACE))


class World:
    """Three clusters with the same rooms, and what each was told of each."""

    def __init__(self, seed: int) -> None:
        self.origins = {
            (cluster, room): Origin(cluster, room, random.Random(f"{seed} {cluster} {room}"))
            for cluster in CLUSTERS
            for room in ROOMS
        }
        self.heard = {
            (hearer, cluster, room): Hearing(origin)
            for (cluster, room), origin in self.origins.items()
            for hearer in CLUSTERS
            if hearer != cluster
        }
        self.sites: dict[str, Site] = {}
        self.failures: list[Exception] = []
        self._chance = random.Random(seed)
        self._changed = asyncio.Event()

    async def start(self, stack: AsyncExitStack, cluster: str) -> Site:
        def told(room: str, origin: str, event: Any) -> None:
            try:
                self.heard[cluster, origin, room].take(event)
            except AssertionError as error:
                self.failures.append(error)
            self._changed.set()

        nodes = Nodes(
            cluster, state=lambda room: self.origins[cluster, room].happenings.now.initialize(), told=told
        )
        nodes.rooms.update(ROOMS)
        self.sites[cluster] = await stack.enter_async_context(
            Site.running(cluster, nodes, quic=QUIC, event=EVENT)
        )
        return self.sites[cluster]

    async def happen(self, count: int, *clusters: str) -> None:
        for _ in range(count):
            await asyncio.sleep(self._chance.expovariate(100))
            cluster, room = self._chance.choice(clusters), self._chance.choice(ROOMS)
            await self.sites[cluster].nodes.notify(room, self.origins[cluster, room].happen())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not self.failures and not condition():
                self._changed.clear()
                await self._changed.wait()
        assert not self.failures

    def between_the_ends(self) -> list[Hearing]:
        return [heard for (hearer, cluster, _), heard in self.heard.items() if HUB not in {hearer, cluster}]


async def story(loop: VirtualLoop, seed: int) -> None:
    world = World(seed)
    async with AsyncExitStack() as stack:
        hub, north, south = [await world.start(stack, cluster) for cluster in (HUB, NORTH, SOUTH)]
        to_hub = loop.network.impair(hub.bridge.port, there=BAD_PATH, seed=seed)
        loop.network.impair(south.bridge.port, there=BAD_PATH, seed=seed + 1000)
        for room in ROOMS:
            hub.bridge.set_relays(room, {NORTH: (), SOUTH: ()})
            for site, behind in ((north, SOUTH), (south, NORTH)):
                site.bridge.set_relays(room, {HUB: (behind,)})
                await site.cascade(room, hub.address)
        await world.until(lambda: all(heard.began for heard in world.heard.values()))

        await world.happen(150, *CLUSTERS)
        to_hub.cut(1.2)  # longer than connections survive, shorter than the grace time
        await world.happen(150, *CLUSTERS)
        await world.until(lambda: not any(heard.behind for heard in world.heard.values()))
        assert not any(heard.resets for heard in world.heard.values())

        await asyncio.gather(world.happen(100, NORTH, SOUTH), die(to_hub.cut))
        for room in ROOMS:  # as the plan orders it
            for site in (north, south):
                await site.bridge.handle("stopCascading", [{"room": room, "targetCluster": HUB}])
                site.bridge.set_relays(room, {})
            await north.cascade(room, south.address)
        await world.happen(100, NORTH, SOUTH)
        ends = world.between_the_ends()
        await world.until(lambda: not any(heard.behind for heard in ends))
        for heard in ends:
            heard.check_equal()
            assert heard.resets == 0
        # Of the relay itself the ends are told that it is gone, once the grace time is over.
        lost = [heard for (_, cluster, _), heard in world.heard.items() if cluster == HUB]
        await world.until(lambda: not any(heard.began for heard in lost))


async def die(cut: Callable[[float], None]) -> None:
    """Die in the middle of it."""
    await asyncio.sleep(0.5)
    cut(10_000)


@pytest.mark.parametrize("seed", range(2))
def test_what_a_relay_took_to_its_grave_is_recovered(seed: int) -> None:
    with VirtualLoop.running() as loop:
        loop.run_until_complete(story(loop, seed))
