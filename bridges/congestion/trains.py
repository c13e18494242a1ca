"""The path's capacity, from trains of packets that left together and were acknowledged stretched.

Packets sent at once leave the bottleneck one behind the other, at its rate (Dovrolis, Ramanathan and Moore,
INFOCOM 2001). Media is made of such trains: every frame is one. A train that is not stretched says that the
path is faster than what was sent, however slowly that was paced.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridges.congestion.tuning import Tuning

__all__ = ["Trains"]

_MAX_TRAIN: Final = 64
"""Packets after which a new train begins: a flow that never pauses is measured too."""
_MAX_TRAINS: Final = 256
"""Trains under way; the oldest is given up beyond."""


class _Train:
    __slots__ = (
        "acked",
        "acked_first",
        "begin",
        "end",
        "first_ack",
        "last_ack",
        "packets",
        "shuffle",
        "size",
        "steps",
    )

    def __init__(self, now: float) -> None:
        self.begin = self.end = now
        self.packets = self.size = 0
        self.first_ack = self.last_ack = 0.0
        self.acked = self.acked_first = 0
        self.steps: list[tuple[int, float]] = []
        """The largest number that was acknowledged so far, and when, each time that it grew."""
        self.shuffle = 0.0
        """How much later than one that was sent after it a packet was acknowledged, at most."""

    def ordered(self, now: float, number: int) -> None:
        """Take note that a packet was acknowledged; packets of the same time count as in order."""
        if not self.steps or number > self.steps[-1][0]:
            self.steps.append((number, now))
        else:
            overtaken_at = next(at for step, at in self.steps if step >= number)
            self.shuffle = max(self.shuffle, now - overtaken_at)


class Trains:
    """Estimates the capacity of the path in bytes a second."""

    __slots__ = ("_samples", "_trains", "_tuning", "capacity")

    def __init__(self, tuning: Tuning) -> None:
        self.capacity = math.inf
        """Infinite while nothing says that it is less than what is sent."""
        self._tuning = tuning
        self._trains: deque[_Train] = deque()
        self._samples: deque[float] = deque(maxlen=tuning.train_memory)

    def sent(self, now: float, size: int) -> None:
        """Couple a packet to the train before it, or begin another."""
        trains = self._trains
        train = trains[-1] if trains else None
        if train is None or now - train.end > self._tuning.train_gap or train.packets >= _MAX_TRAIN:
            train = _Train(now)
            trains.append(train)
            if len(trains) > _MAX_TRAINS:
                trains.popleft()
        train.end = now
        train.packets += 1
        train.size += size

    def acked(self, now: float, sent_at: float, size: int, *, number: int) -> None:
        """Take note that a packet has arrived; packets of a train that is finished no longer count.

        `number` counts the packets of the connection as they are sent.
        """
        trains = self._trains
        while len(trains) > 1 and sent_at >= trains[1].begin:
            self._finish(trains.popleft())
        if not trains or sent_at < trains[0].begin:
            return
        train = trains[0]
        if not train.acked:
            train.first_ack = now
        if now == train.first_ack:
            train.acked_first += size
        train.ordered(now, number)
        train.acked += size
        train.last_ack = now

    def _finish(self, train: _Train) -> None:
        tuning = self._tuning
        if train.packets < tuning.train_packets or train.size < tuning.train_bytes or not train.acked:
            return
        # Packets that overtake each other are spread by the path's jitter, not by its bottleneck.
        span = train.last_ack - train.first_ack - 2 * train.shuffle
        sending = train.end - train.begin
        stretched = span > tuning.train_gap and span > tuning.train_stretch * sending + tuning.train_slack
        self._samples.append((train.acked - train.acked_first) / span if stretched else math.inf)
        self.capacity = median(self._samples)
