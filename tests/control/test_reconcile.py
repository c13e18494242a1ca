"""The reconciler's loop, with hands that only pretend: no cluster is asked anything."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select, text

from causeway.api import ClusterRegistration
from control.bell import Bell
from control.cascade.breaker import Breakers
from control.cascade.hands import Hands
from control.cascade.outcome import DONE, NOT_BEGUN, Outcome
from control.cascade.reconcile import Reconciler
from control.cascade.view import CreateRoom, FetchBridges
from control.cascade_settings import BreakerSettings
from control.registry import cascade_view, clusters, conferences, placements, reports
from control.registry.store import Store
from control.registry.tables import dirty_conferences
from control.settings import ReconcileSettings
from tests.control.service import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from control.cascade.view import Action, View

SETTINGS = ReconcileSettings(poll_interval=0.05, claim_ttl=1.0)
BREAKER = BreakerSettings()


class Pretending(Hands):
    """Notes what it is asked to do, and does what the test says."""

    def __init__(self, store: Store, behave: Callable[[View, Action], Awaitable[bool | Outcome]]) -> None:
        self._store = store
        self._behave = behave
        self.asked: list[tuple[str, Action]] = []

    async def do(self, view: View, action: Action) -> Outcome:
        self.asked.append((view.conference, action))
        done = await self._behave(view, action)
        return done if isinstance(done, Outcome) else DONE if done else NOT_BEGUN

    async def room_is_there(self, view: View, cluster: str) -> bool:
        placed = await self._store.read(placements.placed, view.conference, cluster)
        assert placed is not None
        return await self._store.write(
            placements.created,
            view.conference,
            cluster,
            incarnation="i1",
            epoch=placed.epoch,
            room=view.conference,
        )


@asynccontextmanager
async def reconciling(
    store: Store,
    hands: Hands,
    settings: ReconcileSettings = SETTINGS,
    breaker: BreakerSettings = BREAKER,
    idle_grace: float = 30.0,
) -> AsyncIterator[Bell]:
    bell = Bell()
    reconciler = Reconciler(store, hands, bell, Breakers(breaker), settings=settings, idle_grace=idle_grace)
    task = asyncio.create_task(reconciler.run())
    try:
        yield bell
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def placed(store: Store, *conferences_: str, cluster: str = "eu-1") -> None:
    request = ClusterRegistration(
        region="eu",
        rest_url="http://127.0.0.1:9",
        service_id="s",
        service_key="k",
        instance="d1",
        incarnation="i1",
    )
    await store.write(clusters.register, cluster, request, sealed_key=b"k", ttl=60)
    for name in conferences_:
        await store.write(conferences.create, name)
        await store.write(placements.ensure, name, cluster)


async def marks(engine: AsyncEngine) -> int:
    """Count what is to be looked at soon; rooms that nobody came to are due for removal much later."""
    soon = func.now() + timedelta(seconds=5)
    due = or_(dirty_conferences.c.due_at < soon, dirty_conferences.c.claimed_by.is_not(None))
    async with engine.connect() as connection:
        return (
            await connection.scalars(select(func.count()).select_from(dirty_conferences).where(due))
        ).one()


async def test_a_view_older_than_an_outcome_does_not_repeat_the_action(engine: AsyncEngine) -> None:
    go, done = asyncio.Event(), asyncio.Event()

    class Late(Store):
        """Its second snapshot is read while the action runs, and arrives after it has ended."""

        snapshots = 0

        async def read(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            seen = await super().read(function, *args, **kwargs)
            self.snapshots += function is cascade_view.texts
            if self.snapshots == 2 and function is cascade_view.texts:
                go.set()
                await done.wait()
                await asyncio.sleep(0)
            return seen

    store = Late(engine)
    await placed(store, "c")

    async def create(view: View, action: Action) -> bool:
        assert isinstance(action, CreateRoom)
        await go.wait()
        made = await hands.room_is_there(view, action.cluster)
        done.set()
        return made

    hands = Pretending(store, create)
    async with reconciling(store, hands) as bell:
        await until(lambda: asyncio.sleep(0, len(hands.asked)), lambda count: count == 1)
        bell.ring("c")
        await until(lambda: marks(engine), lambda count: count == 0)
    assert hands.asked == [("c", CreateRoom("eu-1"))]


async def test_what_cannot_be_begun_is_put_off_and_not_asked_in_a_loop(engine: AsyncEngine) -> None:
    store = Store(engine)
    await placed(store, "c")
    refusals = 3

    async def refuse(view: View, action: Action) -> bool:
        nonlocal refusals
        assert isinstance(action, CreateRoom)
        refusals -= 1
        return refusals < 0 and await hands.room_is_there(view, action.cluster)

    hands = Pretending(store, refuse)
    async with reconciling(store, hands):
        await until(lambda: marks(engine), lambda count: count == 0)
    assert len(hands.asked) == 4


async def test_a_defect_in_one_action_stops_neither_it_nor_the_others_for_good(engine: AsyncEngine) -> None:
    store = Store(engine)
    await placed(store, "bad", "good")
    broken = True

    async def sometimes(view: View, action: Action) -> bool:
        nonlocal broken
        assert isinstance(action, CreateRoom)
        if view.conference == "bad" and broken:
            broken = False
            raise RuntimeError("a defect")
        return await hands.room_is_there(view, action.cluster)

    hands = Pretending(store, sometimes)
    async with reconciling(store, hands):
        await until(lambda: marks(engine), lambda count: count == 0)
    assert sorted(name for name, _ in hands.asked) == ["bad", "bad", "good"]


async def test_one_slow_cluster_holds_up_only_itself(engine: AsyncEngine) -> None:
    store = Store(engine)
    await placed(store, *(f"slow{n}" for n in range(4)), cluster="slow-1")
    await placed(store, "fast", cluster="eu-1")
    forever = asyncio.Event()

    async def create(view: View, action: Action) -> bool:
        assert isinstance(action, CreateRoom)
        if action.cluster == "slow-1":
            await forever.wait()
        return await hands.room_is_there(view, action.cluster)

    hands = Pretending(store, create)
    settings = ReconcileSettings(poll_interval=0.05, claim_ttl=1.0, max_per_cluster=2)
    async with reconciling(store, hands, settings):
        await until(lambda: store.read(placements.placed, "fast", "eu-1"), lambda p: p.state == "ready")
        assert sum(name != "fast" for name, _ in hands.asked) == 2
        forever.set()
        await until(lambda: marks(engine), lambda count: count == 0)


async def test_a_cluster_that_goes_offline_is_not_waited_for(engine: AsyncEngine) -> None:
    store = Store(engine)
    await placed(store, "c")
    cancelled = asyncio.Event()

    async def hang(_view: View, _action: Action) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    hands = Pretending(store, hang)
    async with reconciling(store, hands) as bell:
        await until(lambda: asyncio.sleep(0, len(hands.asked)), lambda count: count == 1)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE clusters SET lease_expires_at = now()"))
        assert await store.write(clusters.sweep) == "eu-1"
        bell.ring("c")
        async with asyncio.timeout(10):
            await cancelled.wait()
        await until(lambda: marks(engine), lambda count: count == 0)


async def test_two_reconcilers_share_the_work(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = [f"c{n}" for n in range(10)]
    await placed(store, *names)

    async def create(view: View, action: Action) -> bool:
        assert isinstance(action, CreateRoom)
        return await hands.room_is_there(view, action.cluster)

    hands = Pretending(store, create)
    async with reconciling(store, hands), reconciling(store, hands):
        await until(lambda: marks(engine), lambda count: count == 0)
    assert sorted(name for name, _ in hands.asked) == sorted(names)


async def test_a_cluster_that_fails_is_left_alone_then_tried_once_then_all_goes_on(
    engine: AsyncEngine,
) -> None:
    store = Store(engine)
    names = [f"c{n}" for n in range(12)]
    await placed(store, *names, cluster="bad-1")
    await placed(store, "good", cluster="eu-1")
    broken = True
    under_way = most = 0

    async def create(view: View, action: Action) -> bool | Outcome:
        nonlocal under_way, most
        assert isinstance(action, CreateRoom)
        if action.cluster == "bad-1" and broken:
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return Outcome(answered=False, fault="cluster-unreachable")
        await hands.room_is_there(view, action.cluster)
        return Outcome(answered=True)

    hands = Pretending(store, create)
    breaker = BreakerSettings(failures=3, rest_base=0.05, rest_cap=0.2)
    settings = ReconcileSettings(poll_interval=0.05, claim_ttl=1.0, max_per_cluster=2)
    async with reconciling(store, hands, settings, breaker):
        await until(lambda: store.read(placements.placed, "good", "eu-1"), lambda p: p.state == "ready")
        asked = len(hands.asked)
        await until(lambda: asyncio.sleep(0, len(hands.asked)), lambda count: count > asked + 2)
        assert most <= 2
        broken = False
        await until(lambda: marks(engine), lambda count: count == 0)
    rooms = {action.cluster for _, action in hands.asked if isinstance(action, CreateRoom)}
    assert rooms == {"bad-1", "eu-1"}
    for name in names:
        made = await store.read(placements.placed, name, "bad-1")
        assert made is not None
        assert made.state == "ready"


async def test_one_slow_peer_does_not_take_all_of_a_cluster_s_calls(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = [f"c{n}" for n in range(6)]
    for cluster in ("eu-1", "us-1"):
        await placed(store, *names, cluster=cluster)
    for name in names:
        await store.write(reports.room_opened, name, "eu-1", sealed_token=b"t")
        await store.write(reports.participant_joined, name, "us-1", "p", user="ada", role="presenter")
        await store.write(reports.participant_joined, name, "eu-1", "p", user="ada", role="presenter")
    await placed(store, "other", cluster="eu-1")
    forever = asyncio.Event()

    async def act(view: View, action: Action) -> bool | Outcome:
        if isinstance(action, CreateRoom):
            return await hands.room_is_there(view, action.cluster)
        await forever.wait()
        return False

    hands = Pretending(store, act)
    settings = ReconcileSettings(poll_interval=0.05, claim_ttl=1.0, max_per_cluster=4)
    async with reconciling(store, hands, settings):
        await until(lambda: store.read(placements.placed, "other", "eu-1"), lambda p: p.state == "ready")
        await until(lambda: asyncio.sleep(0, len(hands.asked)), lambda count: count == 2)
        assert {type(action) for _, action in hands.asked} == {CreateRoom, FetchBridges}
        forever.set()
