"""Sessions on QUIC: one EventStream per conference, one PeerConnection per QUIC connection, both roles.

Bytes in, what they mean to the owner (the bridge), bytes out. No decision about rooms, tokens or nodes.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from bridges import trail
from bridges.codes import CloseCode, is_fault, name_of
from bridges.event.session import (
    EventReceived,
    EventSession,
    PeerReady,
    Role,
    SessionEvent,
    State,
    TokenPresented,
    Violated,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.settings import EventSettings
    from bridges.quic import Connection, RoundTrip
    from bridges.wire.messages import Event

__all__ = ["EventStream", "PeerConnection", "StreamOwner"]

log = structlog.get_logger(__name__)


class StreamOwner(Protocol):
    """Who decides. Called synchronously; may call back into the stream."""

    def token_presented(self, stream: EventStream, room: str, token: str) -> None:
        """Check the token, then call `accept` or `refuse` on the stream."""

    def stream_opened(self, stream: EventStream) -> None:
        """Take note that events may flow."""

    def event_received(self, stream: EventStream, event: Event) -> None:
        """Take an event from the peer's conference node."""

    def stream_ended(self, stream: EventStream, reason: str) -> None:
        """Take note that the stream is gone, whoever ended it. Called once."""

    def refused(self, name: str) -> None:
        """Count a stream that was given up through the peer's fault, by the name of the code."""


class EventStream:
    """One conference on one QUIC stream.

    `peer` is the other cluster's id, `room` the conference and `node` our conference node's id; a listener
    learns them as the conversation goes on. `session` and `stream` name the stream towards the node.
    """

    def __init__(
        self,
        owner: StreamOwner,
        carrier: PeerConnection,
        stream_id: int,
        session: EventSession,
        *,
        settings: EventSettings,
    ) -> None:
        self.session: Final = carrier.name
        self.stream: Final = str(stream_id)
        self.role: Final = session.role
        self.peer = ""
        self.room = ""
        self.node = ""
        self.initialized = False
        """Whether our node's state was sent: what happened before is in it, what happens later follows it."""
        self.events_in = 0
        self.events_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.reason = ""
        """Why the stream ended."""
        self._owner = owner
        self._carrier = carrier
        self._stream_id = stream_id
        self._session = session
        self._settings = settings
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(settings.hello_timeout, self._overdue)
        self._flush()

    @property
    def open(self) -> bool:
        """Whether events may flow."""
        return self._session.state is State.OPEN

    @property
    def round_trip(self) -> RoundTrip | None:
        """How long the peer takes to answer; None while nothing was measured."""
        return self._carrier.connection.round_trip

    @property
    def connection(self) -> Connection:
        """The QUIC connection that carries the stream."""
        return self._carrier.connection

    @property
    def backlog(self) -> int:
        """Bytes that were written and not acknowledged yet."""
        return self._carrier.connection.backlog(self._stream_id)

    @property
    def ended(self) -> bool:
        """Whether the stream is gone."""
        return self._ended.is_set()

    async def wait_ended(self) -> str:
        """Wait until the stream is gone and return why."""
        await self._ended.wait()
        return self.reason

    # --- the owner's decisions ------------------------------------------------------------------

    def accept(self, room: str, node: str) -> None:
        """Open the stream for `room`: its token was right."""
        if not self._carrier.belongs_to(self.peer):
            self.refuse(CloseCode.IDENTITY, "the connection is another cluster's")
            return
        self.room, self.node = room, node
        self._carrier.let_in(self.peer)
        events = self._session.token_accepted()
        self._owner.stream_opened(self)
        self._act(events)

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Turn the dialer away: its token was wrong, or could not be checked."""
        self._session.token_refused()
        self.give_up(code, reason)

    def send(self, event: Event) -> None:
        """Tell the peer's node something. A peer that does not read loses the stream, not our memory."""
        if self.ended or not self.open:
            return
        if self.backlog > self._settings.max_backlog_bytes:
            self.trace("dropped", event, self.events_out + 1, ours=True)
            self.give_up(CloseCode.TOO_SLOW, "the peer does not take the events")
            return
        self._session.send_event(event)
        self.events_out += 1
        self.trace("sent", event, self.events_out, ours=True)
        self._flush()

    def send_initialize(self, event: Event) -> None:
        """Tell the peer's node the state of ours; from here on events follow."""
        self.initialized = True
        self._deadline.cancel()
        self.send(event)

    def give_up(self, code: int, reason: str) -> None:
        """Reset the stream."""
        if not self.ended:
            self._carrier.connection.reset_stream(self._stream_id, code)
            self._end(reason)
            self._carrier.gave_up(code)

    def trace(self, what: trail.Step, event: Event, number: int, *, ours: bool) -> None:
        """Log a step of the `number`th event of the stream; `ours`: of our node, else of the peer's."""
        if trail.following():
            by_dialer = (self.role is Role.DIALER) is ours
            id_ = trail.owt_id(self.connection.name, self.stream, by_dialer=by_dialer, number=number)
            trail.step(what, event, id=id_, conference=self.room, peer=self.peer)

    # --- the carrier's side ---------------------------------------------------------------------

    def receive(self, data: bytes, *, end: bool) -> None:
        """Take bytes of the stream."""
        self.bytes_in += len(data)
        self._act(self._session.receive_data(data))
        if end and not self.ended:
            self._carrier.connection.reset_stream(self._stream_id, 0)
            self._end("ended by the peer")

    def lost(self, reason: str) -> None:
        """Take note that the stream or its connection is gone."""
        if not self.ended:
            self._end(reason)

    # --- inside ---------------------------------------------------------------------------------

    def _act(self, events: list[SessionEvent]) -> None:
        self._flush()
        for event in events:
            if self.ended:
                return
            match event:
                case PeerReady(cluster=cluster):
                    self._greeted(cluster)
                case TokenPresented(room=room, token=token):
                    self._owner.token_presented(self, room, token)
                case EventReceived(event=received):
                    self.events_in += 1
                    self.trace("received", received, self.events_in, ours=False)
                    self._owner.event_received(self, received)
                case Violated(error=error):
                    log.warning("event.violation", peer=self.peer, room=self.room, error=str(error))
                    self.give_up(error.code, f"the peer broke the protocol: {error}")

    def _greeted(self, cluster: str | None) -> None:
        if self.role is Role.DIALER:
            self._owner.stream_opened(self)
        elif cluster is not None and self._carrier.belongs_to(cluster):
            self.peer = cluster
        else:
            self.give_up(CloseCode.IDENTITY, "the connection is another cluster's")

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if data:
            self.bytes_out += len(data)
            self._carrier.connection.send(self._stream_id, data)

    def _overdue(self) -> None:
        self.give_up(CloseCode.TIMED_OUT, "it took too long to open")

    def _end(self, reason: str) -> None:
        self.reason = reason
        self._session.close()
        self._deadline.cancel()
        self._carrier.forget(self._stream_id)
        self._ended.set()
        self._owner.stream_ended(self, reason)

    def __repr__(self) -> str:
        state = self._session.state.name
        return f"EventStream({self.role.name}, {state}, peer={self.peer!r}, room={self.room!r})"


