"""What nobody needs any more goes, and who is left behind is moved: the service on real HTTP and Postgres."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from control.cascade_settings import CascadeSettings
from control.placement_settings import PlacementSettings
from control.registry.tables import conference_events, displaced, reservations
from tests.control.owt_stub import Trouble
from tests.control.service import Cluster, Service, running, until
from tests.control.test_service_plan import planned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUICK = CascadeSettings(idle_grace=0.2)
PORTAL = {"host": "127.0.0.1", "port": 8080, "secure": False}


@asynccontextmanager
async def clusters(
    database_url: str, *names: str, driver: str = "causeway", **control: Any
) -> AsyncIterator[tuple[Service, list[Cluster]]]:
    """Registered clusters, each in the region before the dash of its name, and a conference `standup`."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url, **control))
        made = []
        for name in names:
            cluster = await stack.enter_async_context(
                service.cluster(name, region=name.partition("-")[0], service_key=f"key of {name}")
            )
            await cluster.register(driver=driver, portal=PORTAL)
            made.append(cluster)
        await service.create("standup")
        yield service, made


async def linked(service: Service, eu: Cluster, us: Cluster) -> None:
    for cluster, participant in ((eu, "p1"), (us, "p2")):
        answer = await service.join("standup", region=cluster.region)
        assert answer.status_code == 200, answer.text
        await cluster.enter("standup", participant)
    await until(lambda: states(service), lambda seen: seen == [("us-1", "eu-1", "requested")])
    await us.link("standup", "eu-1", "up")
    await until(lambda: states(service), lambda seen: seen == [("us-1", "eu-1", "up")])


def has_room(cluster: Cluster) -> bool:
    return "standup" in cluster.stub.rooms


async def states(service: Service) -> list[tuple[str, str, str]]:
    shown = await service.conference("standup")
    return [(link["dialer"], link["listener"], link["state"]) for link in shown["links"]]


async def placed(service: Service) -> list[tuple[str, str]]:
    return [(p["cluster"], p["state"]) for p in (await service.conference("standup"))["placements"]]


async def left_behind(service: Service) -> list[tuple[str, str]]:
    async with service.engine.connect() as connection:
        found = await connection.execute(select(displaced.c.cluster, displaced.c.participant))
        return [(row.cluster, row.participant) for row in found]


async def moves(service: Service) -> list[dict[str, Any]]:
    async with service.engine.connect() as connection:
        found = await connection.scalars(
            select(conference_events.c.body)
            .where(conference_events.c.kind == "participant.moved")
            .order_by(conference_events.c.seq)
        )
        return list(found)


# --- what nobody needs any more ---------------------------------------------------------------


async def test_the_last_to_leave_takes_links_and_room_along_after_a_while(database_url: str) -> None:
    async with clusters(database_url, "eu-1", "us-1", cascade=QUICK) as (service, [eu, us]):
        await linked(service, eu, us)
        await us.report("DELETE", "/rooms/standup/participants/p2")
        await until(lambda: placed(service), lambda seen: seen == [("eu-1", "ready")])
        assert await states(service) == []
        assert [(c.room, c.peer) for c in us.stub.made("stop_cascading")] == [("standup", "eu-1")]
        assert us.stub.rooms == {}
        kinds = [call.kind for call in us.stub.calls]
        assert kinds.index("stop_cascading") < kinds.index("delete_room")
        assert list(eu.stub.rooms) == ["standup"]
        assert eu.stub.made("stop_cascading") == []
        # And back again, as if they had never been there.
        await service.join("standup", region="us")
        await us.enter("standup", "p3")
        await until(lambda: states(service), lambda seen: seen == [("us-1", "eu-1", "requested")])


async def test_a_cascade_that_would_not_end_goes_with_the_room(database_url: str) -> None:
    async with clusters(database_url, "eu-1", "us-1", cascade=QUICK) as (service, [eu, us]):
        await linked(service, eu, us)
        us.stub.behave("stop_cascading", always=Trouble(status=500))
        await us.report("DELETE", "/rooms/standup/participants/p2")
        await until(lambda: placed(service), lambda seen: seen == [("eu-1", "ready")])
        assert await states(service) == []
        assert us.stub.rooms == {}


async def test_a_cluster_that_knows_no_end_of_a_cascade_is_not_told(database_url: str) -> None:
    async with clusters(database_url, "eu-1", "us-1", driver="owt", cascade=QUICK) as (service, [eu, us]):
        await linked(service, eu, us)
        await us.report("DELETE", "/rooms/standup/participants/p2")
        await until(lambda: placed(service), lambda seen: seen == [("eu-1", "ready")])
        assert us.stub.made("stop_cascading") == []
        assert us.stub.rooms == {}


async def test_whoever_is_on_the_way_holds_the_room(database_url: str) -> None:
    placement = PlacementSettings(reservation_ttl=600.0)
    async with clusters(database_url, "eu-1", cascade=QUICK, placement=placement) as (service, [eu]):
        await service.join("standup", region="eu")
        await eu.enter("standup", "p1")
        await service.join("standup", region="eu", user="grace")
        await eu.report("DELETE", "/rooms/standup/participants/p1")
        plan = await until(
            lambda: planned(service), lambda seen: [w["action"] for w in seen["waiting"]] == ["remove-room"]
        )
        assert plan["waiting"][0]["until"] > plan["at"]
        assert plan["due"] == []
        assert list(eu.stub.rooms) == ["standup"]
        async with service.engine.begin() as connection:
            await connection.execute(update(reservations).values(expires_at=func.now()))
        await eu.report("PUT", "/rooms/standup", {"token": "another"})  # anything that marks the conference
        await until(lambda: placed(service), lambda seen: seen == [])
        assert eu.stub.rooms == {}


