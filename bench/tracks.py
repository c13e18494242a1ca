"""How many publishers one core forwards: 1.5 Mbit/s of video and sound each, over a clean link.

Three media bridges in processes of their own. The one in the middle has a core for itself; it takes every
track over QUIC from the first and passes it on over QUIC to the last, as a relay of a tree does. Frames are
stamped when they are captured and looked at when they come out at the far end of bridge -> QUIC -> bridge ->
QUIC -> bridge; inside the first and the last process there is no TCP, so that these have less to do, and what
has arrived at the last one's kernel is there, however late that process comes to it.

The number of publishers is doubled, then narrowed down, until the 99th percentile of the delay of the
pictures or of the sound passes the limit; a frame that never comes counts as one that comes too late. What
else the machine does slows everything, so each number gets several tries, of which the best counts.

The other two bridges do together more than the one in the middle. With two cores they share one, and what
the middle one leaves of its own (they run while nobody else wants to), and the figure is no more than a lower
bound of what the middle one does: the table shows how busy each was, and for how long others had the core
that the middle one should have had for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench._frames import percentile
from bench._machine import report
from bench._media.node import WIRES
from bench._media.site import Site
from bench._plots import Curves
from bench._processes import process
from bench._results import Results
from bench._virtual.media import SOUND, Track

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bench._processes import Remote

VIDEO: Final = Track(sound=False, rate=30, size=5_700, key_every=60, key_size=38_000)
"""1.5 Mbit/s, a key frame every two seconds."""
MEGABITS: Final = 1.5 + 50 * 120 * 8 / 1e6
"""Of one publisher, a second."""
WIRES_MEASURED: Final = ("causeway", "owt, our controller")
_WARM: Final = 1.0
_AFTER: Final = 0.5
_CLUSTERS: Final = ("first", "middle", "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What so many publishers came to. Milliseconds; shares of a core."""

    publishers: int
    video_p99: float
    sound_p99: float
    video_p50: float
    busy: tuple[float, ...]
    """Of the first, the middle and the last process."""
    waited: float
    """Share of the time that the middle process was ready to run and did not have its core."""
    arrived: float
    """Share of the frames that came, however late."""

    @property
    def p99(self) -> float:
        """The worse of the two."""
        return max(self.video_p99, self.sound_p99)


class Chain:
    """Three bridges, each linked with the next, and the tracks that are pulled over both links."""

    def __init__(self, sites: list[Remote]) -> None:
        self._sites = sites
        self._streams: list[str] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, wire: str) -> AsyncIterator[Chain]:
        """Start the processes; the middle one has the last core for itself."""
        *others, own = sorted(os.sched_getaffinity(0))
        cores = (others[0], own, others[-1]) if others[1:] else (None, own, None)
        async with AsyncExitStack() as stack:
            sites = [
                await stack.enter_async_context(
                    process(Site.running, name, wire, core, direct=name != "middle", yields=core is None)
                )
                for name, core in zip(_CLUSTERS, cores, strict=True)
            ]
            first, middle, last = sites
            await middle.call("cascade", "first", await first.call("info"))
            await last.call("cascade", "middle", await middle.call("info"))
            await first.call("relay", {"middle": ("last",)})
            await middle.call("relay", {"first": (), "last": ()})
            await last.call("relay", {"middle": ("first",)})
            yield cls(sites)

    async def probe(self, publishers: int, seconds: float) -> Probe:
        """Have so many publishers for so many seconds."""
        first, middle, last = self._sites
        await self._have(publishers)
        await first.call("send", self._streams, _WARM)
        await asyncio.sleep(_AFTER)
        await last.call("taken")
        before, waited_before = await self._cpu(), await middle.call("waited")
        sent = await first.call("send", self._streams, seconds, timeout=seconds + 60)
        after, waited = await self._cpu(), await middle.call("waited") - waited_before
        await asyncio.sleep(_AFTER)
        taken = await last.call("taken", timeout=120)
        delays = {
            kind: [1e3 * taken.get(each, math.inf) for each in sent[kind]] for kind in ("video", "sound")
        }
        stamps = [*sent["video"], *sent["sound"]]
        return Probe(
            publishers=publishers,
            waited=waited / sent["seconds"],
            arrived=sum(each in taken for each in stamps) / len(stamps),
            video_p99=percentile(delays["video"], 99),
            sound_p99=percentile(delays["sound"], 99),
            video_p50=percentile(delays["video"], 50),
            busy=tuple((now - then) / sent["seconds"] for now, then in zip(after, before, strict=True)),
        )

    async def _have(self, publishers: int) -> None:
        first, _, last = self._sites
        while len(self._streams) > publishers:
            name = self._streams.pop()
            await last.call("untake", f"of-{name}")
            await first.call("withdraw", name)
        while len(self._streams) < publishers:
            name = f"s{len(self._streams)}"
            self._streams.append(name)
            await first.call("offer", name, [VIDEO, SOUND])
            await last.call("take", f"of-{name}", "first", name, ["video", "audio"])
        await first.call("subscribed", 2 * publishers)

    async def _cpu(self) -> list[float]:
        return [await site.call("cpu") for site in self._sites]


