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
_VIDEO: Final = struct.Struct("<I12xIIHHB11x")  # format, length, timestamp, width, height, key frame
_VIDEO_UNUSED: Final = (slice(29, 40),)
_AUDIO: Final = struct.Struct("<I12xIIB3xIIBBB1x")  # …, RTP, samples, rate, channels, voice, level
_AUDIO_UNUSED: Final = (slice(25, 28), slice(39, 40))
"""Bytes of the header that are 0 where it can be short; those that mean nothing do not count."""
_SHORT_PICTURE: Final = struct.Struct("!BHIHHB")  # what, format, timestamp, width, height, key frame
_SHORT_SOUND: Final = struct.Struct("!BHIHHBBB")  # format, timestamp, samples, 100 Hz, channels and RTP, …
_RTP: Final = 0x80
_MAX_CHANNELS: Final = 0x7F
_RATE_UNIT: Final = 100

assert _VIDEO.size == _AUDIO.size == HEADER_BYTES


def pack(frame: MediaFrame) -> bytes:
    """Return the bytes that stand for a frame."""
    raw = frame.raw
    short = _short_picture(raw) if frame.is_video else _short_sound(raw)
    return _WHOLE.to_bytes(1, "big") + raw if short is None else short + raw[HEADER_BYTES:]


def unpack(body: bytes) -> MediaFrame:
    """Return the frame. Raises MediaDatagramError for what is none."""
    try:
        if body[0] == _PICTURE:
            return MediaFrame(_long_picture(body))
        if body[0] == _SOUND:
            return MediaFrame(_long_sound(body))
        if body[0] == _WHOLE:
            return MediaFrame(body[1:])
    except (IndexError, struct.error, FramingError) as error:
        raise MediaDatagramError(f"no media frame: {error}") from None
    raise MediaDatagramError(f"a frame that begins with {body[0]}")


def _short_picture(raw: bytes) -> bytes | None:
    """Return the short header; None if there is something that it has no room for."""
    format_, _, timestamp, width, height, key = _VIDEO.unpack_from(raw)
    if key > 1 or _is_used(raw, _VIDEO_UNUSED):
        return None
    return _packed(_SHORT_PICTURE, _PICTURE, format_, timestamp, width, height, key)


def _short_sound(raw: bytes) -> bytes | None:
    """Return the short header; None if there is something that it has no room for."""
    format_, _, timestamp, is_rtp, samples, rate, channels, voice, level = _AUDIO.unpack_from(raw)
    units, rest = divmod(rate, _RATE_UNIT)
    if rest or is_rtp > 1 or channels > _MAX_CHANNELS or _is_used(raw, _AUDIO_UNUSED):
        return None
    flags = channels | is_rtp * _RTP
    return _packed(_SHORT_SOUND, _SOUND, format_, timestamp, samples, units, flags, voice, level)


def _packed(layout: struct.Struct, *values: int) -> bytes | None:
    try:
        return layout.pack(*values)
    except struct.error:
        return None


def _is_used(raw: bytes, unused: tuple[slice, ...]) -> bool:
    return any(raw[each].count(0) < each.stop - each.start for each in unused)


def _long_picture(body: bytes) -> bytes:
    """Return the whole frame."""
    _, format_, timestamp, width, height, key = _SHORT_PICTURE.unpack_from(body)
    payload = body[_SHORT_PICTURE.size :]
    return _VIDEO.pack(format_, len(payload), timestamp, width, height, key > 0) + payload


def _long_sound(body: bytes) -> bytes:
    """Return the whole frame."""
    _, format_, timestamp, samples, units, flags, voice, level = _SHORT_SOUND.unpack_from(body)
    payload = body[_SHORT_SOUND.size :]
    rate, channels = units * _RATE_UNIT, flags & _MAX_CHANNELS
    header = _AUDIO.pack(
        format_, len(payload), timestamp, bool(flags & _RTP), samples, rate, channels, voice, level
    )
    return header + payload
