"""What the metadata of a bridge-to-bridge stream may say, typed: OWT's event and media signalling.

Events are forwarded, not rebuilt: `Event.data` is the JSON as it came, checked against the least that its
type must have. `onCascadingDisconnected` is made by a bridge for its own node and never taken from a wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from bridges.wire.errors import MessageError, UnknownMessageError
from bridges.wire.framing import Metadata
from bridges.wire.objects import Id, MediaOptions, Participant, Stream, TrackKind
from bridges.wire.own_media.datagram import MAX_ALIAS

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "BridgeHello",
    "ClusterHello",
    "Event",
    "EventType",
    "MediaSignal",
    "Ready",
    "Subscribe",
    "SubscribeOptions",
    "TrackHello",
    "decode_event_hello",
    "decode_event_message",
    "decode_event_stream",
    "decode_media",
    "encode",
    "is_of_shape",
]

Token = Annotated[str, Meta(min_length=1, max_length=512)]


class _Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """A signalling message; unknown fields are ignored, as OWT does."""


class Ready(_Message, frozen=True, kw_only=True, tag="ready"):
    """First on every stream, both ways. An event stream's dialer names its own cluster as `target`."""

    target: Id | None = None
    clock: bool = False
    """Causeway's own, on a media connection's signalling stream: whoever says it takes the peer's clock."""


class BridgeHello(_Message, frozen=True, kw_only=True, tag="bridge"):
    """Event stream, from the dialer: which conference, and the token of the listener's room."""

    room: Id
    token: Token

    def __repr__(self) -> str:  # without the token
        return f"BridgeHello(room={self.room!r})"


class ClusterHello(_Message, frozen=True, kw_only=True, tag="cluster"):
    """Media connection, from the dialer on its signalling stream: room, token, the dialer's cluster id."""

    room: Id
    token: Token
    cluster: Id

    def __repr__(self) -> str:  # without the token
        return f"ClusterHello(room={self.room!r}, cluster={self.cluster!r})"


class TrackHello(_Message, frozen=True, kw_only=True, tag="track"):
    """Track stream, from the puller: its own id for the track that will flow here."""

    id: Id
    kind: TrackKind


class SubscribeOptions(Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """What a puller wants on a track stream; `media.tracks` has the one track."""

    room: Id
    cluster: Id
    connection_id: Id
    media: MediaOptions
    origin_type: str = "webrtc"
    origin: Id | None = None
    """Causeway's own: the cluster that the track lives in, if whoever is asked is to pass it on."""
    hops: Annotated[list[Id], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    """With `origin`: the clusters that the request has come by."""
    alias: Annotated[int, msgspec.Meta(ge=0, le=MAX_ALIAS)] | None = None
    """On our own wire: the number by which the track's datagrams are known."""


class Subscribe(_Message, frozen=True, kw_only=True, tag="subscribe"):
    """Track stream, from the puller, after TrackHello."""

    options: SubscribeOptions


MediaSignal = Ready | ClusterHello | TrackHello | Subscribe

EventType = Literal[
    "initialize",
    "addParticipant",
    "removeParticipant",
    "addStream",
    "updateStreamInfo",
    "removeStream",
    "setStreamMute",
    "onAudioActiveness",
]


class Event(Struct, frozen=True):
    """Something that happened in a conference, on its way from one conference node to another."""

    type: EventType
    data: Any


class _Initialize(Struct):
    participants: dict[str, Participant]
    streams: dict[str, Stream]


class _StreamUpdate(Struct):
    id: Id
    info: Any


class _StreamMute(Struct):
    id: Id
    track: str
    muted: bool


class _AudioActiveness(Struct):
    activeInputStream: str | None  # noqa: N815 - OWT's name on the wire
    target: Any


_SHAPES: Final[dict[str, Any]] = {
    "initialize": _Initialize,
    "addParticipant": Participant,
    "removeParticipant": Id,
    "addStream": Stream,
    "updateStreamInfo": _StreamUpdate,
    "removeStream": Id,
    "setStreamMute": _StreamMute,
    "onAudioActiveness": _AudioActiveness,
}


class _Typed(Struct):
    type: str


_HELLOS: Final = frozenset({"ready", "bridge"})
_MEDIA_TYPES: Final = frozenset({"ready", "cluster", "track", "subscribe"})
_MAX_SHOWN: Final = 64

_TYPED: Final = msgspec.json.Decoder(_Typed)
_EVENT: Final = msgspec.json.Decoder(Event)
_EVENT_HELLO: Final[msgspec.json.Decoder[Ready | BridgeHello]] = msgspec.json.Decoder(Ready | BridgeHello)
_MEDIA: Final[msgspec.json.Decoder[MediaSignal]] = msgspec.json.Decoder(MediaSignal)
_ENCODER: Final = msgspec.json.Encoder()

T = TypeVar("T")


def encode(message: _Message | Event) -> Metadata:
    """Return `message` as metadata."""
    return Metadata(_ENCODER.encode(message))


def decode_event_stream(metadata: Metadata) -> Ready | BridgeHello | Event:
    """Read whatever may stand on an event stream. Raises MessageError, UnknownMessageError."""
    if _type_of(metadata) in _HELLOS:
        return _decode(_EVENT_HELLO, metadata)
    return decode_event_message(metadata)


def decode_event_hello(metadata: Metadata) -> Ready | BridgeHello:
    """Read what an event stream starts with. Raises MessageError, UnknownMessageError."""
    _check_type(metadata, _HELLOS)
    return _decode(_EVENT_HELLO, metadata)


def decode_event_message(metadata: Metadata) -> Event:
    """Read an event.

    Raises MessageError when its data has not the type's shape, UnknownMessageError for another type.
    """
    _check_type(metadata, _SHAPES)
    event = _decode(_EVENT, metadata)
    try:
        msgspec.convert(event.data, _SHAPES[event.type])
    except msgspec.ValidationError as error:
        raise MessageError(f"{event.type}: {error}") from None
    return event


def is_of_shape(type_: str, data: Any) -> bool:
    """Return whether an event's data is what its type asks for; of a type that is not known, anything is."""
    shape = _SHAPES.get(type_)
    if shape is None:
        return True
    try:
        msgspec.convert(data, shape)
    except msgspec.ValidationError:
        return False
    return True


def decode_media(metadata: Metadata) -> MediaSignal:
    """Read a message of the media bridge. Raises MessageError, UnknownMessageError."""
    _check_type(metadata, _MEDIA_TYPES)
    return _decode(_MEDIA, metadata)


def _type_of(metadata: Metadata) -> str:
    return _decode(_TYPED, metadata).type


def _check_type(metadata: Metadata, known: Container[str]) -> None:
    type_ = _type_of(metadata)
    if type_ not in known:
        raise UnknownMessageError(f"unknown type {type_[:_MAX_SHOWN]!r}")


def _decode(decoder: msgspec.json.Decoder[T], metadata: Metadata) -> T:
    try:
        return decoder.decode(metadata.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's words name the field and the expected type, never the value, so no token leaks from here.
        raise MessageError(str(error)) from None
