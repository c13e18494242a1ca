"""Conferences and joining them, as applications see both."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from causeway.api.base import Answer, ConferenceId, Region, Request, Role, User

__all__ = [
    "ConferenceCreate",
    "ConferenceList",
    "ConferenceView",
    "JoinAnswer",
    "JoinRequest",
    "LinkView",
    "ParticipantView",
    "PlacementView",
]


class ConferenceCreate(Request, frozen=True, kw_only=True):
    """`POST /v1/conferences`; without an id one is generated."""

    id: ConferenceId | None = None


class PlacementView(Answer, frozen=True, kw_only=True):
    """A conference on a cluster; `ordinal` counts from 1 in the order of joining the conference."""

    cluster: str
    region: str
    ordinal: int
    state: Literal["wanted", "ready", "lost"]
    room: str | None
    participants: int


class LinkView(Answer, frozen=True, kw_only=True):
    """A cascade: the later placement's cluster dials, the earlier one's listens."""

    dialer: str
    listener: str
    state: Literal["wanted", "requested", "up", "down"]
    since: datetime
    attempts: int
    error: str | None


class ParticipantView(Answer, frozen=True, kw_only=True):
    """Somebody who has really joined, on the cluster that reported it."""

    id: str
    user: str
    role: str
    cluster: str
    joined_at: datetime


class ConferenceView(Answer, frozen=True, kw_only=True):
    """A conference with everything that serves it."""

    id: str
    state: Literal["active", "ending"]
    created_at: datetime
    placements: list[PlacementView]
    links: list[LinkView]
    participants: list[ParticipantView]


class ConferenceList(Answer, frozen=True, kw_only=True):
    """`GET /v1/conferences`: the ids of the active ones, oldest first, at most 1,000."""

    conferences: list[str]


class JoinRequest(Request, frozen=True, kw_only=True):
    """`POST /v1/conferences/{id}/join`: where shall this user go."""

    user: User
    role: Role = "presenter"
    region: Region | None = None
    """Where the user is; without it the least loaded cluster of all is taken."""


class JoinAnswer(Answer, frozen=True, kw_only=True):
    """Where to connect (`ip`, `port` of the cluster's portal) and the token to show there, once."""

    conference: str
    cluster: str
    region: str
    ip: str
    port: int
    secure: bool
    room: str
    token: str
