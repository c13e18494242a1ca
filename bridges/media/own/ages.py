"""How old frames are that come from another process, whose clock says nothing by itself. Pure.

A frame bears the moment of its capture by its sender's clock, modulo 2^32 microseconds. What came fastest
lately shows how the two clocks stand to each other, the way included; whatever took longer is older by that.
So a frame that is passed on keeps the time that it lost: queues and repeats of earlier hops are in its age,
the length of their ways is not.
"""

from __future__ import annotations

from typing import Final

from bridges.congestion.extreme import Extreme

__all__ = ["Ages"]

_MICROSECOND: Final = 1e-6
_COMES_ROUND: Final = 2**32 * _MICROSECOND
_MEMORY: Final = 10.0
"""Seconds for which what came fastest counts: as long as the smallest round trip (docs/congestion.md)."""


class Ages:
    """The ages of what comes from one sender. Times are in seconds of one clock of ours."""

    __slots__ = ("_fastest", "_reference")

    def __init__(self) -> None:
        self._fastest = Extreme()
        self._reference: float | None = None

    def captured(self, now: float, stamp: int) -> float:
        """Return when, by our clock, a frame with that stamp would have been captured on a way of no length.

        Never later than `now`.
        """
        transit = now - stamp * _MICROSECOND
        if self._reference is None:
            self._reference = transit
        half = _COMES_ROUND / 2
        transit = (transit - self._reference + half) % _COMES_ROUND - half
        return now - (transit - self._fastest.add(now, transit, _MEMORY))
