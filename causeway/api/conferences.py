"""Conferences and joining them, as applications see both."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from causeway.api.base import Answer, ClusterId, ConferenceId, Region, Request
from causeway.api.streams import StreamView
from causeway.api.templates import Limit, TemplateName, Ttl

__all__ = [
    "ConferenceCreate",
    "ConferenceHead",
    "ConferenceList",
    "ConferencePatch",
    "ConferenceQuery",
    "ConferenceSummary",
    "ConferenceView",
    "LinkView",
    "Metadata",
    "ParticipantView",
    "PlacementView",
]

MetadataKey = Annotated[str, Meta(min_length=1, max_length=128)]
Metadata = Annotated[dict[MetadataKey, Any], Meta(max_length=64)]
"""What the application wants to know of its conference; any JSON. The whole is limited in size, too."""
State = Literal["active", "ending"]


class ConferenceCreate(Request, frozen=True, kw_only=True):
    """`POST /v1/conferences`; without an id one is generated. None: as the template (`type`) says."""

    id: ConferenceId | None = None
    type: TemplateName | None = None
    """Name of the template, whose newest version the conference keeps for life. None: `default`."""
    metadata: Metadata | None = None
    locked: bool | None = None
    """Nobody new is let in. None: not locked."""
    participant_limit: Limit | None = None
    """Participants at once; not more than the template allows. -1: any number."""
    empty_ttl: Ttl | None = None
    """Seconds without participants after which the conference ends; -1: never."""

    def __post_init__(self) -> None:
        """Refuse limits of 0."""
        _not_zero(self.participant_limit, self.empty_ttl)


class ConferencePatch(Request, frozen=True, kw_only=True):
    """`PATCH /v1/conferences/{id}`, a JSON merge patch (RFC 7396): what is left out stays as it is.

    None (null): back to what the template says; for `metadata`, and for a key in it: taken away.
    """

    metadata: dict[MetadataKey, Any] | UnsetType | None = UNSET
    locked: bool | UnsetType = UNSET
    participant_limit: Limit | UnsetType | None = UNSET
    empty_ttl: Ttl | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        """Refuse limits of 0."""
        _not_zero(self.participant_limit, self.empty_ttl)


class ConferenceQuery(Request, frozen=True, kw_only=True):
    """`GET /v1/conferences?…`: conferences for which all of it is true, oldest first."""

    state: State | None = None
    type: TemplateName | None = None
    cluster: ClusterId | None = None
    """Placed on this cluster."""
    region: Region | None = None
    """Placed on a cluster of this region."""
    metadata: Annotated[dict[str, str], Meta(max_length=16)] = field(default_factory=dict)
    """`metadata.<key>=<value>`: has this text, number, true, false or null under this key."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Conferences on a page."""
    cursor: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    """`next` of the page before."""


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


class ConferenceHead(Answer, frozen=True, kw_only=True):
    """What a conference is, without what serves it."""

    id: str
    type: str
    template_version: int
    """The version of the template that every room of the conference has."""
    state: State
    created_at: datetime
    metadata: dict[str, Any]
    locked: bool
    participant_limit: int
    """In force: its own, or its template's; -1: any number."""
    empty_ttl: int
    """In force, in seconds; -1: never."""
    empty_since: datetime | None
    """None: somebody is in it."""
    expires_at: datetime | None
    """When it ends if nobody joins; None: not as things are."""


class ConferenceSummary(ConferenceHead, frozen=True, kw_only=True):
    """A conference in a list."""

    clusters: list[str]
    """Where it is placed, in the order of joining."""
    participants: int


class ConferenceView(ConferenceHead, frozen=True, kw_only=True):
    """A conference with everything that serves it. Its ETag is of what PATCH can change."""

    placements: list[PlacementView]
    links: list[LinkView]
    participants: list[ParticipantView]
    streams: list[StreamView] = field(default_factory=list)
    """What is published, on the clusters that report it."""


class ConferenceList(Answer, frozen=True, kw_only=True):
    """One page of conferences."""

    conferences: list[ConferenceSummary]
    next: str | None
    """`cursor` of the page after this one; None: this is the last one."""


def _not_zero(participant_limit: object, empty_ttl: object) -> None:
    if participant_limit == 0:
        raise ValueError("participant_limit: 0 would let nobody in; -1 means any number")
    if empty_ttl == 0:
        raise ValueError("empty_ttl: must be at least 1 second, or -1 for never")
