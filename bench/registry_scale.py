"""Does a join take longer in a large registry? Median latency with few and many conferences and clusters.

Real processes as in bench/join.py. Conferences stand in the registry with a room on one cluster each, spread
over ten regions; clients join random ones, from the region where it is, over 8 connections. Beside the
latency, which depends on whatever else the machine does, stands the CPU time of the service and of Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import TYPE_CHECKING, Final

import asyncpg
import uvloop

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


async def main(*, sizes: Sequence[int], fleets: Sequence[int], seconds: float) -> None:
    """Measure every combination and print the figures."""
    figures: dict[str, float] = {}
    medians: list[float] = []
    costs: list[float] = []
    for clusters in fleets:
        async with ground() as on:
            await _register(on, clusters)
            there = 0
            for conferences in sizes:
                await _fill(on, there, conferences, clusters)
                there = conferences
                await _joins(on, conferences, clusters, seconds / 4)  # what is to be remembered, is
                before = on.used()
                outcome = await _joins(on, conferences, clusters, seconds)
                spent = on.used().since(before)
                joins = len(outcome.latencies) + outcome.failed
                name = f"{clusters}_clusters_{conferences}_conferences"
                figures[f"{name}_p50_ms"] = outcome.at(0.5) * 1000
                figures[f"{name}_p99_ms"] = outcome.at(0.99) * 1000
                figures[f"{name}_per_s"] = outcome.rate
                figures[f"{name}_failed"] = outcome.failed
                costs.append((spent.control + spent.postgres) / joins * 1e6)
                figures[f"{name}_control_us"] = spent.control / joins * 1e6
                figures[f"{name}_postgres_us"] = spent.postgres / joins * 1e6
                medians.append(outcome.at(0.5))
                print(
                    f"{clusters:5} clusters {conferences:7} conferences: {outcome.rate:6.0f}/s, "
                    f"p50 {outcome.at(0.5) * 1e3:.2f} ms, p99 {outcome.at(0.99) * 1e3:.2f} ms, "
                    f"{costs[-1]:.0f} us of CPU each",
                    flush=True,
                )
    figures["slowest_to_fastest_p50"] = max(medians) / min(medians)
    figures["dearest_to_cheapest_cpu"] = max(costs) / min(costs)
    report("registry_scale", figures)


def _cluster(number: int) -> str:
    return f"c-{number}"


def _region(cluster: int) -> str:
    return f"region-{cluster % REGIONS}"


async def _register(on: Ground, clusters: int) -> None:
    numbers = iter(range(clusters))

    async def some() -> None:
        for number in numbers:
            await on.register(_cluster(number), region=_region(number), driver="causeway")

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(some())


async def _fill(on: Ground, there: int, conferences: int, clusters: int) -> None:
    """Write conferences with a ready placement each, as the service would have."""
    connection = await asyncpg.connect(on.database.replace("+asyncpg", ""))
    try:
        for begin in range(there, conferences, _FILLED_AT_ONCE):
            span = (begin, min(begin + _FILLED_AT_ONCE, conferences) - 1)
            await connection.execute(
                "INSERT INTO conferences (id) SELECT 'k-' || n FROM generate_series($1::int, $2::int) n",
                *span,
            )
            await connection.execute(
                "INSERT INTO placements (conference, cluster, ordinal, state, room) "
                "SELECT 'k-' || n, 'c-' || n % $3::int, 1, 'ready', 'k-' || n "
                "FROM generate_series($1::int, $2::int) n",
                *span,
                clusters,
            )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _joins(on: Ground, conferences: int, clusters: int, seconds: float) -> Outcome:
    rng = random.Random(1)

    def next_request() -> bytes:
        number = rng.randrange(conferences)
        body = {"user": f"u{number}", "region": _region(number % clusters)}
        return request_bytes(f"/v1/conferences/k-{number}/join", body, on.headers)

    return await drive(on.port, next_request, connections=CONNECTIONS, seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    if parser.parse_args().quick:
        uvloop.run(main(sizes=(20, 200), fleets=(5, 20), seconds=0.3))
    else:
        uvloop.run(main(sizes=(100, 10_000, 100_000), fleets=(10, 1_000), seconds=4.0))
