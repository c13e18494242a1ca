"""Control's HTTP API as types: what crosses `/v1`, for the server, the client library and the clusters.

Requests refuse unknown fields; answers may grow. Names are those of docs/api.md. Times are RFC 3339 in UTC,
durations are seconds, fingerprints are SHA-256 over the DER certificate in lower-case hex.
Reports of a cluster carry the epoch of its lease in the header `Causeway-Epoch` (EPOCH_HEADER): a former
holder of the registration is recognised by it and refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "EPOCH_HEADER",
    "BridgeAddress",
    "ClusterId",
    "ClusterList",
    "ClusterRegistration",
    "ClusterView",
    "ConferenceCreate",
    "ConferenceId",
    "ConferenceList",
    "ConferenceView",
    "Heartbeat",
    "JoinAnswer",
    "JoinRequest",
    "Lease",
    "LinkReport",
    "LinkView",
    "Load",
    "Module",
    "ParticipantReport",
    "ParticipantView",
    "PlacementView",
    "Problem",
    "Region",
    "RoomReport",
]

EPOCH_HEADER: Final = "Causeway-Epoch"

# `$` alone would let one newline at the end through; this spelling is also valid in JSON Schema.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._~@:-]*$(?!\n)"
ClusterId = Annotated[str, Meta(pattern=_NAME, max_length=128)]
ConferenceId = Annotated[str, Meta(pattern=_NAME, max_length=128)]
Region = Annotated[str, Meta(pattern=_NAME, max_length=64)]
Module = Annotated[str, Meta(pattern=_NAME, max_length=64)]
User = Annotated[str, Meta(min_length=1, max_length=256)]
Role = Annotated[str, Meta(pattern=_NAME, max_length=64)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Host = Annotated[str, Meta(min_length=1, max_length=253)]
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Secret = Annotated[str, Meta(min_length=1, max_length=512)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s]+$(?!\n)", max_length=2048)]


class _Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody sends us."""


class _Answer(Struct, frozen=True, kw_only=True):
    """What we answer; a client ignores fields that it does not know."""


# --- clusters ---------------------------------------------------------------------------------


class BridgeAddress(_Request, frozen=True, kw_only=True):
    """Where a bridge listens for QUIC, and the certificate it must show (None: trusted some other way)."""

    host: Host
    port: Port
    fingerprint: Fingerprint | None = None


class ClusterRegistration(_Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}`: this deployment serves that region. Idempotent."""

    region: Region
    rest_url: HttpUrl
    """Base of the management API, without `/v1`."""
    service_id: Annotated[str, Meta(min_length=1, max_length=256)]
    service_key: Secret
    instance: Annotated[str, Meta(pattern=_NAME, max_length=64)]
    """Drawn anew each time the cluster starts: a changed instance means that its rooms are gone."""
    driver: Literal["owt"] = "owt"
    event_bridge: BridgeAddress | None = None
    media_bridge: BridgeAddress | None = None


class Lease(_Answer, frozen=True, kw_only=True):
    """A registration holds until `ttl` seconds after the last heartbeat; reports carry its `epoch`."""

    cluster: str
    epoch: int
    ttl: float
    heartbeat_interval: float
    """How often to beat, in seconds: a third of the ttl, so that two lost beats do no harm."""


class Load(_Request, frozen=True, kw_only=True):
    """How busy a cluster is. `cpu` is the busy share of its machines, 0 to 1."""

    participants: Annotated[int, Meta(ge=0)] = 0
    streams: Annotated[int, Meta(ge=0)] = 0
    cpu: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Heartbeat(_Request, frozen=True, kw_only=True):
    """`POST /v1/clusters/{id}/heartbeat`: still here. The answer is the renewed Lease."""

    load: Load = Load()


class RoomReport(_Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}`: a room exists; bridges of other clusters must present `token`."""

    token: Secret


class ParticipantReport(_Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}/participants/{participant}`: a client has really joined here."""

    user: User
    role: Role


class LinkReport(_Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}/links/{peer}`: what this cluster sees of its cascade to `peer`."""

    state: Literal["up", "down"]


class ClusterView(_Answer, frozen=True, kw_only=True):
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


class ClusterList(_Answer, frozen=True, kw_only=True):
    """`GET /v1/clusters`, ordered by id."""

    clusters: list[ClusterView]


# --- conferences ------------------------------------------------------------------------------


class ConferenceCreate(_Request, frozen=True, kw_only=True):
    """`POST /v1/conferences`; without an id one is generated."""

    id: ConferenceId | None = None


class PlacementView(_Answer, frozen=True, kw_only=True):
    """A conference on a cluster; `ordinal` counts from 1 in the order of joining the conference."""

    cluster: str
    region: str
    ordinal: int
    state: Literal["wanted", "ready", "lost"]
    room: str | None
    participants: int


class LinkView(_Answer, frozen=True, kw_only=True):
    """A cascade: the later placement's cluster dials, the earlier one's listens."""

    dialer: str
    listener: str
    state: Literal["wanted", "requested", "up", "down"]
    since: datetime
    attempts: int
    error: str | None


class ParticipantView(_Answer, frozen=True, kw_only=True):
    """Somebody who has really joined, on the cluster that reported it."""

    id: str
    user: str
    role: str
    cluster: str
    joined_at: datetime


class ConferenceView(_Answer, frozen=True, kw_only=True):
    """A conference with everything that serves it."""

    id: str
    state: Literal["active", "ending"]
    created_at: datetime
    placements: list[PlacementView]
    links: list[LinkView]
    participants: list[ParticipantView]


class ConferenceList(_Answer, frozen=True, kw_only=True):
    """`GET /v1/conferences`: the ids of the active ones, oldest first, at most 1,000."""

    conferences: list[str]


class JoinRequest(_Request, frozen=True, kw_only=True):
    """`POST /v1/conferences/{id}/join`: where shall this user go."""

    user: User
    role: Role = "presenter"
    region: Region | None = None
    """Where the user is; without it the least loaded cluster of all is taken."""


class JoinAnswer(_Answer, frozen=True, kw_only=True):
    """Where to connect (`ip`, `port` of the cluster's portal) and the token to show there, once."""

    conference: str
    cluster: str
    region: str
    ip: str
    port: int
    secure: bool
    room: str
    token: str


# --- errors -----------------------------------------------------------------------------------


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem document (`application/problem+json`). `type` is stable: docs/errors.md lists all."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
