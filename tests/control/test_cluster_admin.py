from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.control.service import Service, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.control.service import Cluster


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with running(database_url, background=False) as service:
        yield service


@pytest.fixture
async def eu(service: Service) -> AsyncIterator[Cluster]:
    async with service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        yield eu


async def shown(service: Service) -> dict[str, Any]:
    answer = await service.operator.get("/v1/clusters/eu-1")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def audit(service: Service, **query: Any) -> list[dict[str, Any]]:
    answer = await service.operator.get("/v1/audit", params=query)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries


async def test_another_deployment_is_refused_while_the_owner_lives(service: Service, eu: Cluster) -> None:
    seen = (await shown(service))["last_seen_at"]
    body = {
        "region": "us",
        "rest_url": "http://192.0.2.9:3000",
        "service_id": "s",
        "service_key": "k",
        "instance": "d2",
        "incarnation": "j1",
    }
    answer = await service.enrolment.put("/v1/clusters/eu-1", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "cluster-claimed")
    assert seen[:19] in answer.json()["detail"]
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert (await shown(service))["region"] == "eu"
    assert (await eu.beat()).status_code == 200

    await service.expire("eu-1")
    answer = await service.enrolment.put("/v1/clusters/eu-1", json=body)
    assert (answer.status_code, answer.json()["epoch"]) == (200, 2)
    view = await shown(service)
    assert (view["region"], view["instance"]) == ("us", "d2")
    assert "another deployment" in view["state_reason"]
    newest = (await audit(service, subject="cluster:eu-1"))[0]
    assert newest["action"] == "taken-over"
    assert (newest["before"]["instance"], newest["after"]["instance"]) == ("d1", "d2")
    assert newest["actor"].startswith("enrolment:")


async def test_an_unregistered_id_is_anybodys(service: Service, eu: Cluster) -> None:
    await eu.report("DELETE", "")
    await eu.register(instance="d2")
    assert eu.epoch == 2


async def test_region_and_address_of_a_live_cluster_change_and_are_audited(
    service: Service, eu: Cluster
) -> None:
    lease = await eu.register(region="us", rest_url="http://192.0.2.1:3000")
    assert lease["epoch"] == 1
    newest = (await audit(service, subject="cluster:eu-1"))[0]
    assert newest["action"] == "changed"
    assert newest["before"] == {"region": "eu", "rest_url": eu.stub.url}
    assert newest["after"] == {"region": "us", "rest_url": "http://192.0.2.1:3000"}
    before = len(await audit(service))
    await eu.register(region="us", rest_url="http://192.0.2.1:3000")
    assert len(await audit(service)) == before
    assert eu.stub.service_key not in str(await audit(service))


async def test_the_audit_has_pages(service: Service, eu: Cluster) -> None:
    for region in ("a", "b", "c"):
        await eu.register(region=region)
    answer = (await service.operator.get("/v1/audit", params={"limit": 2})).json()
    assert [e["after"]["region"] for e in answer["entries"]] == ["c", "b"]
    older = (await service.operator.get("/v1/audit", params={"limit": 2, "before": answer["next"]})).json()
    assert [e["after"]["region"] for e in older["entries"]] == ["a", "eu"]
    for query in ({"limit": 0}, {"before": "x"}, {"nonsense": "1"}):
        answer = await service.operator.get("/v1/audit", params=query)
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert (await service.enrolment.get("/v1/audit")).status_code == 403


async def test_settings_come_from_the_cluster_or_the_operator(service: Service, eu: Cluster) -> None:
    await eu.register(labels={"tier": "gold"}, limits={"participants": 10}, cost=2.5)
    answer = await service.operator.get("/v1/clusters/eu-1")
    assert answer.json()["labels"] == {"tier": "gold"}
    tag = answer.headers["etag"]
    patch = {"labels": {"tier": "silver"}, "location": {"lat": 52.5, "lon": 13.4}}
    path = "/v1/clusters/eu-1"
    changed = await service.operator.patch(path, json=patch, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["labels"]) == (200, {"tier": "silver"})
    assert changed.headers["etag"] != tag
    refused = await service.operator.patch(path, json={"cost": 1}, headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["type"]) == (412, "precondition-failed")
    await eu.beat(participants=3)
    await eu.register()
    view = await service.operator.get(path)
    assert view.headers["etag"] == changed.headers["etag"]  # neither load nor registering again touch it
    assert view.json()["limits"]["participants"] == 10
    assert (view.json()["cost"], view.json()["location"]) == (2.5, {"lat": 52.5, "lon": 13.4})
    assert (await service.enrolment.patch(path, json=patch)).status_code == 403
    answer = await service.operator.patch("/v1/clusters/nope", json={})
    assert (answer.status_code, answer.json()["type"]) == (404, "cluster-unknown")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"": "x"}},
        {"labels": {f"k{n}": "v" for n in range(33)}},
        {"labels": {"k": "v" * 129}},
        {"labels": {"k": 1}},
        {"limits": {"participants": -1}},
        {"limits": {"people": 1}},
        {"cost": -0.5},
        {"ping_url": "ftp://x"},
        {"location": {"lat": 91, "lon": 0}},
        {"location": {"lat": 9}},
        {"portal": {"host": "", "port": 1}},
        {"incarnation": ""},
        {"driver": "zoom"},
    ],
)
async def test_a_bad_registration_changes_nothing(
    service: Service, eu: Cluster, change: dict[str, Any]
) -> None:
    before = await shown(service)
    body = {
        "region": "us",
        "rest_url": "http://192.0.2.1:3000",
        "service_id": "s",
        "service_key": "k",
        "instance": "d1",
        "incarnation": "i1",
    }
    answer = await service.enrolment.put("/v1/clusters/eu-1", json=body | change)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert await shown(service) == before


