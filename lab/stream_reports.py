"""A stream of this cluster as control is told of it; kept as text, so that equal ones compare equal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from causeway.api import StreamReport, Track

if TYPE_CHECKING:
    from bridges.wire.objects import Stream
    from bridges.wire.objects import Track as OwtTrack

__all__ = ["read", "text_of"]

_MOST: Final = 64
"""Characters of what publishers say of their tracks."""


def text_of(stream: Stream) -> str:
    """Return the report of a stream that is published here."""
    tracks = [_track(track) for track in stream.media.tracks]
    report = StreamReport(participant=stream.info.owner or None, tracks=tracks)
    return msgspec.json.encode(report).decode()


def read(text: str) -> StreamReport:
    """Return the report that `text_of` made."""
    return msgspec.json.decode(text, type=StreamReport)


def _track(track: OwtTrack) -> Track:
    codec = (track.format or {}).get("codec")
    return Track(
        kind=track.type,
        id=track.id,
        codec=str(codec)[:_MOST] if codec else None,
        source=track.source[:_MOST] if track.source else None,
        muted=track.status == "inactive",
    )
