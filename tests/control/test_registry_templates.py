"""Templates in the database: versions, retirement, the first start."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from causeway.api import DEFAULT_TEMPLATE, ConferenceCreate, Template, Topology
from control.cascade.topology import TopologyWish
from control.errors import TemplateDefaultError, TemplateUnknownError
from control.registry import cascade_view, conferences, templates
from control.registry.store import Store
from control.registry.tables import conferences as conference_table
from control.registry.tables import templates as table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def anything(_: object) -> None:
    pass


async def save(store: Store, name: str, template: Template) -> int:
    view, _ = await store.write(templates.save, name, template, check=anything)
    return view.version


async def test_a_conference_keeps_the_version_it_was_created_with(engine: AsyncEngine) -> None:
    store = Store(engine)
    assert await save(store, "meeting", Template(participant_limit=10)) == 1
    await store.write(conferences.create, "old", ConferenceCreate(type="meeting"))
    assert await save(store, "meeting", Template(participant_limit=20)) == 2
    await store.write(conferences.create, "new", ConferenceCreate(type="meeting"))
    old = await store.read(templates.of_conference, "old")
    new = await store.read(templates.of_conference, "new")
    assert (old.version, old.template.participant_limit) == (1, 10)
    assert (new.version, new.template.participant_limit) == (2, 20)


async def test_the_plan_sees_the_topology_of_the_conferences_version(engine: AsyncEngine) -> None:
    store = Store(engine)
    await save(store, "wide", Template(topology=Topology(kind="star", hubs=("eu",))))
    await store.write(conferences.create, "old", ConferenceCreate(type="wide"))
    await save(store, "wide", Template(topology=Topology(kind="tree", degree_limit=3)))
    await store.write(conferences.create, "new", ConferenceCreate(type="wide"))
    await store.write(conferences.create, "plain")
    seen = []
    for name in ("old", "new", "plain"):
        snapshot = await store.snapshot(cascade_view.load, name, idle_grace=30.0)
        assert snapshot is not None
        seen.append(snapshot.view.topology)
    assert seen == [
        TopologyWish(kind="star", hubs=("eu",)),
        TopologyWish(kind="tree", degree_limit=3),
        TopologyWish(),
    ]


async def test_without_any_seed_there_is_the_default_template(engine: AsyncEngine) -> None:
    store = Store(engine)
    await store.write(conferences.create, "standup")
    used = await store.read(templates.of_conference, "standup")
    assert (used.name, used.version, used.template) == (DEFAULT_TEMPLATE, 0, Template())


async def test_saving_the_same_again_makes_no_version(engine: AsyncEngine) -> None:
    store = Store(engine)
    assert await save(store, "meeting", Template(sfu_only=True)) == 1
    assert await save(store, "meeting", Template(sfu_only=True)) == 1
    assert await save(store, "meeting", Template()) == 2


async def test_an_unknown_type_lists_the_names(engine: AsyncEngine) -> None:
    store = Store(engine)
    await save(store, "meeting", Template())
    await save(store, "webinar", Template())
    await store.write(templates.retire, "webinar", check=anything)
    with pytest.raises(TemplateUnknownError, match=r"no template meting; there are: default, meeting$"):
        await store.write(conferences.create, "c", ConferenceCreate(type="meting"))
    with pytest.raises(TemplateUnknownError, match="template webinar is retired"):
        await store.write(conferences.create, "c", ConferenceCreate(type="webinar"))


async def test_a_retired_template_serves_its_conferences_and_may_come_back(engine: AsyncEngine) -> None:
    store = Store(engine)
    await save(store, "meeting", Template(participant_limit=10))
    await store.write(conferences.create, "running", ConferenceCreate(type="meeting"))
    await store.write(templates.retire, "meeting", check=anything)
    await store.write(templates.retire, "meeting", check=anything)
    assert (await store.read(templates.of_conference, "running")).template.participant_limit == 10
    view = await store.snapshot(templates.show, "meeting")
    assert view.retired_at is not None
    assert view.conferences == 1
    assert [v.name for v in await store.snapshot(templates.list_newest)] == ["default"]
    assert len(await store.snapshot(templates.list_newest, retired=True)) == 2
    assert await save(store, "meeting", Template(participant_limit=10)) == 2
    assert await store.write(conferences.create, "again", ConferenceCreate(type="meeting"))


async def test_the_default_template_stays(engine: AsyncEngine) -> None:
    with pytest.raises(TemplateDefaultError):
        await Store(engine).write(templates.retire, DEFAULT_TEMPLATE, check=anything)


async def test_what_is_not_there_cannot_be_retired(engine: AsyncEngine) -> None:
    with pytest.raises(TemplateUnknownError):
        await Store(engine).write(templates.retire, "nothing", check=anything)


async def test_a_version_that_is_not_there(engine: AsyncEngine) -> None:
    store = Store(engine)
    await save(store, "meeting", Template())
    with pytest.raises(TemplateUnknownError, match="has no version 7"):
        await store.snapshot(templates.show, "meeting", 7)


async def test_seeding_never_touches_what_was_there(engine: AsyncEngine) -> None:
    store = Store(engine)
    first = {"default": Template(), "meeting": Template(participant_limit=10)}
    assert await store.write(templates.seed, first) == ["default", "meeting"]
    await save(store, "meeting", Template(participant_limit=20))
    await save(store, "webinar", Template())
    await store.write(templates.retire, "webinar", check=anything)
    later = {name: Template(participant_limit=99) for name in ("default", "meeting", "webinar", "sfu")}
    assert await store.write(templates.seed, later) == ["sfu"]
    shown = {v.name: v for v in await store.snapshot(templates.list_newest, retired=True)}
    assert [shown[n].template.participant_limit for n in ("default", "meeting", "sfu")] == [-1, 20, 99]
    assert shown["webinar"].retired_at is not None


async def test_many_replicas_seed_at_once(engine: AsyncEngine) -> None:
    store = Store(engine)
    found = {name: Template() for name in ("default", "a", "b", "c")}
    made = await asyncio.gather(*(store.write(templates.seed, found) for _ in range(6)))
    assert sorted(name for each in made for name in each) == sorted(found)


async def test_everybody_who_saves_at_once_gets_a_version(engine: AsyncEngine) -> None:
    store = Store(engine)
    versions = await asyncio.gather(
        *(save(store, "meeting", Template(participant_limit=n)) for n in range(1, 9))
    )
    assert sorted(versions) == list(range(1, 9))


async def test_fields_of_a_newer_release_are_left_out(engine: AsyncEngine) -> None:
    store = Store(engine)
    async with engine.begin() as connection:
        await connection.execute(
            table.insert().values(name="late", version=1, body={"participant_limit": 7, "hologram": True})
        )
    assert (await store.snapshot(templates.show, "late")).template == Template(participant_limit=7)


STEPS = st.lists(
    st.tuples(st.sampled_from(["save", "create", "retire"]), st.sampled_from(["a", "b"]), st.integers(1, 3)),
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_whatever_is_done_a_conference_never_changes_its_template(
    engine: AsyncEngine, steps: list[tuple[str, str, int]]
) -> None:
    store = Store(engine)
    async with engine.begin() as connection:
        await connection.execute(delete(conference_table))
        await connection.execute(delete(table).where(table.c.name != DEFAULT_TEMPLATE))
    expected: dict[str, tuple[int, int]] = {}
    newest: dict[str, tuple[int, int, bool]] = {}
    for number, (step, name, limit) in enumerate(steps):
        version, last, retired = newest.get(name, (0, 0, True))
        if step == "save":
            if retired or last != limit:
                version += 1
            assert await save(store, name, Template(participant_limit=limit)) == version
            newest[name] = (version, limit, False)
        elif step == "retire" and version:
            await store.write(templates.retire, name, check=anything)
            newest[name] = (version, last, True)
        elif step == "create":
            wish = ConferenceCreate(type=name)
            if retired:
                with pytest.raises(TemplateUnknownError, match=re.escape(f"{name}")):
                    await store.write(conferences.create, f"c{number}", wish)
            else:
                await store.write(conferences.create, f"c{number}", wish)
                expected[f"c{number}"] = (version, last)
        for conference, (kept, its) in expected.items():
            used = await store.read(templates.of_conference, conference)
            assert (used.version, used.template.participant_limit) == (kept, its)
    async with engine.connect() as connection:
        rows = await connection.execute(select(conference_table.c.id))
    assert {row.id for row in rows} == set(expected)
