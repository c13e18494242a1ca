"""What a participant's process says on standard output: one JSON object a line, for the launcher.

Each line is one of the structs below; `event` says which. Counters count since the process started, lists
hold what is new since the line before, at most MAX_PER_LINE entries, the newest. Times `t` are seconds of
CLOCK_MONOTONIC, which all processes of a machine share. Pure; a reader ignores fields that it does not know.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

__all__ = [
    "MAX_PER_LINE",
    "Disconnected",
    "JoinFailed",
    "Joined",
    "Left",
    "Line",
    "Published",
    "Received",
    "Report",
    "Role",
    "StreamAdded",
    "StreamRemoved",
    "decode",
    "encode",
]

MAX_PER_LINE: Final = 1024
"""Entries of each list in one line: a second of anything that the laboratory does has fewer."""

Role = Literal["publisher", "subscriber", "both"]
Number = tuple[int, int]
"""The number burnt into a picture, and the RTP timestamp (90 kHz, 32 bits) of the frame that carries it."""
Numbers = Annotated[list[Number], Meta(max_length=MAX_PER_LINE)]
Delays = Annotated[list[float], Meta(max_length=MAX_PER_LINE)]


class Published(Struct, frozen=True, kw_only=True):
    """What was encoded and offered; nothing is encoded while nobody pulls."""

    frames: int = 0
    bytes: int = 0
    """Of video payload."""
    key_frames: int = 0
    key_frame_requests: int = 0
    late: int = 0
    """Pictures that were left out because the machine was too slow for the pace."""
    audio_frames: int = 0
    dropped: int = 0
    """Frames that a subscriber was too slow for, summed over subscribers."""
    bitrate: int = 0
    """Of video, in bit/s: what was wanted at first, or what the links have asked for."""
    numbers: Numbers = field(default_factory=list)


class Received(Struct, frozen=True, kw_only=True):
    """What came of one stream."""

    from_cluster: str
    """The cluster that the stream lives in."""
    active: bool = True
    """Whether the stream is there now."""
    subscribed: bool = False
    frames: int = 0
    bytes: int = 0
    """Of video payload."""
    key_frames: int = 0
    decoded: int = 0
    """Pictures that were decoded and whose number was read."""
    unreadable: int = 0
    """Pictures that did not decode, or whose number could not be read."""
    skipped: int = 0
    """Frames not looked at: before the first key frame, or because the decoder was behind."""
    audio_frames: int = 0
    audio_decoded: int = 0
    subscriptions: int = 0
    """How often the stream was subscribed to."""
    numbers: Numbers = field(default_factory=list)
    """Of the pictures decoded since the last line."""
    delays_ms: Delays = field(default_factory=list)
    """Age of each video frame on arrival, before decoding, since the last line; milliseconds."""


class _Line(Struct, frozen=True, kw_only=True, tag_field="event"):
    t: float


class Report(_Line, frozen=True, kw_only=True, tag="report"):
    """Once a second."""

    role: Role
    participant: str
    """Empty while not joined; so are cluster and region before the first join."""
    cluster: str
    region: str
    published: Published | None
    received: dict[str, Received]
    """By stream id; streams that are gone are kept for a while."""


class Joined(_Line, frozen=True, kw_only=True, tag="joined"):
    """Control has placed us, and the cluster has let us in."""

    participant: str
    cluster: str
    region: str
    room: str


class JoinFailed(_Line, frozen=True, kw_only=True, tag="join-failed"):
    """A try to join failed; the next follows after `retry_in` seconds."""

    error: str
    retry_in: float


class Disconnected(_Line, frozen=True, kw_only=True, tag="disconnected"):
    """The portal connection broke; joining starts again after `retry_in` seconds."""

    participant: str
    cluster: str
    error: str
    retry_in: float


class Left(_Line, frozen=True, kw_only=True, tag="left"):
    """We left politely; the last line."""

    participant: str


class StreamAdded(_Line, frozen=True, kw_only=True, tag="stream-added"):
    """Somebody else's stream is there."""

    stream: str
    from_cluster: str


class StreamRemoved(_Line, frozen=True, kw_only=True, tag="stream-removed"):
    """It is gone."""

    stream: str
    from_cluster: str


Line = Report | Joined | JoinFailed | Disconnected | Left | StreamAdded | StreamRemoved

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """Return `line` as JSON with its line feed."""
    return _ENCODER.encode(line) + b"\n"


def decode(line: bytes) -> Line:
    """Read a line. Raises msgspec.DecodeError for anything else."""
    return _DECODER.decode(line)
