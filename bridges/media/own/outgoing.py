"""One track as it goes out: frames cut into datagrams, with the parity that the policy asks for.

Pure; time is an argument, in seconds. Knows what a frame needs, and does not send what cannot be decoded:
frames are numbered as they are taken, so the numbers on the wire have no gap where a frame was refused.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.media.own.parity import protect
from bridges.media.own.sending import Frame, Kind
from bridges.wire.own_media.datagram import (
    LINGER_UNIT,
    MAX_BUNDLE,
    MAX_FRAGMENTS,
    MAX_LINGER,
    MAX_NEED,
    MAX_SOURCES,
    PARITY_BYTES,
    FrameHead,
    Parity,
    encode_bundle,
    encode_frame,
    encode_parity,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.media.own.policy import Repair
    from bridges.media.own.sending import Fragment

__all__ = ["Group", "Offered", "OutgoingFrame", "OutgoingTrack", "Source"]

_HEAD_BYTES: Final = 1 + 2 + 4 + 5 + 3 + 1 + 2 + 2
_MICROSECOND: Final = 1e-6
_CARRIED: Final = 2
"""Datagrams of sound in which lost sound is carried again."""
_SLACK: Final = 0.04
"""Seconds for jitter, where a receiver is told how long to wait for what comes in later datagrams."""


class Source(NamedTuple):
    """A frame as it is offered. Needs are counted in frames offered, not in those taken."""

    body: bytes
    captured: float
    """When, in seconds of the sender's clock."""
    needs: tuple[int, ...] = (1,)
    """Those that it cannot be decoded without, as distances back: ascending, 1 to 255. None: a key frame, or
    sound."""
    discardable: bool = False
    temporal: int = 0
    spatial: int = 0


@dataclass(slots=True, eq=False)
class Group:
    """Fragments that share parity: so many of them may be lost as there is parity."""

    rows: int
    lost: list[Fragment] = field(default_factory=list)
    """What was lost and not sent again."""
    parity_lost: int = 0


@dataclass(slots=True, eq=False)
class OutgoingFrame(Frame):
    """A frame on its journey, with what decides whether its fragments are repeated."""

    in_time_until: float = 0.0
    """When it is sent later than this, it comes too late to be shown in time."""
    useful_until: float = 0.0
    """When it is sent later than this, it is of no use even for those that need it."""
    group: Group | None = None
    """What shares parity with it; None: nothing does, and there is none."""
    number: int = -1
    """On the wire; -1 for parity by itself."""
    needs: tuple[int, ...] = ()
    """The frames before it that it cannot be decoded without, as distances back on the wire."""
    needed: bool = True
    """Whether others that have to come need it: it is neither discardable nor of a higher temporal layer."""


class Offered(NamedTuple):
    """A frame, or parity, for the queue."""

    frame: OutgoingFrame
    datagrams: list[bytes]
    sources: list[bytes]
    """What parity is over, and what is carried again."""


class _Span:
    """Pictures that share parity, as it goes on."""

    __slots__ = ("counts", "datagrams", "first", "group", "length")

    def __init__(self, first: int, length: int, rows: int) -> None:
        self.first = first
        self.length = length
        self.counts: list[int] = []
        self.datagrams: list[bytes] = []
        self.group = Group(rows)