async def test_a_room_that_would_not_go_is_tried_again(database_url: str) -> None:
    async with clusters(database_url, "eu-1", cascade=QUICK) as (service, [eu]):
        eu.stub.behave("delete_room", Trouble(status=500), Trouble(lose_answer=True))
        await eu.enter("standup", "p1")
        await eu.report("DELETE", "/rooms/standup/participants/p1")
        await until(lambda: placed(service), lambda seen: seen == [])
        assert len(eu.stub.made("delete_room")) == 3


# --- who was left behind ----------------------------------------------------------------------


async def test_clients_of_a_lost_cluster_are_moved_and_told(database_url: str) -> None:
    cascade = CascadeSettings(move_ttl=1000.0)
    async with (
        clusters(database_url, "eu-1", "us-1", cascade=cascade) as (service, [eu, us]),
        service.cluster("eu-2", region="eu", service_key="key of eu-2") as other,
    ):
        await linked(service, eu, us)
        await other.register(driver="causeway", portal=PORTAL)
        answer = await service.application.patch("/v1/conferences/standup", json={"locked": True})
        assert answer.status_code == 200
        await service.expire("eu-1")
        await until(lambda: moves(service), bool)
        assert await moves(service) == [
            {"participant": "p1", "user": "ada", "from": "eu-1", "to": "eu-2", "region": "eu"}
        ]
        await until(lambda: left_behind(service), lambda seen: not seen)
        await until(lambda: placed(service), lambda seen: ("eu-2", "ready") in seen)
        async with service.engine.connect() as connection:
            [kept] = (
                await connection.execute(
                    select(reservations.c.user_name, reservations.c.made_at, reservations.c.expires_at).where(
                        reservations.c.cluster == "eu-2"
                    )
                )
            ).all()
        assert kept.user_name == "ada"
        assert kept.expires_at - kept.made_at > timedelta(seconds=900)
        await other.enter("standup", "p1")
        await until(lambda: states(service), bool)


async def test_whoever_comes_back_with_their_cluster_is_not_moved(database_url: str) -> None:
    async with clusters(database_url, "eu-1") as (service, [eu]):
        await service.join("standup", region="eu")
        await eu.enter("standup", "p1")
        await service.expire("eu-1")
        await until(lambda: left_behind(service), lambda seen: seen == [("eu-1", "p1")])
        plan = await until(
            lambda: planned(service), lambda seen: seen["placements"][0]["attempts"] > 0
        )  # there is nowhere to go
        assert plan["placements"][0]["displaced"] == 1
        await eu.register()
        assert await left_behind(service) == []
        await eu.enter("standup", "p1")
        assert await placed(service) == [("eu-1", "ready")]
        assert await moves(service) == []


async def test_whoever_comes_back_alone_is_not_moved_either(database_url: str) -> None:
    async with clusters(database_url, "eu-1") as (service, [eu]):
        for participant in ("p1", "p2"):
            await eu.enter("standup", participant)
        await service.expire("eu-1")
        await until(lambda: left_behind(service), lambda seen: len(seen) == 2)
        async with service.cluster("eu-2", region="eu", service_key="key of eu-2") as other:
            await other.register(driver="causeway", portal=PORTAL)
            await other.enter("standup", "p9")  # ada, again
            await until(lambda: left_behind(service), lambda seen: not seen)
            assert len(await moves(service)) == 1


async def test_a_restarted_cluster_takes_its_clients_again_once_they_are_told(database_url: str) -> None:
    async with clusters(database_url, "eu-1") as (service, [eu]):
        await eu.enter("standup", "p1")
        await eu.register(incarnation="i2", driver="causeway", portal=PORTAL)
        assert await until(lambda: moves(service), bool) == [
            {"participant": "p1", "user": "ada", "from": "eu-1", "to": "eu-1", "region": "eu"}
        ]
        await until(lambda: left_behind(service), lambda seen: not seen)


async def test_a_room_that_its_cluster_does_not_know_is_made_again(database_url: str) -> None:
    async with clusters(database_url, "eu-1", "us-1") as (service, [eu, us]):
        await service.join("standup", region="eu")
        await eu.enter("standup", "p1")
        await service.join("standup", region="us")
        for cluster in (eu, us):
            cluster.stub.rooms.clear()
        await us.enter("standup", "p2")
        # First the listener is asked, and does not know its room; then the dialer is, and neither does it.
        for cluster, participant in ((eu, "p1"), (us, "p2")):
            await cluster.stub.wait_for(partial(has_room, cluster))
            await until(lambda: placed(service), lambda seen: seen == [("eu-1", "ready"), ("us-1", "ready")])
            await cluster.enter("standup", participant)
        await until(lambda: states(service), lambda seen: seen == [("us-1", "eu-1", "requested")])
