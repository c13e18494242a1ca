"""What to do where more is offered than the path takes: leave layers out, then ask the sources for less.

Pure; time is an argument, in seconds. One object for each connection: it is told of every frame that is
offered and of how the way out stands, and answers with the layers that may pass and with what the sources of
pictures shall send. Sound is never asked for less, nor left out.

    FREE      everything passes, nobody is asked for less
    PRESSED   less was asked for a moment ago; whether that is enough remains to be seen
    HELD      it is enough, and stays as it is for a while
    RISING    a little more is allowed, again and again, until it is as much as the sources would send

What the path took when it was last too much is a ceiling for some time, below which RISING ends; each time
that more turns out to be too much again, it holds for longer. So a path that is too narrow is not overfilled
every few seconds to see whether it still is. docs/media.md tells why.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from bridges.media.own.sender import Outcome

__all__ = ["Decision", "Pressure", "Stage", "Strain", "Tuning"]


class Stage(enum.Enum):
    """How much is let through."""

    FREE = "free"
    PRESSED = "pressed"
    HELD = "held"
    RISING = "rising"


class _Sign(enum.Enum):
    STRAINED = "strained"
    """More has waited, or been refused, for too long."""
    EASY = "easy"
    """Nothing has for as long as the stage takes."""
    WHOLE = "whole"
    """As much is allowed as the sources would send."""


_TABLE: Final = {
    (Stage.FREE, _Sign.STRAINED): Stage.PRESSED,
    (Stage.PRESSED, _Sign.STRAINED): Stage.PRESSED,
    (Stage.PRESSED, _Sign.EASY): Stage.HELD,
    (Stage.HELD, _Sign.STRAINED): Stage.PRESSED,
    (Stage.HELD, _Sign.EASY): Stage.RISING,
    (Stage.RISING, _Sign.STRAINED): Stage.PRESSED,
    (Stage.RISING, _Sign.EASY): Stage.RISING,
    (Stage.RISING, _Sign.WHOLE): Stage.FREE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """When and by how much. Times in seconds, shares of what the path took."""

    patience: float = 0.5
    """So long more must have been offered than the path takes."""
    wait: float = 0.15
    """It is more when what waits takes longer than this to send,"""
    no_wait: float = 0.08
    """until it takes less than this."""
    look: float = 0.1
    """Between two looks."""
    settle: float = 1.0
    """Within this, sources have done what they were asked, and the queue has emptied."""
    hold: float = 2.0
    step: float = 0.5
    """Between two raises."""
    cut: float = 0.85
    """What is asked for, of what the path took."""
    again: float = 0.9
    """The most of it that is asked for when that was not enough."""
    top: float = 0.93
    """How near to the ceiling the raises lead."""
    raise_by: float = 1.04
    ceiling_for: float = 8.0
    """For how long a ceiling holds at first,"""
    ceiling_most: float = 120.0
    """and at most, doubled each time."""
    memory: float = 1.0
    """What is offered is measured over about so long."""
    repeat: float = 1.0
    """What is asked for is said again: whoever hears it forgets it after a while."""
    least: float = 18_750.0
    """Bytes a second that a source is asked for at least, as everybody gets what it sends."""
    fits: float = 1.15
    """What is offered fits if it is at most so many times what there is for it."""
    copies: int = 2
    """So often sound is carried again, as queues overflow: while less has to be sent,"""
    copies_share: float = 0.12
    """and if that costs at most this share of it."""


class Strain(NamedTuple):
    """How the way out stands."""

    rate: float | None
    """Bytes a second that the path takes; None: unknown."""
    waiting: int
    """Bytes that wait to be sent,"""
    sent: int
    """and that were sent since the connection began: headers, parity and repeats included."""


class Decision(NamedTuple):
    """What changes now."""

    ask: dict[int, int]
    """By alias: the kilobits a second that the source shall send."""
    layers: dict[int, int | None]
    """By alias: the highest temporal layer that may pass; None: all may."""


_ROOM: Final = 1.1
"""So many times what it sent before may a source send that is not held down any more."""
_NOTHING: Final[Decision] = Decision({}, {})


class _Meter:
    """Bytes a second, of late."""

    __slots__ = ("_at", "_began", "_memory", "_sum")

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._sum = 0.0
        self._at = self._began = -math.inf

    def add(self, now: float, size: float) -> None:
        if self._began == -math.inf:
            self._began = self._at = now
        self._sum = self._sum * math.exp((self._at - now) / self._memory) + size
        self._at = now

    def rate(self, now: float) -> float:
        if self._began == -math.inf:
            return 0.0
        # Otherwise what has only begun would seem small, and its first frame by itself huge.
        known = 1 - math.exp(-max(now - self._began, self._memory / 5) / self._memory)
        return self._sum * math.exp((self._at - now) / self._memory) / self._memory / known


class _Track:
    __slots__ = ("asked", "cap", "offered", "refused_since", "sound", "top", "whole")

    def __init__(self, *, sound: bool, memory: float) -> None:
        self.sound = sound
        self.offered = _Meter(memory)
        self.refused_since: float | None = None
        """Since when nothing of it has been sent, for want of room."""
        self.top = 0
        """The highest layer since the last key frame."""
        self.cap: int | None = None
        self.asked: float | None = None
        """Bytes a second; None: its source is not asked for less."""
        self.whole = 0.0
        """What it would send, while it is."""


class Pressure:
    """Decides for the tracks of one connection."""

    def __init__(self, tuning: Tuning | None = None) -> None:
        self.tuning: Final = tuning or Tuning()
        self.stage = Stage.FREE
        self.target = math.inf
        """Bytes a second that everything together may come to, on the path."""
        memory = self.tuning.memory
        self._tracks: dict[int, _Track] = {}
        self._sent = _Meter(memory)
        self._cost = _Meter(memory)
        self._taken = _Meter(memory)
        self._before = Strain(None, 0, 0)
        self._strained_since: float | None = None
        self._looked_at = -math.inf
        self._since = -math.inf
        """When the stage began, or its last step was taken."""
        self._said_at = -math.inf
        self._ceiling = math.inf
        self._ceiling_until = -math.inf
        self._ceiling_for = self.tuning.ceiling_for

    # --- tracks and frames ------------------------------------------------------------------------

    def open(self, alias: int, *, sound: bool) -> None:
        """Begin a track."""
        self._tracks[alias] = _Track(sound=sound, memory=self.tuning.memory)

    def close(self, alias: int) -> int | None:
        """End a track; return what its source may send now, if it was asked for less."""
        track = self._tracks.pop(alias, None)
        return None if track is None or track.asked is None else _kilobits(_ROOM * track.whole)

    def offered(
        self, now: float, alias: int, size: int, outcome: Outcome, *, key: bool = False, temporal: int = 0
    ) -> None:
        """Take note of a frame of an open track, and of what became of it. Raises KeyError."""
        track = self._tracks[alias]
        track.offered.add(now, size)
        track.top = temporal if key else max(track.top, temporal)
        if outcome is Outcome.TAKEN:
            self._taken.add(now, size)
            track.refused_since = None
        elif outcome is Outcome.REFUSED and track.refused_since is None:
            track.refused_since = now

    # --- decisions --------------------------------------------------------------------------------

    def looks(self, now: float) -> bool:
        """Return whether it is time to look again."""
        return now >= self._looked_at + self.tuning.look

    def look(self, now: float, strain: Strain) -> Decision:
        """Return what is to change. To be called with frames offered, when it is time."""
        if not self.looks(now):
            return _NOTHING
        self._looked_at = now
        self._sent.add(now, strain.sent - self._before.sent)
        waiting = strain.waiting - self._before.waiting
        self._cost.add(now, strain.sent - self._before.sent + waiting)
        self._before = strain
        self._note_strain(now, strain)
        sign = self._sign(now)
        if sign is None:
            return self._as_before(now)
        before, self.stage = self.stage, _TABLE[self.stage, sign]
        self._since = now
        if sign is _Sign.STRAINED:
            return self._cut(now, before)
        if self.stage is Stage.FREE:
            return self._free()
        if before is Stage.RISING:
            self._raise(now)
        return Decision(self._share(now), self._restored(now))

    def sound_copies(self, now: float) -> int:
        """Return how often sound is to be carried again at least."""
        if self.stage is Stage.FREE:
            return 0
        sound = sum(track.offered.rate(now) for track in self._tracks.values() if track.sound)
        room = self.tuning.copies_share * self.target
        return min(self.tuning.copies, int(room / sound)) if sound else 0

    def _note_strain(self, now: float, strain: Strain) -> None:
        wait = strain.waiting / strain.rate if strain.rate else 0.0
        refused = [each.refused_since for each in self._tracks.values() if each.refused_since is not None]
        if refused or wait > self.tuning.wait:
            if self._strained_since is None:
                self._strained_since = min(refused, default=now)
        elif wait < self.tuning.no_wait:
            self._strained_since = None

    def _sign(self, now: float) -> _Sign | None:
        tuning, since = self.tuning, self._strained_since
        held = now - self._since
        if since is not None:
            patience = tuning.settle if self.stage is Stage.PRESSED else tuning.patience
            return _Sign.STRAINED if now - since >= tuning.patience and held >= patience else None
        if self.stage is Stage.FREE:
            return None
        if self.stage is Stage.RISING and self._is_whole(now):
            return _Sign.WHOLE
        takes = {Stage.PRESSED: tuning.settle, Stage.HELD: tuning.hold, Stage.RISING: tuning.step}
        return _Sign.EASY if held >= takes[self.stage] else None

    def _cut(self, now: float, before: Stage) -> Decision:
        """Leave the highest layers out, and ask for less than the path took."""
        tuning = self.tuning
        took = min(self._sent.rate(now), self._before.rate or math.inf)
        target = tuning.cut * took
        if before is Stage.PRESSED:
            target = min(target, tuning.again * self.target) if self._is_followed(now) else target
        elif before in {Stage.RISING, Stage.HELD}:
            self._ceiling_for = min(2 * self._ceiling_for, tuning.ceiling_most)
        self.target = target
        self._ceiling = took
        self._ceiling_until = now + self._ceiling_for
        layers: dict[int, int | None] = {}
        for alias, track in self._tracks.items():
            top = track.top if track.cap is None else track.cap
            if top > 0:
                layers[alias] = track.cap = top - 1
        return Decision(self._share(now), layers)

    def _raise(self, now: float) -> None:
        """Allow a little more."""
        if now >= self._ceiling_until:
            self._ceiling = math.inf
        raised = min(self.target * self.tuning.raise_by, self.tuning.top * self._ceiling)
        self.target = max(self.target, raised)

    def _restored(self, now: float) -> dict[int, int | None]:
        """Let all layers pass again if that fits."""
        capped = [alias for alias, track in self._tracks.items() if track.cap is not None]
        if not capped or self._offered(now) > self.tuning.fits * self.target:
            return {}
        for alias in capped:
            self._tracks[alias].cap = None
        return dict.fromkeys(capped)

    def _free(self) -> Decision:
        tuning = self.tuning
        self.target = self._ceiling = math.inf
        self._ceiling_for = tuning.ceiling_for
        # Whoever does not forget by himself what he was asked is told what he sent before, and some room.
        asked = {
            alias: _kilobits(_ROOM * track.whole)
            for alias, track in self._tracks.items()
            if track.asked is not None
        }
        capped: dict[int, int | None] = {
            alias: None for alias, track in self._tracks.items() if track.cap is not None
        }
        for track in self._tracks.values():
            track.asked = track.cap = None
        return Decision(asked, capped)

    def _as_before(self, now: float) -> Decision:
        if self.stage is Stage.FREE or now < self._said_at + self.tuning.repeat:
            return _NOTHING
        return Decision(self._share(now), self._restored(now) if self.stage is Stage.HELD else {})

    # --- how much there is, and for whom ------------------------------------------------------------

    def _overhead(self, now: float) -> float:
        """Return what a byte of a frame costs on the path: headers, parity, repeats."""
        taken = self._taken.rate(now)
        return max(1.0, self._cost.rate(now) / taken) if taken else 1.0

    def _offered(self, now: float) -> float:
        """Return what all that is offered would cost on the path, in bytes a second."""
        return self._overhead(now) * sum(track.offered.rate(now) for track in self._tracks.values())

    def _is_followed(self, now: float) -> bool:
        """Return whether the sources do what they were asked: if not, to ask for less leads nowhere."""
        asked = [track for track in self._tracks.values() if track.asked is not None]
        return sum(track.offered.rate(now) for track in asked) < 1.3 * sum(
            track.asked for track in asked if track.asked is not None
        )

    def _is_whole(self, now: float) -> bool:
        asked = [track for track in self._tracks.values() if track.asked is not None]
        if any(track.cap is not None for track in self._tracks.values()):
            return False
        return all(track.asked is not None and track.asked >= track.whole for track in asked) and (
            bool(asked) or self._offered(now) <= self.target
        )

    def _share(self, now: float) -> dict[int, int]:
        """Share the target among the sources of pictures: as much for each, unless it would not send that."""
        self._said_at = now
        pictures = [(alias, track) for alias, track in self._tracks.items() if not track.sound]
        sound = sum(track.offered.rate(now) for track in self._tracks.values() if track.sound)
        for _, track in pictures:
            if track.asked is None:
                track.whole = track.offered.rate(now)
        level = _level(self.target / self._overhead(now) - sound, [track.whole for _, track in pictures])
        ask = {}
        for alias, track in pictures:
            if track.asked is None and level >= track.whole:
                continue
            track.asked = max(level, self.tuning.least)
            ask[alias] = _kilobits(min(track.asked, _ROOM * track.whole))
        return ask


def _level(budget: float, wanted: list[float]) -> float:
    """Return how much each may have at most, so that all have `budget` together; infinite: what they want."""
    left = len(wanted)
    for each in sorted(wanted):
        if each * left >= budget:
            return max(budget, 0.0) / left
        budget -= each
        left -= 1
    return math.inf


def _kilobits(rate: float) -> int:
    return max(1, min(65_535, math.ceil(rate * 8 / 1000)))
