from __future__ import annotations

from typing import TYPE_CHECKING

from control.drivers.base import RoomNotFoundError, UnreachableError
from control.missing_rooms import look_for_room
from control.registry import conferences, placements
from control.registry.store import Store
from tests.control.service import running, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.control.service import Cluster, Service


class Asked:
    """A cluster's driver that is asked who is in the room, and answers when `before` has happened."""

    def __init__(self, error: Exception | None, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self._error = error
        self._before = before

    async def list_participants(self, _room: str) -> tuple[()]:
        if self._before is not None:
            await self._before()
        if self._error is not None:
            raise self._error
        return ()


async def look(service: Service, asked: Asked) -> str:
    """Look for the room of `standup` on eu-1; return the placement's state then."""
    store = Store(service.engine)
    await look_for_room(store, asked, "standup", "eu-1", "standup", timeout=5.0)  # type: ignore[arg-type]  # all it asks
    placed = await store.read(placements.placed, "standup", "eu-1")
    assert placed is not None
    return placed.state


async def made(eu: Cluster) -> int:
    return len(eu.stub.made("create_room"))


async def placed(service: Service, eu: Cluster) -> None:
    await eu.register()
    await service.create("standup")
    assert (await service.join("standup")).status_code == 200


async def test_a_room_that_is_not_there_is_wanted_again(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await placed(service, eu)
        await look(service, Asked(RoomNotFoundError("no such room")))
        await until(lambda: made(eu), lambda count: count == 2)


async def test_a_room_that_is_there_after_all_or_does_not_answer_stays(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await placed(service, eu)
        assert await look(service, Asked(None)) == "ready"
        assert await look(service, Asked(UnreachableError("nobody there"))) == "ready"


async def test_a_room_that_has_come_to_life_meanwhile_stays_with_everybody_in_it(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await placed(service, eu)

        async def somebody_enters() -> None:
            await eu.enter("standup", "p")

        assert await look(service, Asked(RoomNotFoundError("no such room"), somebody_enters)) == "ready"
        shown = await service.conference("standup")
        assert [each["id"] for each in shown["participants"]] == ["p"]
        token = await Store(service.engine).read(placements.room_token, "standup", "eu-1")
        assert token is not None


async def test_an_ending_conference_is_kept_while_a_cluster_that_is_back_has_its_room(
    database_url: str,
) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        store = Store(service.engine)
        await store.write(placements.ensure, "standup", "eu-1", room="standup")
        assert (await service.application.delete("/v1/conferences/standup")).status_code == 202
        assert not await store.write(conferences.forget, "standup")
        await store.write(placements.removed, "standup", "eu-1")
        assert await store.write(conferences.forget, "standup")
        assert (await service.application.get("/v1/conferences/standup")).status_code == 404
