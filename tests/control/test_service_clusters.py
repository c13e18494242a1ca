from __future__ import annotations

import asyncio
from typing import Any

from control.registry import clusters
from control.registry.store import Store
from control.settings import LeaseSettings
from tests.control.service import Service, running, until

REGISTRATION = {
    "region": "eu",
    "rest_url": "http://127.0.0.1:9",
    "service_id": "s",
    "service_key": "k",
    "instance": "d1",
    "incarnation": "i1",
}


async def shown(service: Service, cluster: str) -> dict[str, Any]:
    answer = await service.operator.get(f"/v1/clusters/{cluster}")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def test_registering_again_with_a_living_lease_changes_nothing(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        first = await eu.register()
        assert first == {"cluster": "eu-1", "epoch": 1, "ttl": 30.0, "heartbeat_interval": 10.0}
        assert await eu.register() == first
        view = await shown(service, "eu-1")
        assert (view["state"], view["region"], view["driver"]) == ("online", "eu", "owt")
        assert view["event_bridge"] == {"host": "127.0.0.1", "port": 7700}
        assert "service_key" not in view


async def test_a_new_start_takes_over_and_the_old_one_is_told(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await eu.register(incarnation="i2")
        assert eu.epoch == 2
        eu.epoch = 1
        for method, path, body in (
            ("POST", "/heartbeat", {}),
            ("PUT", "/rooms/r", {"token": "t"}),
            ("DELETE", "/rooms/r", None),
            ("PUT", "/rooms/r/participants/p", {"user": "u", "role": "r"}),
            ("DELETE", "/rooms/r/participants/p", None),
            ("PUT", "/rooms/r/links/us-1", {"state": "up"}),
            ("DELETE", "", None),
        ):
            answer = await eu.send(method, path, body)
            assert (answer.status_code, answer.json()["type"]) == (409, "stale-epoch"), (method, path)


async def test_twenty_concurrent_first_registrations_agree(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        answers = await asyncio.gather(
            *(service.enrolment.put("/v1/clusters/eu-1", json=REGISTRATION) for _ in range(20))
        )
        assert {a.status_code for a in answers} == {200}
        assert {a.json()["epoch"] for a in answers} == {1}


async def test_reports_of_unknown_clusters_are_refused(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        eu.epoch = 1
        answer = await eu.beat()
        assert (answer.status_code, answer.json()["type"]) == (404, "cluster-unknown")
        answer = await eu.send("PUT", "/rooms/r", {"token": "t"})
        assert (answer.status_code, answer.json()["type"]) == (404, "cluster-unknown")


async def test_an_epoch_is_needed_and_must_be_a_number(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        path = "/v1/clusters/eu-1/heartbeat"
        answer = await service.enrolment.post(path)
        assert (answer.status_code, answer.json()["type"]) == (400, "epoch-missing")
        for text in ("one", "-1", "1.0", "9" * 30, "٣"):
            headers = {"Causeway-Epoch": text.encode("utf-8")}
            answer = await service.enrolment.post(path, headers=headers)  # type: ignore[arg-type] # raw bytes are taken
            assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request"), text


async def test_a_heartbeat_renews_the_lease_and_carries_load(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        before = await shown(service, "eu-1")
        answer = await eu.beat(participants=7, streams=3, cpu=0.5, modules={"portal": 0.25})
        assert (answer.status_code, answer.json()["epoch"]) == (200, 1)
        after = await shown(service, "eu-1")
        assert after["load"] == {"participants": 7, "streams": 3, "cpu": 0.5, "modules": {"portal": 0.25}}
        assert after["lease_expires_at"] > before["lease_expires_at"]
        assert (
            await service.enrolment.post("/v1/clusters/eu-1/heartbeat", headers={"Causeway-Epoch": "1"})
        ).json()


async def test_capacity_that_comes_before_the_registration_is_kept(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        for module in ("conference", "portal", "conference"):
            answer = await service.enrolment.put(f"/v1/clusters/eu-1/capacity/{module}")
            assert answer.status_code == 204
        await eu.register()
        assert (await shown(service, "eu-1"))["modules"] == ["conference", "portal"]
        for _ in range(2):
            assert (await service.enrolment.delete("/v1/clusters/eu-1/capacity/portal")).status_code == 204
        assert (await shown(service, "eu-1"))["modules"] == ["conference"]


async def test_unregistering_is_idempotent_and_its_epoch_is_never_reused(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        assert (await service.enrolment.delete("/v1/clusters/eu-1")).status_code == 204
        await eu.register()
        for _ in range(2):
            await eu.report("DELETE", "")
        assert (await shown(service, "eu-1"))["state"] == "unregistered"
        assert (await eu.beat()).json()["type"] == "cluster-unknown"
        await eu.register()
        assert eu.epoch == 2


async def test_a_lease_that_runs_out_is_lost_and_needs_a_new_registration(database_url: str) -> None:
    lease = LeaseSettings(ttl=0.4, sweep_interval=0.05)
    async with running(database_url, lease=lease) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await until(lambda: shown(service, "eu-1"), lambda view: view["state"] == "lost")
        answer = await eu.beat()
        assert (answer.status_code, answer.json()["type"]) == (404, "cluster-unknown")
        await eu.register()
        assert eu.epoch == 2
        assert (await shown(service, "eu-1"))["state"] == "online"


async def test_the_list_is_ordered(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for cluster in ("us-1", "eu-1"):
            await service.enrolment.put(f"/v1/clusters/{cluster}", json=REGISTRATION)
        answer = await service.operator.get("/v1/clusters")
        assert [each["id"] for each in answer.json()["clusters"]] == ["eu-1", "us-1"]
        unknown = await service.operator.get("/v1/clusters/nope")
        assert (unknown.status_code, unknown.json()["type"]) == (404, "cluster-unknown")


async def test_leases_that_ran_out_while_nobody_served_get_another_chance(database_url: str) -> None:
    async with running(database_url, background=False) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.expire("eu-1")
        await Store(service.engine).write(clusters.grace, ttl=30.0)
        assert (await shown(service, "eu-1"))["state"] == "online"
        assert (await eu.beat()).status_code == 200


async def test_what_was_written_off_gets_no_other_chance(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        assert (await service.enrolment.delete("/v1/clusters/eu-1")).status_code == 204
        await Store(service.engine).write(clusters.grace, ttl=30.0)
        assert (await shown(service, "eu-1"))["state"] == "unregistered"
