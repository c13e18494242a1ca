"""Frames for benchmarks, stamped with the moment of sending, and the delays that their takers see.

The stamp is CLOCK_MONOTONIC, which all processes of one machine share.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridges.wire.frame import HEADER_BYTES, AudioInfo, FrameFormat, MediaFrame, VideoInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "PICTURES_PER_SECOND",
    "PICTURE_BYTES",
    "Delays",
    "frame_of",
    "media",
    "percentile",
    "pictures",
    "stamp",
    "stamp_of",
]

PICTURES_PER_SECOND: Final = 30
PICTURE_BYTES: Final = 4_000
_KEY_FRAME_BYTES: Final = 20_000
_KEY_FRAME_EVERY: Final = 60
_SOUND_BYTES: Final = 160
_SOUNDS_PER_SECOND: Final = 50
_STAMP: Final = struct.Struct(">Q")

Schedule = list[tuple[float, MediaFrame]]


@lru_cache(maxsize=64)
def frame_of(size: int, *, sound: bool = False, key: bool = False) -> MediaFrame:
    """Return a frame of `size` encoded bytes: a picture, or a piece of sound."""
    if sound:
        audio = AudioInfo(samples=960, sample_rate=48_000, channels=2)
        return MediaFrame.build(FrameFormat.OPUS, timestamp=0, info=audio, payload=bytes(size))
    video = VideoInfo(width=1280, height=720, key_frame=key)
    return MediaFrame.build(FrameFormat.VP8, timestamp=0, info=video, payload=bytes(size))


def stamp(frame: MediaFrame) -> MediaFrame:
    """Return the frame with this moment in its payload and, in its clock, as its timestamp."""
    now = time.monotonic_ns()
    raw = bytearray(frame.raw)
    clock = 90_000 if frame.is_video else 48_000
    struct.pack_into("<I", raw, 20, now * clock // 1_000_000_000 & 0xFFFFFFFF)
    _STAMP.pack_into(raw, HEADER_BYTES, now)
    return MediaFrame(bytes(raw))


def stamp_of(frame: MediaFrame) -> int:
    """Return the stamp: nanoseconds of CLOCK_MONOTONIC."""
    sent: int = _STAMP.unpack_from(frame.raw, HEADER_BYTES)[0]
    return sent


def media(seconds: float) -> Schedule:
    """Return a picture track of about 1 Mbit/s and a sound track, as (seconds from the start, frame)."""
    key, delta = frame_of(_KEY_FRAME_BYTES, key=True), frame_of(PICTURE_BYTES)
    sound = frame_of(_SOUND_BYTES, sound=True)
    schedule = [
        (i / PICTURES_PER_SECOND, delta if i % _KEY_FRAME_EVERY else key)
        for i in range(int(seconds * PICTURES_PER_SECOND))
    ]
    schedule += [(i / _SOUNDS_PER_SECOND, sound) for i in range(int(seconds * _SOUNDS_PER_SECOND))]
    return sorted(schedule, key=lambda entry: entry[0])


def pictures(rate: float, seconds: float) -> Schedule:
    """Return pictures of one size at `rate` a second."""
    key, delta = frame_of(PICTURE_BYTES, key=True), frame_of(PICTURE_BYTES)
    return [(i / rate, delta if i % _KEY_FRAME_EVERY else key) for i in range(int(rate * seconds))]


class Delays:
    """What a taker has seen: the delay in seconds of every frame, by its stamp."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.by_stamp: dict[int, float] = {}
        self._clock = clock
        """Nanoseconds of CLOCK_MONOTONIC: when what is taken just now has arrived."""

    def __len__(self) -> int:
        return len(self.by_stamp)

    def take(self, frame: MediaFrame) -> None:
        """Take a frame."""
        now, sent = self._clock(), stamp_of(frame)
        self.by_stamp[sent] = (now - sent) / 1e9

    def clear(self) -> None:
        """Forget."""
        self.by_stamp.clear()

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile in milliseconds; raises RuntimeError when nothing came."""
        return 1000 * percentile(list(self.by_stamp.values()), percent)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; raises RuntimeError without values."""
    if not values:
        raise RuntimeError("no frame arrived")
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
