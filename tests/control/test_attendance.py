from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text

from control.attendance import Attendance
from control.attendance_settings import AttendanceSettings
from control.bell import Bell
from control.cascade_settings import CascadeSettings
from control.cluster_settings import ProbeSettings
from control.registry import work
from control.registry.store import Store
from tests.control.owt_stub import OwtStub
from tests.control.service import Service, running, until
from tests.control.test_probing import open_room, register

SELDOM = ProbeSettings(period=60.0, timeout=2.0, poll_interval=0.02)
"""So that nothing comes to light by a probe."""
OFTEN = AttendanceSettings(interval=0.05, duration=30.0, timeout=2.0)


async def people(service: Service, room: str = "room-1") -> list[str]:
    return sorted(person["id"] for person in (await service.conference(room))["participants"])


def person(name: str, user: str = "ada") -> dict[str, Any]:
    return {"id": name, "user": user, "role": "presenter"}


def asked(stub: OwtStub) -> int:
    return sum(call.kind == "participants" for call in stub.calls)


async def test_who_was_given_a_token_is_noticed_soon_and_the_room_then_left_alone(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, probe=SELDOM, attendance=OFTEN) as service:
        await register(service, stub)
        await service.create("room-1")
        assert (await service.join("room-1", user="ada")).status_code == 200
        await until(lambda: _asked(stub), lambda count: count >= 2)
        assert await people(service) == []
        stub.participants["room-1"] = [person("p1")]
        await until(lambda: people(service), lambda there: there == ["p1"])
        await until(lambda: _quiet(service), bool)
        before = asked(stub)
        await asyncio.sleep(4 * OFTEN.interval)
        assert asked(stub) == before


async def test_a_room_is_asked_about_once_at_a_time_and_for_a_bounded_time(database_url: str) -> None:
    brief = AttendanceSettings(interval=0.05, duration=0.5, timeout=2.0)
    async with OwtStub() as stub, running(database_url, probe=SELDOM, attendance=brief) as service:
        await register(service, stub)
        await service.create("room-1")
        for user in ("ada", "bob", "eve"):
            assert (await service.join("room-1", user=user)).status_code == 200
        await until(lambda: _quiet(service), bool)
        # Three times as often would be 30 and more.
        assert 1 <= asked(stub) <= 20


async def test_trouble_with_a_cluster_ends_nothing(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, probe=SELDOM, attendance=OFTEN) as service:
        await register(service, stub)
        await service.create("room-1")
        assert (await service.join("room-1", user="ada")).status_code == 200
        key, stub.service_key = stub.service_key, "other"
        await until(lambda: _refused(stub), lambda count: count >= 2)
        stub.service_key = key
        stub.participants["room-1"] = [person("p1")]
        await until(lambda: people(service), lambda there: there == ["p1"])


async def test_clusters_that_tell_are_not_asked(database_url: str) -> None:
    async with (
        running(database_url, probe=SELDOM, attendance=OFTEN) as service,
        service.cluster("c-1", region="eu") as cluster,
    ):
        await cluster.register()
        await service.create("room-1")
        assert (await service.join("room-1", user="ada")).status_code == 200
        await until(lambda: _quiet(service), bool)
        assert asked(cluster.stub) == 0


async def test_no_more_rooms_than_the_limit(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        one = AttendanceSettings(max_rooms=1)
        watching = Attendance(Store(service.engine), None, Bell(), one)  # type: ignore[arg-type] # never asked
        for room in ("a", "b", "a"):
            watching.expect(room, "c-1", room, driver="owt")
        watching.expect("c", "c-1", "c", driver="causeway")
        assert [*watching._watches] == [("a", "c-1")]


async def test_a_room_that_seems_deserted_is_asked_about_before_it_is_removed(database_url: str) -> None:
    off = AttendanceSettings(duration=0)
    brief = CascadeSettings(idle_grace=0.2)
    async with (
        OwtStub() as stub,
        running(database_url, probe=SELDOM, attendance=off, cascade=brief) as service,
    ):
        await register(service, stub)
        stub.rooms["room-1"] = {"name": "room-1"}
        stub.participants["room-1"] = [person("p1")]
        await open_room(service, "room-1")
        told = {"clusterID": "c-1", "region": "BJ", "conferenceId": "room-1"}
        left = f"/owt/{service.keys['enrolment']}/leaveConference"
        assert (await service.nobody.post(left, json=told)).status_code == 200
        await until(lambda: people(service), lambda there: there == ["p1"])
        assert "room-1" in stub.rooms
        stub.participants["room-1"] = []
        async with service.engine.begin() as connection:
            await connection.execute(text("DELETE FROM participants"))
            await work.mark(connection, "room-1")
        await until(lambda: _placements(service), lambda left: left == [])
        assert "room-1" not in stub.rooms


async def _asked(stub: OwtStub) -> int:
    return asked(stub)


async def _refused(stub: OwtStub) -> int:
    return stub.refused


async def _placements(service: Service) -> list[Any]:
    found: list[Any] = (await service.conference("room-1"))["placements"]
    return found


async def _quiet(service: Service) -> bool:
    return not any("_follow" in repr(task.get_coro()) for task in asyncio.all_tasks())
