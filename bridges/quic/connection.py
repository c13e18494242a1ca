"""One QUIC connection, either role: aioquic's sans-IO core driven on the plain asyncio loop, by its clock.

Knows nothing of what travels on the streams, nor of sockets: an endpoint (dial.py, listen.py) brings the
datagrams in and takes them out. aioquic's own asyncio protocol is not used: its stream readers are kept for
the connection's whole life and never learn of a reset.

aioquic has no flow control towards the application: whatever a peer sends is delivered, and whatever is
written is queued. So the handler must take data at once, writers look at `backlog`, and what waits for
missing bytes before it is bounded here.

Whatever happens to a connection in one turn of the loop (datagrams come, somebody writes), it sends once, at
the turn's end: what it sends then travels together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode

from bridges.quic.deliveries import Deliveries
from bridges.quic.errors import ConnectionClosedError, TooManyStreamsError
from bridges.quic.inside import reads, recovery
from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.idle_streams import pass_over_idle_streams
from bridges.quic.pings import Pings
from bridges.quic.probing import Probing
from bridges.quic.roundtrip import patience
from bridges.quic.streams import Streams, is_unidirectional

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import NetworkAddress, QuicConnection

    from bridges.quic.inside.recovery import Path
    from bridges.quic.parties import ConnectionHandler, DatagramSender, Endpoint
    from bridges.quic.roundtrip import RoundTrip
    from bridges.quic.settings import QuicSettings
    from bridges.quic.streams import Stream

__all__ = ["Connection"]

log = structlog.get_logger(__name__)

_INTERNAL_ERROR: Final = 0x1FF
_EXCESSIVE_LOAD: Final = 0x1FE
_MAX_REASON_BYTES: Final = 200


class Connection:
    """An established QUIC connection.

    `remote` is the peer's address. Until `handler` is set, what arrives is kept (bounded) and then delivered
    in order. All methods may be called from the handler's.
    """

    def __init__(
        self,
        quic: QuicConnection,
        *,
        endpoint: Endpoint,
        remote: NetworkAddress,
        settings: QuicSettings,
    ) -> None:
        self.remote: Final[tuple[str, int]] = (remote[0], remote[1])
        self.closed = False
        """Whether nothing can be sent any more, by our wish or the peer's."""
        self.protocol: str | None = None
        """What both ends agreed to speak (ALPN); None until the handshake has got so far."""
        self.established = False
        """Whether the handshake is done."""
        self.quic: Final = quic
        """aioquic's core; for endpoints, not for users."""
        self.bytes_in = 0
        """Of all datagrams that came for this connection."""
        self.bytes_out = 0
        """Of all datagrams that were sent."""
        self._quic = quic
        pass_over_idle_streams(quic)
        self._endpoint = endpoint
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.on_progress: Callable[[], None] | None = None
        """Called once in a turn of the loop in which datagrams came, which may have acknowledged something:
        for who waits for `backlog`."""
        self._heard = False
        """Whether datagrams came in this turn."""
        self._deliveries: Deliveries[ConnectionHandler] = Deliveries(self._loop, failed=self._handler_failed)
        self._source: DatagramSender | None = None
        self._on_datagram: Callable[[bytes], None] | None = None
        self._probing: Probing | None = None
        self._streams = Streams()
        self._accounted_bytes = 0
        self._heard_at = self._loop.time()
        self._gone = asyncio.Event()
        self._pings = Pings()
        self._transmit_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._keepalive = self._loop.call_later(settings.keepalive, self._keep_alive)
        self._deadline = self._loop.call_later(settings.handshake_timeout, self._handshake_overdue)
        self._max_reassembly_bytes = settings.max_reassembly_bytes

    # --- for the user ---------------------------------------------------------------------------

    @property
    def handler(self) -> ConnectionHandler | None:
        """Who is told what arrives."""
        return self._deliveries.user

    @handler.setter
    def handler(self, handler: ConnectionHandler) -> None:
        self._deliveries.user = handler

    @property
    def streams(self) -> int:
        """Bidirectional streams that exist now, the peer's and ours."""
        return len(self._streams)

    @property
    def name(self) -> str:
        """What both ends can call the connection by in their logs: the id that the dialer drew for it."""
        return self._quic.original_destination_connection_id.hex()

    @property
    def round_trip(self) -> RoundTrip | None:
        """How long the peer takes to answer; None while nothing was measured."""
        return reads.round_trip(self._quic)

    @property
    def path(self) -> Path | None:
        """What our controller says of the way to the peer; None if there is another, or nothing is known."""
        return recovery.path(self._quic)

    @property
    def max_datagram_bytes(self) -> int:
        """Bytes that a datagram to the peer may have; 0: it takes none. See DatagramSender.resized."""
        return reads.datagram_bytes(self._quic)

    @property
    def ended_streams(self) -> int:
        """Streams that have come and gone."""
        return self._streams.forgotten

    def verified(self) -> None:
        """Take note that the peer is let in: of an accepted connection, that its token is right.

        Until then it may keep little waiting, and is closed after a while.
        """
        self._deadline.cancel()
        self._max_reassembly_bytes = self._settings.max_reassembly_bytes
        if not self.closed:
            self._endpoint.verified(self)

    async def answers(self) -> bool:
        """Ask the peer for a sign of life, and return whether it came as soon as it should."""
        if self.closed:
            return False
        number = self._pings.begin()
        self._quic.send_ping(number)
        self._transmit_soon()
        return await self._pings.answer(number, within=patience(self.round_trip))

    def open_stream(self) -> int:
        """Open a bidirectional stream and return its id; the peer learns of it with the first bytes.

        Raises TooManyStreamsError beyond the limit, ConnectionClosedError on a closed connection.
        """
        if self.closed:
            raise ConnectionClosedError("the connection is closed")
        stream_id = self._quic.get_next_available_stream_id()
        ours = self._streams.opened_like(stream_id)
        if ours >= self._settings.max_streams or not reads.may_open_stream(self._quic):
            raise TooManyStreamsError(f"{ours} streams are open; at most {self._settings.max_streams} may be")
        self._quic.send_stream_data(stream_id, b"")  # reserves the id, sends nothing
        self._streams.add(stream_id)
        return stream_id

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Write to a stream; `end` says that this was all. Never blocks: look at `backlog` before.

        Does nothing on a closed connection and on a stream that was reset. Raises ValueError after `end`.
        """
        stream = self._streams.get(stream_id)
        if self.closed or stream is None:
            return
        if stream.ended_out:
            raise ValueError(f"stream {stream_id}: nothing can be sent after the end")
        self._quic.send_stream_data(stream_id, data, end)
        if end:
            stream.ended_out = True
            self._streams.note_over(stream_id, stream)
        self._transmit_soon()

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Give a stream up, both halves: what waits is not sent, what still comes is not delivered."""
        stream = self._streams.get(stream_id)
        if self.closed or stream is None:
            return
        self._abandon(stream_id, stream, code)
        self._transmit_soon()

    def use_datagrams(self, source: DatagramSender, on_datagram: Callable[[bytes], None]) -> None:
        """Send the datagrams of `source` as there is room for them, and give the peer's to `on_datagram`.

        What comes before that is passed over. `source` is asked again after each call of datagrams_waiting(),
        and whenever something that comes from the peer, or the time, makes room.
        """
        replace_datagrams(self._quic, source)
        self._source = source
        self._on_datagram = on_datagram

    def datagrams_waiting(self) -> None:
        """Take note that the source has something to send."""
        if not self.closed:
            self._transmit_soon()

    def peer_clock(self, stamp: int) -> None:
        """Take note of the peer's clock, in microseconds, as it sent what is being delivered just now."""
        recovery.note_peer_clock(self._quic, self._heard_at, stamp)

    def backlog(self, stream_id: int) -> int:
        """Return the bytes of a stream that were sent and not yet acknowledged; 0 for an unknown stream."""
        return reads.unacknowledged(self._quic, stream_id)

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection; the peer is told at once. What waits on streams is not sent."""
        if self.closed:
            return
        phrase = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self._quic.close(error_code=code, reason_phrase=phrase)
        self._send_waiting()
        self._end(f"closed by us: {reason}" if reason else "closed by us")

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and its handler has been told."""
        await self._gone.wait()

    # --- for the endpoint -----------------------------------------------------------------------

    def connect(self, address: NetworkAddress) -> None:
        """Begin the handshake, as client."""
        self._quic.connect(address, now=self._loop.time())
        self._transmit()

    def verify_within(self, seconds: float, overdue: Callable[[Connection], None]) -> None:
        """Have `overdue` called unless the peer is let in by then, and hold little for it until it is."""
        self._max_reassembly_bytes = self._settings.max_unverified_bytes
        self._deadline = self._loop.call_later(seconds, overdue, self)

    def datagram_received(self, data: bytes, address: NetworkAddress, now: float) -> None:
        """Take a datagram from the network, which came at `now` of the loop's clock."""
        if self.closed:
            return
        self._heard_at = now
        self._heard = True
        self.bytes_in += len(data)
        self._quic.receive_datagram(data, address, now=now)
        self._hear()
        self._transmit_soon()

    # --- what aioquic says ----------------------------------------------------------------------

    def _hear(self) -> None:
        """Act upon what the core has to say."""
        while not self.closed and (event := self._quic.next_event()) is not None:
            if isinstance(event, events.DatagramFrameReceived):
                self._datagram_taken(event.data)
            else:
                self._event_received(event)
        if self.closed:
            return
        if reads.received_bytes(self._quic) - self._accounted_bytes > self._max_reassembly_bytes:
            self.close(_EXCESSIVE_LOAD, "too much data out of order")

    def _event_received(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived():
                self._accounted_bytes += len(event.data)
                self._data_received(event.stream_id, event.data, end=event.end_stream)
            case events.StreamReset():
                self._accounted_bytes += reads.held_bytes(self._quic, event.stream_id)
                self._peer_gave_up(event.stream_id, event.error_code)
            case events.StopSendingReceived():
                self._peer_gave_up(event.stream_id, event.error_code)
            case events.ProtocolNegotiated():
                self.protocol = event.alpn_protocol
            case events.PingAcknowledged():
                self._pings.answered(event.uid)
            case events.HandshakeCompleted():
                self._shaken()
            case events.ConnectionIdIssued():
                self._endpoint.connection_id_issued(self, event.connection_id)
            case events.ConnectionIdRetired():
                self._endpoint.connection_id_retired(event.connection_id)
            case events.ConnectionTerminated():
                self._end(_describe(event))

    def _shaken(self) -> None:
        """Hand the connection out, as the handshake is done."""
        self.established = True
        self._probing = Probing(
            self._quic,
            self.remote[0],
            self._settings.path_mtu,
            clock=self._loop.time,
            put=self._put,
            resized=self._resized,
        )
        self._deadline.cancel()
        self._endpoint.established(self)
        if not self.closed:  # the endpoint may not believe the peer, who must not be done then
            self._send_waiting()  # now, as our user may close it before this turn ends

    def _data_received(self, stream_id: int, data: bytes, *, end: bool) -> None:
        if is_unidirectional(stream_id):
            # Neither bridge uses them. The peer can have 128 of them at once, and we keep nothing of them.
            if not end and reads.stream_exists(self._quic, stream_id):
                self._quic.stop_stream(stream_id, QuicErrorCode.APPLICATION_ERROR)
            return
        stream = self._streams.arriving(stream_id)
        if stream is None:
            return
        if end:
            stream.ended_in = True
            self._streams.note_over(stream_id, stream)
        self._deliver(lambda handler: handler.stream_data(stream_id, data, end))

    def _peer_gave_up(self, stream_id: int, code: int) -> None:
        if is_unidirectional(stream_id):
            return
        stream = self._streams.arriving(stream_id)
        if stream is None:
            return
        self._abandon(stream_id, stream, code)
        self._deliver(lambda handler: handler.stream_reset(stream_id, code))

    def _datagram_taken(self, data: bytes) -> None:
        if self._on_datagram is None:
            return
        try:
            self._on_datagram(data)
        except Exception:
            log.exception("quic.datagram_failed", remote=self.remote)
            self.close(_INTERNAL_ERROR, "internal error")

    def _deliver(self, call: Callable[[ConnectionHandler], None]) -> None:
        """Tell the handler, or keep it until there is one."""
        if self._deliveries.full:
            self._deliveries.drop()
            self.close(_EXCESSIVE_LOAD, "too much data before it could be taken")
            return
        self._deliveries.deliver(call)

    def _handler_failed(self, error: Exception) -> None:
        log.error("quic.handler_failed", remote=self.remote, exc_info=error)
        self.close(_INTERNAL_ERROR, "internal error")

    def _abandon(self, stream_id: int, stream: Stream, code: int) -> None:
        """Give up both halves of a stream."""
        stream.dead = True
        self._streams.note_over(stream_id, stream)
        if reads.stream_exists(self._quic, stream_id):
            self._quic.reset_stream(stream_id, code)
            self._quic.stop_stream(stream_id, code)

    # --- sending and time -----------------------------------------------------------------------

    def _transmit_soon(self) -> None:
        """Send at the end of this turn of the loop, together with whatever else it writes."""
        if self._transmit_handle is None:
            self._transmit_handle = self._loop.call_soon(self._transmit)

    def _transmit(self) -> None:
        """Do what a turn of the loop ends with."""
        if self._heard:
            self._heard = False
            if self.on_progress is not None and not self.closed:
                self.on_progress()
        if self._transmit_handle is not None:
            self._transmit_handle.cancel()
            self._transmit_handle = None
        if self.closed:
            return
        if self._probing is not None:
            self._probing.step(self._loop.time())
        self._send_waiting()
        self._streams.forget(self._stream_exists)
        self._arm_timer()
        ending = reads.termination(self._quic)
        if ending is not None:
            self._end(_describe(ending))

    def _send_waiting(self) -> None:
        """Send what the core wants sent."""
        outgoing = self._quic.datagrams_to_send(now=self._loop.time())
        if outgoing:
            self._put(outgoing)

    def _put(self, outgoing: list[tuple[bytes, NetworkAddress]]) -> None:
        datagrams = [data for data, _ in outgoing]
        self.bytes_out += sum(map(len, datagrams))
        self._endpoint.send_datagrams(datagrams, outgoing[0][1])  # all have the same way

    def _resized(self) -> None:
        """Say that datagrams may be larger from now on, or have to be smaller."""
        if self._source is not None:
            self._source.resized(self.max_datagram_bytes)

    def _stream_exists(self, stream_id: int) -> bool:
        return reads.stream_exists(self._quic, stream_id)

    def _arm_timer(self) -> None:
        timer_at = self._quic.get_timer()
        if self._timer is not None:
            if timer_at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_at = timer_at
        if timer_at is not None:
            self._timer = self._loop.call_at(timer_at, self._handle_timer)

    def _handle_timer(self) -> None:
        assert self._timer_at is not None
        # The loop may call a little early, within its clock's resolution.
        now = max(self._timer_at, self._loop.time())
        recovery.note_lateness(self._quic, now - self._timer_at)
        self._timer = self._timer_at = None
        self._quic.handle_timer(now=now)
        self._hear()
        self._transmit()

    def _keep_alive(self) -> None:
        """Ping a peer that has been silent; its answer, or the lack of it, tells whether it is alive."""
        silent = self._loop.time() - self._heard_at
        if silent >= self._settings.keepalive:
            if self.established:
                self._quic.send_ping(0)  # nobody waits for this one
                self._transmit()
            silent = 0.0
        if not self.closed:
            self._keepalive = self._loop.call_later(self._settings.keepalive - silent, self._keep_alive)

    def _handshake_overdue(self) -> None:
        self.close(0, "handshake timeout")

    def _end(self, reason: str) -> None:
        """Stop everything now; tell endpoint and handler once the current call has returned."""
        if self.closed:
            return
        self.closed = True
        self._pings.lost()
        self._keepalive.cancel()
        self._deadline.cancel()
        for handle in (self._timer, self._transmit_handle):
            if handle is not None:
                handle.cancel()
        self._loop.call_soon(self._tell_lost, reason)

    def _tell_lost(self, reason: str) -> None:
        self._endpoint.finished(self, reason)
        self._deliveries.deliver(lambda handler: handler.connection_lost(reason))
        self._gone.set()

    def __repr__(self) -> str:
        return f"Connection(remote={self.remote}, closed={self.closed}, streams={self.streams})"


def _describe(event: events.ConnectionTerminated) -> str:
    # The phrase is the peer's: shortened, and made printable by repr.
    phrase = f" {event.reason_phrase[:_MAX_REASON_BYTES]!r}" if event.reason_phrase else ""
    return f"code 0x{event.error_code:x}{phrase}"
