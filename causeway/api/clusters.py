"""Clusters: registration, lease, reports, and what operators see of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, field

from causeway.api.base import (
    NAME,
    Answer,
    Fingerprint,
    Host,
    HttpUrl,
    Module,
    Port,
    Region,
    Request,
    Role,
    Secret,
    User,
)

__all__ = [
    "AuditEntry",
    "AuditList",
    "BlockRequest",
    "BlockView",
    "BreakerView",
    "BridgeAddress",
    "Capacity",
    "ClusterList",
    "ClusterPatch",
    "ClusterRegistration",
    "ClusterState",
    "ClusterView",
    "DrainRequest",
    "DrainView",
    "Heartbeat",
    "Lease",
    "Limits",
    "LinkReport",
    "Load",
    "Location",
    "MissingRoom",
    "ParticipantReport",
    "PortalAddress",
    "RoomReport",
]


_INT32 = 2**31 - 1
Bits = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Bit/s."""
Share = Annotated[float, Meta(ge=0, le=1)]
Cost = Annotated[float, Meta(ge=0, le=1e9)]
Drawn = Annotated[str, Meta(pattern=NAME, max_length=64)]
Reason = Annotated[str, Meta(max_length=500)]
LabelKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$(?!\n)")]
Labels = Annotated[dict[LabelKey, Annotated[str, Meta(max_length=128)]], Meta(max_length=32)]
"""At most 32, free texts."""
Driver = Literal["owt", "causeway", "openvidu"]
ClusterState: TypeAlias = Literal["online", "suspect", "lost", "draining", "unregistered"]
"""`suspect`: a heartbeat is overdue, the lease still holds. `draining`: online, and gets nothing new."""


class BridgeAddress(Request, frozen=True, kw_only=True):
    """Where a bridge listens for QUIC, and the certificate it must show (None: trusted some other way)."""

    host: Host
    port: Port
    fingerprint: Fingerprint | None = None


class PortalAddress(Request, frozen=True, kw_only=True):
    """Where clients connect."""

    host: Host
    port: Port
    secure: bool = True


class Limits(Request, frozen=True, kw_only=True):
    """What a cluster is given at most; None: no limit. Bandwidths in bit/s."""

    participants: Annotated[int, Meta(ge=0, le=_INT32)] | None = None
    conferences: Annotated[int, Meta(ge=0, le=_INT32)] | None = None
    bandwidth_in: Bits | None = None
    bandwidth_out: Bits | None = None


class Location(Request, frozen=True, kw_only=True):
    """A point on Earth, in degrees."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class ClusterRegistration(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}`: this deployment serves that region. Idempotent.

    `limits`, `labels`, `cost`, `ping_url`, `location`: what is left out stays as it is, so that operators can
    set it (ClusterPatch) for clusters that know nothing of it.
    """

    region: Region
    rest_url: HttpUrl
    """Base of the management API, without `/v1`."""
    service_id: Annotated[str, Meta(min_length=1, max_length=256)]
    service_key: Secret
    instance: Drawn
    """Which deployment this is, drawn once for it: two that claim one id are told apart by it."""
    incarnation: Drawn
    """Which start of the deployment, drawn anew each time: a changed one means that its rooms are gone."""
    driver: Driver = "owt"
    probe: bool = False
    """It sends no heartbeat: control asks it for signs of life instead. Always so with driver `openvidu`."""
    event_bridge: BridgeAddress | None = None
    media_bridge: BridgeAddress | None = None
    portal: PortalAddress | None = None
    """Where clients connect; needed with driver `causeway`, others say it in their tokens."""
    limits: Limits | None = None
    labels: Labels | None = None
    cost: Cost | None = None
    ping_url: HttpUrl | None = None
    """Clients measure their distance to the cluster's region with it."""
    location: Location | None = None

    def __post_init__(self) -> None:
        """Check what the kind of cluster needs; raises ValueError."""
        if self.driver == "causeway" and self.portal is None:
            raise ValueError("portal: needed with driver causeway, as control signs the tokens for it")
        if self.driver == "openvidu" and (self.event_bridge or self.media_bridge):
            raise ValueError("event_bridge, media_bridge: an OpenVidu cluster has none")


