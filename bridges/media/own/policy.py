"""How a track's losses are repaired: by repeating where there is time, by parity and redundancy where not.

A repeat costs nothing unless something is lost, and 1.15 round trips and 20 ms when something is. So it is
the choice wherever that is shorter than what the picture or the sound may be late. Beyond, parity travels
with the frames: over each by itself, which repairs at once, or over several where losses come in runs that
would swallow a frame together with its parity. Sound, whose frames fit into one datagram, is carried again in
the next ones.

Pure, with hysteresis: what protects more is chosen at once, what protects less only after a quiet while.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from bridges.wire.own_media.datagram import MAX_ROWS, MAX_SPAN

__all__ = ["Path", "Policy", "Repair", "Tuning", "repeat_takes"]

_REPEAT_FACTOR: Final = 1.15
_REPEAT_EXTRA: Final = 0.02
_SMALL_KEY: Final = 16
"""Fragments up to which one parity does for a key frame that can be repeated as well."""
_SPAN: Final = 4
"""Pictures that one parity goes over in runs of losses,"""
_SPAN_SHARE: Final = 0.75
"""if they come within this part of the deadline;"""
_SPAN_SOME: Final = 0.375
_SPAN_MORE: Final = 0.5
"""and how much of it, as a share of the fragments."""

_RARE: Final = 0.0005
"""The share of pictures that may lose more fragments than there is parity,"""
_MOST_ROWS: Final = 4
"""as far as so much of it does, beside each,"""
_SAMPLE: Final = 600
"""if the share of losses is by a standard deviation higher than so many datagrams have shown;"""
_RUNS: Final = 3.0
"""and where losses come in runs, parity is for runs of so many times the mean: one in twenty is longer."""


def _beyond(lost: int, sent: int, loss: float) -> float:
    """Return the probability that more than `lost` of `sent` datagrams are lost, each for itself."""
    return 1 - sum(math.comb(sent, n) * loss**n * (1 - loss) ** (sent - n) for n in range(lost + 1))


def repeat_takes(round_trip: float) -> float:
    """Return how much later than in time a frame is complete that was repeated once, in seconds."""
    return _REPEAT_FACTOR * round_trip + _REPEAT_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What was measured of the way to the receiver."""

    round_trip: float
    """Of the path without a queue in it, in seconds."""
    loss: float
    """Share of datagrams, 0 to 1."""
    run_length: float = 1.0
    """Losses in a row, on average."""
    room: bool = True
    """Whether the path takes more than is sent, so that parity need not be spared."""
    copies: int = 0
    """So often sound is carried again at least: where queues overflow, a repeat comes too late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Where one way of repair begins, and how far back it ends. Shares, seconds, lengths of runs."""

    some_loss: float = 0.001
    no_loss: float = 0.0005
    """Parity is sent from the first on, and no more below the second."""
    high_loss: float = 0.03
    less_loss: float = 0.025
    """The same for the stronger parity."""
    runs: float = 1.6
    no_runs: float = 1.3
    """The same for parity over several frames."""
    repeat_back: float = 0.9
    """A repeat must fit into this part of the deadline to be relied on again."""
    dwell: float = 5.0
    """So long less protection must have been enough before it is chosen."""


class Level(enum.IntEnum):
    """How much is lost."""

    NOTHING = 0
    SOME = 1
    MUCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What was chosen for a track."""

    in_time: bool
    """Whether a repeat is in time, so that nothing needs to be sent in advance."""
    level: Level
    in_runs: bool
    loss: float
    """To size parity of key frames by."""
    run_length: float = 1.0
    room: bool = True
    least_copies: int = 0

    @property
    def copies(self) -> int:
        """In how many later datagrams a frame of sound is carried again."""
        if self.in_time:
            return self.least_copies
        return max(2 if self.in_runs and self.level else int(self.level), self.least_copies)

    def key_rows(self, parts: int) -> int:
        """Return how much parity goes with a key frame of so many fragments."""
        if not self.level:
            return 0
        if self.in_time:
            # What is lost beyond that is repeated, which costs less than parity for all that may happen.
            return (1 if parts <= _SMALL_KEY else 2) + math.ceil(parts * self.loss / 2)
        rows = 2 + math.ceil(2 * parts * self.loss)
        if self.in_runs and self.room:
            rows = max(rows, math.ceil(_RUNS * self.run_length))
        return min(rows, MAX_ROWS)

    def rows(self, parts: int) -> int:
        """Return how much parity goes with every other picture by itself, which has so many fragments.

        A picture that parity does not bring back holds up those behind it until it has come again, so they
        are as many as make that rare.
        """
        if self.in_time or self.in_runs or not self.level:
            return 0
        rows = int(self.level)
        loss = self.loss + math.sqrt(self.loss * (1 - self.loss) / _SAMPLE)
        while self.room and rows < _MOST_ROWS and _beyond(rows, parts + rows, loss) > _RARE:
            rows += 1
        return rows

    def span(self, interval: float, deadline: float) -> int:
        """Return over how many pictures, `interval` seconds apart, one parity goes; 1: each by itself."""
        if self.in_time or not self.in_runs or not self.level:
            return 1
        fitting = int(_SPAN_SHARE * deadline / interval) if interval > 0 else MAX_SPAN
        return max(1, min(_SPAN, fitting))

    def span_rows(self, parts: int) -> int:
        """Return how much parity goes over several pictures of so many fragments together."""
        share = _SPAN_MORE if self.level is Level.MUCH else _SPAN_SOME
        rows = max(_SPAN, math.ceil(share * parts))
        if self.room:
            rows = max(rows, math.ceil(_RUNS * self.run_length))
        return min(rows, MAX_ROWS)


class _Latch:
    """A level that rises at once, and falls only when less has been enough for `dwell` seconds."""

    __slots__ = ("_dwell", "_falls", "_less_since", "_rises", "level")

    def __init__(self, rises: tuple[float, ...], falls: tuple[float, ...], dwell: float) -> None:
        self.level = 0
        self._rises = rises
        self._falls = falls
        self._dwell = dwell
        self._less_since: float | None = None

    def judge(self, now: float, measure: float) -> int:
        """Return the level: how many thresholds the measure has reached."""
        risen = sum(measure >= each for each in self._rises)
        kept = sum(measure >= each for each in self._falls)
        self.level = max(self.level, risen)
        if kept >= self.level:
            self._less_since = None
        elif self._less_since is None:
            self._less_since = now
        elif now - self._less_since >= self._dwell:
            self.level, self._less_since = kept, None
        return self.level


class Policy:
    """The choice for one track whose frames may be `deadline` seconds late."""

    def __init__(self, *, deadline: float, tuning: Tuning | None = None) -> None:
        tuning = tuning or Tuning()
        self.deadline: Final = deadline
        self._slow = _Latch((1.0,), (tuning.repeat_back,), tuning.dwell)
        self._loss = _Latch(
            (tuning.some_loss, tuning.high_loss), (tuning.no_loss, tuning.less_loss), tuning.dwell
        )
        self._runs = _Latch((tuning.runs,), (tuning.no_runs,), tuning.dwell)

    def choose(self, now: float, path: Path) -> Repair:
        """Return how to repair, by what is known of the path now."""
        return Repair(
            in_time=not self._slow.judge(now, repeat_takes(path.round_trip) / self.deadline),
            level=Level(self._loss.judge(now, path.loss)),
            in_runs=bool(self._runs.judge(now, path.run_length)),
            loss=path.loss,
            run_length=path.run_length,
            room=path.room,
            least_copies=path.copies,
        )
