"""Limits of RTP: what a track may wait for, keep, ask and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RtpSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=60)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class RtpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[edge.rtp]`: limits of tracks over RTP."""

    max_packet_bytes: Annotated[int, Meta(ge=200, le=9000)] = 1200
    """Largest RTP packet that is sent, bytes, its header included. Default 1,200."""
    max_frame_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 4 << 20
    """Largest frame that is put together from packets, bytes. Default 4 MiB."""
    max_waiting_packets: Annotated[int, Meta(ge=16, le=16_384)] = 1024
    """Packets of a track that wait for a missing one, at most. Default 1,024."""
    patience: _Seconds = 0.25
    """Seconds that a missing packet is waited for, and asked for. Default 0.25."""
    nack_delay: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Seconds until a missing packet is asked for: it may only be out of order. Default 0.01."""
    nack_interval: _Seconds = 0.05
    """Seconds between two requests for the same packet. Default 0.05."""
    max_nacks_per_second: _Count = 500
    """Packets of a track that are asked for in a second, at most. Default 500."""
    history_packets: Annotated[int, Meta(ge=16, le=16_384)] = 1024
    """Packets of a sent track that are kept, to be sent again. Default 1,024."""
    history: _Seconds = 1.0
    """Seconds that they are kept. Default 1."""
    max_repeats_per_second: _Count = 500
    """Packets of a track that are sent again in a second, at most. Default 500."""
    key_frame_interval: _Seconds = 0.5
    """Seconds between two requests for a key frame, in either direction. Default 0.5."""
    report_interval: _Seconds = 1.0
    """Seconds between two RTCP reports. Default 1."""
    source_timeout: _Seconds = 1.0
    """Seconds of silence after which another source (SSRC) may take a track's place. Default 1."""
    send_buffer_bytes: Annotated[int, Meta(ge=4096, le=16 << 20)] = 1 << 20
    """Bytes that may wait to be sent on one socket; what comes then is dropped. Default 1 MiB."""
