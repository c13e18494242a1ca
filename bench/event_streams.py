"""How fast clients hear what happens: from a cluster's report to the event at every reader of the conference.

    python bench/event_streams.py                        1 reader, then 200, 300 reports each
    python bench/event_streams.py --readers 500 --reports 1000

The service is a process of its own with its embedded Postgres. A participant joins or leaves with each
report, one after the other; readers are event streams (SSE) with an application key. A delay counts from
before the report is sent until the reader has the event: the report's own way, transaction and commit are in
it.
Every reader must have got every event, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp

from bench._ground import Ground, ground
from bench._machine import report
from causeway.client.sse import EventParser

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLUSTER, _CONFERENCE = "eu-1", "standup"


async def read(
    running: Ground, session: aiohttp.ClientSession, count: int, ready: asyncio.Semaphore
) -> list[tuple[int, float]]:
    """Read until `count` events have come after the snapshot; return the number and time of each."""
    url = f"http://127.0.0.1:{running.port}/v1/conferences/{_CONFERENCE}/events"
    headers = {**running.headers, "Accept": "text/event-stream"}
    parser, found = EventParser(), list[tuple[int, float]]()
    async with session.get(url, headers=headers) as answer:
        answer.raise_for_status()
        async for chunk in answer.content.iter_any():
            now = time.monotonic()
            for message in parser.feed(chunk):
                if message.name == "snapshot":
                    ready.release()
                else:
                    found.append((int(message.id), now))
            if len(found) >= count:
                break
    return found


async def tell(running: Ground, reports: int, epoch: int) -> tuple[list[float], float]:
    """Report that somebody joins, leaves, joins …; return when each was sent, and how long all of it took."""
    sent: list[float] = []
    url = f"http://127.0.0.1:{running.port}/v1/clusters/{_CLUSTER}/rooms/{_CONFERENCE}/participants/p"
    headers = {"Authorization": f"Bearer {running.keys['enrolment']}", "Causeway-Epoch": str(epoch)}
    began = time.monotonic()
    for n in range(reports):
        sent.append(time.monotonic())
        call = running.session.delete if n % 2 else running.session.put
        body: Any = {} if n % 2 else {"json": {"user": "ada", "role": "presenter"}}
        async with call(url, headers=headers, **body) as answer:
            if answer.status != HTTPStatus.NO_CONTENT:
                raise RuntimeError(f"{answer.status} {await answer.text()}")
    return sent, time.monotonic() - began


async def measure(running: Ground, readers: int, reports: int, epoch: int) -> dict[str, float]:
    """Report and read; return the figures."""
    ready = asyncio.Semaphore(0)
    async with (
        asyncio.timeout(30 + reports),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        reading = [group.create_task(read(running, session, reports, ready)) for _ in range(readers)]
        for _ in reading:
            await ready.acquire()
        sent, took = await tell(running, reports, epoch)
    delays: list[float] = []
    for told in (each.result() for each in reading):
        numbers = [number for number, _ in told]
        if numbers != list(range(numbers[0], numbers[0] + reports)):
            raise RuntimeError("a reader missed something")
        delays += [at - then for (_, at), then in zip(told, sent, strict=True)]
    quantiles = statistics.quantiles(delays, n=100)
    return {
        "readers": readers,
        "reports_per_s": reports / took,
        "events_told_per_s": reports * readers / took,
        "p50_ms": quantiles[49] * 1000,
        "p99_ms": quantiles[98] * 1000,
    }


async def run(readers: Sequence[int], reports: int) -> list[dict[str, float]]:
    """Measure with each number of readers on one service."""
    async with ground() as running:
        await running.register(_CLUSTER, region="eu", driver="causeway")
        await running.call("application", "POST", "/v1/conferences", {"id": _CONFERENCE})
        lease = await running.call("operator", "GET", f"/v1/clusters/{_CLUSTER}")
        # A participant who stays, so that the room does and nothing but reports happens.
        await running.call("application", "POST", f"/v1/conferences/{_CONFERENCE}/join", {"user": "bob"})
        return [await measure(running, each, reports, lease["epoch"]) for each in readers]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 200], metavar="N")
    parser.add_argument("--reports", type=int, default=300, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    given = parser.parse_args()
    readers, reports = ([1, 5], 20) if given.quick else (given.readers, given.reports)
    results = asyncio.run(run(readers, reports))
    for result in results:
        print(
            f"{result['readers']:>5.0f} readers: {result['reports_per_s']:>7.1f} reports/s, "
            f"event at a reader p50 {result['p50_ms']:.2f} ms, p99 {result['p99_ms']:.2f} ms"
        )
    report(
        "event_streams",
        {
            f"{name}_{result['readers']:.0f}": value
            for result in results
            for name, value in result.items()
            if name != "readers"
        },
    )


if __name__ == "__main__":
    main()
