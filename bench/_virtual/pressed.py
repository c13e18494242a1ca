"""More offered than the path takes: our own media with back-pressure; sources that follow it or do not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aioquic.quic.events import DatagramFrameReceived

from bench._virtual.peer import connect
from bench._virtual.world import World
from bridges.media.own.pressure import Pressure, Strain
from bridges.media.own.receiver import MediaReceiver, Received
from bridges.media.own.sender import MediaSender, Source
from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.recovery import CONGESTION, Recovery, steer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.scenario import Line

__all__ = ["Camera", "Pressed", "pressed"]

_BEGIN: Final = 0.5
_DEADLINE: Final = 0.2
_SOUND_STEP: Final = 0.02
_SOUND_BYTES: Final = 120
_KEY_EVERY: Final = 60
_KEY_COSTS: Final = 8
"""Times what a picture does."""
_FEEDBACK: Final = 0.05
"""Seconds that the peer's wishes take."""
_SHORTENED: Final = 1.5
"""So much larger pictures of the base are than of the layer above it, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """An encoder. Rates in bits a second."""

    rate: float
    pictures: int = 30
    """A second."""
    layers: int = 1
    """Temporal: 1 or 2."""
    follows: bool = True
    """Whether it sends less when asked to."""
    reaction: float = 0.15
    """Seconds that it takes for that."""


@dataclass(slots=True)
class Pressed:
    """What became of it."""

    sound: list[float] = field(default_factory=list)
    """Delay of each piece, seconds; infinite for what never came."""
    pictures: list[tuple[float, float]] = field(default_factory=list)
    """When each was captured, and its delay."""
    undecodable: int = 0
    """Pictures that were handed on although something that they need was not."""
    targets: list[tuple[float, float]] = field(default_factory=list)
    """What all may come to on the path, as it changed: when, bytes a second."""
    left_out: int = 0
    wishes: int = 0
    """Key frames asked of sources."""
    sent: list[tuple[float, int]] = field(default_factory=list)
    """Bytes sent until then, each tenth of a second."""

    def in_time(self, delays: Iterable[float], round_trip: float) -> float:
        """Return the share that came within the deadline beyond the path's delay."""
        known = list(delays)
        return sum(each <= round_trip / 2 + _DEADLINE + 0.0005 for each in known) / len(known)

    def share(self, begin: float, end: float) -> float:
        """Return the share of pictures captured between two times that were handed on at all."""
        delays = [delay for at, delay in self.pictures if begin <= at < end]
        return sum(delay < math.inf for delay in delays) / len(delays)

    @property
    def cuts(self) -> list[float]:
        """When less was asked for than before."""
        falls = zip(self.targets, self.targets[1:], strict=False)
        return [at for (_, before), (at, after) in falls if after < before]


