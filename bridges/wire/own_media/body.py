"""What a frame is, between two of our bridges: a conference's media frame with a short header.

OWT's 40-byte header (bridges.wire.frame) says little that is not always the same. Its fields travel in 12 or
14 bytes where that loses nothing, else the whole header does; the pointer in it, which means nothing, is left
out. docs/wire.md has the layout.
"""

from __future__ import annotations

import struct
from typing import Final

from bridges.wire.errors import FramingError
from bridges.wire.frame import HEADER_BYTES, MediaFrame
from bridges.wire.own_media.errors import MediaDatagramError

__all__ = ["pack", "unpack"]

_WHOLE: Final = 0
_PICTURE: Final = 1
_SOUND: Final = 2
_HEADER: Final = struct.Struct("<i4xQII16s")
_NOTHING: Final = bytes(12)  # of the padding and the pointer
_VIDEO_INFO: Final = struct.Struct("<HHB11x")
_AUDIO_INFO: Final = struct.Struct("<B3xIIBBB1x")
_SHORT_PICTURE: Final = struct.Struct("!BHIHHB")  # what, format, timestamp, width, height, key frame
_SHORT_SOUND: Final = struct.Struct("!BHIHHBBB")  # format, timestamp, samples, 100 Hz, channels and RTP, …
_RTP: Final = 0x80
_MAX_CHANNELS: Final = 0x7F
_RATE_UNIT: Final = 100


def pack(frame: MediaFrame) -> bytes:
    """Return the bytes that stand for a frame."""
    short = _short(frame)
    if short is not None and _long(short)[0] == _without_pointer(frame.raw[:HEADER_BYTES]):
        return short + frame.raw[HEADER_BYTES:]
    return _WHOLE.to_bytes(1, "big") + frame.raw


def unpack(body: bytes) -> MediaFrame:
    """Return the frame. Raises MediaDatagramError for what is none."""
    try:
        if body[0] == _WHOLE:
            return MediaFrame(body[1:])
        header, size = _long(body)
    except (IndexError, struct.error, FramingError) as error:
        raise MediaDatagramError(f"no media frame: {error}") from None
    length = (len(body) - size).to_bytes(4, "little")
    return MediaFrame(header[:16] + length + header[20:] + body[size:])


def _short(frame: MediaFrame) -> bytes | None:
    """Return the short header, or None if there is something that it has no room for."""
    try:
        if frame.is_video:
            video = frame.video
            return _SHORT_PICTURE.pack(
                _PICTURE, frame.format, frame.timestamp, video.width, video.height, video.key_frame
            )
        audio = frame.audio
        if audio.channels > _MAX_CHANNELS:
            return None
        return _SHORT_SOUND.pack(
            _SOUND,
            frame.format,
            frame.timestamp,
            audio.samples,
            audio.sample_rate // _RATE_UNIT,
            audio.channels | audio.is_rtp_packet * _RTP,
            audio.voice,
            audio.level,
        )
    except struct.error:
        return None


def _long(body: bytes) -> tuple[bytes, int]:
    """Return the header without pointer and length, and the bytes that the short one takes."""
    if body[0] == _PICTURE:
        _, format_, timestamp, width, height, key = _SHORT_PICTURE.unpack_from(body)
        return _HEADER.pack(
            format_, 0, 0, timestamp, _VIDEO_INFO.pack(width, height, key)
        ), _SHORT_PICTURE.size
    if body[0] == _SOUND:
        _, format_, timestamp, samples, rate, channels, voice, level = _SHORT_SOUND.unpack_from(body)
        info = _AUDIO_INFO.pack(
            bool(channels & _RTP), samples, rate * _RATE_UNIT, channels & _MAX_CHANNELS, voice, level
        )
        return _HEADER.pack(format_, 0, 0, timestamp, info), _SHORT_SOUND.size
    raise MediaDatagramError(f"a frame that begins with {body[0]}")


def _without_pointer(header: bytes) -> bytes:
    return header[:4] + _NOTHING + bytes(4) + header[20:]
