"""Replicas as they are: each with a connection of its own to a real database, in one event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from causeway.api import ClusterRegistration
from control.duties import Duty, Replica
from control.errors import ConferenceUnknownError, DatabaseUnavailableError
from control.registry import clusters, conferences, duties, probes, replicas, work
from control.registry.connection import DatabaseSettings
from control.registry.database import connector
from control.registry.duties import DutyLostError, Held
from control.registry.lane import Lane
from control.registry.store import Store
from control.replica_settings import ReplicaSettings
from tests.control.service import until

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

QUICK = ReplicaSettings(ttl=0.6, beat_interval=0.1)
NAMES = ("expiry", "leases", "upkeep")


class Cut(Lane):
    """A lane that can be cut, as a network can, without anybody being told."""

    cut = False

    async def fetch(self, statement: str, *args: Any) -> list[Any]:
        if self.cut:
            await asyncio.Event().wait()
        return await super().fetch(statement, *args)


class Party:
    """One replica and what its duties have done."""

    def __init__(self, url: str, store: Store, name: str, settings: ReplicaSettings) -> None:
        self.store = store
        self.lane = Cut(connector(url, DatabaseSettings()))
        self.stores: dict[str, Store] = {}
        self.stale: list[str] = []
        self.replica = Replica(
            store,
            self.lane,
            settings,
            name=name,
            version="1",
            revision="0010",
            duties=[Duty(name=duty, body=self._body(duty)) for duty in NAMES],
            remembered={"credentials": lambda: self.stale.append("credentials")},
        )
        self.task: asyncio.Task[None] | None = None

    def _body(self, duty: str) -> Any:
        async def body(store: Store) -> None:
            self.stores[duty] = store
            try:
                await asyncio.Event().wait()
            finally:
                del self.stores[duty]

        return body

    @property
    def doing(self) -> set[str]:
        return set(self.stores)

    async def die(self) -> None:
        """End as a killed process does: without a word."""
        self.lane.cut = True
        assert self.task is not None
        self.replica._leave = _silently  # type: ignore[method-assign] # the dead say nothing
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.lane.close()


async def clearing(party: Party) -> bool:
    return party.replica._clearing is not None and not party.replica._clearing.done()


async def _silently() -> None:
    pass


@asynccontextmanager
async def parties(
    url: str, engine: AsyncEngine, *names: str, settings: ReplicaSettings = QUICK
) -> AsyncIterator[list[Party]]:
    found = [Party(url, Store(engine), name, settings) for name in names]
    try:
        for party in found:
            party.task = asyncio.create_task(party.replica.run())
        yield found
    finally:
        for party in found:
            assert party.task is not None
            party.task.cancel()
            with suppress(asyncio.CancelledError):
                await party.task


async def shared(*those: Party) -> list[set[str]]:
    return [party.doing for party in those]


def once_each(doing: list[set[str]]) -> bool:
    return sorted(duty for each in doing for duty in each) == sorted(NAMES)


async def test_every_duty_is_done_once_and_shared_evenly(database_url: str, engine: AsyncEngine) -> None:
    async with parties(database_url, engine, "a") as [a]:
        await until(lambda: shared(a), once_each)
        async with parties(database_url, engine, "b", "c") as [b, c]:
            evenly = await until(lambda: shared(a, b, c), lambda seen: all(len(each) == 1 for each in seen))
            assert once_each(evenly)
        # Those two said good-bye.
        await until(lambda: shared(a), once_each)
        listed = {each.name: each for each in await a.store.read(replicas.list_all)}
        assert {name: each.state for name, each in listed.items()} == {
            "a": "alive",
            "b": "stopped",
            "c": "stopped",
        }
        assert listed["a"].duties == sorted(NAMES)


async def test_the_dead_are_replaced_and_their_claims_are_free(
    database_url: str, engine: AsyncEngine
) -> None:
    async with parties(database_url, engine, "a", "b", settings=ReplicaSettings()) as [a, b]:
        await until(lambda: shared(a, b), once_each)
        await claim(a)
        assert await free(b.store) == ([], [])
        loop = asyncio.get_running_loop()
        died = loop.time()
        await a.die()
        await until(lambda: shared(b), once_each)
        work_again, probe_again = await until(lambda: free(b.store), lambda seen: seen == (["c"], ["eu-1"]))
        assert (work_again, probe_again) == (["c"], ["eu-1"])
        assert loop.time() - died < 4  # two by its settings; the machine may be busy
        await until(lambda: clearing(b), lambda busy: not busy)
        listed = {each.name: each.state for each in await b.store.read(replicas.list_all)}
        assert listed == {"a": "gone", "b": "alive"}


def test_the_lease_and_a_beat_are_within_two_seconds() -> None:
    assert ReplicaSettings().ttl + ReplicaSettings().beat_interval < 2
    with pytest.raises(ValueError, match="third"):
        ReplicaSettings(ttl=1, beat_interval=0.5)


async def test_who_is_cut_off_stops_and_comes_back_with_nothing(
    database_url: str, engine: AsyncEngine
) -> None:
    async with parties(database_url, engine, "a", "b") as [a, b]:
        await until(lambda: shared(a, b), once_each)
        await claim(a)
        a.lane.cut = True
        await until(
            lambda: shared(a, b),
            lambda seen: not a.replica.alive and seen[0] == set() and once_each(seen),
        )
        assert await until(lambda: free(b.store), lambda seen: seen[0] == ["c"])
        a.lane.cut = False
        await until(lambda: shared(a, b), lambda seen: seen[0] != set() and once_each(seen))


async def test_a_former_holder_writes_nothing(database_url: str, engine: AsyncEngine) -> None:
    async with parties(database_url, engine, "a") as [a]:
        await until(lambda: shared(a), once_each)
        former = a.stores["leases"]
        await former.write(conferences.create, "before")
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE duties SET epoch = epoch + 1 WHERE name = 'leases'"))
        with pytest.raises(DutyLostError):
            await former.write(conferences.create, "after")
        assert (await a.store.snapshot(conferences.show, "before")).id == "before"
        with pytest.raises(Exception, match="after"):
            await a.store.snapshot(conferences.show, "after")
        # It notices, and takes the duty again with an epoch of its own.
        await until(lambda: _stores(a), lambda stores: stores.get("leases") not in {None, former})


async def _stores(party: Party) -> dict[str, Store]:
    return dict(party.stores)


async def test_a_frozen_holder_does_not_keep_the_duty(database_url: str, engine: AsyncEngine) -> None:
    """A process that stops in the middle of a transaction keeps nobody waiting, and commits nothing."""
    lane, store = Lane(connector(database_url, DatabaseSettings())), Store(engine)
    me, other = identity("frozen"), identity("other")
    await replicas.beat(lane, me, ttl=0.3)
    await duties.know(lane, NAMES)
    held = await duties.take(lane, "leases", holder=me.id, seen=0)
    assert held is not None
    former = store.fenced(partial(duties.require, held=held, patience=30))

    async def freeze(connection: AsyncConnection) -> None:
        await conferences.create(connection, "c")
        taken = await until(lambda: beat_and_take(lane, other), lambda taken: taken is not None)
        assert taken.epoch == held.epoch + 1

    with pytest.raises(DutyLostError):
        await former.write(freeze)
    with pytest.raises(ConferenceUnknownError):
        await store.snapshot(conferences.show, "c")
    lane.close()


async def test_a_duty_that_stands_still_is_given_up(database_url: str, engine: AsyncEngine) -> None:
    lane, store = Lane(connector(database_url, DatabaseSettings())), Store(engine)
    me = identity("frozen")
    await replicas.beat(lane, me, ttl=30)
    await duties.know(lane, NAMES)
    held = await duties.take(lane, "leases", holder=me.id, seen=0)
    assert held is not None
    ended = asyncio.Event()

    async def freeze(connection: AsyncConnection) -> None:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.add_termination_listener(lambda _connection: ended.set())
        async with asyncio.timeout(10):
            await ended.wait()

    with pytest.raises(DatabaseUnavailableError):
        await store.fenced(partial(duties.require, held=held, patience=0.2)).write(freeze)
    lane.close()


async def beat_and_take(lane: Lane, other: replicas.Identity) -> Held | None:
    heard = await replicas.beat(lane, other, ttl=5)
    return await duties.take(lane, "leases", holder=other.id, seen=heard.duties["leases"][1])


async def test_of_two_who_take_a_duty_one_gets_it(database_url: str) -> None:
    lanes = [Lane(connector(database_url, DatabaseSettings())) for _ in range(4)]
    everybody = [identity(str(n)) for n in range(4)]
    await duties.know(lanes[0], NAMES)
    for lane, me in zip(lanes, everybody, strict=True):
        await replicas.beat(lane, me, ttl=30)
    taken = await asyncio.gather(
        *(
            duties.take(lane, "leases", holder=me.id, seen=0)
            for lane, me in zip(lanes, everybody, strict=True)
        )
    )
    assert len([each for each in taken if each is not None]) == 1
    # Nobody takes a duty without a lease of his own, or from somebody alive.
    assert await duties.take(lanes[0], "upkeep", holder=identity("unheard").id, seen=0) is None
    for lane in lanes:
        assert await duties.take(lane, "leases", holder=identity("x").id, seen=1) is None
        lane.close()


async def test_a_missed_announcement_is_found_with_a_beat(database_url: str, engine: AsyncEngine) -> None:
    async with parties(database_url, engine, "a") as [a]:
        await until(lambda: _stale(a), bool)
        a.stale.clear()
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE caches SET version = version + 1"))
        await until(lambda: _stale(a), bool)


async def _stale(party: Party) -> list[str]:
    return party.stale


async def test_a_failing_duty_is_tried_again_and_alone(database_url: str, engine: AsyncEngine) -> None:
    tries = 0
    other = asyncio.Event()

    async def fails(_store: Store) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("a defect")

    async def works(_store: Store) -> None:
        other.set()
        await asyncio.Event().wait()

    replica = Replica(
        Store(engine),
        Lane(connector(database_url, DatabaseSettings())),
        QUICK,
        name="a",
        version="1",
        revision="0010",
        duties=[Duty(name="fails", body=fails), Duty(name="works", body=works)],
        remembered={},
    )
    task = asyncio.create_task(replica.run())

    async def tried() -> int:
        return tries

    try:
        await until(tried, lambda seen: seen >= 2)
        async with asyncio.timeout(10):
            await other.wait()
        assert replica.doing == {"fails", "works"}
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_who_comes_back_to_nobody_is_told_for_how_long(database_url: str, engine: AsyncEngine) -> None:
    told: list[float] = []

    async def returned(seconds: float) -> None:
        told.append(seconds)

    store, lane = Store(engine), Cut(connector(database_url, DatabaseSettings()))
    replica = Replica(
        store,
        lane,
        QUICK,
        name="a",
        version="1",
        revision="0010",
        duties=[],
        remembered={},
        on_return=returned,
    )

    async def state() -> tuple[int, bool]:
        return len(told), replica.alive

    task = asyncio.create_task(replica.run())
    try:
        await until(state, lambda seen: seen[0] >= 1 and seen[1])
        assert told[0] == float("inf")
        lane.cut = True
        # Here the lease is over a little earlier than for the others.
        await until(lambda: store.read(replicas.absence), bool)
        assert not replica.alive
        lane.cut = False
        await until(state, lambda seen: seen[0] >= 2 and seen[1])
        assert 0 < told[1] < 30
        steady = ReplicaSettings(ttl=60, beat_interval=0.1)
        async with parties(database_url, engine, "b", settings=steady) as [b]:
            await until(lambda: shared(b), once_each)
            before = len(told)
            lane.cut = True
            await until(state, lambda seen: not seen[1])
            lane.cut = False
            await until(state, lambda seen: seen[1])
            assert len(told) == before
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_old_replicas_are_forgotten(database_url: str, engine: AsyncEngine) -> None:
    async with parties(database_url, engine, "a") as [a]:
        async with parties(database_url, engine, "b") as [b]:
            await until(lambda: shared(a, b), once_each)
        assert await a.store.write(replicas.forget, after=3600) == 0
        assert await a.store.write(replicas.forget, after=-1) == 1
        assert [each.name for each in await a.store.read(replicas.list_all)] == ["a"]
        assert await a.store.read(replicas.absence) == 0
    assert await a.store.read(replicas.absence) > 0


# --- what replicas claim ----------------------------------------------------------------------


def identity(name: str) -> replicas.Identity:
    import uuid  # noqa: PLC0415 - here only

    return replicas.Identity(id=uuid.uuid4(), name=name, version="1", revision="0010", duties=NAMES)


async def claim(party: Party) -> None:
    """Have the replica claim a conference and a probe, both for a long time."""
    me: uuid.UUID = party.replica.id
    await party.store.write(conferences.create, "c")
    await party.store.write(work.mark, "c")
    assert [
        each.conference for each in await party.store.write(work.claim, limit=9, ttl=600, replica=me)
    ] == ["c"]
    await party.store.write(
        clusters.register,
        "eu-1",
        ClusterRegistration(
            region="eu",
            rest_url="http://127.0.0.1:1",
            service_id="s",
            service_key="k",
            instance="i",
            incarnation="j",
        ),
        sealed_key=b"sealed",
        ttl=600,
        actor="test",
        probe_in=0,
    )
    assert [
        each.cluster for each in await party.store.write(probes.claim, limit=9, hold=600, replica=me)
    ] == ["eu-1"]


async def free(store: Store) -> tuple[list[str], list[str]]:
    """What could be claimed now."""

    async def look(connection: Any) -> tuple[list[str], list[str]]:
        marked = await connection.scalars(
            text("SELECT conference FROM dirty_conferences WHERE claimed_until IS NULL")
        )
        due = await connection.scalars(
            text("SELECT id FROM clusters WHERE probe_due_at <= clock_timestamp()")
        )
        return list(marked), list(due)

    return await store.snapshot(look)
