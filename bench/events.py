"""What events between two clusters cost: delay, rate and memory, on our wire and on OWT's.

    python bench/events.py                       1, 100 and 5,000 conferences
    python bench/events.py --conferences 1 1000 --wire own

Two processes on loopback, each a real event bridge with its conference nodes played. For each wire the
conferences are opened, then:

1. Delay: 100 events a second, spread over the conferences, each sent back by the node that hears it; and in
   turns with it, messages of the same size over one stream of bare aioquic and back, at the same rate. What
   the bridges add is the difference of the two round trips, there and back together.
2. Rate: events as fast as the other cluster's nodes hear them, at most 500 on their way: our wire keeps 1,000
   of a conference for whoever is slow, and then sends the state instead.
3. Memory: what both bridges' processes have grown by since there was no conference, by conference and bridge.
   Each conference has one participant and one stream at each cluster. The nodes' own share is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from bench._bridges.echo import EchoCaller, EchoServer
from bench._bridges.post import EVENT_BYTES, Post
from bench._machine import report
from bench._processes import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench._processes import Remote

_PROTOCOLS: Final = {"own": "causeway/1", "owt": "h3"}
_RATE: Final = 100.0
_TURNS: Final = 5


async def run(wires: Sequence[str], conferences: Sequence[int], *, events: int, flood: float) -> None:
    """Measure everything and print it."""
    figures: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(process(EchoServer.running))
        bare = await stack.enter_async_context(process(EchoCaller.running, await server.call("port")))
        for wire in wires:
            async with AsyncExitStack() as inner:
                east, west = [
                    await inner.enter_async_context(process(Post.running, cluster, _PROTOCOLS[wire]))
                    for cluster in ("east", "west")
                ]
                pair = _Pair(east, west, bare)
                await pair.begin()
                for number in sorted(conferences):
                    found = await pair.measure(number, events=events, flood=flood)
                    figures |= {f"{wire}_{number}_{name}": value for name, value in found.items()}
                    _print(wire, number, found)
    report("events", figures)


def _print(wire: str, conferences: int, found: dict[str, float]) -> None:
    print(
        f"{wire}, {conferences:>5} conferences:"
        f" there and back p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms"
        f" (bare {found['bare_p50_ms']:.2f}, {found['bare_p99_ms']:.2f});"
        f" {found['events_per_s']:.0f} events/s;"
        f" {found['bytes_per_conference'] / 1024:.1f} KiB a conference;"
        f" opened at {found['opened_per_s']:.0f}/s",
        flush=True,
    )


class _Pair:
    """Two clusters, linked for more and more conferences."""

    def __init__(self, east: Remote, west: Remote, bare: Remote) -> None:
        self._east, self._west, self._bare = east, west, bare
        self._address: Any = None
        self._open = 0
        self._empty = 0

    async def begin(self) -> None:
        """Note how things are without conferences."""
        self._address = await self._east.call("address")
        self._empty = await self._memory()

    async def measure(self, conferences: int, *, events: int, flood: float) -> dict[str, float]:
        """Open what is missing of so many conferences, and measure."""
        loop = asyncio.get_running_loop()
        new = range(self._open, conferences)
        began = loop.time()
        for site in (self._east, self._west):
            await site.call("rooms", self._open, conferences)
        await self._west.call("cascade", self._open, conferences, self._address, timeout=300.0)
        for site in (self._east, self._west):
            await site.call("initialized", conferences, timeout=300.0)
        took = loop.time() - began
        self._open = conferences
        grown = await self._memory() - self._empty
        (p50, p99), (bare_p50, bare_p99) = await self._delays(events, conferences)
        rate = await self._west.call("flood", flood, conferences, timeout=300.0)
        return {
            "p50_ms": p50,
            "p99_ms": p99,
            "bare_p50_ms": bare_p50,
            "bare_p99_ms": bare_p99,
            "added_p50_ms": p50 - bare_p50,
            "added_p99_ms": p99 - bare_p99,
            "events_per_s": rate,
            "bytes_per_conference": grown / conferences / 2,
            "opened_per_s": len(new) / took,
        }

    async def _delays(self, events: int, conferences: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the percentiles of round trips, the bridges' and bare aioquic's."""
        bridged: list[float] = []
        bare: list[float] = []
        share = events // _TURNS
        for _ in range(_TURNS):
            wait = 60 + share / _RATE
            bare += await self._bare.call("round_trips", share, _RATE, EVENT_BYTES, timeout=wait)
            bridged += await self._west.call("round_trips", share, _RATE, conferences, timeout=wait)
        return _percentiles(bridged), _percentiles(bare)

    async def _memory(self) -> int:
        return int(await self._east.call("memory")) + int(await self._west.call("memory"))


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    quantiles = statistics.quantiles(seconds, n=100)
    return quantiles[49] * 1000, quantiles[98] * 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conferences", type=int, nargs="+", default=[1, 100, 5000], metavar="N")
    parser.add_argument("--wire", choices=list(_PROTOCOLS), nargs="+", default=list(_PROTOCOLS))
    parser.add_argument("--events", type=int, default=1000, metavar="N", help="whose delay is measured")
    parser.add_argument(
        "--flood", type=float, default=5.0, metavar="S", help="seconds that the rate is measured"
    )
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    given = parser.parse_args()
    if given.quick:
        given.conferences, given.events, given.flood = [1, 20], 100, 0.5
    asyncio.run(run(given.wire, given.conferences, events=given.events, flood=given.flood))


if __name__ == "__main__":
    main()
