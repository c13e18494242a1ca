"""Our wire on QUIC: one connection, the lanes of its conversation as streams. A thin shell.

Bytes in, what they mean to the owner, bytes out: as many as the peer has acknowledged the ones before. Rooms,
tokens and nodes are not known here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from bridges.event.own.conversation import Conversation, Role
from bridges.event.own.outputs import (
    ChannelClosed,
    ChannelOpened,
    Greeted,
    OpenRequested,
    Refused,
    RoundTripMeasured,
    Violated,
)
from bridges.quic import ConnectionClosedError, DialError, RoundTrip, TooManyStreamsError
from bridges.wire.own.errors import OwnCode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from bridges.event.own.conversation import ChannelFigures
    from bridges.event.own.outputs import Output
    from bridges.event.own.relay import Relay
    from bridges.event.own.settings import OwnWireSettings
    from bridges.quic import Connection

__all__ = ["ConnectionOwner", "OwnConnection"]

log = structlog.get_logger(__name__)

_STREAMS_PER_LANE: Final = 4
"""QUIC numbers the bidirectional streams that a client opens 0, 4, 8 …"""
_OPENING: Final = 1000
"""Conferences that are being opened at once; the conversation asks for as many as the peer takes."""


class ConnectionOwner(Protocol):
    """Who decides. Called synchronously; may call back into the connection."""

    def open_requested(self, connection: OwnConnection, channel: int, room: str, token: str) -> None:
        """Check the token, then call `accept` or `close_channel`."""

    def channel_opened(self, connection: OwnConnection, channel: int) -> None:
        """Take note that a conference is carried."""

    def channel_closed(self, connection: OwnConnection, closed: ChannelClosed) -> None:
        """Take note that a conference is carried no more, or never was. Called once for each channel."""

    def for_room(self, peer: str, output: Output) -> None:
        """Take what concerns a conference, its origins and our node."""

    def connection_lost(self, connection: OwnConnection) -> None:
        """Take note that the connection is gone; its conferences were closed before."""


class OwnConnection:
    """One connection of our wire; its ConnectionHandler. `peer`: whom we dialled, None if they did."""

    def __init__(
        self,
        connection: Connection,
        owner: ConnectionOwner,
        *,
        cluster: str,
        peer: str | None,
        settings: OwnWireSettings,
    ) -> None:
        self.connection: Final = connection
        self.role: Final = Role.LISTENER if peer is None else Role.DIALER
        self.opening: Final = asyncio.Semaphore(_OPENING)
        """Held while a conference is being opened."""
        self._owner = owner
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._conversation = Conversation(
            self.role,
            cluster=cluster,
            peer=peer,
            settings=settings,
            now=self._loop.time(),
            wake=self._pump_soon,
        )
        self._lanes = 0
        self._round_trip: RoundTrip | None = None
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._pumping: asyncio.Handle | None = None
        self._reason = ""
        self._pump_soon()

    @property
    def peer(self) -> str:
        """The other cluster's id; empty until it is known."""
        return self._conversation.peer

    @property
    def closed(self) -> bool:
        """Whether nothing is taken or given any more."""
        return self.connection.closed or self._conversation.closed

    @property
    def round_trip(self) -> RoundTrip | None:
        """How long the peer takes to answer, smoothed as in RFC 6298; None while nothing was measured."""
        return self._round_trip or self.connection.round_trip

    @property
    def counters(self) -> Counter[str]:
        """What was passed over or refused, by name."""
        return self._conversation.counters

    def __len__(self) -> int:
        return len(self._conversation)

    def figures(self, channel: int) -> ChannelFigures | None:
        """Return what was counted of a conference, None if it is not carried."""
        return self._conversation.channel_figures(channel)

    async def greeted(self) -> None:
        """Wait until the two ends know each other. Raises DialError."""
        try:
            async with asyncio.timeout(self._settings.hello_timeout):
                await asyncio.shield(self._greeted)
        except TimeoutError:
            self.close(OwnCode.TIMED_OUT, "no hello in time")
            raise DialError("the peer says nothing on our wire") from None

    # --- conferences ------------------------------------------------------------------------------

    def open(self, relay: Relay, token: str) -> int:
        """Ask for a conference to be carried; returns its channel.

        Raises TooManyStreamsError when the peer takes no more, ConnectionClosedError.
        """
        if self.closed:
            raise ConnectionClosedError(self._reason or "the connection is closed")
        if not self._conversation.has_room:
            raise TooManyStreamsError(f"{len(self)} conferences are open, and the peer takes no more")
        channel = self._conversation.open(relay, token, self._loop.time())
        self._pump_soon()
        return channel

    def accept(self, channel: int, relay: Relay) -> None:
        """Carry a conference: its token was right."""
        self.connection.verified()
        self._act(self._conversation.accept(channel, relay, self._loop.time()))

    def close_channel(self, channel: int, code: OwnCode, reason: str) -> None:
        """Carry a conference no more, or refuse it."""
        if not self.closed:
            self._act(self._conversation.close_channel(channel, code, reason, self._loop.time()))

    def close(self, code: OwnCode = OwnCode.DONE, reason: str = "") -> None:
        """Close the connection; the owner is told in a moment."""
        self._reason = self._reason or reason
        self.connection.close(code, reason)

    # --- ConnectionHandler ------------------------------------------------------------------------

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: FBT001 - the protocol's
        """Take bytes of a lane."""
        lane, foreign = divmod(stream_id, _STREAMS_PER_LANE)
        if foreign:
            self.close(OwnCode.SEQUENCE, "a stream that no lane is")
            return
        self._act(self._conversation.receive(lane, data, self._loop.time()))
        if end and not self.closed:
            self.close(OwnCode.SEQUENCE, "a lane has ended")

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Take note that the peer gave a lane up: without it the conversation cannot go on."""
        self.close(OwnCode.SEQUENCE, f"stream {stream_id} was reset by the peer, code 0x{code:x}")

    def connection_lost(self, reason: str) -> None:
        """Take note that every conference is gone."""
        self._reason = self._reason or reason
        for handle in (self._timer, self._pumping):
            if handle is not None:
                handle.cancel()
        self._timer = self._pumping = None
        if not self._greeted.done():
            self._greeted.set_exception(DialError(self._reason))
            self._greeted.exception()  # nobody may be waiting, which is no mistake
        self._give_out(self._conversation.lost(f"connection lost: {self._reason}", self._loop.time()))
        self._owner.connection_lost(self)

    # --- inside -----------------------------------------------------------------------------------

    def _act(self, outputs: Iterable[Output]) -> None:
        self._give_out(outputs)
        self._pump_soon()

    def _give_out(self, outputs: Iterable[Output]) -> None:
        """Tell the owner what the core says, in order."""
        for output in outputs:
            match output:
                case Greeted():
                    if not self._greeted.done():
                        self._greeted.set_result(None)
                case OpenRequested(channel=channel, room=room, token=token):
                    self._owner.open_requested(self, channel, room, token)
                case ChannelOpened(channel=channel):
                    self._owner.channel_opened(self, channel)
                case ChannelClosed():
                    self._owner.channel_closed(self, output)
                case Refused(room=room, code=code, reason=reason):
                    log.warning("link.violation", peer=self.peer, room=room, code=code.name, reason=reason)
                case RoundTripMeasured(seconds=seconds):
                    self._measured(seconds)
                case Violated(code=code, reason=reason):
                    log.warning("link.violation", peer=self.peer, code=code.name, reason=reason)
                    self.close(code, reason)
                case _:
                    self._owner.for_room(self.peer, output)

    def _measured(self, seconds: float) -> None:
        if self._round_trip is None:
            self._round_trip = RoundTrip(seconds, seconds / 2)
            return
        smoothed, variation = self._round_trip
        variation += (abs(smoothed - seconds) - variation) / 4
        self._round_trip = RoundTrip(smoothed + (seconds - smoothed) / 8, variation)

    def _pump_soon(self) -> None:
        """Send what there is at the end of this turn of the loop."""
        if self._pumping is None and not self.connection.closed:
            self._pumping = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Write to each lane what it has room for; the rest waits until the peer has acknowledged some."""
        self._pumping = None
        if self.connection.closed:
            return
        now = self._loop.time()
        for lane in self._conversation.lanes_to_send():
            stream_id = self._stream(lane)
            room_for = self._settings.backlog_bytes - self.connection.backlog(stream_id)
            if room_for > 0:
                data = self._conversation.data_to_send(lane, room_for, now)
                if data:
                    self.connection.send(stream_id, data)
        self.connection.on_progress = self._pump_soon if self._conversation.lanes_to_send() else None
        self._arm()

    def _stream(self, lane: int) -> int:
        """Return a lane's stream; a dialer opens it, and those before it, when it is first written to."""
        while self.role is Role.DIALER and self._lanes <= lane:
            self.connection.open_stream()
            self._lanes += 1
        return lane * _STREAMS_PER_LANE

    def _arm(self) -> None:
        due = self._conversation.due()
        if self._timer is not None and not self._timer.cancelled():
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if not self.connection.closed:
            self._act(self._conversation.poll(self._loop.time()))

    def __repr__(self) -> str:
        return f"OwnConnection({self.role.name}, peer={self.peer!r}, channels={len(self)})"
