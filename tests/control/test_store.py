from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from control.errors import DatabaseUnavailableError
from control.registry import conferences
from control.registry.database import create_engine
from control.registry.store import Store

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def names(connection: AsyncConnection) -> list[str]:
    return list((await connection.scalars(text("SELECT id FROM conferences"))).all())


async def test_a_database_that_is_not_there_is_said_so() -> None:
    engine = create_engine("postgresql://nobody:secret@127.0.0.1:1/nothing")
    store = Store(engine)
    for way in (store.read, store.write, store.snapshot):
        with pytest.raises(DatabaseUnavailableError) as caught:
            await way(names)
        assert "secret" not in str(caught.value)
        assert caught.value.retry_after == 1
    await engine.dispose()


async def test_a_connection_that_is_cut_during_the_work_is_said_so(engine: AsyncEngine) -> None:
    async def suicide(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    store = Store(engine)
    with pytest.raises(DatabaseUnavailableError):
        await store.write(suicide)
    assert await store.read(names) == []


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
async def test_a_lock_that_is_not_to_be_had_in_time_is_said_so(engine: AsyncEngine, limit: str) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c")

    async def lock(connection: AsyncConnection) -> None:
        await connection.execute(text(f"SET LOCAL {limit} = 50"))
        await connection.execute(text("SELECT id FROM conferences FOR UPDATE"))

    async def hold(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT id FROM conferences FOR UPDATE"))
        with pytest.raises(DatabaseUnavailableError):
            await store.write(lock)

    await store.write(hold)
    await store.write(lock)


async def test_a_failed_write_leaves_nothing(engine: AsyncEngine) -> None:
    async def half(connection: AsyncConnection) -> None:
        await conferences.create(connection, "c")
        raise RuntimeError("half way")

    store = Store(engine)
    with pytest.raises(RuntimeError, match="half way"):
        await store.write(half)
    assert await store.read(names) == []


async def test_the_loser_of_a_deadlock_is_run_again(engine: AsyncEngine) -> None:
    store = Store(engine)
    for name in ("a", "b"):
        await store.write(conferences.create, name)
    both = asyncio.Barrier(2)
    runs = 0

    async def lock(connection: AsyncConnection, first: str, second: str) -> None:
        nonlocal runs
        runs += 1
        again = runs > 2
        for name in (first, second):
            await connection.execute(
                text("SELECT id FROM conferences WHERE id = :id FOR UPDATE"), {"id": name}
            )
            if name == first and not again:
                await both.wait()

    async with asyncio.timeout(30):
        await asyncio.gather(store.write(lock, "a", "b"), store.write(lock, "b", "a"))
    assert runs == 3


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_race_that_is_lost_for_ever_is_an_error_in_the_end(engine: AsyncEngine, way: str) -> None:
    runs = 0

    async def lose(connection: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))

    with pytest.raises(DBAPIError, match="deadlock"):
        await getattr(Store(engine), way)(lose)
    assert runs == 5


async def test_other_errors_come_through(engine: AsyncEngine) -> None:
    async def wrong(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        await Store(engine).write(wrong)
