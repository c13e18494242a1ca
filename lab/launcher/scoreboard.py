"""What the participants have reported, added up over the restarts of their processes. Pure.

A participant's counters count since its process started and a stream's since it was subscribed to, so totals
are sums of differences. Only what comes from another cluster counts as received: the laboratory is about what
crosses bridges.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from lab import reports
from lab.launcher.verdict import FrameLedger, Mark
from lab.media.clock import VIDEO_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Score", "Scoreboard"]

_CLOCK: Final = 1 << 32
_HALF_CLOCK: Final = 1 << 31


class Score:
    """One participant, whichever process plays it at the moment."""

    def __init__(self, *, name: str, region: str, publishes: bool, max_delays: int = 20_000) -> None:
        self.name = name
        self.region = region
        self.publishes = publishes
        self.joined = False
        """Whether the present process is in the conference."""
        self.frames = 0
        """Pictures sent, or decoded with a readable number."""
        self.audio = 0
        """Audio frames sent or received."""
        self.bytes = 0
        """Of video payload, sent or received."""
        self.dropped = 0
        """Pictures that arrived and were not decoded, or not readable; for a publisher, frames dropped."""
        self.rate = 0.0
        """Pictures a second between the last two reports."""
        self.longest_gap = 0.0
        """Seconds between the capture of two pictures decoded one after the other, at most."""
        self.lost_at: list[float] = []
        """When streams went away, seconds of CLOCK_MONOTONIC."""
        self.delays: deque[float] = deque(maxlen=max_delays)
        """Age of the latest frames on arrival, milliseconds."""
        self._seen: dict[str, dict[str, int]] = {}
        self._last_capture: int | None = None
        self._last_report: tuple[float, int] | None = None

    def started(self) -> None:
        """Take note that a new process begins: its counters are at zero."""
        self.joined = False
        self.rate = 0.0
        self._seen.clear()
        self._last_report = None

    def take(self, line: reports.Line) -> list[Mark]:
        """Add up a line; return the pictures that it says were sent or decoded."""
        marks: list[Mark] = []
        match line:
            case reports.Joined():
                self.joined = True
            case reports.Disconnected() | reports.Left():
                self.joined = False
            case reports.StreamRemoved():
                self.lost_at.append(line.t)
                del self.lost_at[:-100]
            case reports.Report():
                marks = self._take_report(line)
            case _:
                pass
        return marks

    def percentile(self, share: float) -> float | None:
        """Return the delay, in milliseconds, that `share` (0 to 1) of the latest frames stayed within."""
        if not self.delays:
            return None
        ordered = sorted(self.delays)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def _take_report(self, report: reports.Report) -> list[Mark]:
        marks: list[Mark] = []
        if self.publishes and report.published is not None:
            sent = report.published
            marks += _marks(sent.numbers)
            new = self._new("published", frames=sent.frames, audio=sent.audio_frames, dropped=sent.dropped)
            self._add(new["frames"], new["audio"], new["dropped"])
            self.bytes += self._new("published-bytes", bytes=sent.bytes)["bytes"]
        if not self.publishes:
            for stream, received in report.received.items():
                if received.from_cluster == report.cluster:
                    continue
                marks += _marks(received.numbers)
                self.delays.extend(received.delays_ms)
                new = self._new(
                    stream,
                    frames=received.decoded,
                    audio=received.audio_frames,
                    dropped=received.skipped + received.unreadable,
                    bytes=received.bytes,
                )
                self._add(new["frames"], new["audio"], new["dropped"])
                self.bytes += new["bytes"]
            self._measure_gaps(marks)
        if self._last_report is not None and report.t > self._last_report[0]:
            self.rate = (self.frames - self._last_report[1]) / (report.t - self._last_report[0])
        self._last_report = (report.t, self.frames)
        return marks

    def _add(self, frames: int, audio: int, dropped: int) -> None:
        self.frames += frames
        self.audio += audio
        self.dropped += dropped

    def _new(self, what: str, **counters: int) -> dict[str, int]:
        """Return how much each counter grew since the last report; one that fell started again."""
        before = self._seen.get(what, {})
        self._seen[what] = counters
        return {
            name: value - before.get(name, 0) if value >= before.get(name, 0) else value
            for name, value in counters.items()
        }

    def _measure_gaps(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            if self._last_capture is not None:
                ticks = (mark.timestamp - self._last_capture) % _CLOCK
                if ticks < _HALF_CLOCK:
                    self.longest_gap = max(self.longest_gap, ticks / VIDEO_CLOCK)
            self._last_capture = mark.timestamp


class Scoreboard:
    """All participants, and the ledger of their pictures."""

    def __init__(self, ledger: FrameLedger | None = None) -> None:
        self.ledger = ledger or FrameLedger()
        self.scores: dict[str, Score] = {}
        self.garbled = 0
        """Lines that were no report."""

    def add(self, name: str, *, region: str, publishes: bool) -> Score:
        """Begin to keep the score of a participant; a subscriber is expected to decode pictures."""
        score = self.scores[name] = Score(name=name, region=region, publishes=publishes)
        if not publishes:
            self.ledger.expect(region)
        return score

    def started(self, name: str) -> None:
        """Take note that a new process plays participant `name`."""
        score = self.scores[name]
        score.started()
        if score.publishes:
            self.ledger.interrupted()

    def take(self, name: str, line: bytes) -> reports.Line | None:
        """Add up a line that participant `name` wrote; return it, None if it is no report."""
        try:
            report = reports.decode(line)
        except msgspec.DecodeError:
            self.garbled += 1
            return None
        score = self.scores[name]
        marks = score.take(report)
        if marks and score.publishes:
            self.ledger.sent(marks)
        elif marks:
            self.ledger.decoded(score.region, marks)
        return report


def _marks(numbers: Iterable[tuple[int, int]]) -> list[Mark]:
    return [Mark(number, timestamp) for number, timestamp in numbers]
