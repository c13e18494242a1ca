"""How long it takes from a client's arrival until its cluster is linked, and how much one replica can plan.

All in one run, on loopback, with real processes:

1. control, and in each of two regions a cluster and a bridge. A client joins a new conference in the one
   region, then another in the other; measured is the time between two entries of the conference's event log:
   the cluster's report of the second client, and the report that the link is up. One conference at a time,
   then eight. In between lie the view, the plan, the addresses, the order, a QUIC handshake or a stream, the
   token's check at the other cluster, and the first events both ways.
2. control with its own durable Postgres, and conferences of two clusters each that have all they need. All of
   them are marked; measured is how many a second one replica looks at and finishes. The limit beside it: as
   many connections as the replica has, doing nothing but reading those views and deleting those marks, as
   many with one statement as the replica does.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog
import uvloop

from bench._ground import ground
from bench._machine import report
from bench._regions import regions, until
from causeway.api import JoinRequest
from control.registry import cascade_view
from lab.portal_client import PortalClient

if TYPE_CHECKING:
    from datetime import datetime

    from bench._ground import Ground
    from bench._regions import Regions

POOL: Final = 10
"""Connections that a replica holds, by default."""
BATCH: Final = 64
"""Conferences that a replica looks at, or gives back, with one statement at most."""


async def main(*, conferences: int, at_once: tuple[int, ...], planned: int, rounds: int) -> None:
    """Run everything and print the figures."""
    figures: dict[str, float] = {}
    async with regions(2) as on:
        for number in at_once:
            await _link(on, "warm-up")
            took = sorted(await _links(on, conferences, number))
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                figures[f"link_up_{number}_at_once_{name}_ms"] = _at(took, share) * 1000
            print(
                f"{number:2} at once: report of the client → link up:"
                f" p50 {_at(took, 0.5) * 1e3:.0f} ms, p99 {_at(took, 0.99) * 1e3:.0f} ms"
                f" ({len(took)} conferences)",
                flush=True,
            )
    async with ground() as beside:
        rate, limit = await _reconciles(beside, planned, rounds)
    figures |= {"reconciles_per_s": rate, "limit_per_s": limit, "reconciles_of_limit": rate / limit}
    print(
        f"one replica: {rate:.0f} reconciles/s;"
        f" bare statements on {POOL} connections: {limit:.0f}/s ({rate / limit:.0%})",
        flush=True,
    )
    report("cascade", figures)


# --- from a client's arrival to the link ------------------------------------------------------


async def _links(on: Regions, conferences: int, at_once: int) -> list[float]:
    todo = iter(range(conferences))
    took: list[float] = []

    async def work() -> None:
        for number in todo:
            seconds = await _link(on, f"bench-{at_once}-{number}")
            if seconds is not None:
                took.append(seconds)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return took


async def _link(on: Regions, conference: str) -> float | None:
    """Have a client in each of two regions; return the seconds from the second one's report to the link.

    None: one was sent to the other region, as a cluster was slow to answer on a busy machine.
    """
    await on.client.create_conference(conference)
    clusters = set()
    async with AsyncExitStack() as stack:
        for region in on.names:
            place = await on.client.join(conference, JoinRequest(user=f"in-{region}", region=region))
            clusters.add(place.cluster)
            portal = await stack.enter_async_context(
                await PortalClient.connect(f"ws://{place.ip}:{place.port}/portal")
            )
            await portal.join(place.token)

        async def linked() -> bool:
            shown = await on.client.get_conference(conference)
            return any(link.state == "up" for link in shown.links)

        apart = len(clusters) == len(on.names)
        if apart:
            # The log has the times: so it is looked at seldom, and costs those measured little.
            await until(linked, timeout=60, pause=0.25)
        history = (await on.client.list_events(conference)).events
    await on.client.delete_conference(conference)
    if not apart:
        return None
    joined = [event.at for event in history if event.kind == "participant.joined"]
    up = [event.at for event in history if event.kind == "link.up"]
    return _seconds(joined[1], up[0])


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


# --- how much one replica can plan ------------------------------------------------------------

_SETTLED: Final = (
    "INSERT INTO conferences (id) SELECT 'c' || n FROM generate_series(1, $1) AS n",
    """
    INSERT INTO placements (conference, cluster, ordinal, state, room, token)
    SELECT 'c' || n, cluster, ordinal, 'ready', 'c' || n, 'sealed'
    FROM generate_series(1, $1) AS n, (VALUES ('near-1', 1), ('far-1', 2)) AS p (cluster, ordinal)
    """,
    """
    INSERT INTO participants (conference, cluster, id, user_name, role)
    SELECT 'c' || n, cluster, cluster || p, 'user', 'presenter'
    FROM generate_series(1, $1) AS n, unnest(ARRAY['near-1', 'far-1']) AS cluster, generate_series(1, 3) AS p
    """,
    """
    INSERT INTO links (conference, dialer, listener, state)
    SELECT 'c' || n, 'far-1', 'near-1', 'up' FROM generate_series(1, $1) AS n
    """,
)
_MARK: Final = """
    INSERT INTO dirty_conferences (conference, due_at)
    SELECT 'c' || n, now() + make_interval(secs => $2) FROM generate_series(1, $1) AS n
"""


async def _reconciles(on: Ground, conferences: int, rounds: int) -> tuple[float, float]:
    """Return how many conferences a second the replica finishes, and how many bare statements could."""
    for cluster in ("near-1", "far-1"):
        await on.register(cluster, region=cluster.partition("-")[0], driver="owt")
    dsn = on.database.replace("+asyncpg", "")
    pool = await asyncpg.create_pool(dsn, min_size=POOL, max_size=POOL)
    rates, limits = [], []
    async with pool:
        for statement in _SETTLED:
            await pool.execute(statement, conferences)
        await pool.execute("VACUUM ANALYZE")
        await _settled(pool)
        for _ in range(rounds):
            limits.append(conferences / await _bare(pool, conferences))
            begin = time.perf_counter()
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(_MARK, conferences, 0.0)
                await connection.execute("SELECT pg_notify('causeway_conference', 'c1')")
            await _settled(pool)
            rates.append(conferences / (time.perf_counter() - begin))
    return max(rates), max(limits)


async def _settled(pool: Any) -> None:
    async def none_left() -> bool:
        return not await pool.fetchval("SELECT EXISTS (SELECT FROM dirty_conferences)")

    await until(none_left, timeout=300)


async def _bare(pool: Any, conferences: int) -> float:
    """Return the seconds that reading each view and deleting each mark takes, with nothing in between.

    The marks are due much later, so that the replica leaves them alone.
    """
    view = cascade_view.STATEMENT.text.replace(":conferences", "$1")
    await pool.execute(_MARK, conferences, 86_400.0)
    names = [f"c{number}" for number in range(1, conferences + 1)]
    batches = iter([names[start : start + BATCH] for start in range(0, conferences, BATCH)])

    async def work() -> None:
        async with pool.acquire() as connection:
            for batch in batches:
                await connection.fetch(view, batch)
                await connection.execute("DELETE FROM dirty_conferences WHERE conference = ANY ($1)", batch)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(POOL):
            group.create_task(work())
    return time.perf_counter() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a moment of everything, to see that it works")
    quick = parser.parse_args().quick
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(
        main(
            conferences=5 if quick else 100,
            at_once=(1, 2) if quick else (1, 8),
            planned=50 if quick else 2000,
            rounds=1 if quick else 3,
        )
    )
