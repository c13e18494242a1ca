"""Whole stories: flows over one bottleneck, media over a path, a hole; each returns its figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from bench._virtual.media import DEADLINE, SOUND, VIDEO, FrameStreams
from bench._virtual.own_media import OwnMedia
from bench._virtual.peer import Stalls, connect
from bench._virtual.rivals import BANDWIDTH, Constant, pace
from bench._virtual.traffic import Bulk
from bench._virtual.world import World
from bridges.media.own.sending import Kind
from bridges.quic.inside.recovery import CONGESTION, steer
from tests.impairment.core import Bottleneck, Cause, Hole, Impairment, Profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioquic.quic.connection import QuicConnection

    from bench._virtual.media import Shown
    from bench._virtual.peer import Peer

__all__ = ["OURS", "Greedy", "InTime", "Line", "Recovered", "greedy", "hole", "media", "percentile"]

OURS: Final = CONGESTION
_BEGIN: Final = 0.5
_RESOLUTION: Final = 0.0005
"""Virtual time is exact, but 200 ms are not a binary fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A path with the same delay, jitter and losses in both directions, and bottlenecks."""

    round_trip: float
    rate: float | None = None
    """Bits a second; None: no bottleneck."""
    back_rate: float | None = None
    """The same on the way back."""
    queue: float = 0.1
    """Seconds that the bottleneck's queue holds."""
    loss: float = 0.0
    jitter: float = 0.0
    holes: tuple[Hole, ...] = ()

    def directions(self, seed: int) -> tuple[Impairment, Impairment]:
        """Return there and back."""
        bottlenecks = (
            None if rate is None else Bottleneck(rate=rate, queue=self.queue)
            for rate in (self.rate, self.back_rate)
        )
        profiles = (
            Profile(
                delay=self.round_trip / 2,
                jitter=self.jitter,
                loss=self.loss,
                bottleneck=each,
                holes=self.holes,
            )
            for each in bottlenecks
        )
        there, back = (
            Impairment(profile, f"{seed} {way}")
            for profile, way in zip(profiles, ("there", "back"), strict=True)
        )
        return there, back


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """What flows that always have more to send came to."""

    shares: tuple[float, ...]
    """Of the bottleneck's rate, by flow: payload, so all together reach 0.93 of it."""
    queue: float
    """Median of the time in the bottleneck's queue, seconds."""
    queue_p95: float
    standing: float
    """Median of the least time in the queue in each quarter of a second."""
    dropped: float
    """Share of the packets that the bottleneck dropped."""


