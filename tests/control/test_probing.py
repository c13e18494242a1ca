from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from sqlalchemy import func, select, update

from control.cluster_settings import LeaseSettings, ProbeSettings
from control.registry import probes
from control.registry.store import Store
from control.registry.tables import clusters, placements
from tests.control.owt_stub import OwtStub
from tests.control.service import Service, running, until

PROBE = ProbeSettings(
    period=0.2, timeout=1.0, failures_to_lost=2, lost_period=0.2, poll_interval=0.02, max_at_once=4
)
LEASE = LeaseSettings(ttl=30, sweep_interval=0.02)


async def register(service: Service, stub: OwtStub, cluster: str = "c-1") -> None:
    body = {
        "clusterID": cluster,
        "region": "BJ",
        "info": {"resturl": stub.url, "servicekey": stub.service_key, "serviceid": stub.service_id},
    }
    answer = await service.nobody.post(f"/owt/{service.keys['enrolment']}/registerCluster", json=body)
    assert answer.status_code == 200, answer.text


async def open_room(service: Service, room: str, token: str = "t" * 64) -> None:
    body = {"clusterID": "c-1", "region": "BJ", "info": {"room": room, "token": token}}
    answer = await service.nobody.post(f"/owt/{service.keys['enrolment']}/updateConference", json=body)
    assert answer.status_code == 200, answer.text


async def shown(service: Service, cluster: str = "c-1") -> dict[str, Any]:
    view: dict[str, Any] = (await service.operator.get(f"/v1/clusters/{cluster}")).json()
    return view


def probed(stub: OwtStub) -> int:
    return sum(call.kind == "list_rooms" for call in stub.calls)


async def test_a_cluster_that_accepts_a_signed_request_lives(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, probe=PROBE, lease=LEASE) as service:
        await register(service, stub)
        # A lease by registration is longer than one by a probe: only two of the latter can be compared.
        probed_once = await until(lambda: shown(service), lambda _: probed(stub) >= 1)
        later = probed(stub) + 2
        await until(
            lambda: shown(service),
            lambda view: probed(stub) >= later and view["last_seen_at"] > probed_once["last_seen_at"],
        )
        view = await shown(service)
        assert (view["state"], view["epoch"]) == ("online", 1)


async def test_one_that_refuses_our_signature_is_lost_and_said_why(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, probe=PROBE, lease=LEASE) as service:
        await register(service, stub)
        stub.service_key = "changed behind our back"
        view = await until(lambda: shown(service), lambda view: view["state"] == "lost")
        assert "cluster-credentials-refused" in view["state_reason"]


async def test_a_lost_one_that_answers_again_is_back_with_its_rooms_and_the_next_epoch(
    database_url: str,
) -> None:
    async with OwtStub() as stub, running(database_url, probe=PROBE, lease=LEASE) as service:
        await register(service, stub)
        stub.rooms["room-1"] = {"_id": "room-1", "id": "room-1", "name": "room-1"}
        await open_room(service, "room-1")
        key, stub.service_key = stub.service_key, "other"
        await until(lambda: shown(service), lambda view: view["state"] == "lost")
        stub.service_key = key
        view = await until(lambda: shown(service), lambda view: view["state"] == "online")
        assert (view["epoch"], view["state_reason"]) == (2, "it answers probes again")
        async with service.engine.connect() as connection:
            row = (await connection.execute(select(placements.c.state, placements.c.token))).one()
        assert row.state == "ready"
        assert row.token is not None  # such a cluster tells it once only


async def test_our_own_absence_loses_nobody(database_url: str) -> None:
    async with (
        OwtStub() as stub,
        running(database_url, background=False, probe=PROBE, lease=LEASE) as service,
    ):
        await register(service, stub)
        await service.expire("c-1")
        assert (await shown(service))["state"] == "lost"  # nothing is placed there until it was probed
        task = asyncio.create_task(service.control.run())
        try:
            view = await until(lambda: shown(service), lambda view: view["state"] == "online")
            assert view["epoch"] == 1
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_who_is_in_the_rooms_is_listed_and_the_cascaded_are_left_out(database_url: str) -> None:
    async with (
        OwtStub() as stub,
        running(database_url, probe=PROBE, lease=LEASE) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await register(service, stub)
        await open_room(service, "room-1")
        await eu.register()
        await eu.enter("room-1", "far")
        people = [{"id": name, "user": name, "role": "presenter"} for name in ("near", "far")]
        stub.rooms["room-1"] = {"_id": "room-1", "id": "room-1", "name": "room-1"}
        stub.participants["room-1"] = people
        view = await until(lambda: service.conference("room-1"), lambda view: len(view["participants"]) == 2)
        assert {p["id"]: p["cluster"] for p in view["participants"]} == {"near": "c-1", "far": "eu-1"}
        stub.participants["room-1"] = people[1:]
        await until(lambda: service.conference("room-1"), lambda view: len(view["participants"]) == 1)


async def test_replicas_share_the_probes(database_url: str) -> None:
    """Two services on one database ask a cluster about as often as one does."""
    slow = ProbeSettings(period=60.0, timeout=1.0, poll_interval=0.02, max_at_once=2)
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(OwtStub()) for _ in range(8)]
        first = await stack.enter_async_context(running(database_url, background=False, probe=slow))
        store = Store(first.engine)
        for number, stub in enumerate(stubs):
            await register(first, stub, f"c-{number}")
        one, two = await asyncio.gather(
            store.write(probes.claim, limit=5, hold=60), store.write(probes.claim, limit=5, hold=60)
        )
        names = [probe.cluster for probe in one + two]
        assert len(names) == len(set(names)) == 8
        assert await store.write(probes.claim, limit=5, hold=60) == []
        # Whoever claimed them died: when their time is up they are due again.
        async with first.engine.begin() as connection:
            await connection.execute(update(clusters).values(probe_due_at=func.now()))
        task = asyncio.create_task(first.control.run())
        try:
            for stub in stubs:
                await until(partial(_count, stub), lambda count: count >= 1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [probed(stub) for stub in stubs] == [1] * 8


async def _count(stub: OwtStub) -> int:
    return probed(stub)


async def test_a_late_answer_says_nothing_about_a_newer_registration(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, background=False, probe=PROBE) as service:
        await register(service, stub)
        store = Store(service.engine)
        (probe,) = await store.write(probes.claim, limit=5, hold=60)
        answer = await service.enrolment.delete("/v1/clusters/c-1")
        assert answer.status_code == 204
        late: dict[str, Any] = {"error": "x", "failures_to_lost": 1, "next_in": 1, "lost_next_in": 1}
        assert await store.write(probes.answered, probe, ttl=9, next_in=1) == "outdated"
        assert await store.write(probes.silent, probe, **late) is None
        await register(service, stub)
        assert await store.write(probes.answered, probe, ttl=9, next_in=1) == "outdated"
        assert (await shown(service))["epoch"] == 2


async def test_a_cluster_registered_by_hand_may_be_probed_too(database_url: str) -> None:
    async with OwtStub() as stub, running(database_url, probe=PROBE, lease=LEASE) as service:
        body = {
            "region": "eu",
            "rest_url": stub.url,
            "service_id": stub.service_id,
            "service_key": stub.service_key,
            "instance": "d1",
            "incarnation": "i1",
            "probe": True,
        }
        answer = await service.operator.put("/v1/clusters/c-1", json=body)
        assert answer.status_code == 200
        await until(lambda: _count(stub), lambda count: count >= 2)
        assert (await shown(service))["probed"] is True
