"""Pictures and sound over our own media wire, both ends of it, on a connection with our controller."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from aioquic.quic.events import DatagramFrameReceived

from bench._virtual.media import Shown
from bridges.media.own.clock import ClockTeller
from bridges.media.own.receiver import MediaReceiver, Received
from bridges.media.own.sender import MediaSender, Source
from bridges.media.own.sending import Kind
from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.recovery import Recovery
from bridges.wire.own_media.clock import read_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.media import Track
    from bench._virtual.peer import Peer
    from bench._virtual.world import World
    from bridges.media.own.sender import Flight

__all__ = ["OwnMedia"]


class _Datagrams:
    """The sender, as the connection takes datagrams from it."""

    def __init__(self, world: World, sender: MediaSender, ask: Callable[[float], None]) -> None:
        self._world = world
        self._sender = sender
        self._ask = ask

    def head(self) -> bytes | None:
        return self._sender.head(self._world.now)

    def taken(self) -> Callable[[bool], None]:
        flight = self._sender.taken()
        return lambda arrived: self._settled(flight, arrived=arrived)

    def knock(self) -> None:
        self._sender.knock(self._world.now)

    def _settled(self, flight: Flight, *, arrived: bool) -> None:
        now = self._world.now
        self._sender.settled(now, flight, arrived=arrived)
        if not arrived and self._sender.due() <= now:
            self._ask(now)


class _Back:
    """What the receiver says: wishes for key frames, and its clock."""

    def __init__(self, world: World) -> None:
        self.clock: Final = ClockTeller(wanted=True)
        self.wishes: Final[deque[bytes]] = deque()
        self._world = world
        self._telling = False

    def head(self) -> bytes | None:
        clock = self.clock.head(self._world.now)
        self._telling = clock is not None
        return clock or (self.wishes[0] if self.wishes else None)

    def taken(self) -> Callable[[bool], None]:
        if self._telling:
            self.clock.told(self._world.now)
        else:
            self.wishes.popleft()
        return lambda _: None

    def knock(self) -> None:
        """Do nothing: wishes are told again anyway."""


class OwnMedia:
    """Tracks from `begin`, each `stagger` seconds after the one before it, to `end`.

    A key frame that either end wishes for is the next one captured.
    """

    def __init__(
        self,
        world: World,
        sender: Peer,
        receiver: Peer,
        tracks: Iterable[Track],
        *,
        begin: float = 0.5,
        end: float = math.inf,
        stagger: float = 0.0037,
    ) -> None:
        self.shown: dict[tuple[int, int], Shown] = {}
        """By number of track and frame."""
        self.media_bytes = 0
        self.sender: Final = MediaSender()
        self.receiver: Final = MediaReceiver()
        self._world = world
        self._peers = sender, receiver
        self._end = end
        self._wanted: set[int] = set()
        self._timer_at = math.inf
        self._frames: dict[tuple[int, int], tuple[int, int]] = {}
        recovery = sender.quic._loss  # noqa: SLF001 - there is no public way to it
        assert isinstance(recovery, Recovery)
        self._recovery = recovery
        self._counts: dict[int, int] = {}
        self._back = _Back(world)
        replace_datagrams(sender.quic, _Datagrams(world, self.sender, self._ask))
        replace_datagrams(receiver.quic, self._back)
        receiver.on_event = self._take
        sender.on_event = self._take_back
        for number, track in enumerate(tracks):
            self.sender.open(number, sound=track.sound)
            self.receiver.open(number, sound=track.sound)
            self._later(number, track, 0, begin + number * stagger)

    def _later(self, number: int, track: Track, count: int, at: float) -> None:
        if at < self._end:
            self._world.at(at, lambda: self._capture(number, track, count))

    def _capture(self, number: int, track: Track, count: int) -> None:
        captured, kind = self._world.now, track.kind(count, number * 23)
        if number in self._wanted and kind is Kind.DELTA:
            kind = Kind.KEY
            self._wanted.discard(number)
        size = track.key_size if kind is Kind.KEY else track.size
        self.shown[number, count] = Shown(kind, captured)
        self.media_bytes += size
        needs = (1,) if kind is Kind.DELTA else ()
        body = count.to_bytes(4, "big") + bytes(size - 4)
        self._peers[0].when_free(lambda: self._offer(number, Source(body, captured, needs)))
        self._later(number, track, count + 1, captured + 1 / track.rate)

    def _offer(self, number: int, source: Source) -> None:
        now = self._world.now
        self.sender.measured(self._recovery.controller.delay.base)
        self.sender.offer(now, number, source, rate=self._recovery.controller.rate)
        self._ask(now)
        self._peers[0].advance()

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self._back.clock.heard()
            self._do(self.receiver.receive(self._world.now, event.data))

    def _do(self, outputs: Iterable[object]) -> None:
        for output in outputs:
            if isinstance(output, Received):
                count = int.from_bytes(output.body[:4], "big")
                self.shown[output.alias, count].complete = self._world.now
            else:
                alias = output.alias  # type: ignore[attr-defined] # the other kind of output
                self._back.wishes.append(alias.to_bytes(2, "big"))
        due = self.receiver.due()
        if due < self._timer_at or self._timer_at <= self._world.now:
            self._timer_at = due
            if due < math.inf:
                self._world.wake_at(due, self._tick)

    def _tick(self) -> None:
        self._do(self.receiver.tick(self._world.now))
        self._peers[1].advance()

    def _take_back(self, event: QuicEvent) -> None:
        if not isinstance(event, DatagramFrameReceived):
            return
        if (stamp := read_clock(event.data)) is not None:
            self._recovery.controller.heard(self._peers[0].came, stamp)
        else:
            alias = int.from_bytes(event.data, "big")
            self.sender.peer_wishes(self._world.now, alias)
            self._ask(self._world.now)

    def _ask(self, now: float) -> None:
        """Ask the sources for key frames."""
        self._wanted.update(self.sender.wishes(now, rate=self._recovery.controller.rate))
