"""The connection of the joins' hot path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.registry import roster
from control.registry.database import DatabaseSettings, connector
from control.registry.lane import Lane

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

PLANS = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE $1"


async def plans_of(lane: Lane) -> tuple[int, int]:
    for _ in range(10):
        await roster.conferences(lane, ["c-1"])
    ((generic, custom),) = await lane.fetch(PLANS, "%AS asked%")
    return generic, custom


async def test_in_a_large_registry_the_statements_of_joins_are_planned_once(
    database_url: str, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO conferences (id) SELECT 'c-' || n FROM generate_series(1, 3000) n"
        )
        await connection.exec_driver_sql("ANALYZE conferences")
    settings = DatabaseSettings()
    left_alone = Lane(connector(database_url, settings))
    lane = Lane(connector(database_url, settings, planned_once=True))
    try:
        assert await plans_of(left_alone) == (0, 10), "left alone, PostgreSQL plans each of them anew"
        assert await plans_of(lane) == (10, 0)
    finally:
        left_alone.close()
        lane.close()
