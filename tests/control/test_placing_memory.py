from __future__ import annotations

import asyncpg

from causeway.api import Template
from control.placing_memory import Memory
from control.registry.roster import Joined
from tests.control.service import Service, running, until


def joined(name: str = "standup", **changes: object) -> Joined:
    values: dict[str, object] = {
        "id": name,
        "state": "active",
        "locked": False,
        "participant_limit": -1,
        "template": "default",
        "template_version": 1,
        "placements": {},
    }
    return Joined(**(values | changes))  # type: ignore[arg-type]  # the test's own words


def test_a_conference_is_remembered_for_its_time() -> None:
    memory = Memory(lifetime=1.0)
    known = joined()
    memory.keep(known, 10.0)
    assert memory.conference("standup", 10.9) is known
    assert memory.conference("standup", 11.0) is None
    memory.keep(known, 20.0)
    memory.forget("standup")
    assert memory.conference("standup", 20.0) is None


def test_what_needs_another_look_is_not_remembered() -> None:
    memory = Memory(lifetime=1.0)
    for change in ({"state": "ending"}, {"locked": True}, {"participant_limit": 5}):
        memory.keep(joined(), 0.0)
        memory.keep(joined(**change), 0.0)
        assert memory.conference("standup", 0.0) is None, change


def test_memory_is_bounded() -> None:
    memory = Memory(lifetime=1.0, max_conferences=2, max_templates=2)
    for name in "abc":
        memory.keep(joined(name), 0.0)
    assert [memory.conference(name, 0.0) is not None for name in "abc"] == [False, True, True]
    for version in (1, 2):
        memory.keep_template("t", version, Template())
    assert memory.template("t", 1) is not None
    memory.keep_template("t", 3, Template())
    assert [memory.template("t", version) is not None for version in (1, 2, 3)] == [True, False, True]


async def test_a_conference_that_was_just_locked_is_not_joined(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        assert (await service.join("standup")).status_code == 200
        assert (await service.join("standup")).status_code == 200
        await change(database_url, "UPDATE conferences SET locked = true")
        answer = await service.join("standup")
        assert (answer.status_code, answer.json()["type"]) == (409, "conference-locked")


async def test_a_limit_that_was_just_set_is_kept(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        for _ in range(2):
            assert (await service.join("standup")).status_code == 200
        await change(database_url, "UPDATE conferences SET participant_limit = 2")
        answer = await service.join("standup")
        assert (answer.status_code, answer.json()["type"]) == (409, "conference-full")


async def test_a_placement_that_was_just_made_anew_is_the_one_that_is_joined(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        assert (await service.join("standup")).status_code == 200
        assert (await service.join("standup")).status_code == 200
        assert (await service.application.delete("/v1/conferences/standup")).status_code == 202
        await until(lambda: gone(service), bool)
        await service.create("standup")
        assert (await service.join("standup")).status_code == 200
        assert len(eu.stub.made("create_room")) == 2


async def gone(service: Service) -> bool:
    return (await service.application.get("/v1/conferences/standup")).status_code == 404


async def test_a_cluster_that_was_just_blocked_gets_nobody(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        for _ in range(2):
            assert (await service.join("standup")).status_code == 200
        await change(database_url, "UPDATE clusters SET blocked_at = now()")
        assert (await service.join("standup")).status_code == 503


async def change(database_url: str, statement: str) -> None:
    """Change something behind the service's back, as another replica would, without a notice."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
