"""One direction of a bad network path: which datagrams arrive, when, and how often.

A pure object: it knows sizes and times, nothing of sockets, clocks or contents, and all its chance comes from
a seed: the same calls with the same seed have the same outcome. So it serves a relay of real datagrams
(relay.py) as well as connections that are driven in virtual time.

    path = Impairment(Profile(delay=0.04, loss=0.02), seed=1)
    for at in path.send(now, len(datagram)).arrivals:
        ...                                     # deliver the datagram at that time

A datagram meets, in this order: the black holes and the largest size of the path, its bottleneck, the losses
of the line behind it, and the delays. What is lost behind the bottleneck has used its capacity. Every kind of
chance has a generator of its own, drawn from equally often for each datagram: changing one probability
changes nothing of what the others decide.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, replace
from random import Random
from typing import Final

__all__ = ["Bottleneck", "Bursts", "Cause", "Fate", "Hole", "Impairment", "Profile", "Rebinding"]


class Cause(enum.Enum):
    """Why a datagram does not arrive."""

    HOLE = "black hole"
    SIZE = "larger than the path takes"
    QUEUE = "bottleneck's queue full"
    LOSS = "lost at random"
    BURST = "lost in a burst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Losses that come in runs (Gilbert–Elliott): the line is good or bad, and changes with each datagram.

    `share` of all datagrams meets the bad state, `length` (at least 1) of them in a row on average; there
    each is lost with the probability `density`. The good state loses nothing of its own: see `Profile.loss`.
    """

    share: float
    length: float = 5.0
    density: float = 1.0

    def __post_init__(self) -> None:
        _check_share("share", self.share, below_one=True)
        _check_share("density", self.density)
        if self.length < 1:
            raise ValueError("bursts: length is at least 1 datagram")
        if self.entering > 1:
            raise ValueError("bursts: so large a share needs longer bursts")

    @property
    def entering(self) -> float:
        """The probability that a good line is bad for the next datagram."""
        return self.share / (1 - self.share) / self.length

    @property
    def leaving(self) -> float:
        """The probability that a bad line is good for the next datagram."""
        return 1 / self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """The slowest place of the path: `rate` bits a second, behind a queue that drops what does not fit.

    The queue holds what can be sent in `queue` seconds. `burst` bytes may pass at once after a pause (token
    bucket); 0 is a line that takes one datagram after the other. `overhead` bytes of lower layers are added
    to each size.
    """

    rate: float
    queue: float
    burst: int = 0
    overhead: int = 28
    """IPv4 and UDP."""

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.queue < 0 or self.burst < 0 or self.overhead < 0:
            raise ValueError("bottleneck: rate is above 0; queue, burst and overhead are not below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Nothing passes for `length` seconds from `begin` on, counted from the path's beginning.

    With `every` again and again, at that interval.
    """

    begin: float
    length: float
    every: float | None = None

    def __post_init__(self) -> None:
        if self.length < 0 or (self.every is not None and self.every <= 0):
            raise ValueError("hole: length is not below 0, and `every` is above 0")

    def __contains__(self, at: float) -> bool:
        """Whether nothing passes `at` seconds after the path's beginning."""
        since = at - self.begin
        if self.every is not None and since >= 0:
            since %= self.every
        return 0 <= since < self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a path does to datagrams in one direction. Times in seconds, probabilities from 0 to 1.

    The default does nothing.
    """

    delay: float = 0.0
    """What every datagram takes."""
    jitter: float = 0.0
    """Up to so much longer, evenly distributed, each for itself: what is sent close together is reordered."""
    in_order: bool = False
    """Whether jitter delays what comes behind too, instead of reordering it."""
    loss: float = 0.0
    """The probability that a datagram is lost, each for itself."""
    bursts: Bursts | None = None
    reorder: float = 0.0
    """The probability that a datagram is held back for `reorder_delay`, so that later ones overtake it."""
    reorder_delay: float = 0.01
    duplicate: float = 0.0
    """The probability that a datagram arrives twice, each with its own jitter."""
    mtu: int | None = None
    """The most bytes of UDP payload that pass; larger datagrams vanish, as on a path with a broken PMTUD."""
    bottleneck: Bottleneck | None = None
    holes: tuple[Hole, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss", "reorder", "duplicate"):
            _check_share(name, getattr(self, name))
        for name in ("delay", "jitter", "reorder_delay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not below 0")
        if self.mtu is not None and self.mtu < 1:
            raise ValueError("mtu is at least 1 byte")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one datagram."""

    arrivals: tuple[float, ...]
    """When it arrives: never (empty), once, or twice. Not in order."""
    cause: Cause | None = None
    """Why it never arrives."""
    waited: float = 0.0
    """Seconds behind others in the bottleneck's queue, its own sending not counted."""


class Impairment:
    """One direction of a path. `seed` decides all chance; holes are counted from the time `begin`."""

    def __init__(self, profile: Profile, seed: int | str, *, begin: float = 0.0) -> None:
        self.profile = profile
        """May be replaced at any time; what is under way stays as it was decided."""
        self.lost: Final[Counter[Cause]] = Counter()
        self.sent = 0
        """Datagrams that were given to the path."""
        self.sent_bytes = 0
        self.delivered = 0
        """Arrivals that were decided, duplicates counted."""
        self._begin = begin
        chances = (
            Random(f"{seed} {name}") for name in ("loss", "bursts", "jitter", "reorder", "twice", "again")
        )
        self._loss, self._bursts, self._jitter, self._reorder, self._twice, self._again = (
            each.random for each in chances
        )
        self._bad = False
        self._line_free = begin
        self._queue: deque[tuple[float, int]] = deque()
        """When each datagram leaves the bottleneck, and its size."""
        self._queued = 0
        self._last_arrival = begin

    def send(self, now: float, size: int) -> Fate:
        """Put a datagram of `size` bytes of UDP payload on the path; `now` (seconds) must not go back."""
        fate = self._fate(now, size)
        self.sent += 1
        self.sent_bytes += size
        self.delivered += len(fate.arrivals)
        if fate.cause is not None:
            self.lost[fate.cause] += 1
        return fate

    def cut(self, now: float, length: float) -> None:
        """Let nothing pass for `length` seconds from `now` on; holes that are over are forgotten."""
        at = now - self._begin
        ahead = (hole for hole in self.profile.holes if hole.every or hole.begin + hole.length > at)
        holes = (*ahead, Hole(begin=at, length=length))
        self.profile = replace(self.profile, holes=holes)

    def queued(self, now: float) -> int:
        """Return the bytes that wait in the bottleneck or are just being sent there, overhead counted."""
        while self._queue and self._queue[0][0] <= now:
            self._queued -= self._queue.popleft()[1]
        return self._queued

    def _fate(self, now: float, size: int) -> Fate:
        profile = self.profile
        line_cause = self._line(profile)
        later, again = self._lateness(profile)
        if any(now - self._begin in hole for hole in profile.holes):
            return Fate((), Cause.HOLE)
        if profile.mtu is not None and size > profile.mtu:
            return Fate((), Cause.SIZE)
        leaves, waited = now, 0.0
        if profile.bottleneck is not None:
            passed = self._pass(profile.bottleneck, now, size)
            if passed is None:
                return Fate((), Cause.QUEUE)
            leaves, waited = passed
        if line_cause is not None:
            return Fate((), line_cause, waited)
        arrivals = [leaves + profile.delay + later]
        if again is not None:
            arrivals.append(leaves + profile.delay + again)
        if profile.in_order:
            arrivals = [max(each, self._last_arrival) for each in arrivals]
            self._last_arrival = max(arrivals)
        return Fate(tuple(arrivals), None, waited)

    def _line(self, profile: Profile) -> Cause | None:
        """Decide whether the line loses a datagram. Draws the same number of times whatever it decides."""
        turn, hit = self._bursts(), self._bursts()
        lost = self._loss() < profile.loss
        bursts = profile.bursts
        if bursts is None:
            self._bad = False
        else:
            self._bad = turn >= bursts.leaving if self._bad else turn < bursts.entering
            if self._bad and hit < bursts.density:
                return Cause.BURST
        return Cause.LOSS if lost else None

    def _lateness(self, profile: Profile) -> tuple[float, float | None]:
        """Decide how much later than its delay a datagram comes, and its duplicate if it has one."""
        later = profile.jitter * self._jitter()
        if self._reorder() < profile.reorder:
            later += profile.reorder_delay
        twice, again = self._twice() < profile.duplicate, profile.jitter * self._again()
        return later, again if twice else None

    def _pass(self, bottleneck: Bottleneck, now: float, size: int) -> tuple[float, float] | None:
        """Return when the datagram leaves the bottleneck and how long it waited; None if it did not fit."""
        bytes_per_s = bottleneck.rate / 8
        whole = size + bottleneck.overhead
        waiting = self.queued(now)
        # An idle line takes anything: a queue shorter than one datagram is no closed door.
        if waiting and waiting + whole > bottleneck.queue * bytes_per_s:
            return None
        # A line without tokens would be free then; saved tokens let it be ahead by so much.
        own = whole / bytes_per_s
        self._line_free = max(self._line_free, now) + own
        leaves = max(now, self._line_free - bottleneck.burst / bytes_per_s)
        self._queue.append((leaves, whole))
        self._queued += whole
        return leaves, max(0.0, leaves - own - now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebinding:
    """A NAT that forgets its mapping every `every` seconds, first at `begin`: the sender gets a new port."""

    every: float
    begin: float | None = None
    """Seconds from the path's beginning; default: one interval."""

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError("rebinding: `every` is above 0")

    def binding(self, at: float) -> int:
        """Return the number of the mapping `at` seconds after the path's beginning: 0, 1, 2 …"""
        begin = self.every if self.begin is None else self.begin
        return 0 if at < begin else 1 + int((at - begin) / self.every)

    def next_change(self, at: float) -> float:
        """Return when the mapping after the one of `at` begins."""
        begin = self.every if self.begin is None else self.begin
        return begin + self.binding(at) * self.every


def _check_share(name: str, value: float, *, below_one: bool = False) -> None:
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise ValueError(f"{name} is a probability, from 0 to 1")
