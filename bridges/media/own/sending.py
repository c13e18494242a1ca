"""The send queue of one connection: what is worth sending goes first, what comes too late not at all.

Pure: knows frames as fragments with a kind and a deadline, not what is in them nor how they travel; time
comes as an argument, in seconds, from any clock that never goes back.

A frame whose deadline has passed leaves whole: its other fragments would help nobody. Where more is offered
than the path takes, frames that others do not need are refused at once instead of ageing in a queue.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Fragment", "Frame", "Kind", "Limits", "SendQueue"]


class Kind(enum.IntEnum):
    """What a frame is, the most urgent first."""

    SOUND = 0
    KEY = 2
    """A picture that needs no other."""
    DELTA = 3
    """A picture that needs the ones before it."""
    OTHER = 4


_REPEAT: Final = 1
"""Where repeated fragments stand: behind sound, before everything new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a queue. Sizes in bytes, times in seconds."""

    queue_bytes: int = 2 << 20
    track_bytes: int = 1 << 20
    """Of one track; so one that is offered far too much costs its own frames only."""
    backlog: float = 0.15
    """A delta frame that would wait longer than this is refused."""


@dataclass(slots=True, eq=False)
class Frame:
    """A frame in the making of its journey."""

    track: int
    kind: Kind
    deadline: float
    """After this, sending is useless."""
    dead: bool = False
    """Whether it cannot arrive whole any more."""


class Fragment:
    """What fits into one datagram, and how many copies are on their way, whose fate is not known."""

    __slots__ = ("data", "flying", "frame")

    def __init__(self, frame: Frame, data: bytes) -> None:
        self.frame = frame
        self.data = data
        self.flying = 0


class SendQueue:
    """Bounded, ordered by kind, without anything that comes too late.

    `on_given_up` is told of each frame that was taken and will not be sent whole, as it comes too late or has
    become too large.
    """

    def __init__(
        self, limits: Limits | None = None, *, on_given_up: Callable[[Frame], None] = lambda _: None
    ) -> None:
        self.waiting = 0
        """Bytes in the queue."""
        self.refused = 0
        """Frames that were not taken, or that had to make room."""
        self.expired = 0
        """Frames that were taken and not sent whole in time, and parity likewise."""
        self.repeated = 0
        """Fragments that were put back after a loss."""
        self._limits = limits or Limits()
        self._on_given_up = on_given_up
        self._largest = math.inf
        self._lanes: tuple[deque[Fragment], ...] = tuple(deque() for _ in range(len(Kind) + 1))
        self._head_lane = 0
        self._lane_bytes = [0] * len(self._lanes)
        self._track_bytes: dict[int, int] = {}

    def offer(self, now: float, frame: Frame, fragments: Sequence[bytes], *, rate: float | None) -> bool:
        """Take a frame, or refuse it; `rate` is what the path takes, in bytes a second (None: unknown).

        A refused frame is dead: nothing of it will be sent.
        """
        size = sum(map(len, fragments))
        late = False
        if frame.kind >= Kind.DELTA and rate:
            late = self._ahead_of(frame.kind) / rate > self._limits.backlog
        if late or not self._has_room(now, frame.track, size):
            frame.dead = True
            self.refused += 1
            return False
        self._lanes[frame.kind].extend([Fragment(frame, data) for data in fragments])
        self._account(frame.kind, frame.track, size)
        return True

    def head(self, now: float) -> Fragment | None:
        """Return what is to be sent next, and leave it in the queue; drops what is too late before it."""
        if not self.waiting:
            return None
        for lane, fragments in enumerate(self._lanes):
            if fragments:
                self._drop_late(now, lane)
            if fragments:
                self._head_lane = lane
                return fragments[0]
        return None

    def pop(self) -> Fragment:
        """Remove and return what head() has just returned; raises IndexError if that was None."""
        return self._take(self._head_lane)

    def lost(self, now: float, fragment: Fragment) -> bool:
        """Send a fragment again that did not arrive, if that is of use and possible; return whether it is."""
        if self._is_late(now, fragment.frame):
            return False
        if len(fragment.data) > self._largest:
            self._give_up(fragment.frame)
            return False
        self._put(_REPEAT, fragment)
        self.repeated += 1
        return True

    def resize(self, largest: int) -> None:
        """Send no larger fragment from now on: the frames of those that wait, or return, are dead."""
        shrinks, self._largest = largest < self._largest, largest
        if not shrinks:
            return
        for lane, fragments in enumerate(self._lanes):
            for fragment in fragments:
                if len(fragment.data) > largest and not fragment.frame.dead:
                    self._give_up(fragment.frame)
            self._sweep(lane)

    def forget(self, track: int) -> None:
        """Drop everything that waits of a track, for instance when its last subscriber has left."""
        for lane, fragments in enumerate(self._lanes):
            for fragment in fragments:
                if fragment.frame.track == track:
                    fragment.frame.dead = True
            self._sweep(lane)

    def _has_room(self, now: float, track: int, size: int) -> bool:
        limits = self._limits
        if self.waiting + size > limits.queue_bytes:
            for lane in range(len(self._lanes)):
                self._drop_late(now, lane)
        return (
            self.waiting + size <= limits.queue_bytes
            and self._track_bytes.get(track, 0) + size <= limits.track_bytes
        )

    def _ahead_of(self, kind: Kind) -> int:
        return sum(self._lane_bytes[: kind + 1])

    def _drop_late(self, now: float, lane: int) -> None:
        """Drop what is too late at the head of a lane, where the oldest is."""
        fragments = self._lanes[lane]
        while fragments and self._is_late(now, fragments[0].frame):
            self._take(lane)

    def _is_late(self, now: float, frame: Frame) -> bool:
        """Return whether a frame can be given up; counts it the first time."""
        if not frame.dead and now > frame.deadline:
            self.expired += 1
            self._give_up(frame)
        return frame.dead

    def _give_up(self, frame: Frame) -> None:
        frame.dead = True
        self._on_given_up(frame)

    def _put(self, lane: int, fragment: Fragment) -> None:
        self._lanes[lane].append(fragment)
        self._account(lane, fragment.frame.track, len(fragment.data))

    def _take(self, lane: int) -> Fragment:
        fragment = self._lanes[lane].popleft()
        self._account(lane, fragment.frame.track, -len(fragment.data))
        return fragment

    def _sweep(self, lane: int) -> None:
        """Remove the fragments of dead frames."""
        fragments = self._lanes[lane]
        kept = [each for each in fragments if not each.frame.dead]
        while fragments:
            self._take(lane)
        for fragment in kept:
            self._put(lane, fragment)

    def _account(self, lane: int, track: int, size: int) -> None:
        self.waiting += size
        self._lane_bytes[lane] += size
        left = self._track_bytes.get(track, 0) + size
        if left:
            self._track_bytes[track] = left
        else:
            self._track_bytes.pop(track, None)
