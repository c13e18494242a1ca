"""How many joins a second into existing conferences, and how long one takes.

All in one run, on loopback, with real processes: the service, its own durable Postgres, and a stub that plays
a cluster's management API. Measured at 1, 8, 32 and 128 connections:

1. the same server answering a constant (its limit), and the same Postgres committing a row at a time;
2. joins into conferences on clusters whose tokens the service signs; the seat is committed durably;
3. joins into conferences on clusters that are asked for each token, beside the bare HTTP client against them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import msgspec
import uvloop

from bench._ground import ground
from bench._http import Outcome, drive, request_bytes
from bench._machine import report

if TYPE_CHECKING:
    from bench._ground import Ground

CONNECTIONS: Final = (1, 8, 32, 128)
CLUSTERS: Final = 4


async def main(*, seconds: float, conferences: int, connections: tuple[int, ...]) -> None:
    """Run everything and print the figures."""
    figures: dict[str, float] = {}
    async with ground() as on:
        for driver in ("causeway", "owt"):
            await _prepare(on, driver, conferences)
        for number in connections:
            constant = request_bytes("/constant", {"user": "u"}, on.headers)
            limit = await drive(
                on.port, itertools.repeat(constant).__next__, connections=number, seconds=seconds
            )
            signed = await _joins(on, "causeway", conferences, number, seconds)
            asked = await _joins(on, "owt", conferences, number, seconds)
            client = await _client_alone(on, number, seconds)
            commits = await _commits(on, number, seconds)
            for name, outcome in (("constant", limit), ("signed", signed), ("asked", asked)):
                figures[f"{name}_{number}_per_s"] = outcome.rate
                figures[f"{name}_{number}_p50_ms"] = outcome.at(0.5) * 1000
                figures[f"{name}_{number}_p99_ms"] = outcome.at(0.99) * 1000
                figures[f"{name}_{number}_failed"] = outcome.failed
            figures[f"client_alone_{number}_per_s"] = client
            figures[f"postgres_{number}_per_s"] = commits
            figures[f"signed_{number}_of_constant"] = signed.rate / limit.rate
            figures[f"asked_{number}_of_client"] = asked.rate / client
            print(
                f"{number:4} connections: constant {limit.rate:6.0f}/s"
                f"   signed {signed.rate:6.0f}/s ({signed.rate / limit.rate:.0%}),"
                f" p50 {signed.at(0.5) * 1e3:.1f} p99 {signed.at(0.99) * 1e3:.1f} ms"
                f"   asked {asked.rate:6.0f}/s ({asked.rate / client:.0%} of {client:.0f}/s)"
                f"   postgres {commits:6.0f}/s",
                flush=True,
            )
    report("join", figures)


async def _prepare(on: Ground, driver: str, conferences: int) -> None:
    """Register clusters and have the conferences placed on them."""
    for number in range(CLUSTERS):
        await on.register(f"{driver}-{number}", region=driver, driver=driver)
    for number in range(conferences):
        await on.call("application", "POST", "/v1/conferences", {"id": f"{driver}-{number}"})
    for number in range(conferences):
        body = {"user": "first", "region": driver}
        await on.call("application", "POST", f"/v1/conferences/{driver}-{number}/join", body)


async def _joins(on: Ground, driver: str, conferences: int, connections: int, seconds: float) -> Outcome:
    requests = [
        request_bytes(
            f"/v1/conferences/{driver}-{number}/join", {"user": f"u{number}", "region": driver}, on.headers
        )
        for number in range(conferences)
    ]
    turn = itertools.cycle(requests)
    return await drive(on.port, lambda: next(turn), connections=connections, seconds=seconds)


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
    quick = parser.parse_args().quick
    uvloop.run(
        main(
            seconds=0.3 if quick else 4.0,
            conferences=4 if quick else 100,
            connections=(1, 8) if quick else CONNECTIONS,
        )
    )
