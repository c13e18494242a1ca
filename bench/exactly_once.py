"""Whether every event arrives, once and in order, over a path that loses, reorders and keeps breaking.

    python bench/exactly_once.py                     100,000 events in 50 conferences, in virtual time
    python bench/exactly_once.py --seed 4711         other events, other losses, other breaks
    python bench/exactly_once.py --real              the same with real datagrams, in real time
    python bench/exactly_once.py --wire owt          OWT's wire: both ends are equal again after each break

Two real event bridges, their conference nodes played. The path takes 100 ms there and back, loses 5 % in each
direction, reorders, and is broken 20 times a minute; `--path` describes another one (python -m
tests.impairment --help). Every event that a node is told is compared with what happened at the other cluster;
at the end so are the states. On our own wire no break may be noticed by a node. If anything is not as it has
to be, the first contradiction is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

import structlog

from bench._bridges.judge import UnfaithfulError
from bench._bridges.ordeal import BAD_PATH, Ordeal, undergo
from bench._machine import report
from tests.impairment.spec import parse_profile
from tests.impairment.virtual import VirtualLoop

if TYPE_CHECKING:
    from bench._bridges.ordeal import Outcome

_PROTOCOLS: Final = {"own": "causeway/1", "owt": "h3"}


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000, metavar="N")
    parser.add_argument("--conferences", type=int, default=50, metavar="N")
    parser.add_argument(
        "--rate", type=float, default=200.0, metavar="R", help="events a second (default 200)"
    )
    parser.add_argument("--breaks", type=float, default=20.0, metavar="N", help="a minute (default 20)")
    parser.add_argument("--path", metavar="PATH", help="what the path does, both ways")
    parser.add_argument("--wire", choices=list(_PROTOCOLS), default="own")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--real", action="store_true", help="real datagrams, in real time")
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    ordeal = Ordeal(
        events=1000 if given.quick else given.events,
        conferences=given.conferences,
        rate=given.rate,
        protocol=_PROTOCOLS[given.wire],
        path=BAD_PATH if given.path is None else parse_profile(given.path),
        breaks_per_minute=given.breaks,
        seed=given.seed,
    )
    began = time.process_time()
    try:
        outcome = _run(ordeal, real=given.real)
    except UnfaithfulError as error:
        sys.exit(f"not as it has to be: {error}")
    except TimeoutError:
        sys.exit(f"not as it has to be: not everything arrived within {ordeal.patience:g} s")
    if given.wire == "own" and outcome.resets:
        sys.exit(f"not as it has to be: {outcome.resets} times a node was told anew")
    _print(ordeal, outcome, time.process_time() - began)


def _run(ordeal: Ordeal, *, real: bool) -> Outcome:
    if real:
        return asyncio.run(undergo(ordeal))
    with VirtualLoop.running() as loop:
        return loop.run_until_complete(undergo(ordeal))


def _print(ordeal: Ordeal, outcome: Outcome, cpu: float) -> None:
    breaks = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.breaks.items()))
    lost = outcome.datagrams_lost / outcome.datagrams
    print(
        f"{ordeal.events} events in {ordeal.conferences} conferences, {outcome.seconds:.0f} s"
        f" ({cpu:.0f} s of CPU), {lost:.1%} of {outcome.datagrams} datagrams lost\n"
        f"broken {sum(outcome.breaks.values())} times ({breaks});"
        f" nodes were told anew {outcome.resets} times\n"
        f"{'both ends' if outcome.resets else 'everything arrived once and in order; both ends'} are equal"
        f" {outcome.settled:.1f} s after the last event"
    )
    report(
        "exactly_once",
        {
            "events": ordeal.events,
            "seconds": outcome.seconds,
            "cpu_s": cpu,
            "breaks": sum(outcome.breaks.values()),
            "resets": outcome.resets,
            "settled_s": outcome.settled,
            "lost_share": lost,
        },
    )


if __name__ == "__main__":
    main()
