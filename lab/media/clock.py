"""Media time of the laboratory: RTP timestamps that are read off CLOCK_MONOTONIC.

All processes of one machine share that clock, so whoever receives a frame can tell how old it is. Pure: the
time, in seconds of CLOCK_MONOTONIC, is an argument.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AUDIO_CLOCK", "VIDEO_CLOCK", "age", "timestamp"]

VIDEO_CLOCK: Final = 90_000
AUDIO_CLOCK: Final = 48_000
"""Ticks a second (RFC 7741 for VP8, RFC 7587 for Opus)."""

_MODULUS: Final = 1 << 32


def timestamp(now: float, clock_rate: int) -> int:
    """Return the time `now` in ticks of `clock_rate` Hz, modulo 2^32."""
    return round(now * clock_rate) % _MODULUS


def age(timestamp: int, clock_rate: int, now: float) -> float:
    """Return how long before `now` a frame was stamped, in seconds; below 0 for a stamp of the future.

    Right as long as the frame is less than 2^31 ticks away: 6 hours of video, 12 hours of sound.
    """
    ticks = (round(now * clock_rate) - timestamp) % _MODULUS
    return (ticks - _MODULUS if ticks >= _MODULUS // 2 else ticks) / clock_rate
