"""One media connection: a QUIC connection whose first stream says who talks about which room.

A thin shell over the signalling session: it deals the streams out and knows neither the node nor what a track
does with its bytes. Until the room token has been accepted nothing but the signalling stream is looked at.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from bridges.codes import CloseCode, is_fault, name_of
from bridges.media.backpressure import Backpressure
from bridges.media.carriage import Carriage, Carried
from bridges.media.own.pressure import Strain
from bridges.media.session import DialerSession, ListenerSession, State
from bridges.quic import OWN_PROTOCOL
from bridges.wire.errors import SequenceError, WireError
from bridges.wire.messages import ClusterHello, Ready
from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from bridges.media.settings import MediaSettings
    from bridges.quic.connection import Connection
    from bridges.quic.roundtrip import RoundTrip

__all__ = ["OWT", "ConnectionOwner", "MediaConnection", "StreamUser", "TrackStream"]

_log: Final = structlog.get_logger(__name__)

OWT: Final = "owt"
"""The other wire's name in figures."""
_SIGNALLING: Final = 0
"""The dialer's first stream: QUIC numbers the streams that a client opens 0, 4, 8 …"""
_LEAST_DATAGRAM: Final = 500
"""Bytes that a datagram must have room for."""


class StreamUser(Protocol):
    """A track, as its stream calls it."""

    def data(self, data: bytes, *, end: bool) -> None:
        """Take bytes; `end`: the peer writes no more."""

    def ended(self, reason: str) -> None:
        """Take note that the peer gave the stream up or the connection is gone. The last call."""


class ConnectionOwner(Protocol):
    """Who keeps media connections."""

    def said_hello(self, connection: MediaConnection, hello: ClusterHello) -> None:
        """Check the token, then call `connection.accept` or `connection.close`."""

    def came_up(self, connection: MediaConnection) -> None:
        """Take note that tracks may be opened now, in both directions."""

    def wants_track(self, stream: TrackStream) -> StreamUser | None:
        """Return who serves a stream that the peer opened; None: there are too many."""

    def refused(self, name: str) -> None:
        """Count what was given up through the peer's fault, by the name of the code."""

    def went_down(self, connection: MediaConnection, reason: str) -> None:
        """Take note that the connection is gone and its streams have been told."""


class TrackStream:
    """One stream of a connection, for one track. `finish` and `reset` end it: no call comes after."""

    def __init__(self, connection: MediaConnection, quic: Connection, stream_id: int) -> None:
        self._quic = quic
        self._over = False
        self.connection: Final = connection
        self.id: Final = stream_id

    @property
    def backlog(self) -> int:
        """Bytes that were sent and are not yet acknowledged."""
        return self._quic.backlog(self.id)

    def send(self, data: bytes) -> None:
        """Send; the caller has looked at the backlog. Nothing after the end."""
        if data and not self._over:
            self.connection.stream_bytes += len(data)
            self._quic.send(self.id, data)

    def finish(self) -> None:
        """End our half in order: what was sent still arrives."""
        if self._end():
            self.connection.note_finished(self)
            self._quic.send(self.id, b"", end=True)

    def reset(self, code: int = 0) -> None:
        """End both halves now."""
        if self._end():
            self.connection.give_up(self.id, code)

    def _end(self) -> bool:
        over, self._over = self._over, True
        self.connection.release(self)
        return not over


