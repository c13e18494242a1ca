from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.control.owt_stub import Trouble
from tests.control.service import Cluster, Service, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def two_regions(
    database_url: str, *, fingerprints: bool = False, **control: Any
) -> AsyncIterator[tuple[Service, Cluster, Cluster]]:
    """A conference `standup` with a client sent to eu-1, then one to us-1; nobody has really joined yet."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url, **control))
        eu = await stack.enter_async_context(
            service.cluster("eu-1", region="eu", fingerprints=fingerprints, service_key="key of eu")
        )
        us = await stack.enter_async_context(
            service.cluster("us-1", region="us", fingerprints=fingerprints, service_key="key of us")
        )
        await eu.register()
        await us.register()
        await service.create("standup")
        for region in ("eu", "us"):
            answer = await service.join("standup", region=region)
            assert answer.status_code == 200, answer.text
        yield service, eu, us


def states(shown: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(link["dialer"], link["listener"], link["state"]) for link in shown["links"]]


async def linked(service: Service, state: str) -> dict[str, Any]:
    shown: dict[str, Any] = await until(
        lambda: service.conference("standup"), lambda seen: states(seen) == [("us-1", "eu-1", state)]
    )
    return shown


async def test_the_later_cluster_is_told_to_connect_once_both_rooms_live(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        assert states(await service.conference("standup")) == []
        await us.enter("standup", "p2")
        await us.stub.wait_for(lambda: bool(us.stub.made("cascading")))
        await linked(service, "requested")
        [order] = us.stub.made("cascading")
        assert order.room == "standup"
        assert order.body["options"] == {
            "room": "standup",
            "token": "room-token-of-eu-1",
            "selfCluster": "us-1",
            "targetCluster": "eu-1",
            "evIP": "192.0.2.1",
            "evPort": 7700,
            "mediaIP": "192.0.2.2",
            "mediaPort": 7701,
        }
        assert [call.body for call in eu.stub.made("bridges")] == [{"targetCluster": "us-1"}]
        assert eu.stub.made("cascading") == []
        shown = await service.conference("standup")
        assert [(p["id"], p["cluster"]) for p in shown["participants"]] == [("p1", "eu-1"), ("p2", "us-1")]


async def test_nothing_is_started_for_clients_who_only_asked_to_join(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        # A third party whose work is seen to be done after all that was due before it.
        await service.create("other")
        await service.join("other", region="us")
        assert us.stub.made("cascading") == []
        assert states(await service.conference("standup")) == []


async def test_fingerprints_go_along_where_both_ends_have_them(database_url: str) -> None:
    async with two_regions(database_url, fingerprints=True) as (_, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await us.stub.wait_for(lambda: bool(us.stub.made("cascading")))
        options = us.stub.made("cascading")[0].body["options"]
        assert (options["evFingerprint"], options["mediaFingerprint"]) == ("e" * 64, "d" * 64)


async def test_reported_links_are_up_and_down(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        await us.link("standup", "eu-1", "up")
        await linked(service, "up")
        # Now that the dialer is known to report, the listener's word does not count any more.
        await eu.link("standup", "us-1", "down")
        await linked(service, "up")
        await us.link("standup", "eu-1", "down")
        await linked(service, "down")
        await us.link("standup", "nobody", "up")


async def test_an_order_that_fails_is_given_again_with_the_error_on_show(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        us.stub.behave("cascading", Trouble(status=500), Trouble(status=500))
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await until(
            lambda: service.conference("standup"),
            lambda seen: seen["links"] and seen["links"][0]["attempts"] > 0,
        )
        shown = await linked(service, "requested")
        assert shown["links"][0]["error"] is None
        assert len(us.stub.made("cascading")) == 3


async def test_a_bridge_at_a_new_address_makes_the_cascade_anew(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        await us.link("standup", "eu-1", "up")
        await linked(service, "up")
        eu.stub.bridges["eventbridgeport"] = 7999
        eu.event_port = 7999
        await eu.register()
        assert eu.epoch == 1
        await us.stub.wait_for(lambda: len(us.stub.made("cascading")) == 2)
        assert us.stub.made("cascading")[1].body["options"]["evPort"] == 7999
        await linked(service, "requested")


async def test_another_room_token_makes_the_cascade_anew(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        await eu.report("PUT", "/rooms/standup", {"token": "room-token-of-eu-1"})  # the same: nothing
        await eu.report("PUT", "/rooms/standup", {"token": "another"})
        await us.stub.wait_for(lambda: len(us.stub.made("cascading")) == 2)
        assert us.stub.made("cascading")[1].body["options"]["token"] == "another"


async def test_a_restarted_cluster_gets_its_room_again_and_has_nobody(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        eu.stub.rooms.clear()
        await eu.register(incarnation="i2")
        await eu.stub.wait_for(lambda: len(eu.stub.made("create_room")) == 2)
        shown = await until(
            lambda: service.conference("standup"), lambda seen: seen["placements"][0]["state"] == "ready"
        )
        assert [p["id"] for p in shown["participants"]] == ["p2"]
        await eu.enter("standup", "p3")
        await us.stub.wait_for(lambda: len(us.stub.made("cascading")) == 2)


async def test_a_lost_cluster_loses_its_people_and_gets_them_back(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        await service.expire("eu-1")
        shown = await until(
            lambda: service.conference("standup"), lambda seen: seen["placements"][0]["state"] == "lost"
        )
        assert [p["id"] for p in shown["participants"]] == ["p2"]
        await until(lambda: service.conference("standup"), lambda seen: seen["links"] == [])
        calls = len(us.stub.made("cascading"))
        await eu.register()
        assert eu.epoch == 2
        shown = await service.conference("standup")
        assert shown["placements"][0]["state"] == "ready"
        await eu.enter("standup", "p1")
        await us.stub.wait_for(lambda: len(us.stub.made("cascading")) > calls)
        assert len(eu.stub.made("create_room")) == 1


async def test_a_link_that_stayed_up_over_a_lost_lease_is_taken_as_it_is(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        await service.expire("us-1")
        await until(lambda: service.conference("standup"), lambda seen: seen["links"] == [])
        await us.register()
        await us.enter("standup", "p2")
        await us.link("standup", "eu-1", "up")
        await linked(service, "up")


async def test_people_who_leave_and_rooms_that_close(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        await linked(service, "requested")
        for _ in range(2):
            await us.report("DELETE", "/rooms/standup/participants/p2")
            await us.report("DELETE", "/rooms/standup")
        shown = await until(lambda: service.conference("standup"), lambda seen: seen["links"] == [])
        assert [p["id"] for p in shown["participants"]] == ["p1"]
        assert [p["state"] for p in shown["placements"]] == ["ready", "ready"]


async def test_deleting_a_conference_removes_its_rooms_then_its_rows(database_url: str) -> None:
    async with two_regions(database_url) as (service, eu, us):
        await eu.enter("standup", "p1")
        await us.enter("standup", "p2")
        us.stub.behave("delete_room", Trouble(status=500))
        answer = await service.application.delete("/v1/conferences/standup")
        assert answer.status_code == 202
        joined = await service.join("standup")
        assert joined.status_code in {404, 409}
        await until(
            lambda: service.application.get("/v1/conferences/standup"), lambda seen: seen.status_code == 404
        )
        assert eu.stub.rooms == us.stub.rooms == {}
        assert (await service.application.delete("/v1/conferences/standup")).status_code == 204
        await service.create("standup")
        assert (await service.conference("standup"))["placements"] == []
        # A late report about the old one must not fail the cluster for good.
        await eu.report("DELETE", "/rooms/standup")


async def test_reports_about_conferences_that_nobody_knows(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        for path, body in (
            ("/rooms/nope", {"token": "t"}),
            ("/rooms/nope/participants/p", {"user": "u", "role": "r"}),
        ):
            answer = await eu.send("PUT", path, body)
            assert (answer.status_code, answer.json()["type"]) == (404, "conference-unknown")
        await eu.report("DELETE", "/rooms/nope")
        await eu.report("DELETE", "/rooms/nope/participants/p")
        await eu.link("nope", "us-1", "down")


async def test_a_room_that_a_cluster_made_by_itself_is_a_placement(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        await eu.enter("standup", "p1")
        shown = await service.conference("standup")
        assert [(p["cluster"], p["state"], p["participants"]) for p in shown["placements"]] == [
            ("eu-1", "ready", 1)
        ]
        assert (await service.join("standup", region="eu")).status_code in {200, 502}
