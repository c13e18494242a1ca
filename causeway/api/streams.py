"""Streams: as clusters report them, and as applications see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from causeway.api.base import Answer, Request

__all__ = ["StreamReport", "StreamView", "Track"]

Drawn = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~@:+=-]+$(?!\n)", max_length=128)]
"""Drawn by clusters; wider than our own names."""


class Track(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A track of a stream."""

    kind: Literal["audio", "video"]
    id: Drawn | None = None
    codec: Annotated[str, Meta(max_length=64)] | None = None
    source: Annotated[str, Meta(max_length=64)] | None = None
    """`camera`, `mic`, `screen-cast` …, as the publisher says."""
    muted: bool = False


class StreamReport(Request, frozen=True, kw_only=True):
    """`PUT /v1/clusters/{id}/rooms/{room}/streams/{stream}`: published there, by a client of that cluster."""

    participant: Drawn | None = None
    """Whose it is; it goes with them. None: the room's own (mixed)."""
    tracks: Annotated[list[Track], Meta(max_length=32)] = field(default_factory=list)


class StreamView(Answer, frozen=True, kw_only=True):
    """A stream, on the cluster where it is published."""

    id: str
    participant: str | None
    cluster: str
    tracks: list[Track]
    published_at: datetime
