"""What happens in conferences: events, and a conference at some time.

Events of a conference are numbered from 1 without gaps (`seq`), over its whole life and those of later
conferences with the same id. docs/events.md lists the kinds and what their bodies hold; readers skip kinds
and fields that they do not know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from causeway.api.base import NAME, Answer, ConferenceId, Request
from causeway.api.conferences import ParticipantView
from causeway.api.streams import StreamView

__all__ = [
    "EVENT_KINDS",
    "SNAPSHOT",
    "ConferenceEvent",
    "ConferenceState",
    "EventPage",
    "EventQuery",
    "EventsClaims",
    "EventsHeader",
    "HistoryQuery",
    "LinkStanding",
    "PlacementStanding",
]

EVENT_KINDS: Final = (
    "conference.created",
    "conference.changed",
    "conference.ending",
    "conference.ended",
    "placement.wanted",
    "placement.ready",
    "placement.lost",
    "placement.removed",
    "participant.joined",
    "participant.left",
    "participant.moved",
    "stream.added",
    "stream.changed",
    "stream.removed",
    "link.wanted",
    "link.requested",
    "link.up",
    "link.down",
    "link.removed",
)

SNAPSHOT: Final = "snapshot"
"""Name of the event of a stream that carries a whole ConferenceState: what a reader knew before is void."""

Seq = Annotated[int, Meta(ge=0, le=2**63 - 1)]


# --- events -----------------------------------------------------------------------------------


class ConferenceEvent(Answer, frozen=True, kw_only=True):
    """Something that has happened, and is committed."""

    id: str
    """The same wherever and however often the event is told."""
    conference: str
    seq: int
    at: datetime
    kind: str
    body: dict[str, Any]


class EventPage(Answer, frozen=True, kw_only=True):
    """`GET /v1/conferences/{id}/events` as JSON."""

    events: list[ConferenceEvent]
    next: int
    """`after` of the page after this one."""
    more: bool
    """There are more right now."""


class EventQuery(Request, frozen=True, kw_only=True):
    """`GET /v1/conferences/{id}/events?…`."""

    after: Seq | None = None
    """Only events after this number. Streams: without it, a snapshot comes first."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Events on a page; means nothing to streams."""
    token: Annotated[str, Meta(max_length=2048)] | None = None
    """The token of the URL that a join answers as `events`; for clients that can set no header."""


# --- a conference at some time ----------------------------------------------------------------


class PlacementStanding(Answer, frozen=True, kw_only=True):
    """A conference on a cluster, at that time."""

    cluster: str
    region: str | None
    ordinal: int
    state: str
    since: datetime


class LinkStanding(Answer, frozen=True, kw_only=True):
    """A cascade, at that time."""

    dialer: str
    listener: str
    state: str
    since: datetime


class ConferenceState(Answer, frozen=True, kw_only=True):
    """A conference as it was after event `seq`, who was where, and what served it."""

    conference: str
    seq: int
    at: datetime
    """When that event happened."""
    state: Literal["active", "ending", "ended"]
    type: str
    template_version: int
    metadata: dict[str, Any]
    """Empty for readers with an events token: it is the application's."""
    locked: bool
    participant_limit: int
    empty_ttl: int
    placements: list[PlacementStanding]
    links: list[LinkStanding]
    participants: list[ParticipantView]
    streams: list[StreamView]


class HistoryQuery(Request, frozen=True, kw_only=True):
    """`GET /v1/conferences/{id}/history?at=`."""

    at: datetime | None = None
    """With its offset from UTC. None: now."""


# --- the token of an event stream -------------------------------------------------------------


class EventsHeader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protected header. Its `typ` tells it from a join token."""

    alg: Literal["EdDSA"] = "EdDSA"
    kid: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
    typ: Literal["causeway-events+jwt"] = "causeway-events+jwt"


class EventsClaims(Struct, frozen=True, kw_only=True):
    """Whoever has this may read the events of that conference until `exp`."""

    iss: Annotated[str, Meta(min_length=1, max_length=256)]
    conference: ConferenceId
    iat: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    """Seconds since 1970, as `exp`."""
    exp: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    jti: Annotated[str, Meta(pattern=NAME, max_length=64)]
