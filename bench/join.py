"""How many joins a second into existing conferences, and how long one takes.

All in one run, on loopback, with real processes: the service, its own durable Postgres, and a stub that plays
a cluster's management API. Measured at 1, 8, 32 and 128 connections:

1. the same server answering a constant (its limit), and the same Postgres committing a row at a time;
2. joins into conferences on clusters whose tokens the service signs; the seat is committed durably;
3. joins into conferences on clusters that are asked for each token, beside the bare HTTP client against them.

With `--replicas N` the service is that many processes on one port: each uses one core.

Beside each rate stands the CPU time of the service and of Postgres per request: on a machine with few cores
all processes share them, the one that sends the requests as well.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import msgspec
import uvloop

from bench._ground import ground
from bench._http import Outcome, drive, request_bytes
from bench._machine import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench._cpu import Used
    from bench._ground import Ground

CONNECTIONS: Final = (1, 8, 32, 128)
CLUSTERS: Final = 4


async def main(*, seconds: float, conferences: int, connections: Sequence[int], replicas: int) -> None:
    """Run everything and print the figures."""
    figures: dict[str, float] = {"replicas": replicas}
    async with ground(replicas=replicas) as on:
        for driver in ("causeway", "owt"):
            await _prepare(on, driver, conferences)
        for number in connections:
            constant = request_bytes("/constant", {"user": "u"}, on.headers)
            runs = {
                "constant": await _run(on, itertools.repeat(constant), number, seconds),
                "signed": await _run(on, _joins(on, "causeway", conferences), number, seconds),
                "asked": await _run(on, _joins(on, "owt", conferences), number, seconds),
            }
            client = await _client_alone(on, number, seconds)
            commits = await _commits(on, number, seconds)
            for name, run in runs.items():
                figures |= {f"{name}_{number}_{what}": value for what, value in run.figures().items()}
            figures[f"client_alone_{number}_per_s"] = client
            figures[f"postgres_{number}_per_s"] = commits
            figures[f"signed_{number}_of_constant"] = runs["signed"].rate / runs["constant"].rate
            figures[f"asked_{number}_of_client"] = runs["asked"].rate / client
            print(
                f"{number:4} connections: bare client {client:6.0f}/s   postgres {commits:6.0f}/s", flush=True
            )
            for name, run in runs.items():
                limit, of = (client, "client") if name == "asked" else (runs["constant"].rate, "constant")
                print(f"     {name:8} {run.rate:6.0f}/s ({run.rate / limit:4.0%} of {of}){run}", flush=True)
    report("join", figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one kind of request reached, and what it cost the service and Postgres."""

    outcome: Outcome
    spent: Used

    @property
    def rate(self) -> float:
        return self.outcome.rate

    def figures(self) -> dict[str, float]:
        """Return everything by name; CPU time in microseconds per request."""
        requests = len(self.outcome.latencies) + self.outcome.failed
        return {
            "per_s": self.outcome.rate,
            "p50_ms": self.outcome.at(0.5) * 1e3,
            "p99_ms": self.outcome.at(0.99) * 1e3,
            "failed": self.outcome.failed,
            "control_us": self.spent.control / requests * 1e6,
            "postgres_us": self.spent.postgres / requests * 1e6,
        }

    def __str__(self) -> str:
        return (
            "   p50 {p50_ms:.2f} p99 {p99_ms:.2f} ms   control {control_us:.0f} us"
            "   postgres {postgres_us:.0f} us".format(**self.figures())
        )


async def _run(on: Ground, requests: Iterator[bytes], connections: int, seconds: float) -> _Run:
    before = on.used()
    outcome = await drive(on.port, lambda: next(requests), connections=connections, seconds=seconds)
    return _Run(outcome=outcome, spent=on.used().since(before))


async def _prepare(on: Ground, driver: str, conferences: int) -> None:
    """Register clusters and have the conferences placed on them."""
    for number in range(CLUSTERS):
        await on.register(f"{driver}-{number}", region=driver, driver=driver)
    for number in range(conferences):
        await on.call("application", "POST", "/v1/conferences", {"id": f"{driver}-{number}"})
    for number in range(conferences):
        body = {"user": "first", "region": driver}
        await on.call("application", "POST", f"/v1/conferences/{driver}-{number}/join", body)


def _joins(on: Ground, driver: str, conferences: int) -> Iterator[bytes]:
    """Return joins into one conference after the other, for ever."""
    return itertools.cycle(
        [
            request_bytes(
                f"/v1/conferences/{driver}-{number}/join",
                {"user": f"u{number}", "region": driver},
                on.headers,
            )
            for number in range(conferences)
        ]
    )


async def _client_alone(on: Ground, connections: int, seconds: float) -> float:
    """Return how many tokens a second the service's HTTP client gets from the stub, doing no more."""
    url = f"http://127.0.0.1:{on.stub_port}/v1/rooms/r/tokens"
    body = msgspec.json.encode(
        {"preference": {"isp": "isp", "region": "owt"}, "user": "u", "role": "presenter"}
    )
    done = 0
    end = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < end:
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                await answer.read()
            done += 1

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ask(session))
    return done / seconds


async def _commits(on: Ground, connections: int, seconds: float) -> float:
    """Return how many one-row transactions a second the same Postgres commits."""
    dsn = on.database.replace("+asyncpg", "")
    connections = min(connections, 32)
    pool = await asyncpg.create_pool(dsn, min_size=connections, max_size=connections)
    done = 0
    async with pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS bench_commits (id bigserial PRIMARY KEY, text text)")
        end = time.perf_counter() + seconds

        async def commit() -> None:
            nonlocal done
            async with pool.acquire() as connection:
                while time.perf_counter() < end:
                    await connection.execute("INSERT INTO bench_commits (text) VALUES ($1)", "x" * 100)
                    done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(commit())
    return done / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    parser.add_argument("--replicas", type=int, default=1, help="of the service (default: 1)")
    options = parser.parse_args()
    uvloop.run(
        main(
            seconds=0.3 if options.quick else options.seconds,
            conferences=4 if options.quick else 100,
            connections=(1, 8) if options.quick else options.connections,
            replicas=options.replicas,
        )
    )
