"""Does a join take longer in a large registry? Median latency with few and many conferences and clusters.

Real processes as in bench/join.py, a service with its own Postgres for each size; they take turns of a few
seconds, again and again, so that what else the machine does strikes all of them alike. Conferences stand in
the registry with a room on one cluster each, spread over ten regions; clients join random ones, from the
region where it is, over 8 connections. Beside the latency, which depends on whatever else the machine does,
stands the CPU time of the service and of Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Final

import asyncpg
import uvloop

from bench._cpu import Used
from bench._ground import ground
from bench._http import Outcome, drive, request_bytes
from bench._machine import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench._ground import Ground

REGIONS: Final = 10
CONNECTIONS: Final = 8
_FILLED_AT_ONCE: Final = 2000
"""Conferences written in one transaction: the clusters' counts are locked for so long."""


async def main(
    *, sizes: Sequence[int], fleets: Sequence[int], seconds: float, warm_up: float, rounds: int
) -> None:
    """Measure every combination, `rounds` times for `seconds`, and print the figures."""
    async with AsyncExitStack() as stack:
        cells = []
        for clusters, conferences in product(fleets, sizes):
            cell = _Cell(await stack.enter_async_context(ground()), clusters, conferences)
            await cell.fill()
            cells.append(cell)
        for cell in cells:
            await cell.joins(warm_up)  # connections, statements, what is to be remembered
        order = random.Random(1)
        for _ in range(rounds):
            for cell in order.sample(cells, len(cells)):
                await cell.measure(seconds)
    figures: dict[str, float] = {}
    for cell in cells:
        print(cell, flush=True)
        figures |= {f"{cell.name}_{what}": value for what, value in cell.figures().items()}
    medians = [cell.at(0.5) for cell in cells]
    costs = [cell.cost for cell in cells]
    figures["slowest_to_fastest_p50"] = max(medians) / min(medians)
    figures["dearest_to_cheapest_cpu"] = max(costs) / min(costs)
    report("registry_scale", figures)


@dataclass(slots=True)
class _Cell:
    """A registry of one size, and what was measured there."""

    on: Ground
    clusters: int
    conferences: int
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    outcomes: list[Outcome] = field(default_factory=list)
    spent: Used = field(default_factory=lambda: Used(0, 0))

    @property
    def name(self) -> str:
        return f"{self.clusters}_clusters_{self.conferences}_conferences"

    async def fill(self) -> None:
        """Register the clusters; write conferences with a ready placement each, as the service would have."""
        numbers = iter(range(self.clusters))

        async def some() -> None:
            for number in numbers:
                await self.on.register(f"c-{number}", region=_region(number), driver="causeway")

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(some())
        connection = await asyncpg.connect(self.on.database.replace("+asyncpg", ""))
        try:
            for begin in range(0, self.conferences, _FILLED_AT_ONCE):
                span = (begin, min(begin + _FILLED_AT_ONCE, self.conferences) - 1)
                await connection.execute(
                    "INSERT INTO conferences (id) SELECT 'k-' || n FROM generate_series($1::int, $2::int) n",
                    *span,
                )
                await connection.execute(
                    "INSERT INTO placements (conference, cluster, ordinal, state, room) "
                    "SELECT 'k-' || n, 'c-' || n % $3::int, 1, 'ready', 'k-' || n "
                    "FROM generate_series($1::int, $2::int) n",
                    *span,
                    self.clusters,
                )
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def joins(self, seconds: float) -> Outcome:
        """Have clients join random conferences."""

        def next_request() -> bytes:
            number = self.rng.randrange(self.conferences)
            body = {"user": f"u{number}", "region": _region(number % self.clusters)}
            return request_bytes(f"/v1/conferences/k-{number}/join", body, self.on.headers)

        return await drive(self.on.port, next_request, connections=CONNECTIONS, seconds=seconds)

    async def measure(self, seconds: float) -> None:
        """Have them join, and note what it took."""
        before = self.on.used()
        self.outcomes.append(await self.joins(seconds))
        spent = self.on.used().since(before)
        self.spent = Used(self.spent.control + spent.control, self.spent.postgres + spent.postgres)

    # --- what came of it ----------------------------------------------------------------------

    @property
    def count(self) -> int:
        return sum(len(each.latencies) + each.failed for each in self.outcomes)

    @property
    def cost(self) -> float:
        """CPU seconds of one join."""
        return sum(self.spent) / self.count

    def at(self, share: float) -> float:
        """Return the latency below which that share of all joins stayed, seconds."""
        latencies = sorted(latency for each in self.outcomes for latency in each.latencies)
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    def figures(self) -> dict[str, float]:
        return {
            "p50_ms": self.at(0.5) * 1e3,
            "p99_ms": self.at(0.99) * 1e3,
            "per_s": sum(each.rate for each in self.outcomes) / len(self.outcomes),
            "failed": sum(each.failed for each in self.outcomes),
            "control_us": self.spent.control / self.count * 1e6,
            "postgres_us": self.spent.postgres / self.count * 1e6,
        }

    def __str__(self) -> str:
        return (
            f"{self.clusters:5} clusters {self.conferences:7} conferences: "
            "{per_s:6.0f}/s, p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, "
            "CPU of a join: control {control_us:.0f} us, Postgres {postgres_us:.0f} us"
        ).format(**self.figures())


def _region(cluster: int) -> str:
    return f"region-{cluster % REGIONS}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    parser.add_argument("--rounds", type=int, default=6, help="turns of every size (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn (%(default)s)")
    options = parser.parse_args()
    if options.quick:
        uvloop.run(main(sizes=(20, 200), fleets=(5, 20), seconds=0.3, warm_up=0.2, rounds=1))
    else:
        uvloop.run(
            main(
                sizes=(100, 10_000, 100_000),
                fleets=(10, 1_000),
                seconds=options.seconds,
                warm_up=3.0,
                rounds=options.rounds,
            )
        )
