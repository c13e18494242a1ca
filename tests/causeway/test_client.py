from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest
from msgspec import structs

from causeway.api import (
    BlockRequest,
    ClusterList,
    ClusterPatch,
    ConferencePatch,
    DecisionList,
    DrainRequest,
    JoinByIdRequest,
    JoinRequest,
    KeyCreate,
    KeyList,
    Load,
    ParticipantReport,
    RegionList,
    RoomReport,
    StreamReport,
    TemplateList,
    Track,
)
from causeway.api.tokens import SigningKeyList
from causeway.client import ControlClient
from causeway.errors import ApiError
from tests.causeway.client_kit import (
    AUDIT,
    CLUSTER,
    CONFERENCE,
    CREATED,
    JOINED,
    KEY,
    KEY_VIEW,
    LEASE,
    PAGE,
    REGION,
    REGISTRATION,
    SIGNING,
    TEMPLATE,
    Control,
)

ROUTES: list[tuple[str, str, Any, Any, int | None, Any, Any]] = [
    # method, path, call, body, epoch, control's answer, what comes out
    (
        "PUT",
        "clusters/eu-1",
        lambda c: c.register_cluster("eu-1", REGISTRATION),
        {
            "region": "eu",
            "rest_url": "http://192.0.2.1:3000",
            "service_id": "s",
            "service_key": "k",
            "instance": "d-1",
            "incarnation": "i-1",
        },
        None,
        LEASE,
        LEASE,
    ),
    (
        "POST",
        "clusters/eu-1/heartbeat",
        lambda c: c.heartbeat("eu-1", epoch=7, load=Load(streams=3)),
        {"load": {"streams": 3}},
        7,
        LEASE,
        LEASE,
    ),
    (
        "POST",
        "clusters/eu-1/heartbeat",
        lambda c: c.heartbeat("eu-1", epoch=7),
        {"load": {}},
        7,
        LEASE,
        LEASE,
    ),
    ("DELETE", "clusters/eu-1", lambda c: c.unregister_cluster("eu-1", epoch=7), None, 7, None, None),
    ("DELETE", "clusters/eu-1", lambda c: c.unregister_cluster("eu-1"), None, None, None, None),
    (
        "PUT",
        "clusters/eu-1/capacity/portal",
        lambda c: c.put_capacity("eu-1", "portal"),
        None,
        None,
        None,
        None,
    ),
    (
        "DELETE",
        "clusters/eu-1/capacity/portal",
        lambda c: c.delete_capacity("eu-1", "portal"),
        None,
        None,
        None,
        None,
    ),
    (
        "PUT",
        "clusters/eu-1/rooms/c-1",
        lambda c: c.report_room("eu-1", "c-1", RoomReport(token="t"), epoch=7),
        {"token": "t"},
        7,
        None,
        None,
    ),
    (
        "DELETE",
        "clusters/eu-1/rooms/c-1",
        lambda c: c.room_closed("eu-1", "c-1", epoch=7),
        None,
        7,
        None,
        None,
    ),
    (
        "POST",
        "clusters/eu-1/rooms/c-1/missing",
        lambda c: c.room_missing("eu-1", "c-1", 5, epoch=7),
        {"placement": 5},
        7,
        None,
        None,
    ),
    (
        "PUT",
        "clusters/eu-1/rooms/c-1/participants/p-1",
        lambda c: c.participant_joined(
            "eu-1", "c-1", "p-1", ParticipantReport(user="alice", role="presenter"), epoch=7
        ),
        {"user": "alice", "role": "presenter"},
        7,
        None,
        None,
    ),
    (
        "DELETE",
        "clusters/eu-1/rooms/c-1/participants/p-1",
        lambda c: c.participant_left("eu-1", "c-1", "p-1", epoch=7),
        None,
        7,
        None,
        None,
    ),
    (
        "PUT",
        "clusters/eu-1/rooms/c-1/links/us-1",
        lambda c: c.report_link("eu-1", "c-1", "us-1", "up", epoch=7),
        {"state": "up"},
        7,
        None,
        None,
    ),
    (
        "GET",
        "clusters",
        lambda c: c.list_clusters(),
        None,
        None,
        ClusterList(clusters=[CLUSTER]),
        [CLUSTER],
    ),
    ("GET", "clusters/eu-1", lambda c: c.get_cluster("eu-1"), None, None, CLUSTER, CLUSTER),
    ("POST", "conferences", lambda c: c.create_conference(), {}, None, CONFERENCE, CONFERENCE),
    (
        "POST",
        "conferences",
        lambda c: c.create_conference("c-1"),
        {"id": "c-1"},
        None,
        CONFERENCE,
        CONFERENCE,
    ),
    ("GET", "conferences/c-1", lambda c: c.get_conference("c-1"), None, None, CONFERENCE, CONFERENCE),
    (
        "GET",
        "conferences",
        lambda c: c.list_conferences(),
        None,
        None,
        PAGE,
        PAGE,
    ),
    ("DELETE", "conferences/c-1", lambda c: c.delete_conference("c-1"), None, None, None, None),
    (
        "POST",
        "conferences/c-1/join",
        lambda c: c.join("c-1", JoinRequest(user="alice", region="eu")),
        {"user": "alice", "region": "eu"},
        None,
        JOINED,
        JOINED,
    ),
    (
        "POST",
        "join",
        lambda c: c.join_by_id(JoinByIdRequest(id="c-1", type="talk")),
        {"id": "c-1", "type": "talk"},
        None,
        JOINED,
        JOINED,
    ),
    (
        "PATCH",
        "conferences/c-1",
        lambda c: c.update_conference("c-1", ConferencePatch(locked=True, empty_ttl=None)),
        {"locked": True, "empty_ttl": None},
        None,
        CONFERENCE,
        CONFERENCE,
    ),
    (
        "GET",
        "conferences/c-1/decisions",
        lambda c: c.list_decisions("c-1"),
        None,
        None,
        DecisionList(decisions=[]),
        [],
    ),
    ("GET", "regions", lambda c: c.list_regions(), None, None, RegionList(regions=[REGION]), [REGION]),
    (
        "PATCH",
        "clusters/eu-1",
        lambda c: c.update_cluster("eu-1", ClusterPatch(cost=2.0)),
        {"cost": 2.0},
        None,
        CLUSTER,
        CLUSTER,
    ),
    (
        "POST",
        "clusters/eu-1/drain",
        lambda c: c.drain_cluster("eu-1", DrainRequest(reason="disk")),
        {"reason": "disk"},
        None,
        CLUSTER,
        CLUSTER,
    ),
    (
        "GET",
        "clusters/eu-1",
        lambda c: c.get_cluster_tagged("eu-1"),
        None,
        None,
        CLUSTER,
        (CLUSTER, ""),
    ),
    ("DELETE", "clusters/eu-1/drain", lambda c: c.undrain_cluster("eu-1"), None, None, None, None),
    (
        "PUT",
        "clusters/eu-1/block",
        lambda c: c.block_cluster("eu-1", BlockRequest()),
        {},
        None,
        CLUSTER,
        CLUSTER,
    ),
    ("DELETE", "clusters/eu-1/block", lambda c: c.unblock_cluster("eu-1"), None, None, None, None),
    ("GET", "audit", lambda c: c.list_audit(), None, None, AUDIT, AUDIT),
    (
        "GET",
        "templates",
        lambda c: c.list_templates(),
        None,
        None,
        TemplateList(templates=[TEMPLATE]),
        [TEMPLATE],
    ),
    ("GET", "templates/talk", lambda c: c.get_template("talk"), None, None, TEMPLATE, (TEMPLATE, "")),
    ("DELETE", "templates/talk", lambda c: c.delete_template("talk"), None, None, None, None),
    (
        "POST",
        "keys",
        lambda c: c.create_key(KeyCreate(kind="operator", name="me")),
        {"kind": "operator", "name": "me"},
        None,
        CREATED,
        CREATED,
    ),
    ("GET", "keys/0123456789ab", lambda c: c.get_key("0123456789ab"), None, None, KEY_VIEW, KEY_VIEW),
    ("DELETE", "keys/0123456789ab", lambda c: c.revoke_key("0123456789ab"), None, None, None, None),
    (
        "GET",
        "signing-keys",
        lambda c: c.list_signing_keys(),
        None,
        None,
        SigningKeyList(keys=[SIGNING]),
        [SIGNING],
    ),
    (
        "POST",
        "signing-keys",
        lambda c: c.rotate_signing_keys(),
        None,
        None,
        SigningKeyList(keys=[SIGNING]),
        [SIGNING],
    ),
]


