"""How much media one core forwards: our bridges beside bare aioquic, and beside UDP alone.

Every row is a chain of three processes on loopback, source, forwarder and sink, the forwarder on a core of
its own. Publishers of 1.5 Mbit/s of video and sound each send in real time, the same in all rows, and the
forwarder's CPU time is measured: "Mbit/s a core" are the megabits of media that it forwards in a second of
it. So a busy machine makes the figures coarser, but favours none of them.

- `UDP`: datagrams of 1,200 bytes, as fast as they come, passed on without a look: the machine's limit. Once
  with a call for each, once with the kernel cutting and joining them.
- `stock`: aioquic's own asyncio protocol; what comes on a stream is written to a stream, what comes in a
  datagram is sent as one. Nothing is parsed or queued.
- `tuned`: the same, sending once in a turn of the loop, with UDP_SEGMENT.
- `ours`: the same on our connections (bridges.quic): with our pump, our congestion control, our limits.
- `bridge`: a whole media bridge that relays: frames are parsed, queued by deadline, given to whoever wants
  them; on our own wire (datagrams, repeated when lost) and on OWT's (a stream for each track).

The rows are measured in rounds, one after the other; the best of each counts, of those in which everything
arrived. A row in which it never did says that the machine had no time for it, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from bench._forwarding.ends import STYLES
from bench._forwarding.roles import Forwarder, Sink, Source, UdpForwarder, UdpSource
from bench._machine import report
from bench._plots import Bars
from bench._processes import process
from bench._results import Results
from bench._virtual.media import SOUND
from bench.tracks import MEGABITS, VIDEO, Chain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MAPPINGS: Final = ("streams", "datagrams")
WIRES: Final = {"causeway": "datagrams", "owt, our controller": "streams"}
"""Our bridges' wires, and what bare aioquic is to be compared with them."""
_WHOLE: Final = 0.99
"""Share of the media that has to arrive for a round to count as one."""
_AFTER: Final = 0.5
_WARM: Final = 0.5


class Row(NamedTuple):
    """What a chain came to."""

    per_core: float
    """Megabits of media that arrived for a second of CPU time."""
    busy: float
    """Share of its core that the forwarder used."""
    arrived: float
    """Share of the media."""


async def bare(style: str, *, datagrams: bool, publishers: int, seconds: float) -> Row:
    """Measure source, forwarder and sink of one style."""
    async with AsyncExitStack() as stack:
        core = max(os.sched_getaffinity(0))
        sink = await stack.enter_async_context(process(Sink.running, style))
        forwarder = await stack.enter_async_context(
            process(Forwarder.running, style, await sink.call("address"), core)
        )
        source = await stack.enter_async_context(
            process(Source.running, style, await forwarder.call("address"), datagrams)
        )
        await source.call("have", [VIDEO, SOUND] * publishers)
        await source.call("send", _WARM)
        await asyncio.sleep(_AFTER)
        before, had = await forwarder.call("cpu"), await sink.call("bytes")
        media = await source.call("send", seconds, timeout=seconds + 60)
        await asyncio.sleep(_AFTER)
        cpu, came = await forwarder.call("cpu") - before, await sink.call("bytes") - had
        arrived = min(1.0, came / media)
        return Row(8e-6 * media * arrived / cpu, cpu / (seconds + _AFTER), arrived)


async def udp(*, offload: bool, seconds: float) -> Row:
    """Measure datagrams that are passed on without a look."""
    async with (
        process(UdpForwarder.running, offload, max(os.sched_getaffinity(0))) as forwarder,
        process(UdpSource.running, await forwarder.call("port")) as source,
    ):
        before, had = await forwarder.call("cpu"), await forwarder.call("bytes")
        await source.call("send", seconds, timeout=seconds + 60)
        cpu, came = await forwarder.call("cpu") - before, await forwarder.call("bytes") - had
        return Row(8e-6 * came / cpu, cpu / seconds, 1.0)


