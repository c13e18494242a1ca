"""Two clusters, many conferences, and between them a bad path that breaks again and again.

`undergo` is the whole story, on whatever loop it runs: in virtual time on a VirtualLoop, else with real
datagrams through a relay. Random events happen in every conference at both clusters while the path is cut, in
one direction or both, for longer than a connection survives, or the listener drops its connections. When all
have happened the breaking ends, and what is under way has to arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench._bridges.judge import Hearing, Origin, UnfaithfulError
from bench._bridges.path import impaired
from bench._bridges.site import Nodes, Site
from bridges.event.own.settings import OwnWireSettings
from bridges.event.settings import EventSettings
from bridges.quic import QuicSettings
from tests.impairment.core import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.impairment.relay import Relay
    from tests.impairment.virtual import Path

__all__ = ["BAD_PATH", "Ordeal", "Outcome", "undergo"]

BAD_PATH: Final = Profile(delay=0.045, jitter=0.01, loss=0.05, reorder=0.02, reorder_delay=0.02)
"""100 ms there and back, 5 % loss in each direction, reordering."""

# The path is broken nearly half of the time, and a conference may miss several short-lived connections in a
# row: a node is to be told of that only if it lasts for very long.
_EVENT: Final = EventSettings(retry_base=0.05, retry_cap=0.5, own=OwnWireSettings(origin_grace=60.0))
_QUIC: Final = QuicSettings(idle_timeout=1.0, keepalive=0.25, handshake_timeout=2.0)
_CLUSTERS: Final = ("east", "west")
"""The listener, the dialer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordeal:
    """What is undergone: `events` in all conferences of both clusters together, `rate` of them a second."""

    events: int
    conferences: int
    rate: float
    protocol: str
    """ALPN name of the wire."""
    path: Profile = BAD_PATH
    breaks_per_minute: float = 20.0
    seed: int = 0
    patience: float = 120.0
    """Seconds that everything may take to arrive after the last event."""
    event: EventSettings = _EVENT
    quic: QuicSettings = _QUIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What it came to. That everything arrived as it had to is checked, not told."""

    seconds: float
    """On the loop's clock, from the first event to the last arrival."""
    settled: float
    """Seconds of these after the last event."""
    breaks: dict[str, int]
    resets: int
    """How often a cluster was told anew what there is in another one's conference, or that it is gone."""
    datagrams: int
    datagrams_lost: int


async def undergo(ordeal: Ordeal) -> Outcome:
    """Go through it. Raises UnfaithfulError, or TimeoutError when not everything arrives in time."""
    world = _World(ordeal)
    quic = msgspec.structs.replace(ordeal.quic, alpn=(ordeal.protocol,))
    async with AsyncExitStack() as stack:
        east, west = [
            await stack.enter_async_context(
                Site.running(cluster, world.nodes(cluster), quic=quic, event=ordeal.event)
            )
            for cluster in _CLUSTERS
        ]
        path, port = await impaired(stack, east.bridge.port, ordeal.path, seed=ordeal.seed)
        for room in world.rooms:
            await west.cascade(room, {**east.address, "evPort": port})
        try:
            return await _go_through(ordeal, world, path, east, west)
        except (UnfaithfulError, TimeoutError) as error:
            failure = error  # raised here, it would come out in the groups of both sites' tasks
    raise failure


async def _go_through(ordeal: Ordeal, world: _World, path: Path | Relay, east: Site, west: Site) -> Outcome:
    loop = asyncio.get_running_loop()
    breaks: Counter[str] = Counter()
    hearings = world.hearings.values()
    async with asyncio.timeout(ordeal.patience):
        await world.until(lambda: all(hearing.began for hearing in hearings))
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        breaking = tasks.create_task(_break(ordeal, path, east, breaks))
        await _happen(ordeal, world, {"east": east, "west": west})
        breaking.cancel()
    last = loop.time()
    async with asyncio.timeout(ordeal.patience):
        await world.until(lambda: not any(hearing.behind for hearing in hearings))
    for hearing in hearings:
        hearing.check_equal()
    return Outcome(
        seconds=loop.time() - began,
        settled=loop.time() - last,
        breaks=dict(breaks),
        resets=sum(hearing.resets for hearing in hearings),
        datagrams=path.there.sent + path.back.sent,
        datagrams_lost=path.there.lost.total() + path.back.lost.total(),
    )


class _World:
    """The conferences at both clusters, and what each was told of the other."""

    def __init__(self, ordeal: Ordeal) -> None:
        self.rooms: Final = [f"room-{number}" for number in range(ordeal.conferences)]
        self.origins: Final = {
            (cluster, room): Origin(cluster, room, random.Random(f"{ordeal.seed} {cluster} {room}"))
            for cluster in _CLUSTERS
            for room in self.rooms
        }
        self.hearings: Final = {key: Hearing(origin) for key, origin in self.origins.items()}
        """By whose conference it is; heard by the other cluster."""
        self._changed = asyncio.Event()
        self._failure: UnfaithfulError | None = None
        """Kept for who waits: a bridge that is told of an error by its node would only try again."""

    def nodes(self, cluster: str) -> Nodes:
        """Return the nodes of a cluster, with all rooms."""

        def told(room: str, origin: str, event: Any) -> None:
            try:
                self.hearings[origin, room].take(event)
            except UnfaithfulError as error:
                self._failure = self._failure or error
            self._changed.set()

        nodes = Nodes(
            cluster, state=lambda room: self.origins[cluster, room].happenings.now.initialize(), told=told
        )
        nodes.rooms.update(self.rooms)
        return nodes

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has been told that makes it true. Raises UnfaithfulError."""
        while self._failure is None and not condition():
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure


async def _happen(ordeal: Ordeal, world: _World, sites: dict[str, Site]) -> None:
    chance = random.Random(f"{ordeal.seed} happenings")
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(ordeal.events):
        due += chance.expovariate(ordeal.rate)
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        cluster, room = chance.choice(_CLUSTERS), chance.choice(world.rooms)
        await sites[cluster].nodes.notify(room, world.origins[cluster, room].happen())


async def _break(ordeal: Ordeal, path: Path | Relay, listener: Site, breaks: Counter[str]) -> None:
    """Break what there is, once in each slot of time, at a random moment of it; count by kind."""
    chance = random.Random(f"{ordeal.seed} breaks")
    slot = 60 / ordeal.breaks_per_minute
    longer = ordeal.quic.idle_timeout
    while True:
        length = longer * chance.uniform(1.0, 1.5)
        pause = chance.uniform(0.0, max(0.0, slot - length))
        await asyncio.sleep(pause)
        kind = chance.choice(("both ways", "there", "back", "closed"))
        if kind == "closed":
            listener.drop_connections()
        else:
            path.cut(length, there=kind != "back", back=kind != "there")
        breaks[kind] += 1
        await asyncio.sleep(slot - pause)