class ClusterPatch(Request, frozen=True, kw_only=True):
    """`PATCH /v1/clusters/{id}` by an operator; what is left out stays, labels are replaced whole."""

    limits: Limits | None = None
    labels: Labels | None = None
    cost: Cost | None = None
    ping_url: HttpUrl | None = None
    location: Location | None = None


class Lease(Answer, frozen=True, kw_only=True):
    """A registration holds until `ttl` seconds after the last heartbeat; reports carry its `epoch`."""

    cluster: str
    epoch: int
    ttl: float
    heartbeat_interval: float
    """How often to beat, in seconds: a third of the ttl, so that two lost beats do no harm."""


class Load(Request, frozen=True, kw_only=True):
    """How busy a cluster is. `cpu` is the busy share of its machines, 0 to 1; bandwidths in bit/s."""

    participants: Annotated[int, Meta(ge=0, le=_INT32)] = 0
    streams: Annotated[int, Meta(ge=0, le=_INT32)] = 0
    cpu: Share = 0.0
    bandwidth_in: Bits = 0
    bandwidth_out: Bits = 0
    modules: Annotated[dict[Module, Share], Meta(max_length=64)] = field(default_factory=dict)
    """How busy each module is."""


class Capacity(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/capacity/{module}`: so many workers, which carry `limit` together."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Meta(ge=0, le=_INT32)] | None = None
    """In the module's own unit; None: not known."""


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


class MissingRoom(Request, frozen=True, kw_only=True):
    """`POST /v1/clusters/{id}/rooms/{room}/missing`: a signed token was for a room that is not there."""

    placement: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """As in the token."""


class DrainRequest(Request, frozen=True, kw_only=True):
    """`POST /v1/clusters/{id}/drain`: no new placements there."""

    deadline: datetime | None = None
    """When what is still there is to be moved away; with its offset from UTC."""
    reason: Reason = ""


class DrainView(Answer, frozen=True, kw_only=True):
    """How far a drain has come. `progress` is `done` when nothing is left, `overdue` after the deadline."""

    progress: Literal["running", "overdue", "done"]
    since: datetime
    deadline: datetime | None
    reason: str
    participants: int
    """Left there, as reported."""
    conferences: int


class BlockRequest(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/block`: no new clients there at all, not even for conferences that it serves."""

    reason: Reason = ""


class BlockView(Answer, frozen=True, kw_only=True):
    """An operator's block."""

    since: datetime
    reason: str


class BreakerView(Answer, frozen=True, kw_only=True):
    """How the replica that answers gets on with a cluster that has failed it of late.

    `open`: it is left alone until `retry_at`; `half-open`: one action is tried.
    """

    state: Literal["closed", "open", "half-open"]
    since: datetime | None
    """None: it has always been so."""
    failures: int
    """In a row."""
    error: str | None
    retry_at: datetime | None


class ClusterView(Answer, frozen=True, kw_only=True):
    """A cluster as the registry sees it."""

    id: str
    region: str
    driver: str
    state: ClusterState
    state_since: datetime
    state_reason: str
    rest_url: str
    instance: str
    modules: list[str]
    capacity: dict[str, Capacity]
    load: Load
    limits: Limits
    labels: dict[str, str]
    cost: float
    ping_url: str | None
    location: Location | None
    epoch: int
    probed: bool
    """It sends no heartbeat; control asks it instead."""
    last_seen_at: datetime
    lease_expires_at: datetime
    event_bridge: BridgeAddress | None = None
    media_bridge: BridgeAddress | None = None
    portal: PortalAddress | None = None
    drain: DrainView | None = None
    block: BlockView | None = None
    breaker: BreakerView | None = None
    """None: the replica that answers has nothing against it."""


class ClusterList(Answer, frozen=True, kw_only=True):
    """`GET /v1/clusters`, ordered by id."""

    clusters: list[ClusterView]


class AuditEntry(Answer, frozen=True, kw_only=True):
    """Who changed what. `actor` is `<kind of key>:<id of key>`, or `control`, or `local`.

    `subject` is `cluster:<id>` or `key:<id>`.
    """

    id: int
    at: datetime
    actor: str
    subject: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditList(Answer, frozen=True, kw_only=True):
    """`GET /v1/audit`, newest first; `next` is to be given as `before` for older ones."""

    entries: list[AuditEntry]
    next: int | None
