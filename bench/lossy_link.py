"""Pictures and sound over lossy lines: our own media wire beside a stream per track on stock Reno and CUBIC.

One run, virtual time: real QUIC connections (aioquic's, with their TLS, packets and acknowledgements) over
simulated paths, so the figures do not depend on the machine. What loses, loses in both directions. Ours is
whole: datagrams, the send queue, repair as the policy chooses, reassembly, parity decoded for real; and a
frame counts when it is handed on, in order and decodable. The others, as OWT's wire has it, put all frames of
a track on one stream; a frame counts when its last byte is there.

In time is what is complete within 200 ms beyond the path's one-way delay. Overhead is everything in UDP and
IP towards the receiver over the media's bytes. The first two seconds and the last one do not count.
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from bench._machine import report
from bench._virtual.lossy import Cell, Lossy, told

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS: Final = "causeway"
WIRES: Final = (OURS, "reno", "cubic")
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


class Row(NamedTuple):
    """One cell of the matrix for one wire, and one seed."""

    name: str
    lossy: Lossy
    round_trip: float
    wire: str
    seed: int


def rows(seeds: Sequence[int]) -> list[Row]:
    """Return the whole matrix."""
    return [
        Row(name, lossy, trip, wire, seed)
        for trip, (name, lossy), wire, seed in product(ROUND_TRIPS, LINES.items(), WIRES, seeds)
    ]


def tell(row: Row) -> Cell:
    """Run one."""
    return told(row.lossy, row.round_trip, row.wire, seed=row.seed)


def main() -> None:
    """Tell the matrix, or the cells that there are targets for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every cell (default 3)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: cores)")
    parser.add_argument("--quick", action="store_true", help="80 ms/2%%, 80 ms/5%% and 200 ms/5%% only")
    options = parser.parse_args()
    chosen = rows(range(options.first_seed, options.first_seed + options.seeds))
    if options.quick:
        keep = {("2%", 0.08), ("5%", 0.08), ("5%", 0.2)}
        chosen = [row for row in chosen if (row.name, row.round_trip) in keep]
    cells: dict[tuple[float, str, str], list[Cell]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for row, cell in zip(chosen, pool.map(tell, chosen), strict=True):
            cells.setdefault((row.round_trip, row.name, row.wire), []).append(cell)
    figures: dict[str, float] = {}
    print(f"{'line':24} {'wire':9} {'video %':>8} {'p50':>5} {'p95':>5} {'p99':>5} ", end="")
    print(f"{'sound %':>8} {'p95':>5} {'p99':>5} {'overhead %':>10}")
    for (trip, name, wire), found in cells.items():
        cell = Cell.merged(found)
        overhead = fmean(each.overhead for each in found)
        video, sound = cell.in_time("video"), cell.in_time("sound")
        print(
            f"{f'{1e3 * trip:.0f} ms, {name}':24} {wire:9} {100 * video:8.2f} "
            + " ".join(f"{1e3 * cell.delay('video', share):5.0f}" for share in (0.5, 0.95, 0.99))
            + f" {100 * sound:8.2f} "
            + " ".join(f"{1e3 * cell.delay('sound', share):5.0f}" for share in (0.95, 0.99))
            + f" {100 * overhead:10.1f}",
            flush=True,
        )
        label = f"{wire}_{1e3 * trip:.0f}ms_{name}".replace(" ", "_").replace(",", "")
        figures[f"{label}_video"] = video
        figures[f"{label}_sound"] = sound
        figures[f"{label}_video_p99_ms"] = 1e3 * cell.delay("video", 0.99)
        figures[f"{label}_overhead"] = overhead
    report("lossy_link", {name: value for name, value in figures.items() if math.isfinite(value)})


if __name__ == "__main__":
    main()
