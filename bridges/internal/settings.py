"""Limits of the internal TCP transport."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["InternalSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=60)]


class InternalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one side of an internal connection may take, in bytes, seconds and counts."""

    connect_timeout: _Seconds = 2.0
    """Seconds that dialling may take."""
    init_timeout: _Seconds = 2.0
    """Seconds until a new connection must have named the stream that it wants."""
    source_wait: _Seconds = 2.0
    """Seconds that a connection waits for a stream that is not there yet: announcing a stream and connecting
    for it may cross."""
    linger: _Seconds = 1.0
    """Seconds that a connection may take to deliver its last frames after the stream's end."""
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Connections that a listener serves at once; more are closed at once."""
    max_frame_bytes: Annotated[int, Meta(ge=1 << 10, le=64 << 20)] = 4 << 20
    """Bytes of the largest frame that is taken, its header included."""
    max_backlog_bytes: Annotated[int, Meta(ge=1 << 10, le=64 << 20)] = 1 << 20
    """Bytes that may wait in one connection before frames are dropped."""
    max_delay: _Seconds = 1.0
    """Seconds of media that may wait in one connection before frames are dropped."""
    key_frame_interval: _Seconds = 0.25
    """Seconds between two key-frame requests of one connection."""
    send_buffer_bytes: Annotated[int, Meta(ge=4 << 10, le=4 << 20)] = 128 << 10
    """Bytes that the kernel may hold for one connection; what waits there is seen by no limit of ours."""