def greedy(
    line: Line, flows: Sequence[tuple[str | float, float]], *, seed: int, seconds: float = 20.0
) -> Greedy:
    """Let flows (controller, when it begins) share a line; the first third does not count.

    A controller may also be a number: a flow of so many bits a second, whatever happens.
    """
    assert line.rate is not None
    world = World()
    there, back = line.directions(seed)
    waits: list[tuple[float, float]] = []
    bulks: list[Bulk | Constant] = []
    for controller, begin in flows:
        if not isinstance(controller, str):
            bulks.append(Constant(world, there, controller, begin=begin))
            continue
        sender, receiver = _connect(world, there, back, controller)
        sender.on_queued = lambda at, waited: waits.append((at, waited))
        bulks.append(Bulk(world, sender, receiver, begin=begin))
    begin = seconds / 3
    world.run(begin)
    sent, dropped = there.sent, there.lost[Cause.QUEUE]
    world.run(seconds)
    waits = [each for each in waits if each[0] >= begin]
    standing = [min(wait for _, wait in group) for _, group in groupby(waits, lambda each: int(4 * each[0]))]
    queue = [wait for _, wait in waits]
    return Greedy(
        shares=tuple(8 * bulk.delivered(begin, seconds) / (seconds - begin) / line.rate for bulk in bulks),
        queue=percentile(queue, 0.5),
        queue_p95=percentile(queue, 0.95),
        standing=percentile(standing, 0.5),
        dropped=(there.lost[Cause.QUEUE] - dropped) / (there.sent - sent),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InTime:
    """What became of frames."""

    in_time: float
    """Share that was complete within 200 ms beyond the path's one-way delay."""
    p50: float
    p95: float
    p99: float
    """Seconds from capture until complete; infinite for what never was."""


def media(
    line: Line,
    controller: str,
    *,
    seed: int,
    video: int = 1,
    sound: int = 1,
    rival: str | None = None,
    back_rival: str | None = None,
    stalls: Stalls | None = None,
    seconds: float = 12.0,
    since: float = 2.0,
) -> dict[str, InTime]:
    """Send tracks over a line, perhaps beside a greedy flow; return figures for video, key and sound.

    `back_rival` is a greedy flow the other way, `stalls` is what keeps the sender's process from its work.
    What was captured before `since` does not count. A frame of ours counts when the receiver hands it on, in
    order and decodable; with other controllers, when it has arrived.
    """
    world = World()
    there, back = line.directions(seed)
    begun = _BEGIN + (seed * 0.0137) % 0.1  # where nothing is lost, chance would have no say otherwise
    sender, receiver = _connect(world, there, back, controller)
    sender.stalls = stalls
    tracks = [VIDEO] * video + [SOUND] * sound
    shown: dict[tuple[int, int], Shown] = {}

    def begin() -> None:
        nonlocal shown
        shown = _media(controller)(world, sender, receiver, tracks, begin=world.now, end=seconds).shown

    world.at(begun, lambda: receiver.when_ready(begin))
    if rival is not None:
        Bulk(world, *_connect(world, there, back, rival), begin=_BEGIN)
    if back_rival is not None:
        Bulk(world, *_connect(world, back, there, back_rival), begin=_BEGIN)
    world.run(seconds + 2)
    frames = [each for each in shown.values() if each.captured >= since]
    kinds = {"video": {Kind.KEY, Kind.DELTA}, "key": {Kind.KEY}, "sound": {Kind.SOUND}}
    return {
        name: _in_time(line, [each for each in frames if each.kind in chosen])
        for name, chosen in kinds.items()
        if any(each.kind in chosen for each in frames)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Seconds from a hole's end to the first frame in time, and how many later ones were not in time."""

    sound: float
    video: float
    sound_missing: int
    video_missing: int


def hole(line: Line, controller: str, *, seed: int, length: float = 2.0) -> Recovered:
    """Send a picture and a sound track over a line that goes silent for a while."""
    begin = 4.0 + (seed * 0.0137) % 0.1
    end = begin + length
    line = Line(
        round_trip=line.round_trip,
        rate=line.rate,
        queue=line.queue,
        loss=line.loss,
        jitter=line.jitter,
        holes=(Hole(begin=begin, length=length),),
    )
    world = World()
    there, back = line.directions(seed)
    sender, receiver = _connect(world, there, back, controller)
    shown: dict[tuple[int, int], Shown] = {}

    def start() -> None:
        nonlocal shown
        shown = _media(controller)(
            world, sender, receiver, [VIDEO, SOUND], begin=world.now, end=end + 3
        ).shown

    world.at(_BEGIN, lambda: receiver.when_ready(start))
    world.run(end + 5)

    def first(kinds: Iterable[Kind]) -> float:
        times = (
            each.complete
            for each in shown.values()
            if each.kind in kinds and each.complete > end and _is_in_time(line, each)
        )
        return min(times, default=math.inf) - end

    def missing(kinds: Iterable[Kind]) -> int:
        return sum(
            each.kind in kinds and each.captured > end and not _is_in_time(line, each)
            for each in shown.values()
        )

    picture, sound = (Kind.KEY, Kind.DELTA), (Kind.SOUND,)
    return Recovered(
        sound=first(sound), video=first(picture), sound_missing=missing(sound), video_missing=missing(picture)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


def _connect(world: World, there: Impairment, back: Impairment, controller: str) -> tuple[Peer, Peer]:
    def fit(quic: QuicConnection) -> None:
        steer(quic, controller)
        if controller == BANDWIDTH:
            pace(quic)

    return connect(world, there, back, congestion=controller, fit=fit)


def _media(controller: str) -> type[OwnMedia | FrameStreams]:
    return OwnMedia if controller == OURS else FrameStreams


def _in_time(line: Line, frames: Sequence[Shown]) -> InTime:
    delays = [each.complete - each.captured for each in frames]
    return InTime(
        in_time=sum(_is_in_time(line, each) for each in frames) / len(frames),
        p50=percentile(delays, 0.5),
        p95=percentile(delays, 0.95),
        p99=percentile(delays, 0.99),
    )


def _is_in_time(line: Line, shown: Shown) -> bool:
    return shown.complete - shown.captured <= line.round_trip / 2 + DEADLINE + _RESOLUTION
