"""The messages of our own wire, as types.

Each is a msgpack array: its number, then its fields in the order below. A reader passes over elements that
it does not know, and over messages of an unknown number; so fields may be added at the end, with a default,
and messages may be added. What they mean together is known to bridges.event.own.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Raw, Struct, field

__all__ = [
    "MAX_INCARNATION",
    "NOTHING",
    "ChannelMessage",
    "Close",
    "Credit",
    "Digest",
    "Happened",
    "Hello",
    "HelloLimits",
    "Leave",
    "Message",
    "Offer",
    "Open",
    "Opened",
    "Ping",
    "Pong",
    "Position",
    "Reach",
    "Resume",
    "Snapshot",
    "Take",
    "Withdraw",
]

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Token = Annotated[str, Meta(min_length=1, max_length=512)]
MAX_INCARNATION = 2**62 - 1
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Incarnation = Annotated[int, Meta(ge=0, le=MAX_INCARNATION)]
Channel = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Text = Annotated[str, Meta(max_length=200)]
EventName = Annotated[str, Meta(min_length=1, max_length=64)]
Path = Annotated[list[Id], Meta(min_length=1, max_length=64)]


class Position(Struct, array_like=True, frozen=True, order=True):
    """How far an origin's events have come: `seq` events of its start `incarnation`.

    The greater incarnation is the newer one. (0, 0) is having nothing.
    """

    incarnation: Incarnation
    seq: Number


NOTHING = Position(0, 0)


class Reach(Struct, array_like=True, frozen=True):
    """What can be given of an origin: its present start, and the clusters on the way, both ends included."""

    incarnation: Incarnation
    path: Path


class _Message(Struct, array_like=True, frozen=True, tag_field="message"):
    pass


# --- the connection, on lane 0 ----------------------------------------------------------------------


class HelloLimits(Struct, frozen=True, kw_only=True):
    """What the sender takes. A msgpack map, so that limits may be added."""

    message: Annotated[int, Meta(ge=1024, le=2**31 - 1)]
    """Bytes of a message."""
    channels: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Conferences that are open, or being opened, at once."""
    lanes: Annotated[int, Meta(ge=1, le=64)]
    """Streams that conferences are spread over."""
    waiting: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Conferences that may be asked for at once and not be answered yet."""


class Hello(_Message, frozen=True, tag=1):
    """First, in both directions; the listener answers the dialer's with its own."""

    versions: Annotated[list[int], Meta(min_length=1, max_length=32)]
    """Versions of this protocol that the sender speaks; the greatest that both have is spoken."""
    cluster: Id
    limits: HelloLimits
    features: Annotated[list[Id], Meta(max_length=64)] = field(default_factory=list)
    """What the sender can do beyond the version."""


class Ping(_Message, frozen=True, tag=2):
    """Asks for a Pong with the same number."""

    count: Number


class Pong(_Message, frozen=True, tag=3):
    """Answers a Ping, at once."""

    count: Number


# --- one conference on the connection: the channel ---------------------------------------------------


class _ChannelMessage(_Message, frozen=True):
    channel: Channel


class Open(_ChannelMessage, frozen=True, tag=8):
    """From the dialer: carry this conference. The stream it comes on is the channel's lane from now on.

    `takes` are Take messages given in advance, number 1 each.
    """

    room: Id
    token: Token
    takes: Annotated[dict[Id, Position], Meta(max_length=4096)]
    credit: Number
    attempt: Position
    """Of several channels between two clusters for one conference the greatest attempt holds: the dialer's
    incarnation, and a number that grows with each Open for the conference."""
    offers: Annotated[dict[Id, Reach], Meta(max_length=4096)] = field(default_factory=dict)
    """Offer messages given in advance: they hold from the moment at which the channel is open."""


class Opened(_ChannelMessage, frozen=True, tag=9):
    """From the listener: the token was right. `takes`, `credit` and `offers` as in Open."""

    takes: Annotated[dict[Id, Position], Meta(max_length=4096)]
    credit: Number
    offers: Annotated[dict[Id, Reach], Meta(max_length=4096)] = field(default_factory=dict)


class Close(_ChannelMessage, frozen=True, tag=10):
    """The conference is carried no more, or was refused; nothing follows on the channel. Answered in kind."""

    code: Number
    reason: Text = ""


class Offer(_ChannelMessage, frozen=True, tag=16):
    """The sender can give an origin's events. Said again when the path or the incarnation has changed."""

    origin: Id
    incarnation: Incarnation
    path: Path
    """Cluster ids on the way from the origin to the sender, both included."""


class Withdraw(_ChannelMessage, frozen=True, tag=17):
    """The sender cannot give the origin's events any more."""

    origin: Id


class Take(_ChannelMessage, frozen=True, tag=18):
    """Send what follows `have`: from the log if it reaches back so far, else a snapshot first.

    `number` grows with each Take of the origin on the channel, beginning with 1, those in Open and Opened
    included. `whole`: a snapshot in any case, since the receiver's state was found to differ.
    """

    origin: Id
    number: Number
    have: Position
    whole: bool = False


class Leave(_ChannelMessage, frozen=True, tag=19):
    """Send nothing more of this origin."""

    origin: Id


class Resume(_ChannelMessage, frozen=True, tag=20):
    """Answers the Take `number`: the events that follow `at` follow."""

    origin: Id
    number: Number
    at: Position


class Snapshot(_ChannelMessage, frozen=True, tag=21):
    """An origin's whole state at a position; the events that follow it follow. In one or more parts.

    Answers the Take `number`, or comes later of itself: when the log does not reach back to what the
    receiver has, or at a new incarnation. All parts bear the same position; the last has `more` false.
    """

    origin: Id
    number: Number
    at: Position
    hops: Path
    participants: dict[Id, Raw]
    streams: dict[Id, Raw]
    more: bool = False


class Happened(_ChannelMessage, frozen=True, tag=22):
    """An event. Its id, for following it, is `<incarnation>.<seq>`, the first in hexadecimal."""

    origin: Id
    at: Position
    hops: Path
    """Cluster ids that it has come by, the origin first, the sender last."""
    type: EventName
    data: Raw


class Digest(_ChannelMessage, frozen=True, tag=23):
    """What the origin's state is at a position, for comparison; see bridges.event.own.picture."""

    origin: Id
    at: Position
    digest: Annotated[bytes, Meta(min_length=16, max_length=16)]


class Credit(_ChannelMessage, frozen=True, tag=24):
    """Bytes of Happened and Snapshot messages that may have been sent on the channel, since it was opened."""

    limit: Number


ChannelMessage: TypeAlias = (
    Open | Opened | Close | Offer | Withdraw | Take | Leave | Resume | Snapshot | Happened | Digest | Credit
)
Message: TypeAlias = Hello | Ping | Pong | ChannelMessage
JsonValue: TypeAlias = Any
"""What events and objects are made of: null, booleans, numbers, strings, arrays, maps with string keys."""
