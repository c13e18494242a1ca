"""More pictures than a path takes: with back-pressure, with cameras that cannot be asked for less, without.

One microphone and some cameras, which offer twice what the line takes from the first moment on, over our own
media in virtual time: real QUIC connections, the real send queue, receiver and controller. Told are, from
three seconds on, the share of sound and of pictures that was in time (within 200 ms beyond the path's delay),
and of pictures that were handed on at all; those of them that could not be decoded; how often less was asked
for; and how many key frames.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from bench._machine import report
from bench._plots import Curves
from bench._results import Results
from bench._virtual.pressed import Camera, pressed
from bench._virtual.scenario import Line

if TYPE_CHECKING:
    from bench._virtual.pressed import Pressed

_FROM: Final = 3.0
_LAST: Final = 1.0
_STEP: Final = 5
"""Tenths of a second over which what was sent is shown."""
LINES: Final = {
    "1 camera into 1 Mbit/s, 80 ms": (Line(round_trip=0.08, rate=1e6), 2e6, 1),
    "3 cameras into 2 Mbit/s, 20 ms": (Line(round_trip=0.02, rate=2e6), 1.3e6, 3),
    "3 cameras into 2 Mbit/s, 80 ms": (Line(round_trip=0.08, rate=2e6), 1.3e6, 3),
    "3 cameras into 2 Mbit/s, 80 ms, loss 2%": (Line(round_trip=0.08, rate=2e6, loss=0.02), 1.3e6, 3),
    "2 cameras into 2 Mbit/s, 200 ms": (Line(round_trip=0.2, rate=2e6), 2e6, 2),
}


FIGURES: Final = (
    "sound in time %",
    "pictures in time %",
    "handed on %",
    "undecodable",
    "cuts",
    "key frames asked for",
)


class Way(NamedTuple):
    """How it is dealt with."""

    pressing: bool
    follows: bool
    layers: int


WAYS: Final = {
    "back-pressure": Way(pressing=True, follows=True, layers=2),
    "layers only": Way(pressing=True, follows=False, layers=2),
    "nothing": Way(pressing=False, follows=False, layers=1),
}


def told(line: Line, rate: float, cameras: int, way: Way, *, seed: int, seconds: float) -> Pressed:
    """Return what became of it."""
    camera = Camera(rate=rate, layers=way.layers, follows=way.follows)
    return pressed(line, [camera] * cameras, seed=seed, seconds=seconds, pressing=way.pressing)


def figures_of(outcome: Pressed, line: Line, seconds: float) -> dict[str, float]:
    """Return what is told of a run; shares in %."""
    until = seconds - _LAST
    sound = outcome.sound[int(50 * _FROM) : int(50 * until)]
    pictures = [delay for at, delay in outcome.pictures if _FROM <= at < until]
    values = (
        100 * outcome.in_time(sound, line.round_trip),
        100 * outcome.in_time(pictures, line.round_trip),
        100 * outcome.share(_FROM, until),
        outcome.undecodable,
        len(outcome.cuts),
        outcome.wishes,
    )
    return dict(zip(FIGURES, values, strict=True))


def sent(outcome: Pressed) -> list[tuple[float, float]]:
    """Return what was sent, in Mbit/s, over time."""
    points = outcome.sent[::_STEP]
    return [
        (round(at, 1), 8e-6 * (after - before) / (at - former))
        for (former, before), (at, after) in pairwise(points)
    ]


def main() -> None:
    """Tell all of it."""
    parser = argparse.ArgumentParser(prog="bench/pressure.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run (default 30)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--quick", action="store_true", help="one run of 8 s: shows that it works")
    Results.options(parser)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.seeds = 8.0, 1
    results = Results.of("pressure", parser, options)
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, (line, rate, cameras) in LINES.items():
        for way_name, way in WAYS.items():
            runs = [
                told(line, rate, cameras, way, seed=seed, seconds=options.seconds)
                for seed in range(1, options.seeds + 1)
            ]
            found = [figures_of(run, line, options.seconds) for run in runs]
            means = [fmean(one[each] for one in found) for each in FIGURES]
            rows.append([name, way_name, *(f"{value:.1f}" for value in means)])
            if way.pressing and way.follows:
                figures |= {f"{name}, {each}": value for each, value in zip(FIGURES, means, strict=True)}
            curves.setdefault(way_name, sent(runs[0]))
    results.table(["line", "with", *FIGURES], rows, text=2)
    results.draw(
        [
            [
                Curves(
                    title=next(iter(LINES)),
                    unit="Mbit/s sent",
                    across="seconds",
                    series=curves,
                    limits={"the line": 1.0},
                )
            ]
        ],
        title="Twice as much offered as the path takes",
    )
    report(
        "pressure",
        {
            name.replace(", ", "_").replace(" ", "_").replace("%", "percent"): each
            for name, each in figures.items()
        },
    )


if __name__ == "__main__":
    main()
