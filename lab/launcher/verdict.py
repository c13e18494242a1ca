"""Did the pictures that were decoded really come from the other region? Pure; no process, no clock.

The publisher reports which frames it sent, as pairs of the number that is burnt into the picture and the RTP
timestamp (90 kHz, 32 bits) that the frame carries; every subscriber reports the pairs that it read from
decoded pictures. A run is good when every subscriber decoded pictures and every pair was sent. Reports of
different processes arrive in any order: a pair that is not known yet waits for the publisher's next report.
What a publisher sent after its last report, when it was killed, nobody knows; that counts for nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FrameLedger", "Mark", "Tally", "Verdict"]

_CLOCK: Final = 1 << 32
_HALF_CLOCK: Final = 1 << 31


class Mark(NamedTuple):
    """What identifies a frame from end to end."""

    number: int
    timestamp: int


@dataclass
class Tally:
    """What is known of one subscriber's pictures."""

    matched: int = 0
    """Pictures whose pair was sent."""
    strangers: int = 0
    """Pictures whose pair was never sent, as far as can be told by now."""
    first_stranger: Mark | None = None
    waiting: deque[Mark] = field(default_factory=deque)


@dataclass(frozen=True)
class Verdict:
    """Whether the run was good, and the one line that says why."""

    good: bool
    reason: str
    matched: int
    """Decoded pictures with a pair that was sent, over all subscribers."""


class FrameLedger:
    """Collects the reports of a run and judges them."""

    def __init__(self, *, window: int = 200_000, waiting: int = 10_000) -> None:
        """`window`: sent pairs that are remembered; `waiting`: undecided pairs kept for each subscriber."""
        self._window = window
        self._waiting = waiting
        self._sent: dict[Mark, None] = {}
        self._newest: Mark | None = None
        self._interrupted = False
        self._gaps: deque[tuple[int, int]] = deque(maxlen=100)
        self.sent_count = 0
        self.tallies: dict[str, Tally] = {}
        """By the subscriber's name."""

    def expect(self, subscriber: str) -> None:
        """Demand pictures from this subscriber, even when it never reports any."""
        self.tallies.setdefault(subscriber, Tally())

    def sent(self, marks: Iterable[Mark]) -> None:
        """Take what the publisher sent, in order."""
        for mark in marks:
            if self._interrupted and self._newest is not None:
                self._gaps.append((self._newest.timestamp, mark.timestamp))
            self._interrupted = False
            self._sent[mark] = None
            self._newest = mark
            self.sent_count += 1
        while len(self._sent) > self._window:
            del self._sent[next(iter(self._sent))]
        for tally in self.tallies.values():
            self._settle(tally)

    def decoded(self, subscriber: str, marks: Iterable[Mark]) -> None:
        """Take what a subscriber read from its pictures."""
        tally = self.tallies.setdefault(subscriber, Tally())
        tally.waiting.extend(marks)
        self._settle(tally)
        while len(tally.waiting) > self._waiting:
            self._stranger(tally, tally.waiting.popleft())

    def interrupted(self) -> None:
        """Take note that the publisher begins anew: between its last report and its next one is a gap."""
        self._interrupted = True

    def judge(self) -> Verdict:
        """Return the verdict on everything reported so far.

        Pairs newer than the publisher's last report do not count for or against: nobody can tell.
        """
        matched = sum(tally.matched for tally in self.tallies.values())

        def verdict(reason: str, *, good: bool = False) -> Verdict:
            return Verdict(good, reason, matched)

        if not self.tallies:
            return verdict("nobody was asked to decode anything")
        if not self.sent_count:
            return verdict("nothing was published")
        for name, tally in self.tallies.items():
            if tally.first_stranger is not None:
                number, timestamp = tally.first_stranger
                return verdict(
                    f"{name} decoded {tally.strangers} pictures that were never sent, the first with number "
                    f"{number} at RTP time {timestamp}"
                )
            if not tally.matched:
                return verdict(f"{name} decoded no picture")
        return verdict("every decoded frame number and timestamp is one that was sent", good=True)

    def _settle(self, tally: Tally) -> None:
        """Decide about the pairs that the publisher's reports cover by now."""
        for _ in range(len(tally.waiting)):
            mark = tally.waiting.popleft()
            if mark in self._sent:
                tally.matched += 1
            elif self._is_ahead(mark):
                tally.waiting.append(mark)
            elif not self._is_in_a_gap(mark):
                self._stranger(tally, mark)

    def _is_ahead(self, mark: Mark) -> bool:
        """Return whether the publisher has not reported as far as this; timestamps compare as in RFC 1982."""
        if self._newest is None:
            return True
        return 0 < (mark.timestamp - self._newest.timestamp) % _CLOCK < _HALF_CLOCK

    def _is_in_a_gap(self, mark: Mark) -> bool:
        return any(
            (mark.timestamp - before) % _CLOCK < (after - before) % _CLOCK for before, after in self._gaps
        )

    @staticmethod
    def _stranger(tally: Tally, mark: Mark) -> None:
        tally.strangers += 1
        tally.first_stranger = tally.first_stranger or mark
