"""Agents: registration, and what operators see of them. What they say on their channel is causeway.channel.

A registration passes over fields and kinds that it does not know: an agent may be a release ahead of control.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, field

from causeway.api.base import NAME, Answer, ClusterId, Fingerprint, Host, Port, Region, Request
from causeway.api.figures import BridgeFigures

__all__ = [
    "RELAYING_WIRES",
    "AgentAddress",
    "AgentAddresses",
    "AgentCapacity",
    "AgentFigures",
    "AgentId",
    "AgentKind",
    "AgentLease",
    "AgentList",
    "AgentLoad",
    "AgentQuery",
    "AgentRefusal",
    "AgentRegistration",
    "AgentState",
    "AgentView",
    "ProtocolRange",
]

_INT32 = 2**31 - 1
AgentId = Annotated[str, Meta(pattern=NAME, max_length=128)]
AgentKind: TypeAlias = Literal["event", "media", "recorder"]
AgentState: TypeAlias = Literal["online", "draining", "lost", "unregistered"]
"""`draining`: online, and gets no new conferences. `lost`: its lease ran out."""
RELAYING_WIRES: Final = frozenset({"causeway/1"})
"""Those on which a bridge passes on what it receives, so that a conference may be a tree or a star."""
Kind = Annotated[str, Meta(pattern=NAME, max_length=32)]
Wire = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~/-]*$(?!\n)", max_length=64)]
Count = Annotated[int, Meta(ge=0, le=_INT32)]
Bits = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class _Tolerant(Request, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What an agent sends; it may know more than we do."""


class AgentAddress(_Tolerant, frozen=True, kw_only=True):
    """Where a bridge listens for QUIC, and the certificate it shows (None: trusted some other way)."""

    host: Host
    port: Port
    fingerprint: Fingerprint | None = None


class AgentAddresses(_Tolerant, frozen=True, kw_only=True):
    """Where the bridges of other clusters reach this agent, for each kind that listens."""

    event: AgentAddress | None = None
    media: AgentAddress | None = None


class AgentCapacity(_Tolerant, frozen=True, kw_only=True):
    """What an agent carries at most."""

    conferences: Count


class ProtocolRange(_Tolerant, frozen=True, kw_only=True):
    """The versions of the channel's messages that an agent speaks, both included."""

    min: Annotated[int, Meta(ge=1, le=_INT32)]
    max: Annotated[int, Meta(ge=1, le=_INT32)]

    def __post_init__(self) -> None:
        """Check the order; raises ValueError."""
        if self.min > self.max:
            raise ValueError("protocol: min is more than max")


class AgentLoad(_Tolerant, frozen=True, kw_only=True):
    """How busy an agent is. `cpu` is the busy share of its machine, 0 to 1; bandwidths in bit/s."""

    conferences: Count = 0
    links: Count = 0
    """That are up."""
    cpu: Annotated[float, Meta(ge=0, le=1)] = 0.0
    bandwidth_in: Bits = 0
    """From other clusters' bridges, since the heartbeat before."""
    bandwidth_out: Bits = 0
    """To them."""


class AgentRegistration(_Tolerant, frozen=True, kw_only=True):
    """`PUT /v1/agents/{id}`: this process serves that cluster. Idempotent; the cluster may come later."""

    cluster: ClusterId
    region: Region
    kinds: Annotated[list[Kind], Meta(min_length=1, max_length=16)]
    """AgentKind, or what a later release knows; those are kept and never assigned."""
    addresses: AgentAddresses = field(default_factory=AgentAddresses)
    wires: Annotated[list[Wire], Meta(max_length=16)] = field(default_factory=list)
    """What its bridges speak with those of other clusters, best first, as in QUIC's negotiation (ALPN)."""
    capacity: AgentCapacity
    version: Annotated[str, Meta(max_length=64)]
    """Of the software, for people."""
    protocol: ProtocolRange
    instance: Annotated[str, Meta(pattern=NAME, max_length=64)]
    """Which start of the process, drawn anew each time. A new one takes the place of the old one."""

    def __post_init__(self) -> None:
        """Check that bridges say where they are; raises ValueError."""
        for kind, address in (("event", self.addresses.event), ("media", self.addresses.media)):
            if kind in self.kinds and address is None:
                raise ValueError(f"addresses: an agent of kind {kind} says where its bridge listens")


class AgentLease(Answer, frozen=True, kw_only=True):
    """A registration holds until `ttl` seconds after the last heartbeat on the channel, or the last PUT."""

    agent: str
    epoch: int
    """To be said in the channel's first message."""
    ttl: float
    heartbeat_interval: float
    """How often to beat, in seconds: a third of the ttl."""
    protocol: int
    """The version of the messages to speak, the highest that both know."""
    channel: str
    """Path of the WebSocket, under the same base URL as the registration's."""


class AgentRefusal(Answer, frozen=True, kw_only=True):
    """What an agent said it cannot do."""

    conference: str
    peer: str | None
    reason: str


class AgentFigures(Answer, frozen=True, kw_only=True):
    """What an agent's bridges measured last. What is zero is left out; links: in the conferences' plans."""

    told_at: datetime
    bridges: list[BridgeFigures]


class AgentView(Answer, frozen=True, kw_only=True):
    """An agent as the registry sees it."""

    id: str
    cluster: str
    region: str
    kinds: list[str]
    state: AgentState
    state_since: datetime
    version: str
    protocol: int
    instance: str
    epoch: int
    addresses: AgentAddresses
    wires: list[str] = field(default_factory=list)
    capacity: AgentCapacity
    load: AgentLoad
    conferences: int
    """That are assigned to it."""
    connected: bool
    """It has a channel to one of the replicas."""
    last_seen_at: datetime
    lease_expires_at: datetime
    drain_since: datetime | None
    desired_version: int
    acked_version: int | None
    """What it acts on; None: it never said."""
    refused: list[AgentRefusal]
    """Of what `acked_version` asks."""
    figures: AgentFigures | None = None
    """Of `GET /v1/agents/{id}` only; None: it told none yet."""


class AgentQuery(Request, frozen=True, kw_only=True):
    """`GET /v1/agents?cluster=…`."""

    cluster: ClusterId | None = None


class AgentList(Answer, frozen=True, kw_only=True):
    """`GET /v1/agents`, ordered by cluster and id."""

    agents: list[AgentView]
