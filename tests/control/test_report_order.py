"""What a frozen replica carries out late must not be believed: control.registry.report_order, over HTTP."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, update

from causeway.api import EPOCH_HEADER, REPORT_HEADER
from control.errors import ReportSupersededError
from control.registry import placements, report_order
from control.registry.report_order import ROOM, Said
from control.registry.store import Store
from control.registry.tables import report_order as table
from tests.control.service import Cluster, Service, running

if TYPE_CHECKING:
    import httpx2
    from sqlalchemy.ext.asyncio import AsyncEngine

TOKEN = {"token": "t"}
WHO = {"user": "ada", "role": "presenter"}
STREAM = {"participant": "p", "tracks": [{"kind": "audio"}]}
UP = {"state": "up"}


async def say(
    cluster: Cluster,
    number: int | None,
    method: str,
    path: str,
    body: Any = None,
    *,
    epoch: int | None = None,
) -> httpx2.Response:
    headers = {EPOCH_HEADER: str(cluster.epoch if epoch is None else epoch)}
    if number is not None:
        headers[REPORT_HEADER] = str(number)
    return await cluster.api.request(method, f"/v1/clusters/{cluster.id}{path}", json=body, headers=headers)


async def told(cluster: Cluster, number: int | None, method: str, path: str, body: Any = None) -> None:
    answer = await say(cluster, number, method, path, body)
    assert answer.status_code == 204, answer.text


async def superseded(cluster: Cluster, number: int, method: str, path: str, body: Any = None) -> None:
    answer = await say(cluster, number, method, path, body)
    assert (answer.status_code, answer.json()["type"]) == (409, "report-superseded"), answer.text


async def shown(service: Service) -> dict[str, Any]:
    view: dict[str, Any] = (await service.operator.get("/v1/conferences/c")).json()
    return view


async def people(service: Service) -> set[str]:
    return {each["id"] for each in (await shown(service))["participants"]}


async def test_an_older_word_on_the_same_thing_is_refused(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await service.create("c")
        await eu.register()
        for path, body in (
            ("/rooms/c", TOKEN),
            ("/rooms/c/participants/p", WHO),
            ("/rooms/c/streams/s", STREAM),
        ):
            await told(eu, 10, "PUT", path, body)
            await superseded(eu, 10, "PUT", path, body)  # the same request twice
            await superseded(eu, 9, "DELETE", path)
        await told(eu, 10, "PUT", "/rooms/c/links/us-1", UP)
        await superseded(eu, 9, "PUT", "/rooms/c/links/us-1", {"state": "down"})
        view = await shown(service)
        assert [each["id"] for each in view["participants"]] == ["p"]
        assert [each["id"] for each in view["streams"]] == ["s"]
        await told(eu, 11, "DELETE", "/rooms/c/participants/p")
        await superseded(eu, 10, "PUT", "/rooms/c/participants/p", WHO)
        assert await people(service) == set()
        # Things are told of in any order; so nobody waits for anybody.
        await told(eu, 3, "PUT", "/rooms/c/participants/q", WHO)
        assert await people(service) == {"q"}


async def test_what_was_in_a_room_that_closed_is_not_believed_afterwards(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await service.create("c")
        await eu.register()
        await told(eu, 1, "PUT", "/rooms/c", TOKEN)
        await told(eu, 9, "DELETE", "/rooms/c")
        for path, body in (
            ("/rooms/c/participants/p", WHO),
            ("/rooms/c/streams/s", STREAM),
            ("/rooms/c/links/us-1", UP),
        ):
            await superseded(eu, 8, "PUT", path, body)
        answer = await say(eu, 8, "POST", "/rooms/c/missing", {"placement": 1})
        assert answer.json()["type"] == "report-superseded"
        await told(eu, 10, "PUT", "/rooms/c/participants/p", WHO)
        await told(eu, 12, "DELETE", "/rooms/c/participants/p")
        await superseded(eu, 11, "PUT", "/rooms/c/streams/s", STREAM)  # its publisher has left since
        await told(eu, 13, "PUT", "/rooms/c/participants/p", WHO)
        await told(eu, 14, "PUT", "/rooms/c/streams/s", STREAM)


async def test_clusters_that_number_nothing_are_believed_as_ever(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await service.create("c")
        await eu.register()
        await told(eu, None, "PUT", "/rooms/c", TOKEN)
        await told(eu, None, "DELETE", "/rooms/c")
        await told(eu, None, "PUT", "/rooms/c/participants/p", WHO)
        assert await people(service) == {"p"}
        async with service.engine.connect() as connection:
            assert await connection.scalar(select(func.count()).select_from(table)) == 0


async def test_numbers_belong_to_a_registration(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await service.create("c")
        await eu.register()
        await told(eu, 50, "PUT", "/rooms/c", TOKEN)
        await told(eu, 51, "DELETE", "/rooms/c")
        await eu.register(incarnation="i2")
        await told(eu, 1, "PUT", "/rooms/c", TOKEN)
        await told(eu, 2, "PUT", "/rooms/c/participants/p", WHO)
        answer = await say(eu, 52, "DELETE", "/rooms/c", epoch=1)
        assert answer.json()["type"] == "stale-epoch"
        assert await people(service) == {"p"}


async def test_an_older_registration_of_the_same_start_is_refused(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        body = {
            "region": "eu",
            "rest_url": eu.stub.url,
            "service_id": "s",
            "service_key": "k",
            "instance": "d1",
            "incarnation": "i1",
        }

        async def register(number: int, port: int, incarnation: str = "i1") -> httpx2.Response:
            bridge = {"host": "127.0.0.1", "port": port}
            return await eu.api.put(
                "/v1/clusters/eu-1",
                json=body | {"event_bridge": bridge, "incarnation": incarnation},
                headers={REPORT_HEADER: str(number)},
            )

        assert (await register(1, 7001)).status_code == 200
        assert (await register(3, 7003)).status_code == 200
        late = await register(2, 7002)
        assert (late.status_code, late.json()["type"]) == (409, "report-superseded")
        view = (await service.operator.get("/v1/clusters/eu-1")).json()
        assert view["event_bridge"]["port"] == 7003
        assert (await register(1, 7004, "i2")).status_code == 200


async def test_modules_are_told_in_order_once_there_is_an_epoch(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await told(eu, 7, "PUT", "/capacity/portal", {})
        await superseded(eu, 6, "DELETE", "/capacity/portal")
        early = await service.enrolment.put("/v1/clusters/new/capacity/portal", headers={REPORT_HEADER: "1"})
        assert early.status_code == 204
        view = (await service.operator.get("/v1/clusters/eu-1")).json()
        assert view["modules"] == ["portal"]


async def test_a_number_must_be_one(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        for text in ("one", "-1", "1.0", "9" * 30):
            answer = await service.enrolment.delete(
                "/v1/clusters/eu-1/rooms/c", headers={EPOCH_HEADER: "1", REPORT_HEADER: text}
            )
            assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request"), text


async def test_a_missing_room_is_wanted_anew_and_only_that_of_the_placement(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await service.create("c")
        await eu.register()
        assert (await service.join("c", region="eu")).status_code == 200
        await told(eu, 1, "PUT", "/rooms/c", TOKEN)
        await told(eu, 2, "PUT", "/rooms/c/participants/p", WHO)
        placed = await Store(service.engine).read(placements.placed, "c", "eu-1")
        assert placed is not None
        made = len(eu.stub.made("create_room"))
        await told(eu, 3, "POST", "/rooms/c/missing", {"placement": placed.epoch + 1})
        await told(eu, 4, "POST", "/rooms/c/missing", {"placement": placed.epoch})
        await eu.stub.wait_for(lambda: len(eu.stub.made("create_room")) > made)
        assert await people(service) == {"p"}  # who is there is for the cluster to say


# --- the rows -------------------------------------------------------------------------------------


async def test_old_rows_are_forgotten(engine: AsyncEngine) -> None:
    store = Store(engine)
    for number in range(5):
        await store.write(
            report_order.take, Said("eu-1", 1, number), "c", f"participant/{number}", of=(ROOM,)
        )
    assert await store.write(report_order.prune, after=60.0) == 0
    async with engine.begin() as connection:
        await connection.execute(update(table).values(told_at=func.now() - func.make_interval(0, 0, 0, 1)))
    assert await store.write(report_order.prune, after=60.0, limit=4) == 4
    assert await store.write(report_order.prune, after=60.0) == 2


async def test_a_room_that_closes_waits_for_who_is_being_noted_in_it(engine: AsyncEngine) -> None:
    """However they meet: either who joined is deleted by the closing, or their report is refused."""
    store = Store(engine)
    noted, go_on = asyncio.Event(), asyncio.Event()

    async def join(connection: Any) -> None:
        await report_order.take(connection, Said("eu-1", 1, 3), "c", "participant/p", of=(ROOM,))
        noted.set()
        await go_on.wait()

    async def close() -> None:
        await store.write(report_order.take, Said("eu-1", 1, 5), "c", ROOM, gone=True)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(store.write(join))
        await noted.wait()
        closing = group.create_task(close())
        done, _ = await asyncio.wait([closing], timeout=0.2)
        assert done == set()
        go_on.set()
    with pytest.raises(ReportSupersededError):
        await store.write(report_order.take, Said("eu-1", 1, 4), "c", "participant/q", of=(ROOM,))


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_comes_late_the_last_word_counts(engine: AsyncEngine, seed: int) -> None:
    """What was said, as it was said, and some of it once more, later and in any order."""
    store, chance = Store(engine), random.Random(seed)
    things = [ROOM, "participant/p", "participant/q"]
    said = [(number, chance.choice(things), chance.random() < 0.6) for number in range(1, 13)]
    state: dict[str, bool] = {}

    def change(thing: str, *, there: bool) -> None:
        if thing == ROOM and not there:
            state.clear()
        state[thing] = there

    for _, thing, there in said:
        change(thing, there=there)
    truth = {thing for thing, there in state.items() if there}
    state.clear()
    late = chance.sample(said, 8)
    for number, thing, there in (*said, *late):
        of = () if thing == ROOM or not there else (ROOM,)
        with suppress(ReportSupersededError):
            await store.write(report_order.take, Said("eu-1", 1, number), "c", thing, gone=not there, of=of)
            change(thing, there=there)
    assert {thing for thing, there in state.items() if there} == truth