class _Run:
    def __init__(
        self, world: World, line: Line, cameras: list[Camera], *, seed: int, until: float, pressing: bool
    ) -> None:
        there, back = line.directions(seed)
        self.outcome = Pressed()
        self._world = world
        self._until = until
        self._pressing = pressing
        self._random = Random(f"{seed} pressed")
        self._peers = connect(
            world, there, back, congestion=CONGESTION, fit=lambda quic: steer(quic, CONGESTION)
        )
        recovery = self._peers[0].quic._loss  # noqa: SLF001 - there is no public way to it
        assert isinstance(recovery, Recovery)
        self._recovery = recovery
        self._sender, self._receiver = MediaSender(), MediaReceiver()
        self._pressure = Pressure()
        self._rates = [camera.rate / 8 for camera in cameras]
        self._wanted = {*range(len(cameras))}
        self._base = [0] * len(cameras)
        """By camera: the last picture of the base layer."""
        self._came: dict[tuple[int, int], float] = {}
        self._made: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        """By track and number: when, and which it needs."""
        self._cameras = cameras
        replace_datagrams(self._peers[0].quic, self)
        self._peers[1].on_event = self._take
        self._sound = len(cameras)
        for alias in range(len(cameras) + 1):
            sound = alias == self._sound
            for each in (self._sender, self._receiver, self._pressure):
                each.open(alias, sound=sound)
        for alias, camera in enumerate(cameras):
            world.at(_BEGIN + alias * 0.0037, partial(self._picture, alias, camera, 0))
        world.at(_BEGIN, lambda: self._piece_of_sound(0))
        world.at(_BEGIN, self._note)

    # The source of datagrams.

    def head(self) -> bytes | None:
        return self._sender.head(self._world.now)

    def taken(self) -> Callable[[bool], None]:
        flight = self._sender.taken()
        return lambda arrived: self._sender.settled(self._world.now, flight, arrived=arrived)

    def knock(self) -> None:
        self._sender.knock(self._world.now)

    # Sources.

    def _picture(self, alias: int, camera: Camera, count: int) -> None:
        now = self._world.now
        if now >= self._until:
            return
        key = (count + alias * 23) % _KEY_EVERY == 0 or alias in self._wanted
        temporal = 0 if key or camera.layers == 1 else (count - self._base[alias]) % 2
        needs = () if key else (count - self._base[alias],)
        if not temporal:
            self._base[alias] = count
        self._wanted -= {alias} if key else set()
        mean = self._rates[alias] / camera.pictures * _KEY_EVERY / (_KEY_EVERY + _KEY_COSTS - 1)
        size = mean * (_KEY_COSTS if key else self._random.uniform(0.7, 1.3))
        if camera.layers > 1 and not key:
            size *= (2 if temporal else 2 * _SHORTENED) / (1 + _SHORTENED)
        self._offer(alias, count, max(int(size), 100), needs, temporal)
        self._world.at(now + 1 / camera.pictures, lambda: self._picture(alias, camera, count + 1))

    def _piece_of_sound(self, count: int) -> None:
        if self._world.now >= self._until:
            return
        self._offer(self._sound, count, _SOUND_BYTES, (), 0)
        self._world.at(self._world.now + _SOUND_STEP, lambda: self._piece_of_sound(count + 1))

    def _offer(self, alias: int, count: int, size: int, needs: tuple[int, ...], temporal: int) -> None:
        now, rate = self._world.now, self._recovery.controller.rate
        self._made[alias, count] = (now, tuple(count - need for need in needs))
        body = count.to_bytes(4, "big") + bytes(size - 4)
        source = Source(body, now, needs, discardable=temporal > 0, temporal=temporal)
        self._sender.measured(self._recovery.controller.delay.base)
        outcome = self._sender.offer(now, alias, source, rate=rate)
        self._pressure.offered(now, alias, size, outcome, key=not needs, temporal=temporal)
        if self._pressing:
            self._press(now, rate)
        self._wanted.update(self._sender.wishes(now, rate=rate))
        self._peers[0].advance()

    def _press(self, now: float, rate: float | None) -> None:
        strain = Strain(rate, self._sender.queue.waiting, self._sender.sent_bytes)
        decision = self._pressure.look(now, strain)
        self._sender.sound_copies = self._pressure.sound_copies(now)
        for alias, kbps in decision.ask.items():
            if self._cameras[alias].follows:
                at = now + self._cameras[alias].reaction
                self._world.at(at, partial(self._follow, alias, kbps))
        for alias, highest in decision.layers.items():
            self._sender.let_through(alias, highest)
        targets = self.outcome.targets
        if not targets or targets[-1][1] != self._pressure.target:
            targets.append((now, self._pressure.target))

    def _follow(self, alias: int, kbps: int) -> None:
        self._rates[alias] = min(kbps * 1000, self._cameras[alias].rate) / 8

    # The other end.

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self._do(self._receiver.receive(self._world.now, event.data))

    def _do(self, outputs: Iterable[object]) -> None:
        for output in outputs:
            if isinstance(output, Received):
                count = int.from_bytes(output.body[:4], "big")
                self._came[output.alias, count] = self._world.now
                _, needs = self._made[output.alias, count]
                self.outcome.undecodable += any((output.alias, each) not in self._came for each in needs)
            else:
                self._wished(output.alias)  # type: ignore[attr-defined] # the other kind of output
        if (due := self._receiver.due()) < math.inf:
            self._world.wake_at(due, lambda: self._do(self._receiver.tick(self._world.now)))

    def _wished(self, alias: int) -> None:
        now = self._world.now + _FEEDBACK
        self._world.at(now, lambda: self._sender.peer_wishes(now, alias))

    def _note(self) -> None:
        self.outcome.sent.append((self._world.now, self._sender.sent_bytes))
        if self._world.now < self._until:
            self._world.at(self._world.now + 0.1, self._note)

    def finish(self) -> Pressed:
        outcome = self.outcome
        for (alias, count), (at, _) in self._made.items():
            delay = self._came.get((alias, count), math.inf) - at
            if alias == self._sound:
                outcome.sound.append(delay)
            else:
                outcome.pictures.append((at, delay))
        outcome.left_out = self._sender.figures["left_out"]
        outcome.wishes = self._sender.figures["wishes"]
        return outcome


def pressed(
    line: Line, cameras: list[Camera], *, seed: int, seconds: float = 12.0, pressing: bool = True
) -> Pressed:
    """Let cameras and a microphone send over a line from half a second on; with back-pressure or without."""
    world = World()
    run = _Run(world, line, cameras, seed=seed, until=_BEGIN + seconds, pressing=pressing)
    world.run(_BEGIN + seconds + 2)
    return run.finish()
