"""An hour of churn on real media bridges: memory has to stay flat, and nothing to be held that nobody needs.

Three media bridges in processes of their own, two that speak our own wire and one that speaks OWT's, with
lossy paths between them that are cut now and then. Conferences begin and end, with links between two clusters
or relaying ones through a third; streams come and go while others are pulled, taken by one more, taken by one
less; sources vanish under those who take them. After every cycle of this everything ends, and the bridges are
looked at when they are at rest: what they hold of their own kinds of objects has to be what they held before,
and neither their memory nor the number of all their objects may grow.

Judged is the growth (median of all slopes between two looks, times the time between the first and the last
one) after the first third of all cycles. The exit code is 1 if it is above its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench._machine import report
from bench._media.flat import growth, judged
from bench._media.line import Line
from bench._media.site import Site
from bench._plots import Curves
from bench._processes import process
from bench._results import Results
from bench._virtual.media import SOUND, Track
from tests.impairment.core import Profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench._processes import Remote

WIRES: Final = {"a": "causeway", "b": "causeway", "c": "owt, our controller"}
"""The clusters, and what each speaks at best."""
CHAIN: Final = ("a", "b", "c")
"""In a conference that relays, each is linked with the next."""
VIDEO: Final = Track(sound=False, rate=10, size=2_000, key_every=20, key_size=10_000)
PATH: Final = Profile(delay=0.01, loss=0.01)
MOST_BYTES: Final = 4.0
"""MiB by which a process may grow."""
MOST_OBJECTS: Final = 300
"""So many more objects may be in a process, those from before its start not counted."""
_DRAIN: Final = 2.0
"""Seconds in which closed QUIC connections have drained (RFC 9000, section 10.2)."""
_KEPT: Final = {"bridges.figures.Tally", "bridges.wire.own_media.datagram.FrameHead"}
"""What is kept on purpose, up to a bound: what links have come to, also those that flap; a cache."""


@dataclass(slots=True)
class Room:
    """A conference: its links, the streams in it, who pulls what, and who takes it besides."""

    name: str
    links: list[tuple[str, str]]
    """Who dialled whom."""
    streams: dict[str, str] = field(default_factory=dict)
    """Where each lives."""
    pulls: dict[str, str] = field(default_factory=dict)
    """Sessions, and the cluster that pulls."""
    takers: dict[str, str] = field(default_factory=dict)
    """Further subscribers, and where they are."""

    @property
    def clusters(self) -> list[str]:
        """Who takes part."""
        return sorted({cluster for link in self.links for cluster in link})


@dataclass(slots=True)
class Look:
    """What one process held at rest."""

    minutes: float
    mebibytes: float
    counts: dict[str, int]


class World:
    """The bridges, the paths between them, and what is going on."""

    def __init__(self, sites: dict[str, Remote], paths: dict[str, Remote], seed: int) -> None:
        self.actions = 0
        self.frames = 0
        """Frames that were taken."""
        self.complaints: list[str] = []
        """What bridges logged as an error."""
        self._sites = sites
        self._paths = paths
        self._random = random.Random(seed)
        self._rooms: list[Room] = []
        self._began = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, seed: int) -> AsyncIterator[World]:
        """Start everything; a path leads to each bridge."""
        async with AsyncExitStack() as stack:
            sites, paths = {}, {}
            for number, (name, wire) in enumerate(WIRES.items()):
                site = sites[name] = await stack.enter_async_context(process(Site.running, name, wire))
                port = (await site.call("info"))["port"]
                paths[name] = await stack.enter_async_context(
                    process(Line.running, port, PATH, seed + number, exact_timers=True)
                )
            yield cls(sites, paths, seed)

    async def churn(self, seconds: float) -> None:
        """Let things happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._act()
            self.actions += 1
            await asyncio.sleep(self._random.expovariate(20))

    async def end(self) -> None:
        """Let everything end, and wait until all bridges are at rest."""
        while self._rooms:
            await self._end_room(self._rooms[-1])
        for name, site in self._sites.items():
            if not await site.call("at_rest"):
                self.complaints.append(f"{name}: links and tracks were still there when all had ended")
        await asyncio.sleep(_DRAIN)
        for name, site in self._sites.items():
            self.complaints += [f"{name}: {each}" for each in await site.call("complaints")]

    async def looks(self, minutes: float) -> dict[str, Look]:
        """Return what every bridge holds."""
        found = {}
        for name, site in self._sites.items():
            self.frames += await site.call("count")
            resident, counts = await site.call("rest")
            found[name] = Look(minutes, resident / 2**20, counts)
        return found

    # --- what happens -----------------------------------------------------------------------------

    async def _act(self) -> None:
        chance = self._random.random()
        if not self._rooms or (len(self._rooms) < 6 and chance < 0.05):
            await self._begin_room()
            return
        room = self._random.choice(self._rooms)
        if chance < 0.01:
            await self._paths[self._random.choice(CHAIN)].call("cut", self._random.choice((0.3, 1.0, 4.0)))
        elif chance < 0.04:
            await self._end_room(room)
        elif chance < 0.3 or not room.streams:
            await self._begin_stream(room)
        elif chance < 0.4:
            await self._end_stream(room, self._random.choice(list(room.streams)))
        elif chance < 0.6 or not room.pulls:
            await self._pull(room, self._random.choice(list(room.streams)))
        elif chance < 0.75:
            await self._end_pull(room, self._random.choice(list(room.pulls)))
        elif chance < 0.9 or not room.takers:
            await self._join(room, self._random.choice(list(room.pulls)))
        else:
            await self._leave(room, self._random.choice(list(room.takers)))

    def _name(self, kind: str) -> str:
        self._began += 1
        return f"{kind}{self._began}"

    async def _begin_room(self) -> None:
        relaying = self._random.random() < 0.4
        links = list(zip(CHAIN[1:], CHAIN, strict=False))
        if not relaying:
            links = [tuple(self._random.sample(CHAIN, 2))]  # type: ignore[list-item] # two of them
        room = Room(self._name("room"), links)
        self._rooms.append(room)
        for dialer, listener in links:
            info = await self._sites[listener].call("info")
            info["port"] = await self._paths[listener].call("port")
            await self._sites[dialer].call("cascade", listener, info, room.name)
        if relaying:
            for number, name in enumerate(CHAIN):
                ways = {CHAIN[number - 1]: CHAIN[: number - 1]} if number else {}
                ways |= {CHAIN[number + 1]: CHAIN[number + 2 :]} if number + 1 < len(CHAIN) else {}
                await self._sites[name].call("relay", ways, room.name)

    async def _end_room(self, room: Room) -> None:
        self._rooms.remove(room)
        for name in list(room.takers):
            await self._leave(room, name)
        for session in list(room.pulls):
            await self._end_pull(room, session)
        for stream in list(room.streams):
            await self._end_stream(room, stream)
        for dialer, listener in room.links:
            await self._sites[dialer].call("uncascade", listener, room.name)
        for name in room.clusters:
            await self._sites[name].call("relay", {}, room.name)
            await self._sites[name].call("forget_room", room.name)

    async def _begin_stream(self, room: Room) -> None:
        if len(room.streams) < 6:
            stream, home = self._name("stream"), self._random.choice(room.clusters)
            room.streams[stream] = home
            await self._sites[home].call("offer", stream, [VIDEO, SOUND])
            await self._sites[home].call("roll", stream)

    async def _end_stream(self, room: Room, stream: str) -> None:
        await self._sites[room.streams.pop(stream)].call("withdraw", stream)

    async def _pull(self, room: Room, stream: str) -> None:
        others = [name for name in room.clusters if name != room.streams[stream]]
        session, where = self._name("session"), self._random.choice(others)
        room.pulls[session] = where
        kinds = ["video", "audio"]
        await self._sites[where].call("take", session, room.streams[stream], stream, kinds, room.name)

    async def _end_pull(self, room: Room, session: str) -> None:
        await self._sites[room.pulls.pop(session)].call("untake", session)

    async def _join(self, room: Room, session: str) -> None:
        name, where = self._name("taker"), room.pulls[session]
        room.takers[name] = where
        await self._sites[where].call("join", name, f"{session}-video")

    async def _leave(self, room: Room, name: str) -> None:
        await self._sites[room.takers.pop(name)].call("leave", name)


