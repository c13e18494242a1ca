"""Where too much is offered and nobody sends less: some tracks of pictures pause, so that others are in time.

Pure; time is an argument, in seconds. A queue that takes what it can makes all frames of all tracks late, by
the same; and a picture that is refused costs all that need it. So when what waits does not get short for a
while, one track pauses, and another a moment later, until it does. A paused track goes on with a key frame,
once the queue has been short for a while; the longer, the oftener that turned out to be too soon. The track
that went on last pauses first, so that some are never disturbed; one is always left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["Relief", "Tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Times in seconds."""

    long: float = 0.1
    """Longer than this, nothing shall wait"""
    patience: float = 0.6
    """for all of this time; half of it later, the next track pauses."""
    short: float = 0.05
    """Where nothing waits longer than this,"""
    calm: float = 0.25
    """for all of this time, a track goes on;"""
    most_calm: float = 8.0
    """twice as long, up to this, for one that had to pause again"""
    again: float = 5.0
    """within this."""
    between: float = 0.1
    """So long after one went on does the next."""
    forget: float = 1.0
    """A track that is not offered for so long does not count."""


class _Track:
    __slots__ = ("calm", "offered_at", "paused", "went_on_at")

    def __init__(self, tuning: Tuning) -> None:
        self.offered_at = -math.inf
        self.went_on_at = -math.inf
        self.paused = False
        self.calm = tuning.calm
        """For how long the queue has to be short before it goes on."""


class Relief:
    """Which tracks of pictures pause on one connection."""

    def __init__(self, tuning: Tuning | None = None) -> None:
        self._tuning: Final = tuning or Tuning()
        self._tracks: dict[int, _Track] = {}
        self._long_since = math.inf
        self._short_since = math.inf
        self._went_on_at = -math.inf

    def passes(self, now: float, alias: int, *, key: bool, wait: float) -> bool:
        """Return whether a picture of a track is to be sent; `wait` is for how long it would have to wait.

        A track that pauses stays so until a key frame of it passes.
        """
        self._note(now, wait)
        track = self._tracks.get(alias)
        if track is None:
            track = self._tracks[alias] = _Track(self._tuning)
        track.offered_at = now
        if track.paused:
            if key and self.may_go_on(now, alias):
                track.paused = False
                track.went_on_at = self._went_on_at = now
        elif not key and self._is_to_pause(now, track):
            self._pause(now, track)
        return not track.paused

    def refused(self, now: float, alias: int) -> None:
        """Take note that a track lacks a frame for want of room: it pauses, if another one does not."""
        track = self._tracks.get(alias)
        if track is not None and not track.paused and self._others(now, track):
            self._pause(now, track)

    def may_go_on(self, now: float, alias: int) -> bool:
        """Return whether a key frame of a track would be sent."""
        track = self._tracks.get(alias)
        if track is None or not track.paused:
            return True
        return now >= max(self._short_since + track.calm, self._went_on_at + self._tuning.between)

    def forget(self, alias: int) -> None:
        """Forget a track that has ended."""
        self._tracks.pop(alias, None)

    def _note(self, now: float, wait: float) -> None:
        self._long_since = min(self._long_since, now) if wait > self._tuning.long else math.inf
        self._short_since = min(self._short_since, now) if wait <= self._tuning.short else math.inf

    def _is_to_pause(self, now: float, track: _Track) -> bool:
        if now - self._long_since < self._tuning.patience:
            return False
        others = self._others(now, track)
        return bool(others) and all(each.went_on_at <= track.went_on_at for each in others)

    def _others(self, now: float, track: _Track) -> list[_Track]:
        return [
            each
            for each in self._tracks.values()
            if not each.paused and each is not track and now - each.offered_at < self._tuning.forget
        ]

    def _pause(self, now: float, track: _Track) -> None:
        tuning = self._tuning
        track.paused = True
        soon = now - track.went_on_at < tuning.again
        track.calm = min(2 * track.calm, tuning.most_calm) if soon else tuning.calm
        self._long_since = now - tuning.patience / 2
