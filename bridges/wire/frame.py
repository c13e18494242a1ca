"""OWT's two binary structs: the media frame with its 40-byte header, and the 272-byte feedback message.

Both are x86-64 little-endian C layouts that OWT's agents send as they lie in memory (owt-server 5.x,
`MediaFramePipeline.h`); fields that the formats do not use are kept as they came, so that a frame forwarded
is a frame unchanged. Offsets are the ones in docs/wire.md.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, Self

from bridges.wire.errors import FramingError

__all__ = [
    "FEEDBACK_BYTES",
    "HEADER_BYTES",
    "MAX_STREAM_ID_BYTES",
    "AudioInfo",
    "Feedback",
    "FeedbackCommand",
    "FeedbackType",
    "FrameFormat",
    "MediaFrame",
    "VideoInfo",
]

HEADER_BYTES: Final = 40
FEEDBACK_BYTES: Final = 272
MAX_STREAM_ID_BYTES: Final = 128


class FrameFormat(IntEnum):
    """What a frame's payload is."""

    I420 = 100
    VP8 = 200
    VP9 = 201
    H264 = 202
    H265 = 203
    AV1 = 204
    PCM_48000_2 = 800
    PCMU = 900
    PCMA = 901
    OPUS = 902
    ISAC16 = 903
    ISAC32 = 904
    ILBC = 905
    G722_16000_1 = 906
    G722_16000_2 = 907
    AAC = 908
    AAC_48000_2 = 909
    AC3 = 910
    NELLYMOSER = 911
    DATA = 912
    RTP = 913

    @property
    def is_video(self) -> bool:
        """Whether frames of this format are pictures, and so have key frames."""
        return self < FrameFormat.PCM_48000_2


# i32 format @0, 4 pad, u64 pointer @8 (meaningless on the wire), u32 length @16, u32 timestamp @20, info @24
_HEADER: Final = struct.Struct("<i4xQII16s")
_VIDEO: Final = struct.Struct("<HHB11x")  # u16 width @24, u16 height @26, u8 key frame @28
_AUDIO: Final = struct.Struct("<B3xIIBBB1x")  # u8 is-RTP @24, u32 samples @28, u32 rate @32, u8 × 3 @36
# i32 type @0, i32 cmd @4, union of 132 bytes @8, u32 buffer length @140, 128 bytes @144
_FEEDBACK: Final = struct.Struct("<ii132sI128s")
_RATE: Final = struct.Struct("<H130x")

assert _HEADER.size == HEADER_BYTES
assert _FEEDBACK.size == FEEDBACK_BYTES


class VideoInfo:
    """What the header says of a picture: `width` and `height` in pixels, and whether it is a key frame."""

    __slots__ = ("height", "key_frame", "width")

    def __init__(self, *, width: int, height: int, key_frame: bool) -> None:
        self.width = width
        self.height = height
        self.key_frame = key_frame

    def encode(self) -> bytes:
        """Return the 16 bytes at offset 24."""
        return _VIDEO.pack(self.width, self.height, self.key_frame)


class AudioInfo:
    """What the header says of sound; `samples` are counted per channel, `sample_rate` is in Hz."""

    __slots__ = ("channels", "is_rtp_packet", "level", "sample_rate", "samples", "voice")

    def __init__(
        self,
        *,
        samples: int,
        sample_rate: int,
        channels: int,
        is_rtp_packet: bool = False,
        voice: int = 0,
        level: int = 0,
    ) -> None:
        self.samples = samples
        self.sample_rate = sample_rate
        self.channels = channels
        self.is_rtp_packet = is_rtp_packet
        self.voice = voice
        self.level = level

    def encode(self) -> bytes:
        """Return the 16 bytes at offset 24."""
        return _AUDIO.pack(
            self.is_rtp_packet, self.samples, self.sample_rate, self.channels, self.voice, self.level
        )