async def bridged(wire: str, *, publishers: int, seconds: float) -> Row:
    """Measure a bridge that relays from another one to a third."""
    async with Chain.running(wire) as chain:
        probe = await chain.probe(publishers, seconds)
        mbit = publishers * MEGABITS
        return Row(mbit * probe.arrived / probe.busy[1], probe.busy[1], probe.arrived)


def rows(publishers: int, seconds: float) -> dict[str, Callable[[], Awaitable[Row]]]:
    """Return what is measured, by name."""
    measured: dict[str, Callable[[], Awaitable[Row]]] = {
        "UDP, a call each": lambda: udp(offload=False, seconds=seconds),
        "UDP, cut and joined": lambda: udp(offload=True, seconds=seconds),
    }
    for mapping in MAPPINGS:
        for style in STYLES:
            measured[f"{style}, {mapping}"] = lambda style=style, mapping=mapping: bare(  # type: ignore[misc] # bound now
                style, datagrams=mapping == "datagrams", publishers=publishers, seconds=seconds
            )
    for wire in WIRES:
        measured[f"bridge, {wire}"] = lambda wire=wire: bridged(  # type: ignore[misc] # bound now
            wire, publishers=publishers, seconds=seconds
        )
    return measured


async def run(publishers: int, seconds: float, rounds: int, only: list[str]) -> dict[str, Row]:
    """Measure everything, in rounds; return the best of each."""
    best: dict[str, Row] = {}
    for number in range(rounds):
        for name, measure in rows(publishers, seconds).items():
            if only and not any(each in name for each in only):
                continue
            row = await measure()
            print(
                f"round {number + 1}: {name}: {row.per_core:.1f} Mbit/s a core, busy {row.busy:.0%}, "
                f"arrived {row.arrived:.1%}",
                file=sys.stderr,
                flush=True,
            )
            best[name] = max(row, best.get(name, row), key=_worth)
    return best


def _worth(row: Row) -> tuple[bool, float]:
    return row.arrived >= _WHOLE, row.per_core


def bars(best: Mapping[str, Row]) -> Bars:
    """Return the rows as a group of bars for each mapping."""
    bridges = {mapping: f"bridge, {wire}" for wire, mapping in WIRES.items()}
    series = {
        style: [_height(best.get(f"{style}, {mapping}")) for mapping in MAPPINGS] for style in STYLES
    } | {"bridge": [_height(best.get(bridges[mapping])) for mapping in MAPPINGS]}
    return Bars(title="beside bare aioquic", unit="Mbit/s a core", names=MAPPINGS, series=series)


def _height(row: Row | None) -> float:
    return 0.0 if row is None else row.per_core


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--publishers", type=int, default=12, help="at most 60 (default 12)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row in each round (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts (default 3)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="rows with it in the name"
    )
    parser.add_argument("--quick", action="store_true", help="2 publishers, 1 s each: shows that it works")
    Results.options(parser)
    options = parser.parse_args()
    if options.quick:
        options.publishers, options.seconds, options.rounds = 2, 1.0, 1
    results = Results.of("throughput", parser, options)
    best = asyncio.run(run(options.publishers, options.seconds, options.rounds, options.only))
    lines, figures = [], {}
    for name, row in best.items():
        mapping = WIRES.get(name.removeprefix("bridge, "), name.rpartition(", ")[2])
        tuned = best.get(f"tuned, {mapping}")
        share = "" if tuned is None else f"{row.per_core / tuned.per_core:.0%}"
        lines.append([name, f"{row.per_core:.1f}", share, f"{row.busy:.0%}", f"{row.arrived:.2%}"])
        plain = name.replace(", ", "_").replace(" ", "_").lower()
        figures[f"{plain}_mbit_s_core"] = row.per_core
        if tuned is not None:
            figures[f"{plain}_of_tuned"] = row.per_core / tuned.per_core
    results.table(("forwarder", "Mbit/s a core", "of tuned", "busy", "arrived"), lines)
    results.draw([[bars(best)]], title="Media that one core forwards")
    report("throughput", figures)


if __name__ == "__main__":
    main()
