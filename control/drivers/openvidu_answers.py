"""What an OpenVidu 2 server answers (2.32, REST API), read into our values. Pure: bytes in, values out.

Every function raises MalformedAnswerError, and nothing else, for whatever it cannot understand. Fields that
only some versions or editions send have defaults; words that may grow (a status) are kept as text.
Times are milliseconds since 1970, as OpenVidu has them.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from msgspec import Meta, Struct, field

from control.drivers.answers import decode, is_host
from control.drivers.base import Health, MalformedAnswerError, RoomToken

__all__ = [
    "Connection",
    "MediaNode",
    "Recording",
    "Session",
    "read_connections",
    "read_health",
    "read_media_nodes",
    "read_recording",
    "read_recordings",
    "read_session",
    "read_sessions",
    "read_token",
]

_MAX_TOKEN: Final = 4096
_PORTS: Final = {"wss": 443, "ws": 80}

_Id = Annotated[str, Meta(min_length=1, max_length=512)]
_T = TypeVar("_T")


class _Value(Struct, frozen=True, kw_only=True, rename="camel"):
    """An object of the API; fields that control does not use are skipped."""


# --- values -----------------------------------------------------------------------------------


class _MediaNodeId(_Value, frozen=True, kw_only=True):
    id: str


class _OnMediaNode(_Value, frozen=True, kw_only=True):
    """Pro editions name the media node, older versions under another name; nobody does before it is known."""

    media_node_id: str | None = None
    media_node: _MediaNodeId | None = None

    @property
    def node(self) -> str | None:
        """The media node that it lives on."""
        return self.media_node.id if self.media_node is not None else self.media_node_id


class _Stream(_Value, frozen=True, kw_only=True):
    stream_id: str = ""


class Connection(_Value, frozen=True, kw_only=True):
    """A connection of a session: a token that waits for its client (`pending`), or a client (`active`)."""

    id: _Id = field(name="connectionId")
    status: str
    type: str = "WEBRTC"
    """WEBRTC, or IPCAM for a camera that the server itself fetches."""
    role: str | None = None
    server_data: str | None = None
    created_at: int | None = None
    publishers: list[_Stream] | None = None

    @property
    def active(self) -> bool:
        """It is somebody in the room."""
        return self.status == "active"

    @property
    def streams(self) -> int:
        """How many streams it publishes."""
        return len(self.publishers or ())


class _List(_Value, Generic[_T], frozen=True, kw_only=True):
    content: list[_T]


class Session(_OnMediaNode, frozen=True, kw_only=True):
    """A session with its connections."""

    id: _Id
    created_at: int = 0
    recording: bool = False
    connection_list: _List[Connection] | None = field(name="connections", default=None)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All of them, pending ones only where they were asked for."""
        return tuple(self.connection_list.content) if self.connection_list is not None else ()

    @property
    def participants(self) -> int:
        """How many are in the room."""
        return sum(connection.active for connection in self.connections)

    @property
    def streams(self) -> int:
        """How many streams are published in the room."""
        return sum(connection.streams for connection in self.connections)


class Recording(_OnMediaNode, frozen=True, kw_only=True):
    """A recording. Its id is the session's, followed by `~1`, `~2` … from the second one on."""

    id: _Id
    session_id: _Id
    name: str = ""
    status: str
    """starting → started → stopped → ready or failed; `stopped` says nothing of the file yet."""
    output_mode: str = ""
    has_audio: bool = True
    has_video: bool = True
    resolution: str | None = None
    created_at: int = 0
    size: int = 0
    """Bytes; 0 until it is ready."""
    duration: float = 0.0
    """Seconds; 0 until it is ready."""
    url: str | None = None

    @property
    def running(self) -> bool:
        """It is being recorded, or about to be."""
        return self.status in {"starting", "started"}


class MediaNode(_Value, frozen=True, kw_only=True):
    """A machine of a Pro or Enterprise cluster that carries media."""

    id: _Id
    status: str
    """launching, running, waiting-idle-to-terminate (draining), terminating, terminated, failed, canceled."""
    connected: bool = True
    load: float = 0.0
    """0 to 100."""
    ip: str | None = None
    uri: str | None = None


class _Recordings(_Value, frozen=True, kw_only=True):
    items: list[Recording]


class _Token(_Value, frozen=True, kw_only=True):
    token: Annotated[str, Meta(min_length=1, max_length=_MAX_TOKEN, pattern=r"^[!-~]+\Z")]


_Status = Literal["UP", "UNSTABLE", "DOWN"]


class _NodeHealth(_Value, frozen=True, kw_only=True):
    disconnected_media_nodes: list[str] = []  # msgspec copies a default


class _Health(_NodeHealth, frozen=True, kw_only=True):
    """With one master `status`, with several ones `clusterStatus` and each of them in `nodes`."""

    status: _Status | None = None
    cluster_status: _Status | None = None
    nodes: dict[str, _NodeHealth] = {}  # msgspec copies a default


# --- reading ----------------------------------------------------------------------------------


def read_session(answer: bytes) -> Session:
    """Read a session."""
    return decode(answer, Session)


def read_sessions(answer: bytes) -> tuple[Session, ...]:
    """Read `{numberOfElements, content: […]}`."""
    return tuple(decode(answer, _List[Session]).content)


def read_connections(answer: bytes) -> tuple[Connection, ...]:
    """Read `{numberOfElements, content: […]}`."""
    return tuple(decode(answer, _List[Connection]).content)


def read_recording(answer: bytes) -> Recording:
    """Read a recording."""
    return decode(answer, Recording)


def read_recordings(answer: bytes) -> tuple[Recording, ...]:
    """Read `{count, items: […]}`."""
    return tuple(decode(answer, _Recordings).items)


def read_media_nodes(answer: bytes) -> tuple[MediaNode, ...]:
    """Read `{numberOfElements, content: […]}`."""
    return tuple(decode(answer, _List[MediaNode]).content)


def read_health(answer: bytes) -> Health:
    """Read `{status, disconnectedMediaNodes}` or, of several masters, `{clusterStatus, nodes: {id: …}}`."""
    read = decode(answer, _Health)
    # Several masters speak to the same media nodes: what all of them have lost is named once.
    lost = dict.fromkeys(read.disconnected_media_nodes)
    for node in read.nodes.values():
        lost |= dict.fromkeys(node.disconnected_media_nodes)
    match read.cluster_status or read.status:
        case "UP":
            return Health(state="up", lost_nodes=tuple(lost))
        case "UNSTABLE":
            return Health(state="degraded", lost_nodes=tuple(lost))
        case "DOWN":
            return Health(state="down", lost_nodes=tuple(lost))
        case None:
            raise MalformedAnswerError("the answer tells no health")


def read_token(answer: bytes, session: str) -> RoomToken:
    """Read a new connection's token: `wss://host[:port]?sessionId=…&token=…`, which the client gets whole."""
    text = decode(answer, _Token).token
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        asked = parse_qs(url.query, max_num_fields=100)
    except ValueError:
        raise MalformedAnswerError("the token is not a URL") from None
    if url.scheme not in _PORTS or "@" in url.netloc or not is_host(host, ipv6=":" in host) or port == 0:
        raise MalformedAnswerError("the token is not the WebSocket URL of a server")
    if asked.get("sessionId") != [session] or not asked.get("token"):
        raise MalformedAnswerError("the token is not one for this session")
    return RoomToken(ip=host, port=port or _PORTS[url.scheme], secure=url.scheme == "wss", text=text)