# --- judging ---------------------------------------------------------------------------------------


def lasting(looks: list[Look]) -> list[str]:
    """Return which of our kinds of objects are more at every one of the later looks than at the first."""
    first, *later = looks
    found = []
    for kind in sorted({kind for look in later for kind in look.counts} - {"all"} - _KEPT):
        fewest = min(look.counts.get(kind, 0) for look in later[len(later) // 2 :])
        if fewest > first.counts.get(kind, 0):
            found.append(f"{kind}: {first.counts.get(kind, 0)} -> {fewest}")
    return found


def grown(looks: list[Look]) -> tuple[float, float]:
    """Return by how many MiB, and by how many objects, a process has grown."""
    counted = [(look.minutes, float(look.counts["all"])) for look in looks]
    return growth(judged([(look.minutes, look.mebibytes) for look in looks])), growth(judged(counted))


async def run(*, minutes: float, cycle: float, seed: int) -> tuple[dict[str, list[Look]], World]:
    """Return what the bridges held after every cycle, by name, and the world that is over."""
    looks: dict[str, list[Look]] = {name: [] for name in WIRES}
    async with World.running(seed) as world:
        began = time.monotonic()
        while (passed := (time.monotonic() - began) / 60) < minutes or len(looks["a"]) < 3:
            await world.churn(cycle)
            await world.end()
            for name, look in (await world.looks((time.monotonic() - began) / 60)).items():
                looks[name].append(look)
            now = ", ".join(f"{name} {each[-1].mebibytes:.1f} MiB" for name, each in looks.items())
            print(f"  {passed:5.1f} min, {world.actions} actions: {now}", file=sys.stderr, flush=True)
    return looks, world


def main() -> None:
    """Churn, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of churn (default 60)")
    parser.add_argument("--cycle", type=float, help="seconds between two looks (default: 30 looks in all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three cycles of 3 s: shows that it works")
    Results.options(parser)
    options = parser.parse_args()
    minutes, cycle = options.minutes, options.cycle or 2 * options.minutes
    if options.quick:
        minutes, cycle = 0.0, 3.0
    results = Results.of("soak", parser, options)
    looks, world = asyncio.run(run(minutes=minutes, cycle=cycle, seed=options.seed))
    lines, bad = [], world.complaints
    figures = {"minutes": looks["a"][-1].minutes, "actions": world.actions, "frames": world.frames}
    for name, found in looks.items():
        mebibytes, objects = grown(found)
        kept = lasting(found)
        first, last = judged(found_of(found, "memory"))[0][1], found[-1].mebibytes
        counts = [str(each.counts["all"]) for each in (found[0], found[-1])]
        lines.append([name, WIRES[name], f"{first:.1f}", f"{last:.1f}", f"{mebibytes:+.2f}", *counts])
        lines[-1] += [f"{objects:+.0f}", str(len(kept))]
        figures |= {f"{name}_mib": last, f"{name}_growth_mib": mebibytes, f"{name}_growth_objects": objects}
        bad += [f"{name}: {each}" for each in kept]
        bad += [f"{name}: grew by {mebibytes:.2f} MiB, not at most {MOST_BYTES:g}"] * (
            mebibytes > MOST_BYTES and not options.quick
        )
        bad += [f"{name}: has {objects:.0f} more objects, not at most {MOST_OBJECTS}"] * (
            objects > MOST_OBJECTS and not options.quick
        )
    head = (
        "bridge",
        "wire",
        "MiB after a third",
        "at the end",
        "growth",
        "objects at first",
        "at the end",
        "growth",
        "kinds held on to",
    )
    results.table(head, lines, text=2)
    results.draw(
        [
            [
                Curves(
                    title="memory at rest",
                    unit="MiB",
                    across="minutes",
                    series={name: found_of(found, "memory") for name, found in looks.items()},
                ),
                Curves(
                    title="objects at rest",
                    unit="thousand",
                    across="minutes",
                    series={name: found_of(found, "objects") for name, found in looks.items()},
                ),
            ]
        ],
        title=f"{world.actions} actions of churn on three media bridges",
    )
    report("soak", figures)
    for each in bad:
        print(f"soak: {each}", file=sys.stderr)
    sys.exit(bool(bad))


def found_of(looks: list[Look], what: str) -> list[tuple[float, float]]:
    """Return a curve over the minutes: `memory` in MiB, or `objects` in thousands."""
    return [
        (look.minutes, look.mebibytes if what == "memory" else look.counts["all"] / 1e3) for look in looks
    ]


if __name__ == "__main__":
    main()
