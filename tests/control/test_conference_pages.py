"""The list of conferences: filters, and pages that lose and repeat nothing while others write."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from causeway.api import ClusterRegistration, ConferenceCreate, ConferenceQuery, Template
from control.errors import InvalidRequestError
from control.registry import clusters, conference_pages, conferences, placements, templates
from control.registry.paging import Place
from control.registry.store import Store
from control.registry.tables import conferences as table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

START = datetime(2024, 1, 1, tzinfo=UTC)


async def listed(store: Store, **query: Any) -> list[str]:
    """Read all pages."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.read(conference_pages.page, ConferenceQuery(**query, cursor=cursor))
        assert len(page.conferences) <= query.get("limit", 100)
        found += [conference.id for conference in page.conferences]
        cursor = page.next
        if cursor is None:
            return found


async def make(store: Store, rows: list[tuple[str, int]]) -> None:
    """Make conferences with these ids, created so many microseconds after START."""

    async def write(connection: AsyncConnection) -> None:
        for name, moment in rows:
            created = START + timedelta(microseconds=moment)
            await connection.execute(insert(table).values(id=name, created_at=created))

    await store.write(write)


# --- filters ----------------------------------------------------------------------------------


async def test_filters(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(templates.save, "meeting", Template(), check=lambda _: None)
    wishes = {
        "a": ConferenceCreate(metadata={"tenant": "red", "floor": 3}),
        "b": ConferenceCreate(type="meeting", metadata={"tenant": "red", "floor": "3", "open": True}),
        "c": ConferenceCreate(type="meeting", metadata={"a.b": "x", "gone": None}),
    }
    for name, wish in wishes.items():
        await store.write(conferences.create, name, wish)
    for cluster, region, conference in (("eu-1", "eu", "a"), ("us-1", "us", "a"), ("us-1", "us", "b")):
        request = ClusterRegistration(
            region=region,
            rest_url="http://127.0.0.1:9",
            service_id="s",
            service_key="k",
            instance="d1",
            incarnation="i1",
        )
        await store.write(clusters.register, cluster, request, sealed_key=b"k", ttl=60)
        await store.write(placements.ensure, conference, cluster)
    await store.write(conferences.end, "c")

    async def of(**query: Any) -> str:
        return "".join(await listed(store, **query))

    assert await of() == "abc"
    assert await of(state="active") == "ab"
    assert await of(state="ending") == "c"
    assert await of(type="meeting") == "bc"
    assert await of(cluster="us-1") == "ab"
    assert await of(region="eu") == "a"
    assert await of(region="eu", cluster="us-1") == "a"
    assert await of(metadata={"tenant": "red"}) == "ab"
    assert await of(metadata={"floor": "3"}) == "ab"
    assert await of(metadata={"floor": "4"}) == ""
    assert await of(metadata={"open": "true"}) == "b"
    assert await of(metadata={"gone": "null"}) == "c"
    assert await of(metadata={"a.b": "x"}) == "c"
    assert await of(metadata={"tenant": "red", "open": "true"}, type="meeting") == "b"
    assert await of(metadata={"tenant": "{}"}) == ""
    [first, *_] = (await store.read(conference_pages.page, ConferenceQuery())).conferences
    assert (first.clusters, first.participants, first.type) == (["eu-1", "us-1"], 0, "default")


# --- pages ------------------------------------------------------------------------------------


async def test_pages_have_no_holes_where_many_were_made_at_one_moment(engine: AsyncEngine) -> None:
    store = Store(engine)
    names = [f"c{n:02}" for n in range(20)]
    await make(store, [(name, 0) for name in names])
    for limit in (1, 7, 19, 20, 21):
        assert await listed(store, limit=limit) == names


NAMES = st.text("abAB19-._~@:", min_size=1, max_size=3).map(lambda text: f"x{text}")
ROWS = st.lists(st.tuples(NAMES, st.integers(0, 3)), max_size=12, unique_by=lambda row: row[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rows=ROWS, limit=st.integers(1, 4))
async def test_what_is_there_all_the_time_is_seen_exactly_once(
    engine: AsyncEngine, data: st.DataObject, rows: list[tuple[str, int]], limit: int
) -> None:
    """Between two pages others are made and deleted, before and after the place where the reader is."""
    store = Store(engine)
    async with engine.begin() as connection:
        await connection.execute(delete(table))
    await make(store, rows)
    always = dict(rows)
    seen: list[str] = []
    cursor: str | None = None
    added = 0
    while True:
        page = await store.read(conference_pages.page, ConferenceQuery(limit=limit, cursor=cursor))
        seen += [conference.id for conference in page.conferences]
        cursor = page.next
        if cursor is None:
            break
        for moment in data.draw(st.lists(st.integers(0, 3), max_size=2)) if added < 20 else ():
            added += 1
            await make(store, [(f"{data.draw(NAMES)}y{added}", moment)])
        leaves = data.draw(st.sampled_from(["nobody", *sorted(always)]))
        if leaves in always:
            del always[leaves]
            async with engine.begin() as connection:
                await connection.execute(delete(table).where(table.c.id == leaves))
    assert len(seen) == len(set(seen))
    assert always.keys() <= set(seen)
    moments = [always[name] for name in seen if name in always]
    assert moments == sorted(moments)


async def test_pages_while_others_really_write(engine: AsyncEngine) -> None:
    store = Store(engine)
    always = [f"always-{n:02}" for n in range(40)]
    for name in always:
        await store.write(conferences.create, name)
    reading = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not reading.is_set():
            number += 1
            await store.write(conferences.create, f"new-{writer}-{number}")
            await make(store, [(f"old-{writer}-{number}", number)])

    async with asyncio.TaskGroup() as group:
        for writer in range(3):
            group.create_task(write(writer))
        # No end is waited for: every page moves the reader on, past what was there when it began.
        seen: list[str] = []
        cursor: str | None = None
        while len([name for name in seen if name.startswith("always-")]) < len(always):
            page = await store.read(conference_pages.page, ConferenceQuery(limit=3, cursor=cursor))
            seen += [conference.id for conference in page.conferences]
            cursor = page.next
            assert cursor is not None or seen[-1].startswith("new-") or always[-1] in seen
        reading.set()
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name.startswith("always-")] == always


# --- cursors ----------------------------------------------------------------------------------


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
)
def test_a_cursor_is_read_as_it_was_written(moment: datetime, name: str) -> None:
    place = Place(moment, name)
    assert Place.read(place.cursor()) == place


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text: str) -> None:
    with suppress(InvalidRequestError):
        assert Place.read(text).cursor() == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[1,2]",
        b'[2,0,"a"]',
        b'[1,0.5,"a"]',
        b'[1,99999999999999999999,"a"]',
        b'[1,0,"a\\u0000"]',
        b'[1, 0, "a"]',
        b"{}",
        b"\xff",
        b'[1,1e300,"a"]',
        b"[" * 400,
    ],
)
def test_what_only_looks_like_a_cursor_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        Place.read(base64.urlsafe_b64encode(content).rstrip(b"=").decode())


async def test_a_bad_cursor_is_no_matter_for_the_database(engine: AsyncEngine) -> None:
    with pytest.raises(InvalidRequestError):
        await Store(engine).read(conference_pages.page, ConferenceQuery(cursor="no-cursor"))
