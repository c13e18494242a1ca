"""Joining a conference: where the client is, where it is sent, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, field

from causeway.api.base import Answer, ConferenceId, Region, Request, Role, User
from causeway.api.clusters import Location
from causeway.api.templates import TemplateName

__all__ = [
    "DecisionList",
    "DecisionView",
    "ExplainQuery",
    "JoinAnswer",
    "JoinByIdRequest",
    "JoinRequest",
    "RejectionView",
    "ScoreView",
]

Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Placed = Literal["region", "group", "distance", "any"]


class Hints(Request, frozen=True, kw_only=True):
    """Where the client is, as far as the caller knows. Without any, a trusted proxy's country may tell."""

    region: Region | None = None
    location: Location | None = None
    latencies: Annotated[dict[Region, Milliseconds], Meta(max_length=64)] = field(default_factory=dict)
    """Measured by the client against the ping URLs of `GET /v1/regions`."""


class JoinRequest(Hints, frozen=True, kw_only=True):
    """`POST /v1/conferences/{id}/join`: where shall this user go."""

    user: User
    role: Role = "presenter"


class JoinByIdRequest(Hints, frozen=True, kw_only=True):
    """`POST /v1/join`: the same, and the conference is made if there is none of that id."""

    id: ConferenceId
    type: TemplateName | None = None
    """Name of the template for a conference that is made; None: `default`."""
    user: User | None = None
    """None: a name is made up."""
    role: Role = "presenter"


class ExplainQuery(Request, frozen=True, kw_only=True):
    """`?explain=true` adds the decision to the answer of a join."""

    explain: bool = False


class ScoreView(Answer, frozen=True, kw_only=True):
    """A cluster that could have been taken: its weighted points, and what each scorer gave of them."""

    cluster: str
    total: float
    points: dict[str, float]


class RejectionView(Answer, frozen=True, kw_only=True):
    """`count` clusters that a filter left out for the same reason; `clusters` names the first of them."""

    filter: str
    reason: str
    count: int
    clusters: list[str]


class DecisionView(Answer, frozen=True, kw_only=True):
    """Why a client was sent where it was sent."""

    cluster: str | None
    """Who was taken; None: nobody could be."""
    placed: Placed
    policy: str
    home: str | None
    """The client's region, if known."""
    considered: int
    """Clusters there were."""
    scores: list[ScoreView]
    """Those compared at the end, the taken one first; at most 8."""
    rejections: list[RejectionView]
    suspect: bool
    """Taken although its heartbeat was overdue, for want of another one."""
    user: str
    at: datetime | None = None


class DecisionList(Answer, frozen=True, kw_only=True):
    """`GET /v1/conferences/{id}/decisions`: the newest ones, newest first."""

    decisions: list[DecisionView]


class JoinAnswer(Answer, frozen=True, kw_only=True):
    """Where to connect (`ip`, `port` of the cluster's portal) and the token to show there, once."""

    conference: str
    cluster: str
    region: str
    placed: Placed
    """In the client's region; in one of the same group; the nearest by distance or latency; any."""
    ip: str
    port: int
    secure: bool
    room: str
    token: str
    expires_at: datetime | None = None
    """When the token ends, where the cluster tells."""
    events: str | None = None
    """Where the client reads what happens in the conference (docs/events.md); the URL has a token in it."""
    decision: DecisionView | None = None
    """With `?explain=true`."""
