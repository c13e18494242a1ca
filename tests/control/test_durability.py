"""What is there after the database was killed, at the very moment after a join was answered."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import asyncpg

from control.registry.database import Database, create_engine, ensure_schema
from control.registry.embedded import EmbeddedPostgres
from tests.control.service import running

if TYPE_CHECKING:
    from pathlib import Path

SEATS = "SELECT cluster, count(*) FROM reservations GROUP BY cluster"
COUNTED = "SELECT cluster, reserved FROM seats"


async def test_a_killed_database_has_every_seat_that_a_limit_counts(state_folder: Path) -> None:
    async with EmbeddedPostgres(state_folder) as postgres:
        await _prepare(postgres.url)
        async with (
            running(postgres.url) as service,
            service.cluster("eu-1", region="eu") as eu,
            service.cluster("us-1", region="us") as us,
        ):
            await eu.register(limits={"participants": 100})
            await us.register()
            for region in ("eu", "us"):
                await service.create(region)
                assert (await service.join(region, region=region)).status_code == 200, "the room is made"
            for region in ("us", "eu"):
                for number in range(3):
                    answer = await service.join(region, region=region, user=f"user-{number}")
                    assert answer.status_code == 200
            before = await _rows(postgres.url, SEATS)
            assert (await service.join("us", region="us", user="the last one")).status_code == 200
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGKILL)
    assert before == {"eu-1": 4, "us-1": 4}
    async with EmbeddedPostgres(state_folder) as postgres:
        after = await _rows(postgres.url, SEATS)
        assert after == await _rows(postgres.url, COUNTED)
        assert after["eu-1"] == 4
        assert after["us-1"] in {4, 5}, "the last one's may be gone: nothing there counts on it"
        rooms = await _rows(postgres.url, "SELECT conference, state FROM placements")
        assert rooms == {"eu": "ready", "us": "ready"}


async def _prepare(url: str) -> None:
    engine = create_engine(url)
    try:
        await ensure_schema(Database(engine=engine, url=url, embedded=True))
    finally:
        await engine.dispose()


async def _rows(url: str, statement: str) -> dict[str, object]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return {row[0]: row[1] for row in await connection.fetch(statement)}
    finally:
        await connection.close(timeout=5)
