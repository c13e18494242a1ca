from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from control.registry import conferences, work
from control.registry.connection import DatabaseSettings
from control.registry.database import connector
from control.registry.notices import follow
from control.registry.store import Store
from control.registry.tables import dirty_conferences

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def marked(store: Store, *names: str) -> None:
    for name in names:
        await store.write(conferences.create, name)
        await store.write(work.mark, name)


async def run_out(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE dirty_conferences SET claimed_until = now()"))


async def test_each_conference_is_claimed_by_one(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = [f"c{n}" for n in range(12)]
    await marked(store, *names)
    claims = await asyncio.gather(*(store.write(work.claim, limit=5, ttl=30) for _ in range(6)))
    claimed = [claim.conference for each in claims for claim in each]
    assert len(claimed) == len(set(claimed))
    rest = await store.write(work.claim, limit=50, ttl=30)
    assert sorted(claimed + [claim.conference for claim in rest]) == sorted(names)
    assert await store.write(work.claim, limit=50, ttl=30) == []


async def test_a_mark_during_the_work_is_not_lost(engine: AsyncEngine) -> None:
    store = Store(engine)
    await marked(store, "c")
    [claim] = await store.write(work.claim, limit=1, ttl=30)
    await store.write(work.mark, "c")
    assert not await store.write(work.finish, claim, version=claim.version, due_at=None)
    version = await store.write(work.renew, claim, ttl=30)
    assert version == claim.version + 1
    assert await store.write(work.finish, claim, version=version, due_at=None)
    assert await store.write(work.claim, limit=1, ttl=30) == []


async def test_a_dead_holder_is_replaced_and_can_do_no_harm(engine: AsyncEngine) -> None:
    store = Store(engine)
    await marked(store, "c")
    [dead] = await store.write(work.claim, limit=1, ttl=30)
    await run_out(engine)
    [alive] = await store.write(work.claim, limit=1, ttl=30)
    assert alive.id != dead.id
    assert await store.write(work.renew, dead, ttl=30) is None
    assert not await store.write(work.finish, dead, version=dead.version, due_at=None)
    assert await store.write(work.finish, alive, version=alive.version, due_at=None)


async def test_what_is_due_later_is_claimed_later_or_when_marked(engine: AsyncEngine) -> None:
    store = Store(engine)
    await marked(store, "c")
    [claim] = await store.write(work.claim, limit=1, ttl=30)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await store.write(work.finish, claim, version=claim.version, due_at=later)
    assert await store.write(work.claim, limit=1, ttl=30) == []
    await store.write(work.mark, "c")
    assert len(await store.write(work.claim, limit=1, ttl=30)) == 1


async def test_excluded_conferences_are_left_alone(engine: AsyncEngine) -> None:
    store = Store(engine)
    await marked(store, "a", "b")
    assert [c.conference for c in await store.write(work.claim, limit=5, ttl=30, excluding=["a"])] == ["b"]


async def test_notices_arrive_and_a_cut_connection_is_replaced(
    engine: AsyncEngine, database_url: str
) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c")
    heard: asyncio.Queue[str] = asyncio.Queue(100)
    ready = asyncio.Event()
    connect = connector(database_url, DatabaseSettings())
    task = asyncio.create_task(follow(connect, {work.CHANNEL: heard.put_nowait}, on_gap=ready.set))
    try:
        for _ in range(2):
            async with asyncio.timeout(10):
                await ready.wait()
                ready.clear()
                await store.write(work.mark, "c")
                assert await heard.get() == "c"
            async with engine.begin() as connection:
                await connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
                )
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_many_are_given_back_at_once_those_marked_again_are_not(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = ["a", "b", "c", "d"]
    await marked(store, *names)
    held = {claim.conference: claim for claim in await store.write(work.claim, limit=10, ttl=60)}
    assert sorted(held) == names
    await store.write(work.mark, "b")
    now = await due(engine)
    later = now["a"] + timedelta(hours=1)
    done = [
        work.Finish(held=held[name], version=held[name].version, due_at=at)
        for name, at in (("a", None), ("b", None), ("c", later))
    ]
    assert await store.write(work.finish_all, done) == {"a", "c"}
    left = await due(engine)
    assert sorted(left) == ["b", "c", "d"]
    assert left["c"] == later
    assert await store.write(work.finish_all, done) == set()
    assert await store.write(work.renew, held["b"], ttl=60) == held["b"].version + 1
    assert await store.write(work.renew, held["c"], ttl=60) is None


async def due(engine: AsyncEngine) -> dict[str, datetime]:
    async with engine.connect() as connection:
        found = await connection.execute(select(dirty_conferences.c.conference, dirty_conferences.c.due_at))
        return {row.conference: row.due_at for row in found}
