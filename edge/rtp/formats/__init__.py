"""Payload formats: how encoded frames travel in RTP packets, a module for each codec.

The frames are as clusters have them inside (bridges.wire.frame): VP8 and VP9 as the encoder gives them, H264
as NAL units behind start codes, AV1 as OBUs with their sizes and without temporal delimiters, Opus as one
packet of its own. Pure; nothing here knows of loss, order or time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.rtp.formats.av1 import Av1Packets, Av1Pictures
from edge.rtp.formats.h264 import H264Packets, H264Pictures
from edge.rtp.formats.opus import OpusPackets, OpusSound
from edge.rtp.formats.vp8 import Vp8Packets, Vp8Pictures
from edge.rtp.formats.vp9 import Vp9Packets, Vp9Pictures
from edge.rtp.track import Codec, RtpTrack

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.rtp.formats.port import Depacketizer, Packetizer

__all__ = ["depacketizer", "packetizer"]

_DEPACKETIZERS: Final[dict[Codec, Callable[[RtpTrack, int], Depacketizer]]] = {
    Codec.VP8: Vp8Pictures,
    Codec.VP9: Vp9Pictures,
    Codec.H264: H264Pictures,
    Codec.AV1: Av1Pictures,
    Codec.OPUS: OpusSound,
}
_PACKETIZERS: Final[dict[Codec, Callable[[], Packetizer]]] = {
    Codec.VP8: Vp8Packets,
    Codec.VP9: Vp9Packets,
    Codec.H264: H264Packets,
    Codec.AV1: Av1Packets,
    Codec.OPUS: OpusPackets,
}


def depacketizer(track: RtpTrack, *, max_frame_bytes: int) -> Depacketizer:
    """Return what puts frames of the track's codec together."""
    return _DEPACKETIZERS[track.codec](track, max_frame_bytes)


def packetizer(track: RtpTrack) -> Packetizer:
    """Return what takes frames of the track's codec apart."""
    return _PACKETIZERS[track.codec]()
