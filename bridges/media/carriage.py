"""Media on our own wire, as one connection carries it: the pure cores with a clock, timers and datagrams.

Knows tracks by the numbers that they have on the connection, and neither streams nor rooms: who pulls a track
gets pieces, who pushes one offers them, and both hear when a key frame is wanted. Everything is bounded by
the cores; what a peer sends that is not of the format costs it the connection at some point.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from bridges.media.backpressure import Backpressure
from bridges.media.own.ages import Ages
from bridges.media.own.clock import ClockTeller
from bridges.media.own.incoming import TrackLimits
from bridges.media.own.pressure import Strain
from bridges.media.own.receiver import MediaReceiver, Received, ReceiverLimits
from bridges.media.own.sender import MediaSender, Outcome, SenderLimits, Source
from bridges.media.own.sending import Limits
from bridges.media.pieces import Piece
from bridges.wire.own_media.body import pack, unpack
from bridges.wire.own_media.clock import read_clock
from bridges.wire.own_media.datagram import MAX_ALIAS
from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridges.media.own.receiver import Output
    from bridges.media.own.sender import Flight
    from bridges.media.settings import MediaSettings
    from bridges.quic import Connection

__all__ = ["Carriage", "Carried", "PieceTaker", "Quality"]

_MAX_SOUND_BYTES: Final = 64 << 10


class Carried(NamedTuple):
    """What became of datagrams, and what is kept; the fields are those of LinkFigures with these names."""

    datagrams_lost: int = 0
    datagrams_repeated: int = 0
    datagrams_parity: int = 0
    datagrams_recovered: int = 0
    queued_bytes: int = 0
    held_bytes: int = 0


class Quality(NamedTuple):
    """How a track comes in."""

    missed_frames: int = 0
    """That have not come, or not whole, or cannot be decoded."""
    recovered_datagrams: int = 0
    """Lost on the way, and brought back by parity."""
    jitter_ms: float = 0.0
    """Mean deviation of the delay of frames handed on (RFC 3550, section 6.4.1)."""


class PieceTaker(Protocol):
    """Who pulls a track."""

    def piece(self, piece: Piece) -> None:
        """Take what has come, whole, decodable and in order."""

    def key_frame_lacks(self) -> None:
        """Take note that nothing can be decoded before a key frame comes. Told again while that is so."""


class Carriage:
    """Both directions of one connection, from now on. After `close` nothing is called back.

    `refused` is called when the peer has sent too much that is not of the format; `tell_clock`: whether it
    wants to know what our clock shows.
    """

    def __init__(
        self,
        quic: Connection,
        *,
        settings: MediaSettings,
        tell_clock: bool,
        refused: Callable[[MediaDatagramError], None],
    ) -> None:
        own = settings.own
        self.sender: Final = MediaSender(
            SenderLimits(
                tracks=settings.max_tracks,
                largest=quic.max_datagram_bytes,
                deadline=own.deadline,
                useful=own.useful,
                key_frame_interval=settings.key_frame_interval,
            ),
            queue=Limits(
                queue_bytes=own.max_queue_bytes, track_bytes=own.max_track_queue_bytes, backlog=own.backlog
            ),
        )
        self.receiver: Final = MediaReceiver(
            ReceiverLimits(
                tracks=settings.max_tracks,
                total_bytes=own.max_incoming_bytes,
                malformed=own.max_malformed,
                picture=TrackLimits(
                    frame_bytes=settings.max_frame_bytes,
                    track_bytes=settings.max_frame_bytes * 3 // 2,
                    patience=own.patience,
                    key_frame_interval=settings.key_frame_interval,
                ),
                sound=TrackLimits(
                    frame_bytes=min(settings.max_frame_bytes, _MAX_SOUND_BYTES),
                    track_bytes=4 * _MAX_SOUND_BYTES,
                    patience=min(own.patience, own.deadline),
                ),
            )
        )
        self._clock = ClockTeller(wanted=tell_clock)
        self._telling = False
        """Whether what head() returned last is our clock."""
        self._quic = quic
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._ages = Ages()
        self._takers: dict[int, PieceTaker] = {}
        self._askers: dict[int, Callable[[], None]] = {}
        self._backpressure = Backpressure(least_bitrate=settings.least_bitrate)
        self._next_alias = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False
        quic.use_datagrams(self, self._datagram)

    def close(self) -> None:
        """Carry nothing any more."""
        self._closed = True
        self._takers.clear()
        self._askers.clear()
        self._backpressure.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def carried(self) -> Carried:
        """Return what was counted so far."""
        sent = self.sender.figures
        return Carried(
            datagrams_lost=sent["lost"],
            datagrams_repeated=sent["repeated"],
            datagrams_parity=sent["parity"],
            datagrams_recovered=self.receiver.totals()["recovered"],
            queued_bytes=self.sender.queue.waiting,
            held_bytes=self.receiver.size,
        )

    # --- tracks that come in ----------------------------------------------------------------------

    def expect(self, taker: PieceTaker, *, sound: bool) -> int:
        """Expect a track, and return the number by which the peer is to be asked for it.

        Numbers go round, so one comes again only after all others. Raises ValueError if there are too many
        tracks.
        """
        if len(self._takers) > MAX_ALIAS:
            raise ValueError("every number is in use")
        alias = self._next_alias
        while alias in self._takers:
            alias = (alias + 1) % (MAX_ALIAS + 1)
        self.receiver.open(alias, sound=sound)
        self._takers[alias] = taker
        self._next_alias = (alias + 1) % (MAX_ALIAS + 1)
        return alias

    def quality(self, alias: int) -> Quality:
        """Return how a track has come so far."""
        track = self.receiver.track(alias)
        return Quality(track.missed, track.recovered, 1000 * track.jitter)

    def forget(self, alias: int) -> None:
        """Expect a track no more."""
        self._takers.pop(alias, None)
        self.receiver.close(alias)

    # --- tracks that go out -----------------------------------------------------------------------

    def open(
        self,
        alias: int,
        *,
        sound: bool,
        ask: Callable[[], None],
        slow: Callable[[int], None],
    ) -> None:
        """Begin a track that the peer knows by that number.

        `ask` asks its source for a key frame, `slow` to send so many kilobits a second from now on. Raises
        ValueError if the number is taken or cannot be, or there are too many tracks.
        """
        self.sender.open(alias, sound=sound)
        self._askers[alias] = ask
        self._backpressure.open(
            alias, sound=sound, slow=slow, limit=lambda highest: self.sender.let_through(alias, highest)
        )

    def end(self, alias: int) -> None:
        """End a track; what waits of it is not sent."""
        self._askers.pop(alias, None)
        self._backpressure.end(alias)
        self.sender.close(alias)

    def offer(self, alias: int, piece: Piece) -> bool:
        """Send a piece of an open track if the path takes it; return whether.

        Nothing after `close`: those who offer are told of the connection's end a moment later.
        """
        if self._closed:
            return False
        now, rate = self._loop.time(), self._rate()
        body = pack(piece.frame) if piece.body is None else piece.body
        source = Source(body, piece.captured, piece.needs, piece.discardable, piece.temporal, piece.spatial)
        outcome = self.sender.offer(now, alias, source, rate=rate)
        self._backpressure.offered(
            now,
            alias,
            piece,
            size=len(body),
            outcome=outcome,
            strain=lambda: self._strain(rate),
        )
        self.sender.sound_copies = self._backpressure.copies
        if self.sender.due() < math.inf:
            self._ask(now, rate)
        self._quic.datagrams_waiting()
        return outcome is Outcome.TAKEN

    def given_up(self, alias: int) -> int:
        """Return how many pieces of an open track were taken and did not go out whole, or not in time."""
        return self.sender.given_up(alias)

    def wished(self, alias: int) -> None:
        """Take note that the peer wants a key frame of a track."""
        now = self._loop.time()
        self.sender.peer_wishes(now, alias)
        self._ask(now, self._rate())

    def _rate(self) -> float | None:
        """Return what the path takes, in bytes a second, and tell the sender how long it is."""
        path = self._quic.path
        if path is not None:
            self.sender.measured(path.round_trip)
            return path.rate
        if (measured := self._quic.round_trip) is not None:
            self.sender.measured(measured.seconds)
        return None

    def _strain(self, rate: float | None) -> Strain:
        return Strain(rate, self.sender.queue.waiting, self.sender.sent_bytes)

    def _ask(self, now: float, rate: float | None) -> None:
        for alias in self.sender.wishes(now, rate=rate):
            if (ask := self._askers.get(alias)) is not None:
                ask()
        self._wake_at(self.sender.due())

    # --- datagrams --------------------------------------------------------------------------------

    def head(self) -> bytes | None:
        """Return what is to be sent next; see DatagramSource."""
        now = self._loop.time()
        clock = self._clock.head(now)
        self._telling = clock is not None
        return clock or self.sender.head(now)

    def taken(self) -> Callable[[bool], None]:
        """Take note that it is on its way; see DatagramSource."""
        if self._telling:
            self._clock.told(self._loop.time())
            return _settle_nothing
        flight = self.sender.taken()
        return lambda arrived: self._settled(flight, arrived=arrived)

    def _settled(self, flight: Flight, *, arrived: bool) -> None:
        """Tell the sender what became of a datagram; for want of it a key frame may be needed."""
        now = self._loop.time()
        self.sender.settled(now, flight, arrived=arrived)
        if not arrived and self.sender.due() <= now and not self._closed:
            self._ask(now, self._rate())

    def knock(self) -> None:
        """Take note that the path is silent; see DatagramSource."""
        self.sender.knock(self._loop.time())

    def resized(self, largest: int) -> None:
        """Take note that a datagram may have more bytes, or fewer; see DatagramSender."""
        self.sender.resize(largest)

    def _datagram(self, data: bytes) -> None:
        if (stamp := read_clock(data)) is not None:
            self._quic.peer_clock(stamp)
            return
        self._clock.heard()
        now = self._loop.time()
        try:
            outputs = self.receiver.receive(now, data)
            if outputs:
                self._hand_on(now, outputs)
        except MediaDatagramError as error:
            self._refused(error)
        self._wake_at(self.receiver.due())

    def _hand_on(self, now: float, outputs: Iterable[Output]) -> None:
        """Do what the receiver says. Raises MediaDatagramError when the peer has sent too much nonsense."""
        for output in outputs:
            taker = self._takers.get(output.alias)
            if taker is None:  # it was given up because of what came before this
                continue
            if isinstance(output, Received):
                self._hand_on_frame(now, output, taker)
            else:
                taker.key_frame_lacks()

    def _hand_on_frame(self, now: float, received: Received, taker: PieceTaker) -> None:
        head = received.head
        captured = self._ages.captured(now, head.captured)
        try:
            frame = unpack(received.body)
        except MediaDatagramError as error:
            self.receiver.malformed(error)
            return
        taker.piece(
            Piece(
                frame, captured, received.needs, head.discardable, head.temporal, head.spatial, received.body
            )
        )

    # --- time -------------------------------------------------------------------------------------

    def _wake_at(self, due: float) -> None:
        if due >= self._timer_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._loop.time()
        self._ask(now, self._rate())
        try:
            self._hand_on(now, self.receiver.tick(now))
        except MediaDatagramError as error:
            self._refused(error)
        self._wake_at(self.receiver.due())


def _settle_nothing(arrived: bool) -> None:  # noqa: FBT001 - as DatagramSource has it
    """Do without what did not arrive: the next one is newer."""
    del arrived
