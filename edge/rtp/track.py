"""What one track looks like as RTP: the codec, its payload type, its clock."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from bridges.wire.frame import FrameFormat

__all__ = ["Codec", "RtpTrack"]


class Codec(StrEnum):
    """The codecs that are taken and given, by the names that a stream's format has."""

    VP8 = "vp8"
    VP9 = "vp9"
    H264 = "h264"
    AV1 = "av1"
    OPUS = "opus"

    @property
    def is_video(self) -> bool:
        """Whether it encodes pictures."""
        return self is not Codec.OPUS

    @property
    def clock_rate(self) -> int:
        """Ticks a second of the timestamps: as their payload formats say."""
        return 90_000 if self.is_video else 48_000

    @property
    def frame_format(self) -> FrameFormat:
        """The number that frames of this codec have inside a cluster."""
        return _FORMATS[self]

    @property
    def encoding_name(self) -> str:
        """The name in SDP (`a=rtpmap`)."""
        return "opus" if self is Codec.OPUS else self.value.upper()


_FORMATS: Final = {
    Codec.VP8: FrameFormat.VP8,
    Codec.VP9: FrameFormat.VP9,
    Codec.H264: FrameFormat.H264,
    Codec.AV1: FrameFormat.AV1,
    Codec.OPUS: FrameFormat.OPUS,
}


class RtpTrack(Struct, frozen=True, kw_only=True):
    """One track. Without `ssrc` an incoming one is known by its payload type, an outgoing one draws it."""

    codec: Codec
    payload_type: Annotated[int, Meta(ge=0, le=127)]
    ssrc: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    parameters: tuple[bytes, ...] = ()
    """Of H264: parameter sets (NAL units) that were told beside the packets and are put before key frames."""