class OutgoingTrack:
    """Makes datagrams of frames. `largest` is what a datagram may have, in bytes."""

    def __init__(self, alias: int, *, sound: bool, largest: int, deadline: float, useful: float) -> None:
        self.alias: Final = alias
        self.sound: Final = sound
        self._deadline = deadline
        self._useful = useful
        self._linger_of_pictures = _units(useful)
        self._next = 0
        self._offered = 0
        self._taken: OrderedDict[int, OutgoingFrame] = OrderedDict()
        """Those of the last 255 frames offered that were taken, by their number as offered."""
        self._earlier: list[bytes] = []
        """Sound that was sent last, the newest first."""
        self._again: list[tuple[bytes, int]] = []
        """Sound to be carried again with the next that is sent, and how often still."""
        self._span: _Span | None = None
        self._closed: list[_Span] = []
        self._interval = 0.0
        self._last_captured: float | None = None
        self.resize(largest)

    def resize(self, largest: int) -> None:
        """Make no larger datagrams from the next frame on; `largest` may be more than before, or less.

        Pictures that share parity begin anew, as parity over larger datagrams would not fit either.
        """
        self._largest = largest
        self._payload = largest - _HEAD_BYTES - (0 if self.sound else PARITY_BYTES)
        if self._span is not None:
            self._span.group.rows = 0
            self._span = None

    def fits(self, body: bytes) -> bool:
        """Return whether a frame has no more parts than a frame may have, and at least one."""
        return 0 < len(body) <= self._payload * MAX_FRAGMENTS

    def prepare(self, source: Source, repair: Repair) -> Offered | None:
        """Return a frame's datagrams; None if it does not fit, or needs what will not be there.

        Every frame is offered once, taken or not: say take() next if the queue has taken it.
        """
        self._offered += 1
        self._note_interval(source.captured)
        needs = self._needs(source.needs)
        if needs is None or not self.fits(source.body):
            return None
        parts = -(-len(source.body) // self._payload)
        head = FrameHead(
            self.alias,
            self._next,
            round(source.captured / _MICROSECOND) % 2**32,
            self._linger(repair),
            needs,
            source.discardable,
            source.temporal,
            source.spatial,
        )
        datagrams = encode_frame(head, _cut(source.body, parts))
        in_time_until = source.captured + self._deadline
        useful = self._deadline if self.sound or source.discardable else self._useful
        frame = OutgoingFrame(
            self.alias,
            Kind.SOUND if self.sound else Kind.DELTA if needs else Kind.KEY,
            source.captured + useful,
            in_time_until=in_time_until,
            useful_until=source.captured + useful,
            number=self._next,
            needs=needs,
            needed=not source.discardable and not source.temporal,
        )
        sent = [self._with_earlier(datagrams[0], repair.copies)] if self.sound and parts == 1 else datagrams
        return Offered(frame, sent, datagrams)

    def leave_out(self, source: Source) -> None:
        """Take note of a frame that is not to be sent, instead of prepare()."""
        self._offered += 1
        self._note_interval(source.captured)

    def take(self, offered: Offered, repair: Repair) -> list[Offered]:
        """Take note that a frame was taken; return the parity that is to follow it."""
        frame, _, sources = offered
        self._next += 1
        self._taken[self._offered] = frame
        while next(iter(self._taken)) < self._offered - MAX_NEED:
            self._taken.popitem(last=False)
        if self.sound:
            self._again = [(each, left - 1) for each, left in self._again if left > 1]
            self._earlier = [sources[0], *self._earlier[:1]] if len(sources) == 1 else []
            return []
        rows = repair.rows(len(sources))
        if frame.kind is Kind.KEY:
            self._close_span()
            rows = repair.key_rows(len(sources))
        elif self._spread(frame, sources, repair):
            rows = 0
        parity = [self._span_parity(frame) for _ in self._closed]
        if rows:
            frame.group = Group(rows)
            parity.insert(0, self._beside(frame, self._parity(frame.number, sources, rows)))
        return parity

    def useless_without(self, lost: OutgoingFrame) -> list[OutgoingFrame]:
        """Return the frames taken, and not dead yet, that cannot be decoded as another will not arrive."""
        missing = {lost.number}
        found = []
        for frame in self._taken.values():
            if frame.number > lost.number and any(frame.number - need in missing for need in frame.needs):
                missing.add(frame.number)
                if not frame.dead:
                    found.append(frame)
        return found

    def _span_parity(self, last: OutgoingFrame) -> Offered:
        span = self._closed.pop()
        symbols = protect(span.datagrams, span.group.rows)
        parity = [
            encode_parity(Parity(self.alias, span.first, 0, row, tuple(span.counts), symbol))
            for row, symbol in enumerate(symbols)
        ]
        return self._beside(replace(last, kind=Kind.DELTA, group=span.group), parity)

    def _beside(self, frame: OutgoingFrame, parity: list[bytes]) -> Offered:
        """Return parity that goes with a frame, but may be refused or come too late by itself."""
        itself = OutgoingFrame(
            self.alias,
            frame.kind,
            frame.in_time_until,
            in_time_until=frame.in_time_until,
            useful_until=frame.in_time_until,
            group=frame.group,
        )
        return Offered(itself, parity, [])

    def _needs(self, needs: Sequence[int]) -> tuple[int, ...] | None:
        """Return the distances back in frames taken; None if one of them will not be there."""
        found = []
        for need in needs:
            frame = self._taken.get(self._offered - need)
            if frame is None or frame.dead:
                return None
            found.append(self._next - frame.number)
        return tuple(found)

    def _linger(self, repair: Repair) -> int:
        """Return for how long something may come after this that is of what came before."""
        if not self.sound:
            return self._linger_of_pictures
        return _units(self._deadline if repair.in_time else repair.copies * self._interval + _SLACK)

    def _note_interval(self, captured: float) -> None:
        if self._last_captured is not None:
            between = captured - self._last_captured
            self._interval += (between - self._interval) / 8 if self._interval else between
        self._last_captured = captured

    def carry(self, datagram: bytes) -> None:
        """Carry sound again, together with what is sent next."""
        self._again = [(datagram, _CARRIED), *self._again][: MAX_BUNDLE - 1]

    def again(self) -> Offered | None:
        """Return the sound that was sent last, to be sent once more by itself."""
        if not self._earlier or self._last_captured is None:
            return None
        until = self._last_captured + self._deadline
        frame = OutgoingFrame(self.alias, Kind.SOUND, until, in_time_until=until, useful_until=until)
        return Offered(frame, self._earlier[:1], [])

    def _with_earlier(self, datagram: bytes, copies: int) -> bytes:
        """Return a datagram of sound together with earlier ones, as far as they fit."""
        if not copies and not self._again:
            return datagram
        again = (each for each, _ in self._again)
        chosen = [*self._earlier[:copies], *again][: MAX_BUNDLE - 1]
        for count in range(len(chosen), 0, -1):
            bundle = encode_bundle((datagram, *chosen[:count]))
            if len(bundle) <= self._largest:
                return bundle
        return datagram

    def _spread(self, frame: OutgoingFrame, datagrams: list[bytes], repair: Repair) -> bool:
        """Let a picture share parity with others, if that is how to repair."""
        length = repair.span(self._interval, self._deadline)
        span = self._span
        if span is not None and (
            span.first + len(span.counts) != frame.number
            or len(span.datagrams) + len(datagrams) > MAX_SOURCES
        ):
            self._close_span()
            span = None
        if span is None:
            if length == 1 or len(datagrams) > MAX_SOURCES:
                return False
            span = self._span = _Span(frame.number, length, repair.span_rows(length * len(datagrams)))
        span.counts.append(len(datagrams))
        span.datagrams += datagrams
        frame.group = span.group
        if len(span.counts) == span.length:
            self._close_span()
        return True

    def _close_span(self) -> None:
        if self._span is not None:
            self._closed.append(self._span)
            self._span = None

    def _parity(self, number: int, datagrams: list[bytes], rows: int) -> list[bytes]:
        """Return parity over one frame; over each part of it, if it has very many fragments."""
        parity: list[bytes] = []
        for start in range(0, len(datagrams) if rows else 0, MAX_SOURCES):
            block = datagrams[start : start + MAX_SOURCES]
            parity += [
                encode_parity(Parity(self.alias, number, start, row, (len(block),), symbol))
                for row, symbol in enumerate(protect(block, rows))
            ]
        return parity


def _units(linger: float) -> int:
    """Return seconds as they travel."""
    return round(min(linger, MAX_LINGER) / LINGER_UNIT)


def _cut(body: bytes, parts: int) -> list[bytes]:
    """Cut a body into parts of one size, but for the last: the kernel sends such in one go."""
    if parts == 1:
        return [body]
    size = -(-len(body) // parts)
    return [body[begin : begin + size] for begin in range(0, len(body), size)]
