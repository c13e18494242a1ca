"""Heartbeats that are written together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from causeway.api import ClusterRegistration, Load
from control.beats import Beats
from control.errors import ClusterUnknownError, OverloadedError, StaleEpochError
from control.registry import clusters
from control.registry.database import DatabaseSettings, connector
from control.registry.lane import Lane
from control.registry.store import Store
from control.registry.tables import clusters as rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

TTL = 30.0


@pytest.fixture
async def store(engine: AsyncEngine) -> Store:
    """Four clusters that have just registered."""
    made = Store(engine)
    for cluster in ("eu-1", "eu-2", "us-1", "us-2"):
        request = ClusterRegistration(
            region=cluster[:2],
            rest_url="http://127.0.0.1:9",
            service_id="s",
            service_key="k",
            instance="i",
            incarnation="1",
        )
        await made.write(clusters.register, cluster, request, sealed_key=b"sealed", ttl=TTL)
    return made


@asynccontextmanager
async def beating(store: Store, url: str, *, max_waiting: int = 100) -> AsyncIterator[Beats]:
    beats = Beats(
        store, Lane(connector(url, DatabaseSettings())), ttl=TTL, gather=0.01, max_waiting=max_waiting
    )
    running = asyncio.create_task(beats.run())
    await asyncio.sleep(0)  # it begins
    try:
        yield beats
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def participants(store: Store, cluster: str) -> int:
    async def read(connection: AsyncConnection) -> int:
        found = await connection.scalars(select(rows.c.load_participants).where(rows.c.id == cluster))
        return found.one()

    return await store.read(read)


async def test_beats_that_come_at_once_are_told_apart(store: Store, database_url: str) -> None:
    async with beating(store, database_url) as beats:
        await store.write(clusters.unregister, "us-2", epoch=1)
        told = await asyncio.gather(
            beats.beat("eu-1", 1, Load(participants=5, modules={"portal": 0.5})),
            beats.beat("eu-2", 2, Load(participants=6)),
            beats.beat("us-2", 1, Load(participants=7)),
            beats.beat("nobody", 1, Load()),
            beats.beat("us-1", 1, Load(participants=8)),
            return_exceptions=True,
        )
    assert [type(each) for each in told] == [
        type(None),
        StaleEpochError,
        ClusterUnknownError,
        ClusterUnknownError,
        type(None),
    ]
    assert [await participants(store, cluster) for cluster in ("eu-1", "eu-2", "us-1")] == [5, 0, 8]


async def test_of_two_beats_of_a_cluster_the_newer_one_is_kept_and_both_are_answered(
    store: Store, database_url: str
) -> None:
    async with beating(store, database_url) as beats:
        await asyncio.gather(*(beats.beat("eu-1", 1, Load(participants=number)) for number in (1, 2)))
        assert await participants(store, "eu-1") == 2


async def test_who_goes_away_takes_nobody_along(store: Store, database_url: str) -> None:
    async with beating(store, database_url) as beats:
        gone = asyncio.create_task(beats.beat("eu-1", 1, Load(participants=1)))
        stays = asyncio.create_task(beats.beat("eu-1", 1, Load(participants=2)))
        await asyncio.sleep(0)  # both wait
        gone.cancel()
        async with asyncio.timeout(10):
            await stays
        assert gone.cancelled()
        assert await participants(store, "eu-1") == 2


async def test_a_cluster_that_somebody_works_on_keeps_nobody_waiting(
    store: Store, engine: AsyncEngine, database_url: str
) -> None:
    async with beating(store, database_url) as beats:
        async with engine.begin() as connection:
            await clusters.require_lease(connection, "eu-1", 1)
            held = asyncio.create_task(beats.beat("eu-1", 1, Load(participants=1)))
            async with asyncio.timeout(10):
                await beats.beat("eu-2", 1, Load(participants=2))
            assert not held.done()
        async with asyncio.timeout(10):
            await held
        assert [await participants(store, cluster) for cluster in ("eu-1", "eu-2")] == [1, 2]


async def test_more_than_may_wait_are_refused(store: Store, database_url: str) -> None:
    async with beating(store, database_url, max_waiting=1) as beats:
        first = asyncio.create_task(beats.beat("eu-1", 1, Load()))
        await asyncio.sleep(0)  # it waits
        with pytest.raises(OverloadedError):
            await beats.beat("eu-2", 1, Load())
        await first
        await beats.beat("eu-2", 1, Load())
