from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
from msgspec import structs
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from causeway.api import (
    AuditList,
    BlockRequest,
    BridgeAddress,
    Capacity,
    ClusterList,
    ClusterPatch,
    ClusterRegistration,
    ClusterView,
    ConferenceList,
    ConferencePatch,
    ConferenceView,
    DecisionList,
    DrainRequest,
    JoinAnswer,
    JoinByIdRequest,
    JoinRequest,
    KeyCreate,
    KeyCreated,
    KeyList,
    KeyView,
    Lease,
    Limits,
    Load,
    ParticipantReport,
    Problem,
    RegionList,
    RegionView,
    RoomReport,
    StreamReport,
    Template,
    TemplateList,
    TemplateView,
    Track,
)
from causeway.api.tokens import SigningKeyList, SigningKeyView
from causeway.client import ControlClient
from causeway.errors import ApiError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

KEY = "cw_operator_1_hush"
MOMENT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

LEASE = Lease(cluster="eu-1", epoch=7, ttl=9.0, heartbeat_interval=3.0)
CLUSTER = ClusterView(
    id="eu-1",
    region="eu",
    driver="owt",
    state="online",
    state_since=MOMENT,
    state_reason="registered",
    rest_url="http://192.0.2.1:3000",
    instance="d-1",
    modules=["portal"],
    capacity={"portal": Capacity()},
    load=Load(participants=2),
    limits=Limits(participants=500),
    labels={"tier": "gold"},
    cost=0.0,
    ping_url=None,
    location=None,
    epoch=7,
    probed=False,
    last_seen_at=MOMENT,
    lease_expires_at=MOMENT,
    event_bridge=BridgeAddress(host="192.0.2.1", port=7700, fingerprint="ab" * 32),
)
CONFERENCE = ConferenceView(
    id="c-1",
    type="default",
    template_version=1,
    state="active",
    created_at=MOMENT,
    metadata={"room": "blue"},
    locked=False,
    participant_limit=-1,
    empty_ttl=86_400,
    empty_since=MOMENT,
    expires_at=MOMENT,
    placements=[],
    links=[],
    participants=[],
)
PAGE = ConferenceList(conferences=[], next="abc")
JOINED = JoinAnswer(
    conference="c-1",
    cluster="eu-1",
    region="eu",
    placed="region",
    ip="192.0.2.1",
    port=8080,
    secure=False,
    room="c-1",
    token="t",
)
TEMPLATE = TemplateView(
    name="talk", version=2, created_at=MOMENT, retired_at=None, conferences=3, template=Template()
)
KEY_VIEW = KeyView(
    id="0123456789ab",
    kind="application",
    name="shop",
    scopes=["join"],
    created_at=MOMENT,
    created_by=None,
    last_used_at=None,
    revoked_at=None,
)
CREATED = KeyCreated(**structs.asdict(KEY_VIEW), key="cw_application_0123456789ab_x")
AUDIT = AuditList(entries=[], next=None)
REGION = RegionView(name="eu", groups=[], location=None, ping_urls=[], clusters=1)
SIGNING = SigningKeyView(kid="k", state="active", created_at=MOMENT, active_from=MOMENT)
REGISTRATION = ClusterRegistration(
    region="eu",
    rest_url="http://192.0.2.1:3000",
    service_id="s",
    service_key="k",
    instance="d-1",
    incarnation="i-1",
)


@dataclass
class Control:
    """A control that answers what it is told and remembers what it was asked."""

    status: int = 204
    body: bytes = b""
    media_type: str = "application/json"
    method: str = ""
    path: str = ""
    headers: Any = None
    sent: Any = None

    async def handle(self, request: Request) -> Response:
        self.method = request.method
        self.path = request.scope["raw_path"].decode()
        self.headers = request.headers
        body = await request.body()
        self.sent = json.loads(body) if body else None
        return Response(self.body, status_code=self.status, media_type=self.media_type)

    def client(self, **options: Any) -> ControlClient:
        methods = ["GET", "PUT", "POST", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self.handle, methods=methods)])
        return ControlClient(
            "http://control.example/", KEY, transport=httpx2.ASGITransport(app=app), **options
        )

    def answers(self, answer: msgspec.Struct, status: int = 200) -> Control:
        self.status, self.body = status, msgspec.json.encode(answer)
        return self


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