class MediaConnection:
    """Handler of one QUIC connection; `peer` and `room` are known once the hello was sent or has come."""

    def __init__(
        self,
        quic: Connection,
        *,
        owner: ConnectionOwner,
        hello: ClusterHello | None,
        peer: str = "",
        settings: MediaSettings,
    ) -> None:
        """Take a connection that was dialled (to `peer`, `hello` to be sent) or accepted (no hello)."""
        self._quic = quic
        self._owner = owner
        self._settings = settings
        self._dialled = hello is not None
        self._session = (
            ListenerSession(clock=self._is_own) if hello is None else DialerSession(hello, clock=self._is_own)
        )
        self._users: dict[int, tuple[TrackStream, StreamUser]] = {}
        self._finished: set[int] = set()
        """Streams of the peer whose half of ours has ended, and on which it may still say something."""
        self._deadline = asyncio.get_running_loop().call_later(settings.hello_timeout, self._silent)
        self.peer = peer
        self.room = "" if hello is None else hello.room
        self.closed = False
        self.carriage: Carriage | None = None
        """What carries frames on our own wire, once it is up; None on OWT's, where they go on the streams."""
        self.backpressure: Final = Backpressure(least_bitrate=settings.least_bitrate)
        """Of tracks that go on their streams."""
        self.stream_bytes = 0
        """Written to the streams of tracks."""

    @property
    def wire(self) -> str:
        """What the two ends speak, as figures name it."""
        return OWN_PROTOCOL if self._is_own else OWT

    @property
    def role(self) -> str:
        """Who dialled: `dialer` are we, `listener` are we when the peer did."""
        return "dialer" if self._dialled else "listener"

    @property
    def up(self) -> bool:
        """Whether tracks may be opened."""
        return not self.closed and self._session.state is State.OPEN

    @property
    def quic(self) -> Connection:
        """The connection itself; for figures."""
        return self._quic

    @property
    def backlog(self) -> int:
        """Bytes of all tracks' streams that were sent and are not yet acknowledged."""
        return sum(stream.backlog for stream, _user in self._users.values())

    def strain(self) -> Strain:
        """Return how the way out stands for tracks that go on their streams."""
        path, backlog = self._quic.path, self.backlog
        rate, under_way = (None, 0) if path is None else (path.rate, int(path.rate * path.round_trip))
        waiting = max(0, backlog - under_way)
        return Strain(rate, waiting, self.stream_bytes - waiting)

    def carried(self) -> Carried:
        """Return what became of the datagrams of media; nothing on OWT's wire."""
        return Carried() if self.carriage is None else self.carriage.carried()

    @property
    def round_trip(self) -> RoundTrip | None:
        """How long the peer takes to answer; None while nothing was measured."""
        return self._quic.round_trip

    def begin(self) -> None:
        """Open the signalling stream; for the dialer, once the handler is set. Raises CausewayError."""
        stream_id = self._quic.open_stream()
        assert stream_id == _SIGNALLING
        self._quic.send(_SIGNALLING, self._session.data_to_send())

    def accept(self) -> None:
        """Let the peer in: its token is right. For the listener; nothing when the connection is gone."""
        if self.closed:
            return
        assert isinstance(self._session, ListenerSession)
        self._session.accept()
        self._quic.verified()
        self._came_up()

    def open_track(self, user: StreamUser) -> TrackStream:
        """Open a stream. Raises TooManyStreamsError, ConnectionClosedError."""
        stream = TrackStream(self, self._quic, self._quic.open_stream())
        self._users[stream.id] = (stream, user)
        return stream

    def give_up(self, stream_id: int, code: int) -> None:
        """Reset a stream, and count it if that is the peer's fault."""
        self._quic.reset_stream(stream_id, code)
        if is_fault(code):
            self._owner.refused(name_of(code))

    def release(self, stream: TrackStream) -> None:
        """Call the stream's user no more."""
        self._users.pop(stream.id, None)

    def note_finished(self, stream: TrackStream) -> None:
        """Take what the peer still says on a stream that we have ended for what it is: too late."""
        if self._is_peers(stream.id):
            self._finished.add(stream.id)

    def close(self, reason: str, code: int = 0) -> None:
        """Close the connection; streams and owner are told in a moment."""
        if not self.closed and is_fault(code):
            self._owner.refused(name_of(code))
        self.closed = True
        self._deadline.cancel()
        self._end_carriage()
        self._quic.close(code, reason)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and everybody has been told."""
        await self._quic.wait_closed()

    # What the QUIC connection says.

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: FBT001 - QUIC's FIN bit
        """Take bytes of a stream."""
        if self.closed:
            return
        if stream_id == _SIGNALLING:
            self._signalling(data, end=end)
            return
        entry = self._users.get(stream_id)
        if entry is None and self._is_peers(stream_id) and stream_id not in self._finished:
            entry = self._admit(stream_id)
        if entry is not None:
            entry[1].data(data, end=end)
        if end:
            self._finished.discard(stream_id)

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Take note that the peer gave a stream up."""
        if stream_id == _SIGNALLING:
            self.close("the signalling stream was reset")
            return
        entry = self._users.pop(stream_id, None)
        if entry is not None:
            entry[1].ended(f"reset by the peer, code 0x{code:x} {name_of(code).upper()}")
        self._finished.discard(stream_id)

    def connection_lost(self, reason: str) -> None:
        """Take note that the connection is gone."""
        self.closed = True
        self._deadline.cancel()
        self._end_carriage()
        users, self._users = self._users, {}
        for _stream, user in users.values():
            user.ended("the connection is gone")
        self._owner.went_down(self, reason)

    # Signalling

    def _signalling(self, data: bytes, *, end: bool) -> None:
        session = self._session
        session.feed(data)
        answered = False
        try:
            while (event := session.next_event()) is not None:
                answered = answered or isinstance(event, Ready)
                if isinstance(event, ClusterHello):
                    self.peer, self.room = event.cluster, event.room
                    self._owner.said_hello(self, event)
        except WireError as error:
            _log.warning("media.refused", peer=self.peer, room=self.room, reason=str(error))
            self.close("protocol error", error.code)
            return
        self._quic.send(_SIGNALLING, session.data_to_send())
        if end:
            self.close("the signalling stream has ended")
        elif answered:
            self._came_up()

    def _came_up(self) -> None:
        self._deadline.cancel()
        if self._is_own:
            if self._quic.max_datagram_bytes < _LEAST_DATAGRAM:
                self._datagrams_refused(MediaDatagramError("the peer takes no datagrams"))
                return
            self.carriage = Carriage(
                self._quic,
                settings=self._settings,
                tell_clock=self._session.peer_clock,
                refused=self._datagrams_refused,
            )
        self._owner.came_up(self)

    @property
    def _is_own(self) -> bool:
        return self._quic.protocol == OWN_PROTOCOL

    def _datagrams_refused(self, error: MediaDatagramError) -> None:
        _log.warning("media.refused", peer=self.peer, room=self.room, reason=str(error))
        self.close("media datagrams", error.code)

    def _end_carriage(self) -> None:
        if self.carriage is not None:
            self.carriage.close()

    def _silent(self) -> None:
        _log.warning("media.silent", remote=self._quic.remote, peer=self.peer, room=self.room)
        self.close("no hello in time", CloseCode.TIMED_OUT)

    # Streams that the peer opens

    def _is_peers(self, stream_id: int) -> bool:
        return bool(stream_id % 2) == self._dialled

    def _admit(self, stream_id: int) -> tuple[TrackStream, StreamUser] | None:
        stream = TrackStream(self, self._quic, stream_id)
        user = self._owner.wants_track(stream) if self.up else None
        if user is None:
            self.give_up(stream_id, CloseCode.BUSY if self.up else SequenceError.code)
            return None
        self._users[stream_id] = (stream, user)
        return stream, user