async def search(measure: Callable[[int], Awaitable[bool]], *, most: int) -> int:
    """Return the greatest number, at most `most`, that is good; 0: not even 1 is."""
    good, bad = 0, most + 1
    while bad - good > 1:
        middle = min(max(1, 2 * good), most) if bad > most else (good + bad) // 2
        if await measure(middle):
            good = middle
        else:
            bad = middle
    return good


async def measured(wire: str, options: argparse.Namespace) -> tuple[int, list[Probe]]:
    """Return how many publishers a wire carries, and all that was tried, by their number."""
    probes: dict[int, Probe] = {}
    async with Chain.running(wire) as chain:

        async def is_good(publishers: int) -> bool:
            for _ in range(options.tries):
                probe = await chain.probe(publishers, options.seconds)
                former = probes.get(publishers)
                probes[publishers] = probe if former is None or probe.p99 < former.p99 else former
                print(f"  {wire}: {describe(probe)}", file=sys.stderr, flush=True)
                if probe.p99 <= options.limit:
                    return True
            return False

        most = await search(is_good, most=options.most)
    return most, [probes[number] for number in sorted(probes)]


def describe(probe: Probe) -> str:
    """Return it on one line."""
    busy = "/".join(f"{100 * each:.0f}" for each in probe.busy)
    delays = f"p99 {probe.video_p99:.1f} ms of video, {probe.sound_p99:.1f} ms of sound"
    return f"{probe.publishers} publishers: {delays}, busy {busy} %, kept waiting {100 * probe.waited:.0f} %"


def main() -> None:
    """Measure both wires and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="that each number is tried (default 8)")
    parser.add_argument("--tries", type=int, default=3, help="of each number (default 3)")
    parser.add_argument("--limit", type=float, default=50.0, help="of the delay in ms (default 50)")
    parser.add_argument("--most", type=int, default=128, help="publishers that are tried (default 128)")
    parser.add_argument("--wire", choices=list(WIRES), action="append", help="default: ours, and OWT's")
    parser.add_argument(
        "--quick", action="store_true", help="at most 4 publishers, 1 s each: shows that it works"
    )
    Results.options(parser)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.tries, options.most = 1.0, 1, 4
    results = Results.of("tracks", parser, options)
    lines, figures = [], {}
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {"p99": {}, "busy": {}}
    for wire in options.wire or WIRES_MEASURED:
        most, probes = asyncio.run(measured(wire, options))
        for probe in probes:
            shares = [f"{100 * each:.0f}" for each in (*probe.busy, probe.waited)]
            delays = (f"{each:.1f}" for each in (probe.video_p50, probe.video_p99, probe.sound_p99))
            lines.append([wire, str(probe.publishers), *delays, *shares])
        curves["p99"][wire] = [(probe.publishers, probe.p99) for probe in probes]
        curves["busy"][wire] = [(probe.publishers, 100 * probe.busy[1]) for probe in probes]
        figures[f"{wire}_publishers"] = float(most)
        if most:
            (best,) = (probe for probe in probes if probe.publishers == most)
            for name, busy in zip(_CLUSTERS, best.busy, strict=True):
                figures[f"{wire}_{name}_ms_per_mbit"] = 1e3 * busy / (most * MEGABITS)
    head = (
        "wire",
        "publishers",
        "video p50 ms",
        "p99 ms",
        "sound p99 ms",
        "first busy %",
        "middle busy %",
        "last busy %",
        "middle kept waiting %",
    )
    results.table(head, lines)
    results.draw(
        [
            [
                Curves(
                    title="slower of video and sound, p99",
                    unit="ms",
                    across="publishers",
                    series=curves["p99"],
                    limits={"limit": options.limit},
                    logarithmic=True,
                ),
                Curves(
                    title="the core in the middle", unit="% busy", across="publishers", series=curves["busy"]
                ),
            ]
        ],
        title="Publishers of 1.5 Mbit/s video and sound that one core forwards",
    )
    report("tracks", {name.replace(", ", "_").replace(" ", "_"): each for name, each in figures.items()})


if __name__ == "__main__":
    main()