class PeerConnection:
    """The event streams of one QUIC connection; its ConnectionHandler.

    `make_session` gives the session for a stream that the peer opens, None to turn it away: a dialer's peer
    opens none. All streams of an accepted connection are of one cluster: the one that the first token was
    accepted of. Until there is one, a few faults are enough for the connection to be closed; afterwards
    they cost their streams only.
    """

    def __init__(
        self,
        connection: Connection,
        owner: StreamOwner,
        *,
        settings: EventSettings,
        make_session: Callable[[], EventSession | None] = lambda: None,
    ) -> None:
        self.connection: Final = connection
        self.name: Final = secrets.token_hex(8)
        """The connection's name towards the conference node."""
        self._owner = owner
        self._settings = settings
        self._make_session = make_session
        self._streams: dict[int, EventStream] = {}
        self._cluster = ""
        self._faults = 0

    def open(self, session: EventSession, *, peer: str, room: str, node: str) -> EventStream:
        """Open a stream for a conference. Raises TooManyStreamsError, ConnectionClosedError."""
        stream_id = self.connection.open_stream()
        stream = EventStream(self._owner, self, stream_id, session, settings=self._settings)
        stream.peer, stream.room, stream.node = peer, room, node
        self._streams[stream_id] = stream
        return stream

    def belongs_to(self, cluster: str) -> bool:
        """Return whether the peer may be this cluster."""
        return self._cluster in ("", cluster)

    def let_in(self, cluster: str) -> None:
        """Take note that a token of the peer, which says to be this cluster, was right."""
        self._cluster = cluster
        self.connection.verified()

    def gave_up(self, code: int) -> None:
        """Count a stream that was given up, and close a connection on which nothing else happens."""
        if not is_fault(code):
            return
        self._owner.refused(name_of(code))
        self._faults += 1
        if not self._cluster and self._faults == self._settings.max_faults:
            self._owner.refused(name_of(CloseCode.FAULTS))
            log.warning("event.faults", remote=self.connection.remote, faults=self._faults)
            self.connection.close(CloseCode.FAULTS, "one fault after another")

    def forget(self, stream_id: int) -> None:
        """Drop a stream that has ended."""
        self._streams.pop(stream_id, None)

    # --- ConnectionHandler ----------------------------------------------------------------------

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: FBT001 - the protocol's
        """Take bytes of a stream, which may be a new one."""
        stream = self._streams.get(stream_id)
        if stream is None:
            session = self._make_session()
            if session is None:
                self.connection.reset_stream(stream_id, CloseCode.BUSY)
                self._owner.refused(name_of(CloseCode.BUSY))
                return
            stream = EventStream(self._owner, self, stream_id, session, settings=self._settings)
            self._streams[stream_id] = stream
        stream.receive(data, end=end)

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Take note that the peer gave a stream up."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.lost(f"reset by the peer, code 0x{code:x} {name_of(code).upper()}")

    def connection_lost(self, reason: str) -> None:
        """Take note that every stream is gone."""
        for stream in list(self._streams.values()):
            stream.lost(f"connection lost: {reason}")