async def test_drain_is_shown_changed_and_undone(service: Service, eu: Cluster) -> None:
    await service.create("standup")
    await eu.enter("standup", "p1")
    deadline = datetime.now(UTC) + timedelta(hours=1)
    path = "/v1/clusters/eu-1/drain"
    body = {"deadline": deadline.isoformat(), "reason": "new kernel"}
    answer = await service.operator.post(path, json=body)
    assert answer.status_code == 200
    view = answer.json()
    assert (view["state"], view["state_reason"]) == ("draining", "new kernel")
    drain = view["drain"]
    assert (drain["progress"], drain["participants"], drain["conferences"]) == ("running", 1, 1)
    past = {"deadline": (deadline - timedelta(hours=2)).isoformat()}
    again = (await service.operator.post(path, json=past)).json()["drain"]
    assert (again["progress"], again["since"], again["reason"]) == ("overdue", drain["since"], "")
    await eu.register()
    assert (await shown(service))["state"] == "draining"  # registering again is no way out
    for _ in range(2):
        assert (await service.operator.delete(path)).status_code == 204
    view = await shown(service)
    assert (view["state"], view["drain"]) == ("online", None)
    assert [e["action"] for e in await audit(service)][:3] == ["undrained", "drained", "drained"]


async def test_a_drained_cluster_with_nothing_on_it_is_done(service: Service, eu: Cluster) -> None:
    answer = await service.operator.post("/v1/clusters/eu-1/drain")
    assert answer.json()["drain"]["progress"] == "done"


async def test_a_deadline_needs_its_offset(service: Service, eu: Cluster) -> None:
    answer = await service.operator.post("/v1/clusters/eu-1/drain", json={"deadline": "2030-01-01T00:00:00"})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert (await shown(service))["drain"] is None


async def test_block_is_shown_and_undone(service: Service, eu: Cluster) -> None:
    path = "/v1/clusters/eu-1/block"
    for _ in range(2):
        answer = await service.operator.put(path, json={"reason": "smoke"})
        assert answer.json()["block"]["reason"] == "smoke"
    assert (await service.operator.delete(path)).status_code == 204
    assert (await shown(service))["block"] is None
    assert [e["action"] for e in await audit(service)][:2] == ["unblocked", "blocked"]


@pytest.mark.parametrize(("method", "what"), [("POST", "drain"), ("DELETE", "drain"), ("PUT", "block")])
async def test_operators_alone_do_this_and_only_to_what_there_is(
    service: Service, eu: Cluster, method: str, what: str
) -> None:
    answer = await service.enrolment.request(method, f"/v1/clusters/eu-1/{what}")
    assert answer.status_code == 403
    answer = await service.operator.request(method, f"/v1/clusters/nope/{what}")
    assert (answer.status_code, answer.json()["type"]) == (404, "cluster-unknown")


async def test_capacity_has_counts_and_limits(service: Service, eu: Cluster) -> None:
    path = "/v1/clusters/eu-1/capacity/webrtc"
    await service.enrolment.put(path, json={"count": 3, "limit": 400})
    assert (await shown(service))["capacity"] == {"webrtc": {"count": 3, "limit": 400}}
    await service.enrolment.put(path)
    assert (await shown(service))["capacity"] == {"webrtc": {}}
    for body in ({"count": 0}, {"limit": -1}, {"many": 1}):
        answer = await service.enrolment.put(path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


async def test_a_silent_cluster_is_suspect_before_it_is_lost(service: Service, eu: Cluster) -> None:
    from sqlalchemy import func, text, update  # noqa: PLC0415 - for this test alone

    from control.registry.tables import clusters  # noqa: PLC0415 - as above

    async with service.engine.begin() as connection:
        await connection.execute(
            update(clusters).values(
                last_seen_at=func.now() - text("interval '20 s'"),
                lease_expires_at=func.now() + text("interval '10 s'"),
            )
        )
    view = await shown(service)
    assert (view["state"], view["state_reason"]) == ("suspect", "its heartbeat is overdue")
    await eu.beat()
    assert (await shown(service))["state"] == "online"
