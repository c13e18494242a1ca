"""A cluster manager of the Open WebRTC Toolkit that knows nothing of us, and the sample's clients."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from causeway.keys import new_key
from control.cluster_settings import OwtSettings, ProbeSettings
from control.http.server import address_of, bind, make_server
from control.registry import early_rooms as early
from control.registry.store import Store
from control.registry.tables import early_rooms, placements
from control.settings import HttpSettings
from tests.control.owt_stub import OwtStub
from tests.control.service import Service, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

TOKEN = "a7f6" * 16
QUICK_PROBES = ProbeSettings(period=0.2, timeout=2.0, failures_to_lost=2, lost_period=0.2, poll_interval=0.05)


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with running(database_url, background=False) as service:
        yield service


@pytest.fixture
async def stub() -> AsyncIterator[OwtStub]:
    async with OwtStub(portal="127.0.0.1:8008") as stub:
        yield stub


async def tell(service: Service, what: str, body: Any, *, expect: int = 200) -> httpx2.Response:
    """Send what a cluster manager sends, with its headers and no others."""
    answer = await service.nobody.post(
        f"/owt/{service.keys['enrolment']}/{what}",
        content=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == expect, answer.text
    if expect == 200:
        assert (answer.text, answer.headers["content-type"].split(";")[0]) == ("ok", "text/plain")
    return answer


def registration(stub: OwtStub, **changes: Any) -> dict[str, Any]:
    info = {"resturl": stub.url, "servicekey": stub.service_key, "serviceid": stub.service_id}
    return {"clusterID": "c-bj-1", "region": "BJ", "info": info} | changes


def capacity(action: str, module: str, field: str = "capacity") -> dict[str, Any]:
    return {"clusterID": "c-bj-1", "region": "BJ", "info": {"action": action, field: module}}


CONFERENCE = {"clusterID": "c-bj-1", "region": "BJ", "info": {"room": "room-1", "token": TOKEN}}


async def shown(service: Service, cluster: str = "c-bj-1") -> dict[str, Any]:
    answer = await service.operator.get(f"/v1/clusters/{cluster}")
    view: dict[str, Any] = answer.json()
    return view


async def placed(service: Service) -> list[tuple[str, str, bool]]:
    async with service.engine.connect() as connection:
        rows = await connection.execute(
            select(placements.c.conference, placements.c.state, placements.c.token.is_not(None))
        )
        return [(row[0], row[1], row[2]) for row in rows]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_messages_in_any_order_end_the_same(
    service: Service, stub: OwtStub, order: tuple[int, ...]
) -> None:
    messages = [
        ("registerCluster", registration(stub)),
        ("updateCapacity", capacity("add", "conference")),
        ("updateCapacity", capacity("add", "portal", field="module")),
        ("updateConference", CONFERENCE),
    ]
    for index in order:
        await tell(service, *messages[index])
    view = await shown(service)
    assert (view["state"], view["region"], view["driver"]) == ("online", "BJ", "owt")
    assert (view["modules"], view["probed"]) == (["conference", "portal"], True)
    assert await placed(service) == [("room-1", "ready", True)]


async def test_the_whole_life_of_a_cluster(service: Service, stub: OwtStub) -> None:
    await tell(service, "registerCluster", registration(stub))
    for action in ("add", "remove", "add", "delete"):
        await tell(service, "updateCapacity", capacity(action, "eventbridge"))
        present = (await shown(service))["modules"]
        assert present == (["eventbridge"] if action == "add" else [])
    await tell(service, "updateConference", CONFERENCE)
    left = {"clusterID": "c-bj-1", "region": "BJ", "conferenceId": "room-1"}
    for _ in range(2):
        await tell(service, "leaveConference", left)
    assert await placed(service) == [("room-1", "ready", False)]
    for _ in range(2):
        await tell(service, "unregisterCluster", {"clusterID": "c-bj-1", "region": "BJ"})
    assert (await shown(service))["state"] == "unregistered"


def flat(stub: OwtStub) -> dict[str, Any]:
    host, port = stub.url.removeprefix("http://").split(":")
    return {
        "id": "c-sh-1",
        "region": "SH",
        "restfulip": host,
        "restfulport": int(port),
        "eventbridgeip": "192.0.2.1",
        "eventbridgeport": 7700,
        "mediabridgeip": "192.0.2.1",
        "mediabridgeport": 7701,
    }


async def test_a_flat_registration_needs_a_service_of_the_settings(service: Service, stub: OwtStub) -> None:
    refused = await tell(service, "registerCluster", flat(stub), expect=422)
    assert "control.owt.service_id" in refused.json()["detail"]
    own = {"serviceid": stub.service_id, "servicekey": stub.service_key}
    await tell(service, "registerCluster", flat(stub) | own)


async def test_the_flat_registration_of_the_design(database_url: str, stub: OwtStub) -> None:
    owt = OwtSettings(service_id=stub.service_id, service_key=stub.service_key)
    async with running(database_url, background=False, owt=owt) as service:
        await tell(service, "registerCluster", flat(stub))
        view = await shown(service, "c-sh-1")
        assert view["rest_url"] == stub.url
        assert view["media_bridge"] == {"host": "192.0.2.1", "port": 7701}
        # Another address with the same id is another deployment: there is nothing else to tell it by.
        await tell(service, "registerCluster", flat(stub) | {"restfulport": 9}, expect=409)


async def test_a_restarted_manager_keeps_what_it_had_and_another_deployment_is_refused(
    service: Service, stub: OwtStub
) -> None:
    await tell(service, "registerCluster", registration(stub))
    await tell(service, "updateConference", CONFERENCE)
    await tell(service, "registerCluster", registration(stub, region="SH"))
    view = await shown(service)
    assert (view["region"], view["epoch"]) == ("SH", 1)
    assert await placed(service) == [("room-1", "ready", True)]
    other = registration(stub)
    other["info"] = other["info"] | {"serviceid": "another"}
    refused = await tell(service, "registerCluster", other, expect=409)
    assert refused.json()["type"] == "cluster-claimed"


async def test_rooms_that_nobody_asked_for_become_conferences_or_wait(
    database_url: str, stub: OwtStub
) -> None:
    async with running(database_url, owt=OwtSettings(adopt_rooms=False), probe=QUICK_PROBES) as service:
        await tell(service, "registerCluster", registration(stub))
        await tell(service, "updateConference", CONFERENCE)
        assert (await service.application.get("/v1/conferences/room-1")).status_code == 404
        await service.create("room-1")  # the token is found with the next probe
        await until(lambda: placed(service), lambda rows: rows == [("room-1", "ready", True)])


async def test_early_rooms_are_few_and_grow_old(database_url: str) -> None:
    async with running(database_url, background=False, owt=OwtSettings(max_early_rooms=2)) as service:
        for room, expect in (("a", 200), ("b", 200), ("b", 200), ("c", 503)):
            body = CONFERENCE | {"info": {"room": room, "token": TOKEN}}
            await tell(service, "updateConference", body, expect=expect)
        async with service.engine.connect() as connection:
            rows = (await connection.execute(select(early_rooms.c.room, early_rooms.c.token))).all()
        assert sorted(row.room for row in rows) == ["a", "b"]
        assert all(TOKEN.encode() not in row.token for row in rows)  # sealed
        assert await Store(service.engine).write(early.prune, after=3600) == 0
        assert await Store(service.engine).write(early.prune, after=-1) == 2


async def test_no_wrong_key_is_told_from_a_wrong_path(service: Service, stub: OwtStub) -> None:
    wrong = [
        "secret",
        new_key("enrolment"),
        service.keys["application"],
        service.keys["operator"],
        service.keys["enrolment"][:-1],
    ]
    nothing = await service.nobody.post("/owt/x/y/z", json={})
    assert nothing.status_code == 404
    for secret in wrong:
        for what in ("registerCluster", "updateCapacity", "updateConference", "unregisterCluster"):
            answer = await service.nobody.post(f"/owt/{secret}/{what}", json=registration(stub))
            assert answer.status_code == 404
            assert answer.json()["type"] == nothing.json()["type"] == "not-found"
            assert secret not in answer.text
    assert (await service.operator.get("/v1/clusters")).json()["clusters"] == []
    answer = await service.nobody.get(f"/owt/{service.keys['enrolment']}/createConference/")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("registerCluster", {}),
        ("registerCluster", {"clusterID": "c-bj-1", "region": "BJ"}),
        ("registerCluster", {"clusterID": "c-bj-1", "region": "BJ", "info": {"resturl": "x"}}),
        ("registerCluster", {"clusterID": "", "region": "BJ", "info": {}}),
        ("updateCapacity", capacity("burn", "portal")),
        ("updateCapacity", capacity("add", "")),
        ("updateCapacity", {"region": "BJ", "info": {"action": "add", "capacity": "portal"}}),
        ("updateConference", {"clusterID": "c-bj-1", "info": {"room": "r"}}),
        ("updateConference", {"clusterID": "c-bj-1", "info": {"room": "", "token": "t"}}),
        ("leaveConference", {"clusterID": "c-bj-1"}),
        ("unregisterCluster", {}),
        ("unregisterCluster", []),
    ],
)
async def test_a_bad_message_changes_nothing(service: Service, stub: OwtStub, what: str, body: Any) -> None:
    await tell(service, "registerCluster", registration(stub))
    before = await shown(service)
    answer = await tell(service, what, body, expect=422)
    assert answer.json()["type"] == "invalid-request"
    assert await shown(service) == before


async def test_a_body_cut_short_changes_nothing_over_a_real_connection(
    service: Service, stub: OwtStub
) -> None:
    """Content-Length counts characters: with text beyond ASCII the body's end is not read as such."""
    body = json.dumps(registration(stub, region="BJ", note="北京"), ensure_ascii=False)
    short = len(body)
    raw = body.encode()
    assert short < len(raw)
    server = make_server(service.control.app, HttpSettings(), stop_timeout=1)
    with bind("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.wait_started()
        try:
            reader, writer = await asyncio.open_connection(*address_of(listener))
            head = (
                f"POST /owt/{service.keys['enrolment']}/registerCluster HTTP/1.1\r\nHost: x\r\n"
                f"Content-Type: application/json\r\nContent-Length: {short}\r\nConnection: keep-alive\r\n\r\n"
            )
            writer.write(head.encode() + raw)
            await writer.drain()
            async with asyncio.timeout(10):
                status = await reader.readline()
            assert b" 400 " in status
            writer.close()
        finally:
            server.should_exit = True
            await serving
    assert (await service.operator.get("/v1/clusters")).json()["clusters"] == []


async def test_any_beginning_of_a_body_is_refused(service: Service, stub: OwtStub) -> None:
    raw = json.dumps(registration(stub) | CONFERENCE).encode()
    for what in ("registerCluster", "updateConference", "leaveConference"):
        for cut in range(0, len(raw), 5):
            answer = await service.nobody.post(
                f"/owt/{service.keys['enrolment']}/{what}",
                content=raw[:cut],
                headers={"Content-Type": "application/json"},
            )
            assert (answer.status_code, answer.json()["type"]) == (400, "malformed-json"), cut


async def test_an_application_of_the_sample_only_changes_its_url(database_url: str, stub: OwtStub) -> None:
    async with running(database_url, probe=QUICK_PROBES) as service:
        await tell(service, "updateCapacity", capacity("add", "conference"))
        await tell(service, "registerCluster", registration(stub))
        base = f"/owt/{service.keys['application']}"
        made = await service.nobody.get(f"{base}/createConference/")
        assert made.status_code == 200
        assert made.text.isdecimal()
        body = {"region": "BJ", "room": made.text, "user": "ada", "role": "presenter"}
        answer = await service.nobody.post(f"{base}/createToken/", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        assert len(answer.text) > 20
        assert made.text in stub.rooms
        # A room that the application thought of by itself is made, too; a strange region is none.
        body = body | {"room": "555", "region": ""}
        assert (await service.nobody.post(f"{base}/createToken/", json=body)).status_code == 200
        for bad in ({}, body | {"room": "a b"}, body | {"user": ""}):
            answer = await service.nobody.post(f"{base}/createToken/", json=bad)
            assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


async def test_the_key_in_the_path_is_never_logged(
    database_url: str, stub: OwtStub, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(database_url, background=False) as service:
        await tell(service, "registerCluster", registration(stub))
        async with service.engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE cluster_capacity")
        answer = await tell(service, "updateCapacity", capacity("add", "portal"), expect=500)
        secret = service.keys["enrolment"].rpartition("_")[2]
        printed = capsys.readouterr()
        assert "request.failed" in printed.out + printed.err
        assert secret not in printed.out + printed.err + answer.text
