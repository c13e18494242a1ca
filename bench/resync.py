"""How long it takes until two clusters know all of each other again when their connection has broken.

    python bench/resync.py                       1, 100 and 1,000 conferences, in virtual time
    python bench/resync.py --real                the same with real datagrams, in real time

Two real event bridges, their conference nodes played; each conference has some 10 participants and 10 streams
at each cluster. The path takes 50 ms there and back and carries 20 Mbit/s. The listener closes its
connections; then two events happen in every conference at both clusters. Measured is the time, and the bytes
on the path, until both know everything again: on our wire from its log (`resume`), on our wire when the log
does not reach back so far (`snapshot`), and on OWT's wire, which says everything anew (`initialize`). Median
of some rounds; the pause before the bridge dials again is in it.

In virtual time computing takes none: what is measured is the wire. With --real it is everything, on this
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from bench._bridges.happenings import Happenings, Occupancy
from bench._bridges.path import impaired
from bench._bridges.site import Nodes, Site
from bench._machine import report
from bridges.event.own.settings import OwnWireSettings
from bridges.event.settings import EventSettings
from bridges.quic import QuicSettings
from tests.impairment.core import Bottleneck, Profile
from tests.impairment.virtual import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.impairment.relay import Relay
    from tests.impairment.virtual import Path

__all__ = ["WAYS", "Way", "measure"]

_CLUSTERS: Final = ("east", "west")
_PATH: Final = Profile(delay=0.025, bottleneck=Bottleneck(rate=20e6, queue=0.1))
_PEOPLE: Final = 10
_EVENTS: Final = 2
_PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How they get in step again."""

    name: str
    protocol: str
    event: EventSettings = EventSettings(max_links=20_000)  # noqa: RUF009 - immutable


WAYS: Final[tuple[Way, ...]] = (
    Way(name="resume", protocol="causeway/1"),
    Way(
        name="snapshot",
        protocol="causeway/1",
        event=EventSettings(max_links=20_000, own=OwnWireSettings(log_events=1, log_bytes=1024)),
    ),
    Way(name="initialize", protocol="h3"),
)


class _World:
    """The conferences of both clusters, and what each knows of the other."""

    def __init__(self, conferences: int) -> None:
        self.rooms: Final = [f"room-{number}" for number in range(conferences)]
        self.here = {
            (cluster, room): Happenings(cluster, room, random.Random(f"{cluster} {room}"), people=_PEOPLE)
            for cluster in _CLUSTERS
            for room in self.rooms
        }
        self.known = {key: Occupancy() for key in self.here}
        """What the other cluster knows of it."""
        self.behind = set(self.here)
        """Where that is not how it is."""
        self._changed = asyncio.Event()
        for happenings in self.here.values():
            for _ in range(_PEOPLE * 8):
                happenings.next()

    def nodes(self, cluster: str) -> Nodes:
        """Return the nodes of a cluster, with all rooms."""
        nodes = Nodes(cluster, state=lambda room: self.here[cluster, room].now.initialize(), told=self._told)
        nodes.rooms.update(self.rooms)
        return nodes

    def _told(self, room: str, origin: str, event: Any) -> None:
        key = (origin, room)
        self.known[key].apply(event)
        if self.known[key].digest() == self.here[key].now.digest():
            self.behind.discard(key)
            self._changed.set()
        else:
            self.behind.add(key)

    async def happen(self, sites: dict[str, Site]) -> None:
        """Let at least two events happen in every conference at both clusters, and change something."""
        self.behind = set(self.here)
        for (cluster, room), happenings in self.here.items():
            before, count = happenings.now.digest(), happenings.count
            while happenings.count < count + _EVENTS or happenings.now.digest() == before:
                await sites[cluster].nodes.notify(room, happenings.next())

    async def settled(self) -> None:
        """Wait until both know everything of each other."""
        async with asyncio.timeout(_PATIENCE):
            while self.behind:
                self._changed.clear()
                await self._changed.wait()


async def measure(way: Way, conferences: int, rounds: int) -> dict[str, float]:
    """Break and mend; return the figures."""
    loop = asyncio.get_running_loop()
    world = _World(conferences)
    quic = QuicSettings(alpn=(way.protocol,))
    took: list[float] = []
    carried: list[int] = []
    async with AsyncExitStack() as stack:
        east, west = [
            await stack.enter_async_context(
                Site.running(cluster, world.nodes(cluster), quic=quic, event=way.event)
            )
            for cluster in _CLUSTERS
        ]
        path, port = await impaired(stack, east.bridge.port, _PATH, seed=1)
        for room in world.rooms:
            await west.cascade(room, {**east.address, "evPort": port})
        await world.settled()
        for _ in range(rounds):
            await asyncio.sleep(10.0)  # a link that was up for a while is redialled without a long pause
            before, began = _carried(path), loop.time()
            east.drop_connections()
            await world.happen({"east": east, "west": west})
            await world.settled()
            took.append(loop.time() - began)
            carried.append(_carried(path) - before)
    return {"seconds": statistics.median(took), "bytes": statistics.median(carried)}


def _carried(path: Path | Relay) -> int:
    return path.there.sent_bytes + path.back.sent_bytes


def run(conferences: Sequence[int], rounds: int, *, real: bool) -> None:
    """Measure every way with each number of conferences and print it."""
    figures: dict[str, float] = {}
    for number in conferences:
        for way in WAYS:
            if real:
                found = asyncio.run(measure(way, number, rounds))
            else:
                with VirtualLoop.running() as loop:
                    found = loop.run_until_complete(measure(way, number, rounds))
            figures |= {f"{way.name}_{number}_{name}": value for name, value in found.items()}
            print(
                f"{number:>5} conferences, {way.name:>10}: {found['seconds'] * 1000:8.0f} ms,"
                f" {found['bytes'] / 1024:9.1f} KiB",
                flush=True,
            )
    report("resync", figures)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conferences", type=int, nargs="+", default=[1, 100, 1000], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--real", action="store_true", help="real datagrams, in real time")
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if given.quick:
        given.conferences, given.rounds = [1, 10], 1
    run(given.conferences, given.rounds, real=given.real)


if __name__ == "__main__":
    main()
