"""Webhooks: where applications have events of conferences sent to, and what became of each message."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, UnsetType, field

from causeway.api.base import Answer, HttpUrl, Request
from causeway.api.templates import TemplateName

__all__ = [
    "DeliveryList",
    "DeliveryState",
    "DeliveryView",
    "MessageId",
    "ReplayAnswer",
    "ReplayRequest",
    "WebhookCreate",
    "WebhookCreated",
    "WebhookEvent",
    "WebhookId",
    "WebhookList",
    "WebhookPatch",
    "WebhookRotate",
    "WebhookSecret",
    "WebhookTest",
    "WebhookView",
]

WebhookId = Annotated[str, Meta(pattern=r"^wh_[0-9a-f]{16}$(?!\n)")]
MessageId = Annotated[str, Meta(pattern=r"^msg_[0-9a-f]{32}$(?!\n)")]
"""The same in the header `webhook-id`; of one event, whichever webhooks it goes to, however often."""

WebhookEvent = Literal[
    "conference.*",
    "conference.created",
    "conference.changed",
    "conference.ending",
    "conference.ended",
    "placement.*",
    "placement.wanted",
    "placement.ready",
    "placement.lost",
    "placement.removed",
    "participant.*",
    "participant.joined",
    "participant.left",
    "participant.moved",
    "stream.*",
    "stream.added",
    "stream.changed",
    "stream.removed",
    "link.*",
    "link.wanted",
    "link.requested",
    "link.up",
    "link.down",
    "link.removed",
]
"""A kind of event, or all that begin alike."""

Events = Annotated[list[WebhookEvent], Meta(max_length=32)]
Types = Annotated[list[TemplateName], Meta(max_length=32)]
Description = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)", max_length=200)]
Scalar = Annotated[str, Meta(max_length=256)] | bool | Annotated[int, Meta(ge=-(2**53), le=2**53)]
Wanted = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], Scalar], Meta(max_length=16)]
"""What a conference's metadata has to have, each under its key."""
DeliveryState = Literal["pending", "delivered", "dead"]
Moment = Annotated[datetime, Meta(tz=True)]

_WEEK: Final = 604_800
_EARLIEST, _LATEST = 2000, 9000


class WebhookCreate(Request, frozen=True, kw_only=True):
    """`POST /v1/webhooks`: have events sent to an address."""

    url: HttpUrl
    events: Events = field(default_factory=list)
    """Kinds of events; empty: all."""
    types: Types = field(default_factory=list)
    """Only of conferences of these types (templates); empty: any."""
    metadata: Wanted = field(default_factory=dict)
    """Only of conferences with all of this in their metadata."""
    description: Description = ""
    enabled: bool = True


class WebhookPatch(Request, frozen=True, kw_only=True):
    """`PATCH /v1/webhooks/{id}`: what is left out stays as it is, what is given replaces it."""

    url: HttpUrl | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    types: Types | UnsetType = UNSET
    metadata: Wanted | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    """true: forget the failures, too, and deliver at once what waits."""


class WebhookView(Answer, frozen=True, kw_only=True):
    """A webhook. Its ETag is of what PATCH can change."""

    id: str
    url: str
    events: list[str]
    types: list[str]
    metadata: dict[str, Any]
    description: str
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: Literal["operator", "gone", "failing"] | None
    """By an operator; because the receiver answered 410; because it failed for days."""
    created_at: datetime
    created_by: str | None
    """Id of the operator key."""
    circuit: Literal["closed", "open", "half-open"]
    """open: it failed too often and is left alone until `paused_until`; half-open: one message tries it."""
    failures: int
    """In a row."""
    failing_since: datetime | None
    paused_until: datetime | None
    last_success_at: datetime | None
    """To the minute."""
    last_failure_at: datetime | None
    last_error: str | None
    previous_secret_until: datetime | None
    """Until then messages are signed with the former secret, too."""
    waiting: int
    """Messages to be delivered."""
    dead: int
    """Messages that were given up and can be replayed."""


class WebhookCreated(WebhookView, frozen=True, kw_only=True):
    """The new webhook, with its secret, which is shown only now."""

    secret: str


class WebhookList(Answer, frozen=True, kw_only=True):
    """`GET /v1/webhooks`: all of them, oldest first."""

    webhooks: list[WebhookView]


class WebhookRotate(Request, frozen=True, kw_only=True):
    """`POST /v1/webhooks/{id}/secret`: replace the secret."""

    keep: Annotated[int, Meta(ge=0, le=_WEEK)] = 86_400
    """Seconds for which messages are signed with the former one, too."""


class WebhookSecret(Answer, frozen=True, kw_only=True):
    """The new secret, which is shown only now."""

    secret: str
    previous_secret_until: datetime | None


class WebhookTest(Answer, frozen=True, kw_only=True):
    """What came of a test message, which is sent once and not kept."""

    message: str
    """Its id."""
    taken: bool
    status: int | None
    """HTTP status of the answer; null: there was none."""
    error: str | None
    seconds: float


class DeliveryView(Answer, frozen=True, kw_only=True):
    """A message to a webhook."""

    id: str
    conference: str
    seq: int
    """Of the event, within its conference."""
    kind: str
    """Of event; the message's `type`."""
    at: datetime
    """When it happened."""
    state: DeliveryState
    queued_at: datetime
    """Since when it was to be delivered: since the event, or since it was last replayed."""
    tries: int
    tried_at: datetime | None
    due_at: datetime | None
    """After a failure: when it is tried again, or sooner if the webhook works again."""
    done_at: datetime | None
    status: int | None
    """HTTP status of the last answer."""
    error: str | None


class DeliveryList(Answer, frozen=True, kw_only=True):
    """`GET /v1/webhooks/{id}/deliveries`: newest events first."""

    deliveries: list[DeliveryView]
    next: str | None = None
    """`cursor` of the next page; null: this is the last one."""


class ReplayRequest(Request, frozen=True, kw_only=True):
    """`POST /v1/webhooks/{id}/replay`: deliver again what happened from `after` to (but not at) `before`."""

    after: Moment
    before: Moment
    dead_only: bool = False
    """Only messages that were given up; else every event that the webhook asks for, delivered or not."""

    def __post_init__(self) -> None:
        """Refuse a range that ends before it begins, or lies in no time of ours."""
        if not all(_EARLIEST <= each.year <= _LATEST for each in (self.after, self.before)):
            raise ValueError(f"after, before: must be between {_EARLIEST} and {_LATEST}")
        if self.before <= self.after:
            raise ValueError("before: must be later than after")


class ReplayAnswer(Answer, frozen=True, kw_only=True):
    """How many messages were queued (again); those that wait anyway are not counted."""

    queued: int
