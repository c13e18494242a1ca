"""One track as it comes in: frames put together, each handed on once, in order, in time, if decodable.

Pure; time is an argument, in seconds. A frame that misses something is waited for as long as its sender
says that it may still send it (`linger`), and never longer than our own patience. What needs a frame that was
given up, or needs such a one, is never handed on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.media.own.rebuilding import Rebuilding
from bridges.wire.own_media.datagram import LINGER_UNIT, MAX_NEED, MAX_SPAN, Fragment, Parity

if TYPE_CHECKING:
    from bridges.wire.own_media.datagram import FrameHead

__all__ = ["IncomingTrack", "Received", "TrackLimits"]

_HISTORY: Final = 2 * MAX_SPAN
"""Frames that parity may still be over after they were handed on."""
_FORGET_EVERY: Final = MAX_SPAN
"""So many frames further, those before them are forgotten: one by one would cost a look at all each time."""
_MICROSECOND: Final = 1e-6
_COMES_ROUND: Final = 2**32 * _MICROSECOND
_SHORT_SILENCE: Final = 0.3
_SILENCE: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackLimits:
    """Bounds of one incoming track. Sizes in bytes, times in seconds."""

    frame_bytes: int = 4 << 20
    track_bytes: int = 6 << 20
    """Everything kept of the track, what waits and what parity may need."""
    window: int = 1024
    """Frames between the oldest and the newest that wait."""
    patience: float = 1.0
    """How long a frame is waited for at most, counted from when something later of the track has come."""
    key_frame_interval: float = 0.5
    """Between two wishes for a key frame."""


class Received(NamedTuple):
    """A frame, handed on."""

    alias: int
    head: FrameHead
    body: bytes
    needs: tuple[int, ...]
    """As in the head, but counted in frames handed on: for whoever sends them further."""


class _Frame:
    """A frame that is known of, and not handed on or given up yet."""

    __slots__ = ("arrived", "dead", "head", "missing", "parts", "size")

    def __init__(self, first: Fragment, now: float) -> None:
        self.head = first.head
        self.parts = self.missing = first.parts
        self.arrived = now
        self.size = 0
        self.dead = False
        """Whether it will not be handed on whatever comes."""

    @property
    def settled(self) -> bool:
        """Whether it can be handed on, or passed over."""
        return self.dead or not self.missing


class IncomingTrack:
    """Takes fragments and parity of one track, gives frames.

    `figures` counts: handed, given_up, undecodable, oversized (frames); spare (of frames that are settled),
    duplicates, conflicting (datagrams); wishes.
    """

    def __init__(self, alias: int, *, sound: bool, limits: TrackLimits | None = None) -> None:
        self.alias: Final = alias
        self.sound: Final = sound
        self.figures: Final[Counter[str]] = Counter()
        self.jitter = 0.0
        """Mean deviation of the way's delay, in seconds (RFC 3550, section 6.4.1), of frames handed on."""
        self._limits = limits or TrackLimits()
        self._rebuilding = Rebuilding(alias)
        self._frames: dict[int, _Frame] = {}
        self._next = 0
        self._handed: list[int] = []
        """The last frames handed on, ascending."""
        self._forget_at = 0
        """When the next frame is that one, old ones are forgotten."""
        self._hopeless_at = math.inf
        """When the frame at the head of the line is given up."""
        self._broken = False
        self._wish_at = -math.inf
        self._came_at = -math.inf
        self._transit: float | None = None

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._rebuilding.size

    @property
    def recovered(self) -> int:
        """Fragments that parity brought back."""
        return self._rebuilding.recovered

    @property
    def missed(self) -> int:
        """Frames that were not handed on, and will not be."""
        return self._next - self.figures["handed"]

    @property
    def malformed(self) -> int:
        """Parity that cannot be right."""
        return self._rebuilding.malformed

    def take(self, now: float, datagram: Fragment | Parity) -> list[Received]:
        """Take what came; return the frames that can be handed on by it, in order."""
        handed: list[Received] = []
        silent, self._came_at = now - self._came_at, now
        if isinstance(datagram, Parity):
            found = self._parity(now, datagram, handed)
        else:
            if _SHORT_SILENCE < silent < math.inf:
                self._after_silence(now, datagram.head, silent, handed)
            found = self._fragment(now, datagram, handed)
        while found:
            found += self._fragment(now, found.pop(), handed)
        following = self._frames.get(self._next)
        if now >= self._hopeless_at or self._broken or (following is not None and following.settled):
            self._advance(now, handed)
        return handed

    def tick(self, now: float) -> list[Received]:
        """Give up what is overdue; return the frames that can be handed on by it, in order."""
        handed: list[Received] = []
        self._advance(now, handed)
        return handed

    def wishes(self, now: float) -> bool:
        """Return whether a key frame is to be asked for now; true at most once in each interval.

        Nothing is asked of a track that is silent.
        """
        if not self._broken or self.sound:
            return False
        if now > self._came_at + _SILENCE:
            self._broken = False
            return False
        if now < self._wish_at:
            return False
        self._wish_at = now + self._limits.key_frame_interval
        self.figures["wishes"] += 1
        return True

    def due(self) -> float:
        """Return when tick() and wishes() are to be called; infinite: not before something comes."""
        if not self._broken or self.sound:
            return self._hopeless_at
        return min(self._hopeless_at, self._wish_at)

    # --- taking: what can be handed on by it is added to `handed` -----------------------------------

    def _after_silence(self, now: float, head: FrameHead, silent: float, handed: list[Received]) -> None:
        """Give up at once what the path has swallowed while it was silent: it would come too late."""
        if head.frame > self._next and silent >= head.linger * LINGER_UNIT:
            self._give_up(now, head.frame, handed)

    def _parity(self, now: float, parity: Parity, handed: list[Received]) -> list[Fragment]:
        last = parity.frame + len(parity.counts) - 1
        if last < self._next or parity.frame >= self._next + self._limits.window:
            self.figures["spare"] += 1
            return []
        self._make_room(now, len(parity.symbol), handed)
        return self._rebuilding.add_parity(parity)

    def _fragment(self, now: float, fragment: Fragment, handed: list[Received]) -> list[Fragment]:
        number, rebuilding, size = fragment.head.frame, self._rebuilding, len(fragment.raw)
        if number < self._next:
            self.figures["spare"] += 1
            return []
        if rebuilding.has(number, fragment.part):
            self.figures["duplicates"] += 1
            return []
        if number >= self._next + self._limits.window:
            self._shift_window(now, number, handed)
        if rebuilding.size + size > self._limits.track_bytes:
            self._make_room(now, size, handed)
        frame = self._frames.get(number) or self._begun(now, fragment)
        if frame is None or frame.dead:
            return []
        if frame.head != fragment.head or frame.parts != fragment.parts:
            self.figures["conflicting"] += 1
            return []
        frame.size += size
        if frame.size > self._limits.frame_bytes:
            self.figures["oversized"] += 1
            self._kill(number, frame)
            return []
        frame.missing -= 1
        return rebuilding.add(fragment)

    def _begun(self, now: float, first: Fragment) -> _Frame | None:
        """Return the frame that begins with a fragment; None if it comes too late."""
        number = first.head.frame
        if number < self._next:  # room was made by giving it up
            return None
        frame = self._frames[number] = _Frame(first, now)
        hope = now + self._limits.patience if number == self._next else self._hope_after(frame)
        self._hopeless_at = min(self._hopeless_at, hope)
        if self._is_undecodable(first.head):
            self._undecodable(number, frame)
        return frame

    def _shift_window(self, now: float, newest: int, handed: list[Received]) -> None:
        """Give up what is too far behind the newest frame."""
        while newest >= self._next + self._limits.window:
            self._give_up(now, newest - self._limits.window + 1, handed)

    def _make_room(self, now: float, size: int, handed: list[Received]) -> None:
        limit = self._limits.track_bytes - size
        if self._rebuilding.size > limit:
            self._rebuilding.forget_before(self._next)
        if self._rebuilding.size > limit:
            self._rebuilding.forget_parity()
        while self._rebuilding.size > limit and self._frames:
            self._give_up(now, self._next + 1, handed)
            self._rebuilding.forget_before(self._next)

    # --- handing on -------------------------------------------------------------------------------

    def _advance(self, now: float, handed: list[Received]) -> None:
        """Hand on what is next, or give it up when it is time."""
        while self._frames:
            frame = self._frames.get(self._next)
            if frame is not None and frame.settled:
                self._settle(now, frame, handed)
            elif now >= self._hopeless_at:
                self._give_up(now, self._next + 1, handed)
            elif self._broken and (key := self._first_key()) is not None:
                self._give_up(now, key, handed)  # what is missing before it could not be decoded either
            else:
                break
        if not self._frames:
            self._hopeless_at = math.inf
        if self._next >= self._forget_at:
            self._rebuilding.forget_before(self._next - _HISTORY)
            self._forget_at = self._next + _FORGET_EVERY

    def _first_key(self) -> int | None:
        """Return the first frame that is there whole and needs no other."""
        whole = (
            number
            for number, frame in self._frames.items()
            if not frame.missing and not frame.dead and not frame.head.needs
        )
        return min(whole, default=None)

    def _give_up(self, now: float, until: int, handed: list[Received]) -> None:
        """Go on to the frame `until` or, of those behind it, the first that is known of."""
        if until not in self._frames:
            until = max(until, min((each for each in self._frames if each >= self._next), default=until))
        for number in sorted(each for each in self._frames if each < until):
            frame = self._frames[number]
            if frame.settled:
                self.figures["given_up"] += number - self._next
                self._next = number
                self._settle(now, frame, handed)
            else:
                self._kill(number, frame)
                del self._frames[number]
        self.figures["given_up"] += until - self._next
        self._go_to(until)

    def _settle(self, now: float, frame: _Frame, handed: list[Received]) -> None:
        """Hand the next frame on, or pass over it."""
        number, head = self._next, frame.head
        del self._frames[number]
        if not frame.dead and self._is_undecodable(head):
            self._undecodable(number, frame)
        if not frame.dead:
            needs = head.needs and tuple(
                len(self._handed) - self._place(number - need) for need in head.needs
            )
            self._handed.append(number)
            if not needs:
                self._broken = False
            self.figures["handed"] += 1
            self._note_transit(now, head)
            handed.append(Received(self.alias, head, self._rebuilding.body(number), needs))
        self._go_to(number + 1)

    def _go_to(self, number: int) -> None:
        self._next = number
        if len(self._handed) > 2 * MAX_NEED:
            del self._handed[: self._place(number - MAX_NEED)]
        self._hopeless_at = math.inf
        if self._frames:
            later = (self._hope_after(frame) for each, frame in self._frames.items() if each > number)
            self._hopeless_at = min(later, default=math.inf)
            own = self._frames.get(number)
            if own is not None:
                self._hopeless_at = min(self._hopeless_at, own.arrived + self._limits.patience)

    def _hope_after(self, frame: _Frame) -> float:
        """Return until when what came before a frame can be hoped for."""
        return frame.arrived + min(frame.head.linger * LINGER_UNIT, self._limits.patience)

    # --- what a frame is --------------------------------------------------------------------------

    def _is_undecodable(self, head: FrameHead) -> bool:
        """Return whether a frame needs one that was not handed on, and will not be."""
        for need in head.needs:
            number = head.frame - need
            if number < self._next and not self._was_handed(number):
                return True
        return False

    def _was_handed(self, number: int) -> bool:
        place = self._place(number)
        return place < len(self._handed) and self._handed[place] == number

    def _place(self, number: int) -> int:
        """Return how many of the last frames handed on came before that number."""
        return bisect_left(self._handed, number)

    def _undecodable(self, number: int, frame: _Frame) -> None:
        self.figures["undecodable"] += 1
        self._broken = True
        self._kill(number, frame)

    def _kill(self, number: int, frame: _Frame) -> None:
        frame.dead = True
        self._rebuilding.forget(number)

    def _note_transit(self, now: float, head: FrameHead) -> None:
        transit = now - head.captured * _MICROSECOND
        if self._transit is not None:
            # The sender's clock is another one and comes round: differences alone mean something.
            half = _COMES_ROUND / 2
            change = (transit - self._transit + half) % _COMES_ROUND - half
            self.jitter += (abs(change) - self.jitter) / 16
        self._transit = transit
