"""Thousands of conferences that break in every way, in virtual time; each can be played again by its seed.

    python bench/simulate.py                                  200 schedules, seeds 0 to 199
    python bench/simulate.py --seed 4711 --trace              one schedule, and everything that happens in it
    python bench/simulate.py --schedules 10000 --jobs 2       what `make nightly` does
    python bench/simulate.py --clusters 5 --conferences 4 --people 24 --seconds 180
    python bench/simulate.py --clusters 100 --conferences 1 --people 150 --topology tree --seed 1

Each schedule draws clusters of four kinds (with a bridge of their own, with agents, silent about their links,
silent about everything), a topology, and a network that delays, loses and cuts. Then clients come and go
while clusters, bridges, agents, replicas of control and the database die, freeze, restart, come back and
cannot hear each other. Then nothing is broken any more, time passes, and this must hold: whoever wants to be
in a conference is in it, and hears everybody else; no room, placement or link is left over; rows say what is
true; nothing waits and no action is repeated.

Plan, topology, staffing, circuit breakers, the agents' core and what control tells them are the real ones. A
schedule is a function of its seed and options alone. Exits with 1 if one failed, after printing the first
one's trace. Times are virtual but for `seconds`, `schedules_per_s`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from bench._machine import report
from bench._simulation.world import Plot, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench._simulation.world import Outcome

_SHOWN = 20
"""Failed seeds that are printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the schedules asked for; return the exit code."""
    options = _options(arguments)
    plot = Plot(
        clusters=options.clusters,
        conferences=options.conferences,
        people=options.people,
        replicas=options.replicas,
        seconds=options.seconds,
        topology=options.topology,
    )
    schedules = options.schedules or (1 if options.seed is not None else 200)
    first = options.seed or 0
    began = time.monotonic()
    failed: list[int] = []
    actions: Counter[str] = Counter()
    virtual = 0.0
    for outcome in _play(range(first, first + schedules), plot, jobs=options.jobs, trace=options.trace):
        actions.update(outcome.actions)
        virtual += outcome.seconds
        if outcome.problems:
            failed.append(outcome.seed)
        if outcome.problems and len(failed) == 1:
            _show(outcome, plot)
        elif options.trace:
            print("\n".join(outcome.trace))
    if failed[1:]:
        print("failed, too, the seeds", *failed[1:_SHOWN])
    taken = time.monotonic() - began
    report(
        "simulate",
        {
            "schedules": schedules,
            "failed": len(failed),
            "clusters": plot.clusters,
            "conferences": plot.conferences,
            "virtual_seconds": round(virtual),
            **{f"actions_{name}": float(count) for name, count in sorted(actions.items())},
            "seconds": round(taken, 1),
            "schedules_per_s": round(schedules / taken, 1),
        },
    )
    return 1 if failed else 0


def _play(seeds: Iterable[int], plot: Plot, *, jobs: int, trace: bool) -> Iterator[Outcome]:
    one = partial(_one, plot=plot, trace=trace)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(one, seeds, chunksize=8)


def _one(seed: int, *, plot: Plot, trace: bool) -> Outcome:
    outcome = simulate(seed, plot)
    if not outcome.problems and not trace:
        outcome.trace.clear()  # it need not travel
    return outcome


def _show(outcome: Outcome, plot: Plot) -> None:
    print("\n".join(outcome.trace))
    print(f"\nseed {outcome.seed} failed:")
    for problem in outcome.problems:
        print(f"  {problem}")
    print(
        f"again: python bench/simulate.py --seed {outcome.seed} --clusters {plot.clusters} "
        f"--conferences {plot.conferences} --people {plot.people} --replicas {plot.replicas} "
        f"--seconds {plot.seconds:g}"
        + (f" --topology {plot.topology}\n" if plot.topology is not None else "\n")
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    default = Plot()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, help="the first seed; alone: only this one")
    parser.add_argument("--schedules", type=int, help="how many, each with the next seed (200)")
    parser.add_argument("--clusters", type=int, default=default.clusters)
    parser.add_argument("--conferences", type=int, default=default.conferences)
    parser.add_argument("--people", type=int, default=default.people)
    parser.add_argument("--replicas", type=int, default=default.replicas, help="of control")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="for which things go wrong")
    parser.add_argument(
        "--topology",
        choices=("mesh", "tree", "star"),
        help="of every conference, on a wire that relays, between clusters with agents; else drawn",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print what happens, even if all is well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
