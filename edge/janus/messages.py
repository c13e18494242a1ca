"""What a Janus server and its VideoRoom plugin say, as types. Pure: no socket, no clock, no ids of its own.

Requests are structs that become JSON; what the server sends becomes one of `Reply`, `Refusal`,
`Acknowledged`, `News`, `Ended` or `Other`, or raises JanusMessageError. Formats: the Janus API and the
VideoRoom plugin of Janus 1.1.2, as its documentation describes them and a server of that version answers.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from causeway.errors import CausewayError

__all__ = [
    "ALREADY_THERE",
    "NOT_THERE",
    "PLUGIN",
    "Acknowledged",
    "AddRemotePublisher",
    "Allow",
    "CreateRoom",
    "DestroyRoom",
    "Ended",
    "JanusMessageError",
    "Join",
    "Kick",
    "ListParticipants",
    "ListRooms",
    "Message",
    "News",
    "Offered",
    "Other",
    "Participant",
    "PublishRemotely",
    "Received",
    "Refusal",
    "RemoveRemotePublisher",
    "Reply",
    "Request",
    "RoomId",
    "RoomNews",
    "RoomView",
    "TokenAction",
    "UnpublishRemotely",
    "Verb",
    "decode",
    "encode",
]

PLUGIN: Final = "janus.plugin.videoroom"
NOT_THERE: Final = frozenset({426, 428})
"""Codes of a refusal because what is meant is not there: the room; the feed, or what it was forwarded as."""
ALREADY_THERE: Final = frozenset({427, 436})
"""Codes of a refusal because it is there already: the room; the id, or the remotization."""

RoomId = Annotated[int, Meta(ge=0, le=2**63 - 1)] | Annotated[str, Meta(min_length=1, max_length=256)]
"""Of rooms, and of those in them: numbers, or text where the server is set up so (`string_ids`)."""
_Port = Annotated[int, Meta(ge=0, le=65535)]
_Text = Annotated[str, Meta(max_length=4096)]
_Host = Annotated[str, Meta(max_length=253)]
_MAX_LIST: Final = 10_000


class JanusMessageError(CausewayError):
    """The server has sent what is no message of its API."""

    code: ClassVar[str] = "janus-message"


# --- what is asked --------------------------------------------------------------------------------


class _Body(Struct, frozen=True, kw_only=True, tag_field="request", omit_defaults=True):
    room: RoomId


class Offered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stream of a publisher, as it is announced: a track, in our words."""

    type: Annotated[str, Meta(max_length=16)]
    mindex: Annotated[int, Meta(ge=0, le=4095)]
    mid: Annotated[str, Meta(max_length=64)]
    codec: Annotated[str, Meta(max_length=32)] | None = None
    disabled: bool = False
    simulcast: bool = False
    stereo: bool = False
    fec: bool = False


class CreateRoom(_Body, frozen=True, kw_only=True, tag="create"):
    """Make a room that goes with the server. `allowed` are the tokens with which one may join."""

    description: _Text
    secret: str
    pin: str
    allowed: list[str]
    publishers: Annotated[int, Meta(ge=1)]
    audiocodec: str
    videocodec: str
    is_private: bool
    notify_joining: bool
    permanent: bool
    admin_key: str | None = None


class DestroyRoom(_Body, frozen=True, kw_only=True, tag="destroy"):
    """Remove a room, with everybody in it."""

    secret: str


TokenAction = Literal["add", "remove"]


class Allow(_Body, frozen=True, kw_only=True, tag="allowed"):
    """Change which tokens let somebody in."""

    secret: str
    action: TokenAction
    allowed: list[str]


class Join(_Body, frozen=True, kw_only=True, tag="join"):
    """Be told of who comes, goes and publishes. Whoever does not publish is an attendee."""

    ptype: Literal["publisher"]
    id: RoomId
    display: str
    pin: str
    token: str


class Kick(_Body, frozen=True, kw_only=True, tag="kick"):
    """Have somebody leave."""

    secret: str
    id: RoomId


class ListParticipants(_Body, frozen=True, kw_only=True, tag="listparticipants"):
    """Ask who is in a room."""


class ListRooms(Struct, frozen=True, kw_only=True, tag_field="request", tag="list", omit_defaults=True):
    """Ask which rooms there are; private ones are shown to who has the admin key."""

    admin_key: str | None = None


class PublishRemotely(_Body, frozen=True, kw_only=True, tag="publish_remotely"):
    """Have everything of a publisher sent to an address as RTP. The server names it by `remote_id`."""

    secret: str
    publisher_id: RoomId
    remote_id: str
    host: str
    port: int
    rtcp_port: int


class UnpublishRemotely(_Body, frozen=True, kw_only=True, tag="unpublish_remotely"):
    """Take PublishRemotely back; does nothing to what the other end has added."""

    secret: str
    publisher_id: RoomId
    remote_id: str


class AddRemotePublisher(_Body, frozen=True, kw_only=True, tag="add_remote_publisher"):
    """Show a publisher whose tracks come as RTP. Two of the same `id` are not refused by 1.1.2."""

    secret: str
    id: RoomId
    display: str
    streams: list[Offered]
    iface: str | None = None


class RemoveRemotePublisher(_Body, frozen=True, kw_only=True, tag="remove_remote_publisher"):
    """Take AddRemotePublisher back."""

    secret: str
    id: RoomId


Request = (
    CreateRoom
    | DestroyRoom
    | Allow
    | Join
    | Kick
    | ListParticipants
    | ListRooms
    | PublishRemotely
    | UnpublishRemotely
    | AddRemotePublisher
    | RemoveRemotePublisher
)


