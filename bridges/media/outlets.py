"""How the frames of one track go out: on its stream, as OWT's wire has it, or as datagrams on our own.

Whatever passes is decodable at the other end. Where something does not, `ask` asks the source for a key
frame, as often as is of use.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from bridges.internal.gate import FrameGate
from bridges.media.own.sender import Outcome
from bridges.wire.framing import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.media.carriage import Carriage
    from bridges.media.connection import TrackStream
    from bridges.media.pieces import Piece
    from bridges.media.settings import MediaSettings

__all__ = ["DatagramOutlet", "Outlet", "StreamOutlet"]


class Outlet(Protocol):
    """The way out of one track."""

    @property
    def dropped(self) -> int:
        """Pieces that did not go out."""

    def offer(self, piece: Piece) -> bool:
        """Send a piece, or drop it; return whether it goes out."""

    def wished(self) -> None:
        """Take note that the peer wants a key frame."""

    def restart(self) -> None:
        """Take note that what comes next has nothing to do with what came before: another source."""

    def close(self) -> None:
        """Send nothing any more."""


class StreamOutlet:
    """OWT's wire: frames on the track's stream, dropped while what was sent is not acknowledged in time.

    `ask` asks the source for a key frame, `slow` to send so many kilobits a second.
    """

    def __init__(
        self,
        stream: TrackStream,
        *,
        sound: bool,
        ask: Callable[[], None],
        slow: Callable[[int], None],
        settings: MediaSettings,
    ) -> None:
        self._stream = stream
        self._highest: int | None = None
        self._left_out = 0
        stream.connection.backpressure.open(stream.id, sound=sound, slow=slow, limit=self._let_through)
        self._ask = ask
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._gate = self._new_gate()
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Frames that did not go out."""
        return self._dropped_before + self._gate.dropped + self._left_out

    def offer(self, piece: Piece) -> bool:
        """Send a frame, or drop it; see Outlet."""
        now, frame, connection = self._loop.time(), piece.frame, self._stream.connection
        outcome = self._pass(now, piece)
        connection.backpressure.offered(
            now,
            self._stream.id,
            piece,
            size=len(frame.raw),
            outcome=outcome,
            strain=connection.strain,
        )
        return outcome is Outcome.TAKEN

    def _pass(self, now: float, piece: Piece) -> Outcome:
        # Nobody down there knows of layers: only what no other picture needs can be left out of them.
        if self._highest is not None and piece.discardable and piece.temporal > self._highest:
            self._left_out += 1
            return Outcome.LEFT_OUT
        if self._gate.offer(piece.frame, self._stream.backlog):
            self._stream.send(encode(piece.frame))
            return Outcome.TAKEN
        if self._gate.wants_key_frame(now):
            self._ask()
        return Outcome.UNDECODABLE if self._gate.lacks_key_frame else Outcome.REFUSED

    def _let_through(self, highest: int | None) -> None:
        self._highest = highest

    def wished(self) -> None:
        """Ask the source: how often is the puller's to limit."""
        self._ask()

    def restart(self) -> None:
        """Let nothing pass before a key frame."""
        self._dropped_before += self._gate.dropped
        self._gate = self._new_gate()

    def close(self) -> None:
        """Press nobody any more; the stream is its owner's to end."""
        self._stream.connection.backpressure.end(self._stream.id)

    def _new_gate(self) -> FrameGate:
        return FrameGate(
            max_backlog_bytes=self._settings.max_backlog_bytes, max_delay=self._settings.max_delay
        )


class DatagramOutlet:
    """Our own wire: frames as datagrams, under the number that the peer chose.

    Raises ValueError for a number that cannot be, or is taken, and when there are too many tracks.
    """

    def __init__(
        self,
        carriage: Carriage,
        alias: int,
        *,
        sound: bool,
        ask: Callable[[], None],
        slow: Callable[[int], None],
    ) -> None:
        """Take a track; `slow` asks its source to send so many kilobits a second."""
        self._carriage = carriage
        self._alias = alias
        self._begins = True
        self._refused = 0
        self._given_up: int | None = None
        """Once it is closed."""
        carriage.open(alias, sound=sound, ask=ask, slow=slow)

    @property
    def dropped(self) -> int:
        """Pieces that were refused, or came too late while they waited, or were lost for good."""
        given_up = self._carriage.given_up(self._alias) if self._given_up is None else self._given_up
        return self._refused + given_up

    def offer(self, piece: Piece) -> bool:
        """Send a piece, or drop it; see Outlet."""
        if self._begins and piece.needs:
            self._refused += 1
            self._carriage.wished(self._alias)
            return False
        self._begins = False
        passed = self._carriage.offer(self._alias, piece)
        self._refused += not passed
        return passed

    def wished(self) -> None:
        """Ask the source when that is of use."""
        self._carriage.wished(self._alias)

    def restart(self) -> None:
        """Let nothing pass before a key frame."""
        self._begins = True

    def close(self) -> None:
        """Send nothing any more, not even what waits."""
        if self._given_up is None:
            self._given_up = self._carriage.given_up(self._alias)
        self._carriage.end(self._alias)
