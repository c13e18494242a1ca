"""A control that answers what it is told, and the answers that tests of the client need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
from msgspec import structs
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from causeway.api import (
    AuditList,
    BridgeAddress,
    Capacity,
    ClusterRegistration,
    ClusterView,
    ConferenceList,
    ConferenceView,
    JoinAnswer,
    KeyCreated,
    KeyView,
    Lease,
    Limits,
    Load,
    RegionView,
    Template,
    TemplateView,
)
from causeway.api.tokens import SigningKeyView
from causeway.client import ControlClient

if TYPE_CHECKING:
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