# --- refusals ---------------------------------------------------------------------------------


async def test_problem() -> None:
    problem = Problem(type="stale-epoch", title="Stale epoch", status=409, detail="epoch 6 is over")
    async with Control().answers(problem, 409).client() as client:
        with pytest.raises(ApiError) as caught:
            await client.heartbeat("eu-1", epoch=6)
    error = caught.value
    assert (error.status, error.type, error.detail) == (409, "stale-epoch", "epoch 6 is over")


async def test_problem_without_detail_has_its_title() -> None:
    problem = Problem(type="cluster-unknown", title="No such cluster", status=404)
    async with Control().answers(problem, 404).client() as client:
        with pytest.raises(ApiError, match="No such cluster"):
            await client.get_cluster("eu-1")


@pytest.mark.parametrize(
    ("status", "type_"),
    [(502, "bad-gateway"), (302, "found"), (404, "not-found"), (499, "unknown-status")],
)
@pytest.mark.parametrize("body", [b"", b"<html>proxy</html>", b"[]", b"\xff"])
async def test_answer_that_is_no_problem_is_named_after_its_status(
    status: int, type_: str, body: bytes
) -> None:
    async with Control(status=status, body=body).client() as client:
        with pytest.raises(ApiError) as caught:
            await client.list_clusters()
    assert (caught.value.status, caught.value.type) == (status, type_)


# --- trouble ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b"\xff", b'{"token": "hush"}'])
async def test_answer_that_is_not_controls(body: bytes) -> None:
    async with Control(status=200, body=body).client() as client:
        with pytest.raises(UnavailableError) as caught:
            await client.join("c-1", JoinRequest(user="alice"))
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_answer_that_is_too_large() -> None:
    async with Control(status=200, body=b"x" * 5000).client(max_answer_bytes=4096) as client:
        with pytest.raises(UnavailableError, match="4096"):
            await client.list_conferences()


async def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with ControlClient(f"http://127.0.0.1:{bound.getsockname()[1]}", KEY) as client:
            with pytest.raises(UnavailableError, match="reached") as caught:
                await client.list_conferences()
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""
    closing = asyncio.Event()

    async def stay(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        closing.set()


async def test_no_answer_in_time(mute: str) -> None:
    async with ControlClient(mute, KEY, timeout=0.1) as client:
        with pytest.raises(UnavailableError, match=r"within 0\.1 s"):
            await client.list_conferences()


async def test_answer_that_drips_is_limited_as_a_whole() -> None:
    async def drip(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"["
            await asyncio.Event().wait()

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/{path:path}", drip)])
    transport = httpx2.ASGITransport(app=app)
    async with ControlClient("http://control.example", KEY, timeout=0.1, transport=transport) as client:
        with pytest.raises(UnavailableError, match="within"):
            await client.list_conferences()


async def test_cancelled_call_is_cancelled(mute: str) -> None:
    async with ControlClient(mute, KEY) as client:
        call = asyncio.ensure_future(client.list_conferences())
        await asyncio.wait([call], timeout=0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closed_client() -> None:
    client = Control().client()
    await client.close()
    with pytest.raises(UnavailableError, match="closed"):
        await client.list_conferences()


@pytest.mark.parametrize("url", ["", "control.example", "ftp://control.example", "http://", "http://[::1"])
def test_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        ControlClient(url, KEY)


@pytest.mark.parametrize("key", ["", "hush hush", "hush\r\nX: y", "hüsh"])
def test_key_that_is_none_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="key") as caught:
        ControlClient("http://control.example", key)
    assert "sh" not in str(caught.value).removeprefix("control's key must be printable ASCII")


async def test_key_is_in_no_representation() -> None:
    async with ControlClient("http://control.example", KEY) as client:
        assert KEY not in repr(client)
