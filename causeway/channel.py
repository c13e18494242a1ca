"""What an agent and control say to each other on their WebSocket, as types and a codec; no socket here.

One message is one text frame of JSON with a `type`. Both sides pass over fields that they do not know, and
messages whose type they do not know (Unknown, to be counted): a side may be one release ahead of the other.
What an older side could not pass over needs a new protocol version, agreed on at registration
(causeway.api.agents). Durations are seconds unless a name says `ms`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from causeway.api.agents import AgentAddress, AgentLoad
from causeway.api.base import ClusterId, ConferenceId
from causeway.api.figures import BridgeFigures

__all__ = [
    "MAX_TO_AGENT",
    "MAX_TO_CONTROL",
    "PROTOCOL",
    "Ack",
    "Assignment",
    "Delta",
    "Desired",
    "DesiredLink",
    "Figures",
    "FromAgent",
    "FromControl",
    "Goodbye",
    "Heartbeat",
    "Hello",
    "LeaseRenewed",
    "LinkState",
    "MessageError",
    "Refusal",
    "Refuse",
    "Report",
    "Resync",
    "RoundTrip",
    "Unknown",
    "decode_from_agent",
    "decode_from_control",
    "encode",
    "subprotocol",
]

PROTOCOL: Final = 1
"""The newest version of what is said here; agent and control agree on the highest that both speak."""
MAX_TO_CONTROL: Final = 4 * 2**20
"""Bytes of the largest message that control takes."""
MAX_TO_AGENT: Final = 32 * 2**20
"""Bytes of the largest message that an agent has to take: tens of thousands of links in one state."""

Version = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Millis = Annotated[float, Meta(ge=0, le=600_000)]
Reason = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")]
_Many = Meta(max_length=50_000)


def subprotocol(version: int = PROTOCOL) -> str:
    """Return what stands in `Sec-WebSocket-Protocol` for a version."""
    return f"causeway.agent.v{version}"


class MessageError(ValueError):
    """A frame is no message: not JSON, or of a known type and not what that type says."""


class _Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class _Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


# --- agent to control -------------------------------------------------------------------------


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """First on every connection. The answer is a Desired, or a Goodbye."""

    epoch: Version
    """Of the registration, as its lease said."""
    version: Version | None = None
    """Of the state that the agent acts on; None: it has none."""


class RoundTrip(_Part, frozen=True, kw_only=True):
    """How far the bridges of another cluster are, smoothed."""

    cluster: ClusterId
    ms: Millis
    jitter_ms: Millis = 0.0


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Still here; every `heartbeat_interval` of the lease. The answer is a LeaseRenewed."""

    load: AgentLoad = field(default_factory=AgentLoad)
    round_trips: Annotated[list[RoundTrip], Meta(max_length=10_000)] = field(default_factory=list)
    """Measured since the last heartbeat."""


class Ack(_Message, frozen=True, kw_only=True, tag="ack"):
    """The agent acts on this version, all of it."""

    version: Version


class Refusal(_Part, frozen=True, kw_only=True):
    """What an agent cannot do, and why."""

    conference: ConferenceId
    peer: ClusterId | None = None
    """None: the conference as a whole."""
    reason: Reason


class Refuse(_Message, frozen=True, kw_only=True, tag="refuse"):
    """The agent acts on this version, except for that."""

    version: Version
    problems: Annotated[list[Refusal], _Many]


class LinkState(_Part, frozen=True, kw_only=True):
    """What the agent sees of its own end of a link."""

    conference: ConferenceId
    peer: ClusterId
    state: Literal["up", "down"]
    error: Reason | None = None
    """Why it is down, if that is known."""


class Report(_Message, frozen=True, kw_only=True, tag="report"):
    """What is true: changes as they come, and everything (`full`) after each Desired."""

    links: Annotated[list[LinkState], _Many]
    full: bool = False
    """Links that are not listed are down."""


class Figures(_Message, frozen=True, kw_only=True, tag="figures"):
    """What the agent's bridges measure, every now and then; a control that does not know it passes it over.

    Of links those whose figures have moved since they were told last, a bounded number in each message;
    what was told of the others holds.
    """

    bridges: Annotated[list[BridgeFigures], Meta(max_length=16)]


class Resync(_Message, frozen=True, kw_only=True, tag="resync"):
    """A Delta did not fit the version that the agent has. The answer is a Desired."""


FromAgent = Hello | Heartbeat | Ack | Refuse | Report | Figures | Resync


# --- control to agent -------------------------------------------------------------------------


