"""Conferences in the database: what they are made with, what changes, and when they end by themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from sqlalchemy import delete, func, insert, text, update

from causeway.api import NEVER, UNLIMITED, ClusterRegistration, ConferenceCreate, ConferencePatch, Template
from control.errors import (
    ConferenceEndingError,
    ConferenceExistsError,
    ConferenceUnknownError,
    InvalidRequestError,
)
from control.registry import clusters, conferences, placements, reports, templates
from control.registry.metadata import merged
from control.registry.store import Store
from control.registry.tables import conferences as table
from control.registry.tables import dirty_conferences, participants, reservations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from causeway.api import ConferenceView


def anything(_: object) -> None:
    pass


async def change(store: Store, conference: str, **patch: Any) -> ConferenceView:
    return await store.write(
        conferences.change, conference, ConferencePatch(**patch), check=anything, max_metadata_bytes=200
    )


async def placed(store: Store, conference: str, *where: str) -> None:
    for cluster in where:
        request = ClusterRegistration(
            region="eu",
            rest_url="http://127.0.0.1:9",
            service_id="s",
            service_key="k",
            instance="d1",
            incarnation="i1",
        )
        await store.write(clusters.register, cluster, request, sealed_key=b"k", ttl=60)
        await store.write(placements.ensure, conference, cluster)


async def enter(store: Store, conference: str, cluster: str, participant: str) -> None:
    await store.write(
        reports.participant_joined, conference, cluster, participant, user="ada", role="presenter"
    )


async def shift(store: Store, by: timedelta) -> None:
    """Let that much time pass for all that is empty."""

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(update(table).values(empty_since=table.c.empty_since - by))

    await store.write(write)


async def expired(store: Store) -> list[str]:
    return await store.write(conferences.expire, limit=100)


# --- making and changing ----------------------------------------------------------------------


async def test_a_conference_has_what_it_was_made_with(engine: AsyncEngine) -> None:
    store = Store(engine)
    wish = ConferenceCreate(
        metadata={"room": {"colour": "blue"}}, locked=True, participant_limit=5, empty_ttl=60
    )
    assert await store.write(conferences.create, "standup", wish) is True
    assert await store.write(conferences.create, "standup", wish) is False
    assert await store.write(conferences.create, "standup") is False
    view = await store.snapshot(conferences.show, "standup")
    assert (view.metadata, view.locked, view.participant_limit) == ({"room": {"colour": "blue"}}, True, 5)
    assert view.empty_since is not None
    assert view.expires_at == view.empty_since + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [("type", "other"), ("metadata", {"a": 1}), ("locked", True), ("participant_limit", 3), ("empty_ttl", 9)],
)
async def test_another_conference_with_the_id_is_not_taken_for_it(
    engine: AsyncEngine, name: str, value: Any
) -> None:
    store = Store(engine)
    await store.write(conferences.create, "standup")
    with pytest.raises(ConferenceExistsError, match=f"another {name}"):
        await store.write(conferences.create, "standup", ConferenceCreate(**{name: value}))


async def test_limits_come_from_the_template_and_only_get_smaller(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(templates.save, "small", Template(participant_limit=4, empty_ttl=NEVER), check=anything)
    await store.write(conferences.create, "c", ConferenceCreate(type="small"))
    view = await store.snapshot(conferences.show, "c")
    assert (view.participant_limit, view.empty_ttl, view.expires_at) == (4, NEVER, None)
    for limit in (5, UNLIMITED):
        with pytest.raises(InvalidRequestError, match="participant_limit: template small allows at most 4"):
            await store.write(
                conferences.create, "d", ConferenceCreate(type="small", participant_limit=limit)
            )
        with pytest.raises(InvalidRequestError, match="at most 4"):
            await change(store, "c", participant_limit=limit)
    assert (await change(store, "c", participant_limit=2, empty_ttl=5)).participant_limit == 2
    again = await change(store, "c", participant_limit=None, empty_ttl=None)
    assert (again.participant_limit, again.empty_ttl, again.expires_at) == (4, NEVER, None)


async def test_a_patch_leaves_the_rest_alone(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(metadata={"a": {"x": 1, "y": 2}, "b": 3}))
    assert (await change(store, "c", locked=True)).metadata == {"a": {"x": 1, "y": 2}, "b": 3}
    view = await change(store, "c", metadata={"a": {"x": None}, "c": [1]})
    assert view.locked is True
    assert view.metadata == {"a": {"y": 2}, "b": 3, "c": [1]}
    assert (await change(store, "c", metadata=None)).metadata == {}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": "x" * 300}, "at most 200 bytes"),
        ({str(n): 0 for n in range(65)}, "at most 64 keys"),
        ({"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}, "nested more than 16 deep"),
    ],
)
async def test_metadata_have_limits(engine: AsyncEngine, metadata: dict[str, Any], message: str) -> None:
    store = Store(engine)
    with pytest.raises(InvalidRequestError, match=message):
        await store.write(
            conferences.create, "c", ConferenceCreate(metadata=metadata), max_metadata_bytes=200
        )
    await store.write(conferences.create, "c")
    with pytest.raises(InvalidRequestError, match=message):
        await change(store, "c", metadata=metadata)
    assert (await store.snapshot(conferences.show, "c")).metadata == {}


async def test_what_is_not_there_or_ends_cannot_be_changed(engine: AsyncEngine) -> None:
    store = Store(engine)
    with pytest.raises(ConferenceUnknownError):
        await change(store, "c", locked=True)
    await store.write(conferences.create, "c")
    await store.write(conferences.end, "c")
    with pytest.raises(ConferenceEndingError):
        await change(store, "c", locked=True)
    with pytest.raises(ConferenceEndingError):
        await store.write(conferences.create, "c")


async def test_only_one_of_many_makes_it(engine: AsyncEngine) -> None:
    store = Store(engine)
    made = await asyncio.gather(*(store.write(conferences.create, "c") for _ in range(8)))
    assert made.count(True) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def without_null(value: Any) -> Any:
    """What a merge patch makes of nothing: objects without their nulls."""
    if not isinstance(value, dict):
        return value
    return {key: without_null(inner) for key, inner in value.items() if inner is not None}


@given(JSON, JSON)
@example({"a": "b"}, {"a": "c"})
@example({"a": [{"b": "c"}]}, {"a": [1]})
@example({"e": None}, {"a": 1})
@example([1, 2], {"a": "b", "c": None})
@example({}, {"a": {"bb": {"ccc": None}}})
def test_merging_is_that_of_rfc_7396(target: Any, patch: Any) -> None:
    result = merged(target, patch)
    assert merged(result, patch) == result
    if not isinstance(patch, dict):
        assert result == patch
        return
    before = target if isinstance(target, dict) else {}
    assert {k: v for k, v in result.items() if k not in patch} == {
        k: v for k, v in before.items() if k not in patch
    }
    for key, value in patch.items():
        if value is None:
            assert key not in result
        else:
            assert result[key] == merged(before.get(key), value)
            if not isinstance(before.get(key), dict):
                assert result[key] == without_null(value)


# --- the end of empty conferences -------------------------------------------------------------


async def test_a_conference_that_stays_empty_ends(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=60))
    await store.write(conferences.create, "for-ever", ConferenceCreate(empty_ttl=NEVER))
    await shift(store, timedelta(seconds=50))
    assert await expired(store) == []
    await shift(store, timedelta(seconds=20))
    assert await expired(store) == ["c"]
    assert await expired(store) == []
    view = await store.snapshot(conferences.show, "c")
    assert view.state == "ending"
    async with engine.connect() as connection:
        marked = await connection.scalars(
            dirty_conferences.select().with_only_columns(dirty_conferences.c[0])
        )
        assert marked.all() == ["c"]


async def test_the_time_counts_from_when_the_last_one_left(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=60))
    await placed(store, "c", "eu-1", "eu-2")
    await enter(store, "c", "eu-1", "p1")
    await enter(store, "c", "eu-2", "p1")
    assert (await store.snapshot(conferences.show, "c")).empty_since is None
    await store.write(reports.participant_left, "c", "eu-1", "p1")
    assert (await store.snapshot(conferences.show, "c")).expires_at is None
    await store.write(reports.participant_left, "c", "eu-2", "p1")
    view = await store.snapshot(conferences.show, "c")
    assert view.empty_since is not None
    assert view.empty_since > view.created_at
    await shift(store, timedelta(seconds=61))
    await enter(store, "c", "eu-1", "p2")
    assert await expired(store) == []


async def test_a_room_or_placement_that_goes_takes_its_people_along(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c")
    await placed(store, "c", "eu-1")
    for leave in (reports.room_closed, placements.removed):
        await enter(store, "c", "eu-1", "p1")
        assert (await store.snapshot(conferences.show, "c")).empty_since is None
        await store.write(leave, "c", "eu-1")
        assert (await store.snapshot(conferences.show, "c")).empty_since is not None


async def test_of_two_who_leave_at_once_the_last_is_seen(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c")
    await placed(store, "c", "eu-1")
    for name in ("p1", "p2"):
        await enter(store, "c", "eu-1", name)
    async with engine.begin() as first, engine.begin() as second:
        await first.execute(delete(participants).where(participants.c.id == "p1"))
        # Waits for the first one in the trigger, and then must see what that one did.
        later = asyncio.create_task(second.execute(delete(participants).where(participants.c.id == "p2")))
        await asyncio.wait([later], timeout=0.2)
        assert not later.done()
        await first.commit()
        await later
    assert (await store.snapshot(conferences.show, "c")).empty_since is not None


async def test_whoever_is_on_the_way_keeps_it(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=60))
    await shift(store, timedelta(seconds=61))
    async with engine.begin() as connection:
        await connection.execute(
            insert(reservations).values(
                conference="c",
                cluster="eu-1",
                user_name="ada",
                id=1,
                expires_at=func.clock_timestamp() + timedelta(seconds=30),
            )
        )
    assert await expired(store) == []
    async with engine.begin() as connection:
        await connection.execute(update(reservations).values(expires_at=func.now() - timedelta(seconds=1)))
    assert await expired(store) == ["c"]


async def test_a_client_who_is_just_reported_wins_against_the_sweeper(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=60))
    await placed(store, "c", "eu-1")
    await shift(store, timedelta(seconds=61))
    async with engine.begin() as connection:
        await reports.participant_joined(connection, "c", "eu-1", "p1", user="ada", role="presenter")
        assert await expired(store) == []
    assert await expired(store) == []
    assert (await store.snapshot(conferences.show, "c")).state == "active"


async def test_several_replicas_share_the_work(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = [f"c{n:02}" for n in range(30)]
    for name in names:
        await store.write(conferences.create, name, ConferenceCreate(empty_ttl=1))
    await shift(store, timedelta(seconds=2))
    ended: list[str] = []

    async def replica() -> None:
        while some := await store.write(conferences.expire, limit=4):
            ended.extend(some)

    await asyncio.gather(*(replica() for _ in range(4)))
    assert sorted(ended) == names


async def test_a_changed_time_counts_from_the_same_moment(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=60))
    view = await change(store, "c", empty_ttl=90)
    assert view.empty_since is not None
    assert view.expires_at == view.empty_since + timedelta(seconds=90)
    assert (await change(store, "c", empty_ttl=NEVER)).expires_at is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["enter", "leave"]), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("ttl"), st.sampled_from([NEVER, 20, 40, UNSET])),
        st.tuples(st.just("close"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_it_ends_exactly_when_it_was_empty_for_its_time(
    engine: AsyncEngine, steps: list[tuple[str, Any]]
) -> None:
    """The waits are whole seconds of shifted time; what the test itself takes is far below the next one."""
    store = Store(engine)
    async with engine.begin() as connection:
        await connection.execute(delete(table))
    await store.write(conferences.create, "c", ConferenceCreate(empty_ttl=20))
    await placed(store, "c", "eu-1")
    inside: set[int] = set()
    ttl, empty_for = 20, 0
    for step, value in steps:
        if step == "enter":
            await enter(store, "c", "eu-1", f"p{value}")
            inside.add(value)
            empty_for = 0
        elif step in {"leave", "close"}:
            gone = {value} if step == "leave" else set(inside)
            if step == "leave":
                await store.write(reports.participant_left, "c", "eu-1", f"p{value}")
            else:
                await store.write(reports.room_closed, "c", "eu-1")
            inside -= gone
        elif step == "wait":
            await shift(store, timedelta(seconds=value))
            empty_for += 0 if inside else value
        elif value is not UNSET:
            await change(store, "c", empty_ttl=value)
            ttl = value
        due = not inside and ttl != NEVER and empty_for >= ttl
        assert await expired(store) == (["c"] if due else [])
        if due:
            return


async def test_joining_and_leaving_do_not_wait_for_each_other_in_a_ring(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "c")
    await placed(store, "c", "eu-1")

    async def come_and_go(name: str) -> None:
        for _ in range(15):
            # Not by the store, which would try again.
            async with engine.begin() as connection:
                await reports.participant_joined(connection, "c", "eu-1", name, user="u", role="presenter")
            async with engine.begin() as connection:
                await reports.participant_left(connection, "c", "eu-1", name)

    await asyncio.gather(*(come_and_go(f"p{n}") for n in range(5)))
    assert (await store.snapshot(conferences.show, "c")).empty_since is not None


async def test_the_sweeper_does_not_read_all_conferences(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO conferences (id, empty_ttl) SELECT 'c' || n, 600 FROM generate_series(1, 5000) n"
            )
        )
        await connection.execute(text("ANALYZE conferences"))
        query = conferences._due(100).compile(engine.sync_engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join((await connection.scalars(text(f"EXPLAIN {query}"))).all())
    assert "conferences_expiry_idx" in plan
    assert "Index Cond: (expires_at <=" in plan
    assert "Seq Scan on conferences" not in plan