STREAM = StreamReport(tracks=[Track(kind="audio")])
NUMBERED: list[Any] = [
    lambda c, **said: c.put_capacity("eu-1", "portal", **said),
    lambda c, **said: c.delete_capacity("eu-1", "portal", **said),
    lambda c, **said: c.report_room("eu-1", "c-1", RoomReport(token="t"), **said),
    lambda c, **said: c.room_closed("eu-1", "c-1", **said),
    lambda c, **said: c.room_missing("eu-1", "c-1", 5, **said),
    lambda c, **said: c.participant_joined(
        "eu-1", "c-1", "p-1", ParticipantReport(user="alice", role="presenter"), **said
    ),
    lambda c, **said: c.participant_left("eu-1", "c-1", "p-1", **said),
    lambda c, **said: c.report_stream("eu-1", "c-1", "s-1", STREAM, **said),
    lambda c, **said: c.stream_gone("eu-1", "c-1", "s-1", **said),
    lambda c, **said: c.report_link("eu-1", "c-1", "us-1", "up", **said),
]


@pytest.mark.parametrize("tell", NUMBERED)
async def test_reports_bear_their_numbers(tell: Any) -> None:
    control = Control()
    async with control.client() as client:
        await tell(client, epoch=7, number=12)
    assert (control.headers["causeway-epoch"], control.headers["causeway-report"]) == ("7", "12")