class DesiredLink(_Part, frozen=True, kw_only=True):
    """A link that there shall be."""

    peer: ClusterId
    role: Literal["dial", "listen"]
    attempt: Version = 0
    """Grows when control wants a new connection, to the addresses that it says now."""
    token: str | None = None
    """`dial`: of the peer's room; the listener's node checks it. A secret."""
    event: AgentAddress | None = None
    """`dial`: where the peer's event bridge listens."""
    media: AgentAddress | None = None
    """`dial`: where the peer's media bridge listens."""
    relays: bool = False
    """What this link brings is passed on over the others that relay, and what those bring over this one."""
    behind: Annotated[list[ClusterId], _Many] = field(default_factory=list)
    """With `relays`: the clusters whose events and media come over this link, besides the peer."""

    def __repr__(self) -> str:
        """Leave the token out: what is shown ends in logs."""
        return f"DesiredLink(peer={self.peer!r}, role={self.role!r}, attempt={self.attempt})"


class Assignment(_Part, frozen=True, kw_only=True):
    """A conference that the agent serves, with all of its links there."""

    conference: ConferenceId
    kinds: list[str] = field(default_factory=list)
    """AgentKind: as what the agent serves it. As `media` alone it dials `media` alone, and so on."""
    links: list[DesiredLink] = field(default_factory=list)
    """By peer, each once."""


class Desired(_Message, frozen=True, kw_only=True, tag="desired"):
    """The whole desired state: what is not in it shall not be. The answer is an Ack or a Refuse."""

    version: Version
    conferences: list[Assignment]


class Delta(_Message, frozen=True, kw_only=True, tag="delta"):
    """What changed between two versions. The answer is an Ack, a Refuse, or a Resync if `base` is not had."""

    base: Version
    version: Version
    set: list[Assignment] = field(default_factory=list)
    """New ones, and those that take the place of what was said of the same conference."""
    drop: list[ConferenceId] = field(default_factory=list)


class LeaseRenewed(_Message, frozen=True, kw_only=True, tag="lease"):
    """The registration holds for `ttl` seconds from now."""

    ttl: float


class Goodbye(_Message, frozen=True, kw_only=True, tag="goodbye"):
    """Control closes the connection.

    Reasons: `restarting` (come back), `replaced` (a newer connection of the same agent took over),
    `register` (the registration does not hold: register anew, then come back), `protocol` (a message was
    wrong), `slow` (messages were not read in time). An agent takes an unknown one for `restarting`.
    """

    reason: str
    retry_after: float = 0.0
    """Seconds to wait at least."""


FromControl = Desired | Delta | LeaseRenewed | Goodbye


# --- codec ------------------------------------------------------------------------------------


class Unknown(Struct, frozen=True):
    """A message of a type that this side does not know; to be passed over and counted."""

    type: str


class _Typed(Struct):
    type: Annotated[str, Meta(max_length=64)]


T = TypeVar("T")
_FROM_AGENT: Final = msgspec.json.Decoder(FromAgent)
_FROM_CONTROL: Final = msgspec.json.Decoder(FromControl)
_TYPED: Final = msgspec.json.Decoder(_Typed)
_ENCODER: Final = msgspec.json.Encoder()


def _tags(union: Any) -> frozenset[str]:
    return frozenset(str(each.__struct_config__.tag) for each in union.__args__)


_AGENT_TAGS: Final = _tags(FromAgent)
_CONTROL_TAGS: Final = _tags(FromControl)


def encode(message: FromAgent | FromControl) -> str:
    """Return the text frame for a message."""
    return _ENCODER.encode(message).decode()


def decode_from_agent(frame: str | bytes) -> FromAgent | Unknown:
    """Return what an agent said. Raises MessageError."""
    return _decode(frame, _FROM_AGENT, _AGENT_TAGS, MAX_TO_CONTROL)


def decode_from_control(frame: str | bytes) -> FromControl | Unknown:
    """Return what control said. Raises MessageError."""
    return _decode(frame, _FROM_CONTROL, _CONTROL_TAGS, MAX_TO_AGENT)


def _decode(
    frame: str | bytes, decoder: msgspec.json.Decoder[T], tags: frozenset[str], limit: int
) -> T | Unknown:
    if len(frame) > limit:
        raise MessageError(f"more than {limit} bytes")
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        kind = _type_of(frame)
        if kind is None or kind in tags:
            raise MessageError(f"{kind or 'message'}: {error}"[:300]) from None
        return Unknown(kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageError(str(error)[:300]) from None


def _type_of(frame: str | bytes) -> str | None:
    try:
        return _TYPED.decode(frame).type
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
