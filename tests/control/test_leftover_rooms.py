"""The duty `rooms`: rooms that no placement knows are deleted, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from causeway.api import RoomOptions
from control.drivers.base import MalformedAnswerError, NotSupportedError
from control.drivers.owt import OwtConnections
from control.registry import leftovers, placements
from control.registry.placement_epoch import epoch_of
from control.registry.store import Store
from control.room_settings import RoomSettings
from tests.control.owt_stub import OwtStub, Trouble
from tests.control.service import running, until

if TYPE_CHECKING:
    from tests.control.service import Cluster, Service

OURS = {"driver": "causeway", "portal": {"host": "portal.test", "port": 8443}}
QUICK = RoomSettings(interval=0.05, min_age=0.0, timeout=5.0)


def put(cluster: Cluster, room: str, epoch: int | None) -> None:
    """Have the room there, made for that placement, or by somebody else."""
    cluster.stub.rooms[room] = {"_id": room, "id": room, "name": room}
    if epoch is not None:
        cluster.stub.rooms[room]["placementEpoch"] = epoch


async def deleted(cluster: Cluster) -> list[tuple[str | None, dict[str, str]]]:
    return [(call.room, dict(call.query)) for call in cluster.stub.made("delete_room")]


async def listed(cluster: Cluster) -> int:
    return len(cluster.stub.made("list_rooms"))


async def now(service: Service) -> int:
    async with service.engine.connect() as connection:
        moment = await connection.scalar(select(func.clock_timestamp()))
    assert moment is not None
    return epoch_of(moment)


async def looked_twice(cluster: Cluster) -> None:
    """Wait for a look that began after this."""
    before = await listed(cluster)
    await until(lambda: listed(cluster), lambda count: count >= before + 2)


async def test_what_no_placement_knows_is_deleted_and_nothing_else(database_url: str) -> None:
    async with running(database_url, rooms=QUICK) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register(**OURS)
        await service.create("standup")
        assert (await service.join("standup", region="eu")).status_code == 200
        put(eu, "left-over", 17)
        put(eu, "somebody-elses", None)
        assert await until(lambda: deleted(eu), bool) == [("left-over", {"placementEpoch": "17"})]
        await looked_twice(eu)
        assert eu.stub.rooms.keys() == {"standup", "somebody-elses"}


async def test_a_room_of_lately_is_left_alone(database_url: str) -> None:
    patient = RoomSettings(interval=0.05, min_age=60.0)
    async with running(database_url, rooms=patient) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register(**OURS)
        put(eu, "new", await now(service))
        put(eu, "old", await now(service) - 61_000_000)
        await until(lambda: deleted(eu), bool)
        await looked_twice(eu)
        assert eu.stub.rooms.keys() == {"new"}


async def test_clusters_of_other_kinds_are_not_asked_and_trouble_holds_up_nobody(database_url: str) -> None:
    async with (
        running(database_url, rooms=QUICK) as service,
        service.cluster("eu-1", region="eu") as broken,
        service.cluster("us-1", region="us") as us,
        service.cluster("ap-1", region="ap") as owt,
    ):
        broken.stub.behave("list_rooms", always=Trouble(status=500))
        us.stub.behave("delete_room", Trouble(status=500))
        for cluster in (broken, us):
            await cluster.register(**OURS)
        await owt.register()
        for cluster in (broken, us, owt):
            put(cluster, "left-over", 17)
        await until(lambda: deleted(us), lambda calls: len(calls) == 2)
        await looked_twice(us)
        assert us.stub.rooms == {}
        assert await listed(broken) > 0
        assert await listed(owt) == 0
        assert owt.stub.rooms.keys() == broken.stub.rooms.keys() == {"left-over"}


async def test_no_more_is_deleted_at_a_look_than_may_be(database_url: str) -> None:
    never = RoomSettings(interval=0.05, min_age=0.0, max_deleted=0)
    async with running(database_url, rooms=never) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register(**OURS)
        put(eu, "left-over", 17)
        await looked_twice(eu)
        assert await deleted(eu) == []


async def test_placements_protect_their_rooms_whatever_their_epoch(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register(**OURS)
        await service.create("standup")
        store = Store(service.engine)
        await store.write(placements.ensure, "standup", "eu-1")
        there = {"standup": 5, "gone": 6, "other": 4}
        found = await store.read(leftovers.unplaced, "eu-1", there, min_age=0.0)
        assert found == [("other", 4), ("gone", 6)]
        assert await store.read(leftovers.unplaced, "us-1", {"standup": 5}, min_age=0.0) == [("standup", 5)]
        assert await store.read(leftovers.living, ["causeway"]) == ["eu-1"]
        assert await store.read(leftovers.living, ["owt"]) == []


# --- the calls ------------------------------------------------------------------------------------


async def test_rooms_are_listed_page_by_page_up_to_a_limit() -> None:
    pages = 3
    async with OwtStub() as stub, OwtConnections() as connections:
        driver = connections.driver(
            rest_url=stub.url, service_id=stub.service_id, service_key=stub.service_key
        )
        for number in range(150):
            stub.rooms[f"r{number}"] = {"id": f"r{number}", "placementEpoch": number, "name": "n"}
        stub.rooms["mine"] = {"id": "mine", "name": "n"}
        # The stub gives everything on every page: so it is asked until there is enough.
        assert await driver.placed_rooms(limit=151 * pages) == {f"r{n}": n for n in range(150)}
        assert [call.query["page"] for call in stub.made("list_rooms")] == ["1", "2", "3"]
        with pytest.raises(NotSupportedError):
            await driver.list_rooms(limit=1)
        await driver.create_room("there", RoomOptions())
        await driver.delete_room("there", placement=7)
        assert stub.made("delete_room")[0].query == {}


@pytest.mark.parametrize("odd", [{"id": 5}, {"placementEpoch": 1}, {"id": "r", "placementEpoch": -1}, "r"])
async def test_what_is_no_list_of_rooms_is_refused(odd: Any) -> None:
    async with OwtStub() as stub, OwtConnections() as connections:
        driver = connections.driver(
            rest_url=stub.url, service_id=stub.service_id, service_key=stub.service_key
        )
        stub.rooms["odd"] = odd
        with pytest.raises(MalformedAnswerError):
            await driver.placed_rooms(limit=10)
