"""One row of the route table: who may use it, what it takes, what it answers. openapi.json is made of it.

Each *Routes class lists its own rows in `entries()`. Nothing here knows a service or a handler's module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta

from causeway.api import (
    EPOCH_HEADER,
    REPORT_HEADER,
    ClusterId,
    ConferenceId,
    KeyId,
    MessageId,
    Module,
    TemplateName,
    WebhookId,
)
from causeway.api.agents import AgentId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import msgspec
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

    from causeway.keys import KeyKind, Scope
    from control.http.edge import Body
    from control.http.gate import Caller

__all__ = [
    "APPLICATIONS",
    "CLUSTERS",
    "EPOCH",
    "EPOCH_OPTIONAL",
    "IDEMPOTENCY_KEY",
    "IF_MATCH",
    "LAST_EVENT_ID",
    "OPERATORS",
    "PARTS",
    "REPORT",
    "Entry",
    "Header",
]

CLUSTERS: Final[frozenset[KeyKind]] = frozenset({"enrolment", "operator"})
APPLICATIONS: Final[frozenset[KeyKind]] = frozenset({"application", "operator"})
OPERATORS: Final[frozenset[KeyKind]] = frozenset({"operator"})

ParticipantId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~@:+=-]+$(?!\n)", max_length=128)]
"""Drawn by the cluster; wider than our own names."""

KeyText = Annotated[str, Meta(max_length=128)]
"""A whole access key, for those who can send one in no other way."""

PARTS: Final[dict[str, Any]] = {
    "agent": AgentId,
    "cluster": ClusterId,
    "conference": ConferenceId,
    "key": KeyId,
    "message": MessageId,
    "module": Module,
    "participant": ParticipantId,
    "peer": ClusterId,
    "room": ConferenceId,
    "secret": KeyText,
    "stream": ParticipantId,
    "template": TemplateName,
    "webhook": WebhookId,
}
"""The type of every `{part}` of a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A request header that means something to a route."""

    name: str
    kind: Any
    description: str
    required: bool = False


_EPOCH_TYPE = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_EPOCH_SAYS: Final = "Epoch of the lease that the registration or the last heartbeat answered."
EPOCH: Final = Header(name=EPOCH_HEADER, kind=_EPOCH_TYPE, description=_EPOCH_SAYS, required=True)
EPOCH_OPTIONAL: Final = Header(name=EPOCH_HEADER, kind=_EPOCH_TYPE, description=_EPOCH_SAYS)
REPORT: Final = Header(
    name=REPORT_HEADER,
    kind=_EPOCH_TYPE,
    description="Number of the request, larger than all before it; what is older than the last is refused.",
)
IF_MATCH: Final = Header(
    name="If-Match",
    kind=str,
    description="ETag of what was read, or `*`: refuse the change if it is not that.",
)
LAST_EVENT_ID: Final = Header(
    name="Last-Event-ID",
    kind=Annotated[str, Meta(pattern=r"^[0-9]{0,18}$(?!\n)")],
    description="Number of the last event that the reader of a stream has; comes before `after`.",
)
IDEMPOTENCY_KEY: Final = Header(
    name="Idempotency-Key",
    kind=Annotated[str, Meta(min_length=1, max_length=255)],
    description="The same key again gets the same answer again.",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One method of one path; `kinds` None: open to everybody."""

    method: str
    path: str
    kinds: frozenset[KeyKind] | None
    handler: Callable[[Request], Awaitable[Response]]
    guest: Callable[[HTTPConnection], Caller | None] | None = field(default=None, kw_only=True)
    """Says who comes with something else than a key, None: nobody, a key is asked for; raises
    UnauthenticatedError and ForbiddenError."""
    scope: Scope | None = field(default=None, kw_only=True)
    """What an application key must be allowed; every route that admits such keys has one."""
    tag: str = field(default="", kw_only=True)
    """The group under which the document lists it."""
    summary: str = field(default="", kw_only=True)
    """One line: what it does."""
    body: Body | None = field(default=None, kw_only=True)
    query: type[msgspec.Struct] | None = field(default=None, kw_only=True)
    """Parameters after the `?`, flat; `edge.query_of` gives them. None: any parameter is refused."""
    headers: tuple[Header, ...] = field(default=(), kw_only=True)
    answers: Mapping[int, Any] = field(default_factory=dict, kw_only=True)
    """Status of each success, and the type of its body; None: no body."""
    media: str = field(default="application/json", kw_only=True)
    """What the bodies of successes are."""
    stream: bool = field(default=False, kw_only=True)
    """Also told as server-sent events, for as long as somebody reads them."""
    tagged: bool = field(default=False, kw_only=True)
    """Successes carry an ETag."""
    problems: tuple[str, ...] = field(default=(), kw_only=True)
    """Types of problems (docs/errors.md) beyond those that every such request can get anyway."""
    socket: Callable[[WebSocket], Awaitable[None]] | None = field(default=None, kw_only=True)
    """What serves WebSockets at this path, which pass the same checks; they are accepted by it."""
