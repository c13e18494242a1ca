"""What an operator may set about the media bridge: the table `[bridge.media]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from bridges.internal.settings import InternalSettings

__all__ = ["MediaSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=600)]


class MediaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and timing of a media bridge."""

    hello_timeout: _Seconds = 3.0
    """Seconds until a peer must have said what a new connection or track stream is for."""
    link_timeout: _Seconds = 10.0
    """Seconds that the node may take to name the source of a track that a peer asked for."""
    redial_base: _Seconds = 0.2
    """Seconds that the first delay before redialling, or pulling a track again, may take; doubled with
    every failure."""
    redial_cap: _Seconds = 5.0
    """Seconds that this delay grows to at most."""
    stable_after: _Seconds = 5.0
    """Seconds that a connection must have lasted for the next delay to start small again."""
    key_frame_interval: _Seconds = 0.5
    """Seconds between two key-frame requests to a peer for one track."""
    max_backlog_bytes: Annotated[int, Meta(ge=1 << 10, le=64 << 20)] = 2 << 20
    """Bytes of one track that may be sent to a peer and not yet acknowledged before frames are dropped."""
    max_delay: _Seconds = 1.0
    """Seconds of media of one track that may be under way to a peer before frames are dropped."""
    max_frame_bytes: Annotated[int, Meta(ge=1 << 10, le=64 << 20)] = 4 << 20
    """Bytes of the largest frame that is taken from a peer, its header included."""
    max_tracks: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Tracks that are pulled at once, and likewise tracks that are sent; further ones are refused."""
    max_links: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Links (peer cluster and room) that are dialled at once; further ones are refused."""
    internal_host: str = ""
    """Address at which this cluster's agents get the tracks that come in; empty: `bridge.host`."""
    internal_min_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Lowest TCP port there; 0: a free one."""
    internal_max_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Highest TCP port there: the first free one from `internal_min_port` on is taken."""
    internal: InternalSettings = field(default_factory=InternalSettings)
    """The internal transport between the agents of this cluster: the table `[bridge.media.internal]`."""
