"""What an operator may set about the media bridge: the table `[bridge.media]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from bridges.internal.settings import InternalSettings

__all__ = ["MediaSettings", "OwnMediaSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=600)]
_Moment = Annotated[float, Meta(gt=0, le=1.0)]


class OwnMediaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and timing of media on our own wire, `causeway/1`, between two Causeway bridges."""

    deadline: _Moment = 0.2
    """Seconds beyond the way's own delay after which sound, or a picture that no other needs, is too late."""
    useful: _Moment = 0.6
    """Seconds after which a picture is of no use even for those that need it, and is not sent any more."""
    backlog: _Moment = 0.4
    """Seconds that a picture may have to wait for those before it; one that would wait longer is refused."""
    patience: _Moment = 1.0
    """Seconds that a frame which misses something is waited for at most, once a later one has come."""
    max_queue_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 30)] = 2 << 20
    """Bytes that may wait to be sent on one connection; what comes beyond is refused."""
    max_track_queue_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 30)] = 1 << 20
    """Of these, how many may be of one track."""
    max_incoming_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 34)] = 64 << 20
    """Bytes of incomplete frames that are kept for one connection; what comes beyond is passed over."""
    max_malformed: Annotated[int, Meta(ge=1)] = 100
    """Datagrams that are not of the format, after which the connection is closed."""


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
    least_bitrate: Annotated[int, Meta(ge=1, le=65_535)] = 150
    """Kilobits a second that the source of a picture track is asked to go down to at most, where a link takes
    less than is offered. Everybody gets what it sends; below this, a narrow link loses its own pictures."""
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
    own: OwnMediaSettings = field(default_factory=OwnMediaSettings)
    """Media on our own wire: the table `[bridge.media.own]`."""
    internal_host: str = ""
    """Address at which this cluster's agents get the tracks that come in; empty: `bridge.host`."""
    internal_min_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Lowest TCP port there; 0: a free one."""
    internal_max_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Highest TCP port there: the first free one from `internal_min_port` on is taken."""
    internal: InternalSettings = field(default_factory=InternalSettings)
    """The internal transport between the agents of this cluster: the table `[bridge.media.internal]`."""
