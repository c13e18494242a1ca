"""The settings of an edge: `[lab]` is the cluster that it runs, `[edge]` what it is made of."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from causeway.telemetry import LogSettings
from edge.janus.settings import JanusSettings
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec
from lab.settings import LabSettings

__all__ = ["EdgeSettings", "InputTrack", "RtpInput", "RtpOutput", "Settings"]

_Id = Annotated[str, Meta(min_length=1, max_length=128)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_PortOrNone = Annotated[int, Meta(ge=0, le=65535)]
_PayloadType = Annotated[int, Meta(ge=0, le=127)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]


class InputTrack(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One track that comes to a port."""

    codec: Codec
    port: _Port
    """UDP port of RTP; RTCP has the next one."""
    payload_type: _PayloadType
    mux: bool = False
    """Whether RTP and RTCP share the port."""
    ssrc: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    """Without one, the track may change it."""


class RtpInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream that is received as RTP and published in a conference."""

    conference: _Id
    user: _Id
    """The name under which it is published."""
    role: Annotated[str, Meta(min_length=1, max_length=64)] = "presenter"
    sdp: str = ""
    """File that describes the tracks; or else they are listed:"""
    tracks: Annotated[tuple[InputTrack, ...], Meta(max_length=2)] = ()
    peer: str = ""
    """IP address from which it comes; empty: any."""


class RtpOutput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream of a conference that is sent as RTP."""

    conference: _Id
    user: _Id
    """The name under which the conference sees who watches."""
    role: Annotated[str, Meta(min_length=1, max_length=64)] = "viewer"
    of: Annotated[str, Meta(max_length=256)] = ""
    """Whose stream: the name of a user, or the id of a stream. Empty: anybody's, the oldest that there is."""
    host: str = "127.0.0.1"
    """Where it goes."""
    video_port: _PortOrNone = 0
    """UDP port there for the RTP of pictures, RTCP has the next one; 0: no pictures."""
    audio_port: _PortOrNone = 0
    """Likewise for sound."""
    key_frame_every: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """Seconds between key frames that are asked for on behalf of receivers that do not ask; 0: none are."""
    sdp: str = ""
    """File that is written for the receiver; empty: none."""


class EdgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[edge]`: what an edge takes into conferences and gives out of them."""

    application_key: str = ""
    """Key to join conferences with, `cw_application_…`; needed for inputs and outputs."""
    idle_timeout: _Seconds = 10.0
    """Seconds without a packet after which an input's stream leaves its conference. Default 10."""
    join_retry_cap: _Seconds = 5.0
    """Seconds that the delay between attempts to join grows to at most. Default 5."""
    inputs: Annotated[tuple[RtpInput, ...], Meta(max_length=256)] = ()
    """Streams that are received as RTP; docs/edge.md has examples."""
    outputs: Annotated[tuple[RtpOutput, ...], Meta(max_length=256)] = ()
    """Streams that are sent as RTP; likewise."""
    rtp: RtpSettings = field(default_factory=RtpSettings)
    """`[edge.rtp]`"""
    janus: JanusSettings = field(default_factory=JanusSettings)
    """`[edge.janus]`"""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an edge process reads of the settings file."""

    lab: LabSettings = field(default_factory=LabSettings)
    edge: EdgeSettings = field(default_factory=EdgeSettings)
    log: LogSettings = field(default_factory=LogSettings)
