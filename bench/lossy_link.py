"""Pictures and sound over lossy lines: our own media wire beside OWT's on stock Reno and CUBIC.

Two harnesses, the same lines, the same tracks (0.95 Mbit/s of video with a key frame every two seconds, and
sound), the same words:

virtual  Real QUIC connections (aioquic's, with their TLS, packets and acknowledgements) over simulated paths
         in virtual time, so the figures do not depend on the machine: the whole matrix. Ours is whole
         (datagrams, the send queue, repair as the policy chooses, reassembly, parity decoded for real); the
         others put all frames of a track on one stream, as OWT's wire has it, and drop none.
real     Two media bridges and the path between them, three processes, with UDP, internal TCP and all: the
         cells that matter most, from capture until the taker has the frame. On OWT's wire the bridges drop
         what the path does not take, up to the next key frame.

What loses, loses in both directions. Ours hands frames on whole, decodable and in order. In time is what is
complete within 200 ms beyond the path's one-way delay. Overhead is everything in UDP and IP towards the
receiver over the media's bytes. The first two seconds do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from bench._machine import report
from bench._media.cell import real
from bench._media.node import WIRES
from bench._plots import Bars
from bench._results import Results
from bench._virtual.lossy import Cell, Lossy, told
from bench._virtual.media import SOUND, VIDEO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OURS: Final = "causeway"
CONTROLLERS: Final = (OURS, "reno", "cubic")
ROUND_TRIPS: Final = (0.02, 0.08, 0.2)
LINES: Final = {
    "0%": Lossy(),
    "0.5%": Lossy(loss=0.005),
    "1%": Lossy(loss=0.01),
    "2%": Lossy(loss=0.02),
    "5%": Lossy(loss=0.05),
    "bursts 2%": Lossy(bursts=0.02),
    "2%, jitter 2 ms": Lossy(loss=0.02, jitter=0.002),
}
MANY: Final = "8 + 8, jitter 20 ms"


class Place(NamedTuple):
    """A line, and how many streams (of a picture and a sound track) cross it."""

    name: str
    lossy: Lossy
    round_trip: float
    streams: int = 1

    @property
    def title(self) -> str:
        """What tables say."""
        return f"{1e3 * self.round_trip:.0f} ms, {self.name}"


class Row(NamedTuple):
    """One cell of the matrix for one wire, and one seed."""

    place: Place
    wire: str
    seed: int


class Target(NamedTuple):
    """What our wire has to reach at a place; shares, and milliseconds."""

    in_time: float
    video_p99: float = math.inf
    overhead: float = math.inf


TARGETS: Final = {
    "80 ms, 2%": Target(0.999, 140, 0.20),
    "80 ms, 5%": Target(0.999, 225, 0.20),
    "200 ms, 5%": Target(0.995, 125),
    f"80 ms, {MANY}": Target(0.99),
}
KEY_CELLS: Final = ("80 ms, 0%", "80 ms, 2%", "80 ms, 5%", "80 ms, bursts 2%", "200 ms, 2%", "200 ms, 5%")
"""Those that are run with real processes, and the one with many tracks."""

Cells = dict[tuple[str, str], list[Cell]]
"""By place and wire: one for each seed."""


def places() -> list[Place]:
    """Return the whole matrix."""
    found = [Place(name, lossy, trip) for trip, (name, lossy) in product(ROUND_TRIPS, LINES.items())]
    return [*found, Place(MANY, Lossy(jitter=0.02), 0.08, streams=8)]


def tell(row: Row) -> Cell:
    """Run one in virtual time."""
    tracks = [VIDEO, SOUND] * row.place.streams
    return told(row.place.lossy, row.place.round_trip, row.wire, seed=row.seed, tracks=tracks)


def virtual(chosen: Sequence[Place], seeds: Sequence[int], *, jobs: int) -> Cells:
    """Run cells in virtual time, several at once."""
    rows = [Row(place, wire, seed) for place, wire, seed in product(chosen, CONTROLLERS, seeds)]
    cells: Cells = {}
    with ProcessPoolExecutor(jobs) as pool:
        for row, cell in zip(rows, pool.map(tell, rows), strict=True):
            cells.setdefault((row.place.title, row.wire), []).append(cell)
    return cells


async def really(
    chosen: Sequence[Place], wires: Sequence[str], seeds: Sequence[int], *, seconds: float
) -> Cells:
    """Run cells with real processes, one after the other; with all seeds only where ours has a target."""
    cells: Cells = {}
    for place, wire in product(chosen, wires):
        judged = wire == OURS and place.title in TARGETS
        cells[place.title, wire] = [
            await real(place.lossy, place.round_trip, wire, seed=seed, seconds=seconds, streams=place.streams)
            for seed in (seeds if judged else seeds[:1])
        ]
    return cells


# --- telling -------------------------------------------------------------------------------------

HEAD: Final = (
    "line",
    "wire",
    "video in time %",
    "p50",
    "p95",
    "p99 ms",
    "sound in time %",
    "p50",
    "p95",
    "p99 ms",
    "overhead %",
)


def table(cells: Cells) -> list[list[str]]:
    """Return the lines of a table."""
    lines = []
    for (title, wire), found in cells.items():
        cell = Cell.merged(found)
        line = [title, wire, f"{100 * cell.in_time('video'):.2f}"]
        line += [f"{1e3 * cell.delay('video', share):.0f}" for share in (0.5, 0.95, 0.99)]
        line += [f"{100 * cell.in_time('sound'):.2f}"]
        line += [f"{1e3 * cell.delay('sound', share):.0f}" for share in (0.5, 0.95, 0.99)]
        lines.append([*line, f"{100 * cell.overhead:.0f}"])
    return lines


def targets(cells: Mapping[str, Cells]) -> list[list[str]]:
    """Return how our wire stands at the places that have a target."""
    lines = []
    for part, found in cells.items():
        for title, target in TARGETS.items():
            if (title, OURS) not in found:
                continue
            cell = Cell.merged(found[title, OURS])
            worst, p99 = min(cell.in_time("video"), cell.in_time("sound")), 1e3 * cell.delay("video", 0.99)
            met = worst >= target.in_time and p99 <= target.video_p99 and cell.overhead <= target.overhead
            aims = [f"in time {100 * target.in_time:g} %"]
            aims += [f"p99 {target.video_p99:g} ms"] * math.isfinite(target.video_p99)
            aims += [f"overhead {100 * target.overhead:g} %"] * math.isfinite(target.overhead)
            is_now = f"{100 * worst:.2f} %, {p99:.0f} ms, {100 * cell.overhead:.0f} %"
            lines.append([f"{title} ({part})", ", ".join(aims), is_now, "met" if met else "missed"])
    return lines


def panels(cells: Cells) -> list[list[Bars]]:
    """Return shares in time above delays: a column for each round trip, and all single streams."""
    wires = list(dict.fromkeys(wire for _, wire in cells))
    trips = list(dict.fromkeys(title.partition(", ")[0] for title, _ in cells))
    rows: list[list[Bars]] = [[], [], []]
    for trip in trips:
        titles = list(dict.fromkeys(title for title, _ in cells if title.startswith(f"{trip}, ")))
        merged = {wire: [Cell.merged(cells[title, wire]) for title in titles] for wire in wires}
        names = [title.partition(", ")[2] for title in titles]
        for row, kind in zip(rows, ("video", "sound"), strict=False):
            shares = {wire: [100 * each.in_time(kind) for each in found] for wire, found in merged.items()}
            row.append(
                Bars(
                    title=f"{kind} in time, {trip} round trip", unit="%", names=names, series=shares, top=100
                )
            )
        p99 = {wire: [1e3 * each.delay("video", 0.99) for each in found] for wire, found in merged.items()}
        rows[2].append(
            Bars(title=f"video, 99 % are there after, {trip}", unit="ms", names=names, series=p99, top=500)
        )
    return rows


def figures(part: str, cells: Cells) -> dict[str, float]:
    """Return what the last line of JSON says."""
    found: dict[str, float] = {}
    for (title, wire), each in cells.items():
        cell = Cell.merged(each)
        label = f"{part}_{wire}_{title}".replace(",", "").replace(" ", "_")
        found[f"{label}_video"] = cell.in_time("video")
        found[f"{label}_sound"] = cell.in_time("sound")
        found[f"{label}_video_p99_ms"] = 1e3 * cell.delay("video", 0.99)
        found[f"{label}_overhead"] = cell.overhead
    return {name: value for name, value in found.items() if math.isfinite(value)}


def main() -> None:
    """Tell the matrix in virtual time, and the key cells with real processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("virtual", "real", "both"), default="both")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="of every virtual cell, and of real ones with a target (default 3)",
    )
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: cores)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of every real cell (default 30)")
    parser.add_argument(
        "--quick", action="store_true", help="the targets' virtual cells, one real one: shows that it works"
    )
    Results.options(parser)
    options = parser.parse_args()
    results = Results.of("lossy_link", parser, options)
    chosen, wires = places(), list(WIRES)
    keys = [place for place in chosen if place.title in KEY_CELLS or place.streams > 1]
    seconds: float = options.seconds
    if options.quick:
        chosen = [place for place in chosen if place.title in TARGETS and place.streams == 1]
        keys, wires, seconds = chosen[:1], wires[:2], 3.0
    cells: dict[str, Cells] = {}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.part != "real":
        cells["virtual"] = virtual(chosen, seeds, jobs=options.jobs)
    if options.part != "virtual":
        cells["real"] = asyncio.run(really(keys, wires, seeds, seconds=seconds))
    summary: dict[str, float] = {}
    for part, found in cells.items():
        results.table(HEAD, table(found), part=part, text=2)
        results.draw(panels(found), title=f"Media over lossy lines ({part})", part=part)
        summary |= figures(part, found)
    head = ("target", "at least or at most", "measured", "")
    results.table(head, targets(cells), part="targets", text=len(head))
    report("lossy_link", summary)


if __name__ == "__main__":
    main()