async def test_a_registration_bears_its_number() -> None:
    control = Control().answers(LEASE)
    async with control.client() as client:
        await client.register_cluster("eu-1", REGISTRATION, number=1)
        assert control.headers["causeway-report"] == "1"
        await client.register_cluster("eu-1", REGISTRATION)
        assert "causeway-report" not in control.headers


@pytest.mark.parametrize(("method", "path", "ask", "body", "epoch", "answer", "result"), ROUTES)
async def test_every_route(
    *, method: str, path: str, ask: Any, body: Any, epoch: int | None, answer: Any, result: Any
) -> None:
    control = Control() if answer is None else Control().answers(answer)
    async with control.client() as client:
        assert await ask(client) == result
    assert (control.method, control.path, control.sent) == (method, f"/v1/{path}", body)
    assert control.headers["authorization"] == f"Bearer {KEY}"
    assert control.headers.get("causeway-epoch") == (None if epoch is None else str(epoch))


async def test_a_template_is_saved_over_the_version_that_was_read() -> None:
    control = Control().answers(TEMPLATE)
    async with control.client() as client:
        assert await client.put_template("talk", TEMPLATE.template, if_match='"abc"') == TEMPLATE
    assert (control.method, control.path) == ("PUT", "/v1/templates/talk")
    assert control.headers["if-match"] == '"abc"'


async def test_a_join_can_be_explained_and_repeated() -> None:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=msgspec.json.encode(JOINED))

    async with ControlClient("https://x.example", KEY, transport=httpx2.MockTransport(handle)) as client:
        await client.join("c-1", JoinRequest(user="a"), explain=True, idempotency_key="once")
    [request] = seen
    assert (request.url.path, request.url.query) == ("/v1/conferences/c-1/join", b"explain=true")
    assert request.headers["idempotency-key"] == "once"


async def test_lists_are_read_page_by_page() -> None:
    pages = {None: ("0" * 12, "more"), "more": ("1" * 12, None)}

    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.url.params["kind"] == "application"
        assert request.url.params["revoked"] == "true"
        key, following = pages[request.url.params.get("cursor")]
        page = KeyList(keys=[structs.replace(KEY_VIEW, id=key)], next=following)
        return httpx2.Response(200, content=msgspec.json.encode(page))

    async with ControlClient("https://x.example", KEY, transport=httpx2.MockTransport(handle)) as client:
        keys = [key.id async for key in client.each_key(kind="application", revoked=True)]
    assert keys == ["0" * 12, "1" * 12]


async def test_ids_stay_one_segment() -> None:
    control = Control()
    async with control.client() as client:
        await client.room_closed("a/b", "ü?#", epoch=1)
    assert control.path == "/v1/clusters/a%2Fb/rooms/%C3%BC%3F%23"


@pytest.mark.parametrize("bad", ["", ".", ".."])
async def test_ids_that_would_climb(bad: str) -> None:
    control = Control()
    async with control.client() as client:
        with pytest.raises(ApiError) as caught:
            await client.delete_conference(bad)
    assert caught.value.type == "bad-id"
    assert control.method == ""


async def test_base_url_may_have_a_path() -> None:
    seen: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(204)

    client = ControlClient("https://x.example/causeway/", KEY, transport=httpx2.MockTransport(handle))
    async with client:
        await client.delete_conference("c-1")
    assert seen == ["https://x.example/causeway/v1/conferences/c-1"]
