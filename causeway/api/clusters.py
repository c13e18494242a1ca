"""Clusters: registration, lease, reports, and what operators see of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from causeway.api.base import (
    NAME,
    Answer,
    Fingerprint,
    Host,
    HttpUrl,
    Port,
    Region,
    Request,
    Role,
    Secret,
    User,
)

__all__ = [
    "BridgeAddress",
    "ClusterList",
    "ClusterRegistration",
    "ClusterView",
    "Heartbeat",
    "Lease",
    "LinkReport",
    "Load",
    "ParticipantReport",
    "RoomReport",
]


class BridgeAddress(Request, frozen=True, kw_only=True):
    """Where a bridge listens for QUIC, and the certificate it must show (None: trusted some other way)."""

    host: Host
    port: Port
    fingerprint: Fingerprint | None = None


class ClusterRegistration(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}`: this deployment serves that region. Idempotent."""

    region: Region
    rest_url: HttpUrl
    """Base of the management API, without `/v1`."""
    service_id: Annotated[str, Meta(min_length=1, max_length=256)]
    service_key: Secret
    instance: Annotated[str, Meta(pattern=NAME, max_length=64)]
    """Drawn anew each time the cluster starts: a changed instance means that its rooms are gone."""
    driver: Literal["owt"] = "owt"
    event_bridge: BridgeAddress | None = None
    media_bridge: BridgeAddress | None = None


class Lease(Answer, frozen=True, kw_only=True):
    """A registration holds until `ttl` seconds after the last heartbeat; reports carry its `epoch`."""

    cluster: str
    epoch: int
    ttl: float
    heartbeat_interval: float
    """How often to beat, in seconds: a third of the ttl, so that two lost beats do no harm."""


class Load(Request, frozen=True, kw_only=True):
    """How busy a cluster is. `cpu` is the busy share of its machines, 0 to 1."""

    participants: Annotated[int, Meta(ge=0)] = 0
    streams: Annotated[int, Meta(ge=0)] = 0
    cpu: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Heartbeat(Request, frozen=True, kw_only=True):
    """`POST /v1/clusters/{id}/heartbeat`: still here. The answer is the renewed Lease."""

    load: Load = Load()


class RoomReport(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}`: a room exists; bridges of other clusters must present `token`."""

    token: Secret


class ParticipantReport(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}/participants/{participant}`: a client has really joined here."""

    user: User
    role: Role


class LinkReport(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}/links/{peer}`: what this cluster sees of its cascade to `peer`."""

    state: Literal["up", "down"]


class ClusterView(Answer, frozen=True, kw_only=True):
    """A cluster as the registry sees it."""

    id: str
    region: str
    driver: str
    state: Literal["online", "lost", "unregistered"]
    rest_url: str
    modules: list[str]
    load: Load
    epoch: int
    last_seen_at: datetime
    lease_expires_at: datetime
    event_bridge: BridgeAddress | None = None
    media_bridge: BridgeAddress | None = None


class ClusterList(Answer, frozen=True, kw_only=True):
    """`GET /v1/clusters`, ordered by id."""

    clusters: list[ClusterView]