class MediaFrame:
    """One encoded frame, kept as the bytes that it travels as: header, then payload.

    `format` is the raw number, so that formats newer than FrameFormat pass; `timestamp` is in the RTP clock
    (90 kHz video, 48 kHz Opus) and wraps at 2^32.
    """

    __slots__ = ("format", "raw", "timestamp")

    def __init__(self, raw: bytes) -> None:
        """Take a frame as it came; raises FramingError when it is no frame."""
        if len(raw) < HEADER_BYTES:
            raise FramingError(f"media frame of {len(raw)} bytes is shorter than its header")
        format_, _pointer, length, timestamp, _info = _HEADER.unpack_from(raw)
        if length != len(raw) - HEADER_BYTES:
            raise FramingError(f"media frame says {length} bytes and carries {len(raw) - HEADER_BYTES}")
        self.raw = raw
        self.format: int = format_
        self.timestamp: int = timestamp

    @classmethod
    def build(
        cls, format_: FrameFormat, *, timestamp: int, info: VideoInfo | AudioInfo, payload: bytes
    ) -> Self:
        """Return a frame of our own making; `timestamp` is taken modulo 2^32."""
        header = _HEADER.pack(format_, 0, len(payload), timestamp & 0xFFFFFFFF, info.encode())
        return cls(header + payload)

    @property
    def payload(self) -> bytes:
        """The encoded picture, or the sound (a whole RTP packet when is_rtp_packet is set)."""
        return self.raw[HEADER_BYTES:]

    @property
    def is_video(self) -> bool:
        """Whether this is a picture; data and sound are not."""
        return self.format < FrameFormat.PCM_48000_2

    @property
    def key_frame(self) -> bool:
        """Whether decoding can start here: always so for anything but pictures."""
        return not self.is_video or self.raw[28] != 0

    @property
    def video(self) -> VideoInfo:
        """The info field read as a picture's."""
        width, height, key_frame = _VIDEO.unpack_from(self.raw, 24)
        return VideoInfo(width=width, height=height, key_frame=key_frame != 0)

    @property
    def audio(self) -> AudioInfo:
        """The info field read as sound's."""
        is_rtp, samples, sample_rate, channels, voice, level = _AUDIO.unpack_from(self.raw, 24)
        return AudioInfo(
            samples=samples,
            sample_rate=sample_rate,
            channels=channels,
            is_rtp_packet=is_rtp != 0,
            voice=voice,
            level=level,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MediaFrame) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"MediaFrame(format={self.format}, timestamp={self.timestamp}, bytes={len(self.raw)})"


class FeedbackType(IntEnum):
    """What kind of track a feedback message is about."""

    VIDEO = 0
    AUDIO = 1
    DATA = 2


class FeedbackCommand(IntEnum):
    """What a feedback message asks for."""

    REQUEST_KEY_FRAME = 0
    SET_BITRATE = 1
    OWNER_ID = 2
    INIT_STREAM_ID = 3
    RTCP_PACKET = 4


class Feedback:
    """A message against the flow of media, kept as the bytes that it travels as."""

    __slots__ = ("command", "raw", "type")

    def __init__(self, raw: bytes) -> None:
        """Take a feedback message as it came; raises FramingError when it is none."""
        if len(raw) != FEEDBACK_BYTES:
            raise FramingError(f"feedback of {len(raw)} bytes instead of {FEEDBACK_BYTES}")
        type_, command, _union, length, _buffer = _FEEDBACK.unpack(raw)
        try:
            self.type = FeedbackType(type_)
            self.command = FeedbackCommand(command)
        except ValueError as error:
            raise FramingError(f"feedback: {error}") from None
        if length > MAX_STREAM_ID_BYTES:
            raise FramingError(f"feedback says {length} bytes of buffer; there are {MAX_STREAM_ID_BYTES}")
        self.raw = raw

    @classmethod
    def request_key_frame(cls) -> Self:
        """Return the request for a key frame."""
        return cls(
            _FEEDBACK.pack(FeedbackType.VIDEO, FeedbackCommand.REQUEST_KEY_FRAME, bytes(132), 0, bytes(128))
        )

    @classmethod
    def set_bitrate(cls, kbps: int) -> Self:
        """Return the request to send at `kbps`, 0 to 65,535 kilobits a second."""
        union = _RATE.pack(kbps)
        return cls(_FEEDBACK.pack(FeedbackType.VIDEO, FeedbackCommand.SET_BITRATE, union, 0, bytes(128)))

    @classmethod
    def init_stream(cls, stream_id: str) -> Self:
        """Return the first message on an internal connection: which stream is wanted.

        Raises ValueError for an id longer than MAX_STREAM_ID_BYTES in UTF-8.
        """
        encoded = stream_id.encode()
        if len(encoded) > MAX_STREAM_ID_BYTES:
            raise ValueError(f"stream id of {len(encoded)} bytes; at most {MAX_STREAM_ID_BYTES}")
        return cls(
            _FEEDBACK.pack(
                FeedbackType.DATA, FeedbackCommand.INIT_STREAM_ID, bytes(132), len(encoded), encoded
            )
        )

    @property
    def kbps(self) -> int:
        """The rate that SET_BITRATE asks for."""
        kbps: int = _RATE.unpack_from(self.raw, 8)[0]
        return kbps

    @property
    def stream_id(self) -> str:
        """The id that INIT_STREAM_ID carries; raises FramingError when it is not UTF-8."""
        length = int.from_bytes(self.raw[140:144], "little")
        try:
            return self.raw[144 : 144 + length].decode()
        except UnicodeDecodeError:
            raise FramingError("the stream id is not UTF-8") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feedback) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Feedback(type={self.type.name}, command={self.command.name})"