Verb = Literal["create", "attach", "message", "keepalive", "detach"]
"""What is asked of the server itself."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sent: `janus` says what is asked of the server itself, `message` passes `body` to a plugin."""

    janus: Verb
    transaction: str
    session_id: int | None = None
    handle_id: int | None = None
    plugin: str | None = None
    body: Request | None = None
    apisecret: str | None = None

    def __repr__(self) -> str:
        return f"Message({self.janus}, {type(self.body).__name__ if self.body else None})"


def encode(message: Message) -> str:
    """Return the text to send."""
    return msgspec.json.encode(message).decode()


# --- what comes -----------------------------------------------------------------------------------


class Participant(Struct, frozen=True, kw_only=True):
    """Somebody in a room, as any of the server's lists shows them."""

    id: RoomId
    display: _Text | None = None
    publisher: bool = False
    remote: bool = False
    """Added by AddRemotePublisher; only ListParticipants tells."""
    streams: Annotated[list[Offered], Meta(max_length=256)] = []


class _Room(Struct, frozen=True, kw_only=True):
    room: RoomId
    description: _Text = ""


class RoomView(Struct, frozen=True, kw_only=True):
    """What the plugin answers; which fields there are depends on what was asked."""

    videoroom: Annotated[str, Meta(max_length=64)] = ""
    id: RoomId | None = None
    publishers: Annotated[list[Participant], Meta(max_length=_MAX_LIST)] = []
    attendees: Annotated[list[Participant], Meta(max_length=_MAX_LIST)] = []
    participants: Annotated[list[Participant], Meta(max_length=_MAX_LIST)] = []
    rooms: Annotated[list[_Room], Meta(max_length=_MAX_LIST)] = field(name="list", default_factory=list)
    ip: _Host | None = None
    port: _Port = 0
    rtcp_port: _Port = 0


class RoomNews(Struct, frozen=True, kw_only=True):
    """What happened in a room that was joined; usually one of these."""

    publishers: Annotated[list[Participant], Meta(max_length=_MAX_LIST)] = []
    """Who publishes from now on, or publishes something else."""
    joining: Participant | None = None
    leaving: RoomId | None = None
    unpublished: RoomId | None = None
    videoroom: Annotated[str, Meta(max_length=64)] = ""

    @property
    def destroyed(self) -> bool:
        """Whether the room is no more."""
        return self.videoroom == "destroyed"


class Reply(Struct, frozen=True):
    """The answer to a request: the id that was made, or what the plugin says."""

    transaction: str
    id: int | None = None
    view: RoomView = RoomView()


class Refusal(Struct, frozen=True):
    """The answer to a request that is not done. `code` is the server's or the plugin's."""

    transaction: str
    code: int
    reason: str


class Acknowledged(Struct, frozen=True):
    """A request has arrived; whether an answer follows depends on the request."""

    transaction: str


class News(Struct, frozen=True):
    """Something happened that was not asked for, told to the handle `sender`."""

    sender: int
    news: RoomNews


class Ended(Struct, frozen=True):
    """The session (`sender` None) or a handle is over, by the server's will."""

    sender: int | None


class Other(Struct, frozen=True):
    """Of no concern: WebRTC of a handle, slow links, and whatever later versions say."""


Received = Reply | Refusal | Acknowledged | News | Ended | Other


class _Error(Struct, frozen=True):
    code: int = 0
    reason: _Text = ""


class _Made(Struct, frozen=True):
    id: int | None = None


class _PluginData(Struct, frozen=True):
    plugin: Annotated[str, Meta(max_length=128)]
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Envelope(Struct, frozen=True):
    janus: Annotated[str, Meta(max_length=64)]
    transaction: Annotated[str, Meta(max_length=128)] | None = None
    sender: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    data: _Made | None = None
    plugindata: _PluginData | None = None
    error: _Error | None = None


class _Failed(Struct, frozen=True):
    error_code: int | None = None
    error: _Text = ""


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_FAILED: Final = msgspec.json.Decoder(_Failed)
_VIEW: Final = msgspec.json.Decoder(RoomView)
_NEWS: Final = msgspec.json.Decoder(RoomNews)


def decode(text: str | bytes) -> Received:
    """Read what the server has sent. Raises JanusMessageError."""
    try:
        return _read(_ENVELOPE.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # msgspec's words name fields and types, never values.
        raise JanusMessageError(f"the Janus server sent no message of its API: {error}") from None


def _read(envelope: _Envelope) -> Received:
    transaction = envelope.transaction
    match envelope.janus:
        case "ack" if transaction is not None:
            return Acknowledged(transaction)
        case "error" if transaction is not None and envelope.error is not None:
            return Refusal(transaction, envelope.error.code, envelope.error.reason)
        case "success" | "event":
            return _read_answer(envelope)
        case "timeout":
            return Ended(None)
        case "detached" if envelope.sender is not None:
            return Ended(envelope.sender)
        case _:
            return Other()


def _read_answer(envelope: _Envelope) -> Received:
    transaction, plugin = envelope.transaction, envelope.plugindata
    if plugin is None:
        made = envelope.data.id if envelope.data is not None else None
        return Reply(transaction, made) if transaction is not None else Other()
    if plugin.plugin != PLUGIN:
        return Other()
    if transaction is None:
        return News(envelope.sender, _NEWS.decode(plugin.data)) if envelope.sender is not None else Other()
    failed = _FAILED.decode(plugin.data)
    if failed.error_code is not None:
        return Refusal(transaction, failed.error_code, failed.error)
    return Reply(transaction, None, _VIEW.decode(plugin.data))
