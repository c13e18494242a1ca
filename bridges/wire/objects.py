"""The objects that events carry: participants and streams, in OWT's field names.

Only the fields that Causeway itself acts upon are required; a bridge forwards objects as they came, unknown
fields included (see bridges.wire.messages).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

__all__ = ["MediaOptions", "Participant", "Stream", "StreamInfo", "StreamMedia", "Track", "TrackRequest"]

Id = Annotated[str, Meta(min_length=1, max_length=256)]
TrackKind = Literal["audio", "video"]


class Participant(Struct, omit_defaults=True, kw_only=True):
    """Somebody in a conference. `cascading` marks one who sits in another cluster."""

    id: Id
    user: str = ""
    role: str = ""
    portal: str | None = None
    origin: dict[str, Any] | None = None
    permission: dict[str, Any] | None = None
    cascading: bool | None = None


class Track(Struct, omit_defaults=True, kw_only=True):
    """One track of a stream. `format` is OWT's `{codec, profile?, sampleRate?, channelNum?}`."""

    id: Id
    type: TrackKind
    source: str | None = None
    format: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    status: str | None = None


class StreamMedia(Struct, kw_only=True):
    """The tracks of a stream."""

    tracks: list[Track]


class StreamInfo(Struct, omit_defaults=True, kw_only=True, rename={"in_views": "inViews"}):
    """Whose stream it is and how it came in."""

    owner: str = ""
    type: str = "webrtc"
    in_views: list[str] = field(default_factory=list)
    attributes: Any = None


class Stream(Struct, omit_defaults=True, kw_only=True):
    """A published stream. `cluster` names the cluster that it lives in."""

    id: Id
    type: str = "forward"
    media: StreamMedia
    info: StreamInfo = field(default_factory=StreamInfo)
    data: Any = None
    cluster: str | None = None


class TrackRequest(Struct, omit_defaults=True, kw_only=True, rename={"from_": "from"}):
    """A track that a subscription wants: our `id` for it, and the track or stream it comes `from`."""

    id: Id
    type: TrackKind
    from_: Id


class MediaOptions(Struct, kw_only=True):
    """The media part of a subscription."""

    tracks: Annotated[list[TrackRequest], msgspec.Meta(max_length=16)]
