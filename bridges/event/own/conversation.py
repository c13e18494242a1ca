"""The conversation of one connection between two of our bridges, many conferences on it. Sans-IO.

Bytes of streams in, what they mean out (bridges.event.own.outputs); bytes for streams out, as many as
there is room for. A *lane* is one of the dialer's bidirectional streams, counted from 0 in the order of their
QUIC ids (lane n is stream 4n). Lane 0 carries what concerns the connection, the others carry conferences; the
dialer opens a lane with its first bytes on it.

Nothing is queued for a slow peer but what cannot be made anew: events are read from the relays' logs at the
moment at which there is room for them (`data_to_send`), so a peer that does not read costs no memory.

    dialer:    says hello ──hello──▶ greeted
    listener:  ──hello──▶ says hello, greeted
    either:    ──whatever is wrong with the connection──▶ closed
"""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from bridges.event.own.asking import Asking
from bridges.event.own.exchange import ChannelFigures, ChannelState, Exchange
from bridges.event.own.lane import Lanes
from bridges.event.own.outputs import (
    ChannelOpened,
    Greeted,
    OpenRequested,
    Refused,
    RoundTripMeasured,
    Violated,
)
from bridges.event.own.pinger import Pinger
from bridges.event.own.rounds import Rounds
from bridges.wire.own.codec import Unknown, encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import Close, Hello, HelloLimits, Open, Opened, Ping, Pong

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.lane import Lane
    from bridges.event.own.outputs import Output
    from bridges.event.own.relay import Relay
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.codec import Framed
    from bridges.wire.own.messages import ChannelMessage

__all__ = ["VERSIONS", "ChannelFigures", "Conversation", "Role"]

VERSIONS: Final = (1,)
"""Versions of the protocol that this end speaks."""

_SHUT: Final = frozenset({ChannelState.CLOSING, ChannelState.CLOSED})


class Role(Enum):
    """Who opened the connection."""

    DIALER = auto()
    LISTENER = auto()


class Conversation:
    """One connection. `peer`: the cluster that was dialled; None for a listener, who hears it in the hello.

    `wake` is called when something has come about that can be sent or told, because of another connection, of
    our node, or of what was just asked for. It must do no more than have `lanes_to_send` and `due` looked at
    soon. A lane that is reset or ends is the end of the connection.
    """

    def __init__(
        self,
        role: Role,
        *,
        cluster: str,
        peer: str | None,
        settings: OwnWireSettings,
        now: float,
        wake: Callable[[], None],
    ) -> None:
        self.role: Final = role
        self.greeted = False
        """Whether the two ends know each other."""
        self.closed = False
        """Whether nothing is taken or given any more."""
        self.peer = peer or ""
        """The other cluster's id; empty until it is known."""
        self.counters: Counter[str] = Counter()
        """What was passed over or refused, by name: `unknown_messages`, `strikes`, `refused_gap` …."""
        self._cluster = cluster
        self._settings = settings
        self._wake = wake
        self._began = self._now = now
        self._inside = False
        self._limits = HelloLimits(message=settings.max_message_bytes, channels=1, lanes=1, waiting=1)
        self._lanes = Lanes(hello_limit=settings.max_hello_bytes, limit=settings.max_message_bytes)
        self._control: list[bytes] = []
        self._pinger = Pinger(interval=settings.ping_interval, timeout=settings.ping_timeout)
        self._channels: dict[int, Exchange] = {}
        self._requests: dict[int, Open] = {}
        self._asking = Asking()
        self._next_channel = 1
        self._pending: list[Output] = []
        self._rounds = Rounds(now)
        if role is Role.DIALER:
            self._say_hello()

    # --- looking ------------------------------------------------------------------------------------

    @property
    def round_trip(self) -> float | None:
        """Seconds that the peer took to answer the last ping."""
        return self._pinger.round_trip

    @property
    def has_room(self) -> bool:
        """Whether the peer takes one more conference on this connection."""
        return self.greeted and not self.closed and len(self._channels) < self._limits.channels

    def figures(self) -> list[ChannelFigures]:
        """Return what was counted, by conference."""
        return [exchange.figures() for exchange in self._channels.values()]

    def channel_figures(self, channel: int) -> ChannelFigures | None:
        """Return what was counted of one conference, None if it is not carried."""
        exchange = self._channels.get(channel)
        return None if exchange is None else exchange.figures()

    def __len__(self) -> int:
        """Return how many conferences are carried, or being opened or closed."""
        return len(self._channels)

    # --- bytes --------------------------------------------------------------------------------------

    def receive(self, lane: int, data: bytes, now: float) -> list[Output]:
        """Take bytes of a lane and return what they mean, in order."""
        outputs = self._enter(now)
        if self.closed:
            return outputs
        self._inside = True
        try:
            outputs += self._receive(lane, data)
        except OwnWireError as error:
            outputs += self._violate(error.reason, str(error))
        finally:
            self._inside = False
        return outputs

    def lanes_to_send(self) -> list[int]:
        """Return the lanes for which there is something to send, if there is room."""
        if self.closed:
            return []
        first = [0] if self._control or (self.greeted and self._pinger.ready) else []
        return first + self._lanes.ready()

    def data_to_send(self, lane: int, room_for: int, now: float) -> bytes:
        """Return bytes for a lane, once: about `room_for` at most, one message more at worst.

        `room_for` is what the shell still wants to have unacknowledged on this lane. What is not taken now
        stays where it is; conferences take turns.
        """
        self._now = now
        used = self._lanes.find(lane)
        if self.closed or room_for <= 0 or used is None:
            return b""
        if lane == 0:
            return self._control_to_send()
        self._inside = True
        try:
            return used.fill(room_for, now, self._too_large)
        finally:
            self._inside = False

    # --- conferences --------------------------------------------------------------------------------

    def open(self, relay: Relay, token: str, now: float) -> int:
        """Ask for a conference to be carried, as the dialer, once greeted; returns its channel.

        As many are asked for at once as the peer takes, the others in their turn. An older channel of the
        same conference to the same peer, on whatever connection, is closed by what opens. Raises RuntimeError
        when not greeted, or beyond the peer's limit (`has_room`).
        """
        self._now = now
        if self.role is not Role.DIALER or not self.has_room:
            raise RuntimeError("this connection takes no further conference")
        number = self._lanes.least_loaded(min(self._settings.lanes, self._limits.lanes))
        exchange = self._add(self._next_channel, number, relay.room, ChannelState.QUEUED, now)
        self._next_channel += 1
        self._asking.add(exchange, relay, token)
        self._ask()
        return exchange.channel

    def accept(self, channel: int, relay: Relay, now: float) -> list[Output]:
        """Carry a conference, after OpenRequested. Of no effect for a channel that is gone."""
        outputs = self._enter(now)
        request, exchange = self._requests.pop(channel, None), self._channels.get(channel)
        if request is None or exchange is None or exchange.state is not ChannelState.ASKED:
            return outputs
        limit = self._limits.message
        try:
            opened = exchange.accept(relay, request, self._settings, max_message=limit, now=now)
        except OwnWireError as error:
            return outputs + self._refuse(exchange, error)
        self._mark(exchange)
        return [*outputs, ChannelOpened(channel=channel, room=exchange.room), *opened]

    def close_channel(self, channel: int, code: int, reason: str, now: float) -> list[Output]:
        """Carry a conference no more, or refuse it. Of no effect for a channel that is gone."""
        outputs = self._enter(now)
        exchange = self._channels.get(channel)
        if exchange is None or exchange.state in _SHUT:
            return outputs
        return outputs + self._close(exchange, code, reason)

    def lost(self, reason: str, now: float) -> list[Output]:
        """Take note that the connection is gone: its conferences are carried no more (code 0)."""
        return self._enter(now) + self._end(0, reason)

    # --- time ---------------------------------------------------------------------------------------

    def due(self) -> float:
        """Return when `poll` wants to be called next; in the past if there is something to tell already."""
        if self._pending:
            return self._now
        if self.closed:
            return float("inf")
        if not self.greeted:
            return self._began + self._settings.hello_timeout
        return min(self._rounds.due, self._pinger.due)

    def poll(self, now: float) -> list[Output]:
        """Do what time has come for: pings, digests, and giving up whoever is silent."""
        outputs = self._enter(now)
        if self.closed:
            return outputs
        if not self.greeted:
            overdue = now - self._began >= self._settings.hello_timeout
            return outputs + (self._violate(OwnCode.TIMED_OUT, "no hello in time") if overdue else [])
        self._pinger.poll(now)
        if self._pinger.overdue(now):
            return outputs + self._violate(OwnCode.TIMED_OUT, "no answer to a ping in time")
        if now >= self._rounds.due:
            outputs += self._tick(now)
        return outputs

    # --- inside: coming in ----------------------------------------------------------------------------

    def _enter(self, now: float) -> list[Output]:
        self._now = now
        pending, self._pending = self._pending, []
        return pending

    def _receive(self, number: int, data: bytes) -> list[Output]:
        lane = self._lanes.find(number) or self._new_lane(number)
        lane.deframer.feed(data)
        outputs: list[Output] = []
        try:
            while not self.closed and (framed := lane.deframer.next_message()) is not None:
                if number == 0:
                    outputs += self._take_control(framed)
                else:
                    outputs += self._take_channel(number, lane, framed)
        except OwnWireError as error:
            # What came before still counts, so that it does not matter how the bytes were cut.
            outputs += self._violate(error.reason, str(error))
        return outputs

    def _new_lane(self, number: int) -> Lane:
        """Take a lane that the dialer has opened."""
        if not self.greeted:
            raise OwnWireError(OwnCode.SEQUENCE, "a conference before the hello was answered")
        if self.role is Role.DIALER or not 0 < number <= self._settings.lanes:
            raise OwnWireError(OwnCode.LIMIT, f"there is no lane {number}")
        return self._lanes.use(number)

    def _take_control(self, framed: Framed) -> list[Output]:
        match framed.message:
            case Unknown():
                self._pass_over()
            case Hello() as hello:
                return self._take_hello(hello)
            case Ping(count=count) if self.greeted:
                self._pinger.answer(count)
            case Pong(count=count) if self.greeted:
                seconds = self._pinger.answered(count, self._now)
                return [] if seconds is None else [RoundTripMeasured(seconds=seconds)]
            case _:
                raise OwnWireError(OwnCode.SEQUENCE, "not allowed on lane 0 now")
        return []

    def _take_hello(self, hello: Hello) -> list[Output]:
        if self.greeted:
            raise OwnWireError(OwnCode.SEQUENCE, "a second hello")
        common = set(hello.versions) & set(VERSIONS)
        if not common:
            raise OwnWireError(OwnCode.VERSION, f"the peer speaks {hello.versions}, we {list(VERSIONS)}")
        if hello.cluster == self._cluster or self.peer not in {"", hello.cluster}:
            raise OwnWireError(OwnCode.IDENTITY, "the peer is not the cluster that it was taken for")
        if self.role is Role.LISTENER:
            self._say_hello()
        self.peer, self._limits, self.greeted = hello.cluster, hello.limits, True
        self._pinger.begin(self._now)
        return [Greeted(peer=self.peer, version=max(common), features=frozenset(hello.features))]

    def _take_channel(self, number: int, lane: Lane, framed: Framed) -> list[Output]:
        message = framed.message
        if isinstance(message, Unknown):
            self._pass_over()
            return []
        if isinstance(message, Hello | Ping | Pong):
            raise OwnWireError(OwnCode.SEQUENCE, "said on lane 0 only")
        if isinstance(message, Open):
            return self._take_open(number, lane, message)
        exchange = None if framed.channel is None else self._channels.get(framed.channel)
        if exchange is None or exchange.lane != number:
            return self._strike("a message of no conference that is carried here")
        if isinstance(message, Close):
            return self._take_close(exchange, message)
        return [] if exchange.state in _SHUT else self._hand_on(exchange, message, framed.size)

    def _hand_on(self, exchange: Exchange, message: ChannelMessage | OwnWireError, size: int) -> list[Output]:
        """Take a message of a conference; one that is wrong costs this conference, not the others."""
        try:
            if isinstance(message, OwnWireError):
                raise message
            outputs = exchange.receive(message, size, self._now)
        except OwnWireError as error:
            return self._refuse(exchange, error)
        if exchange.ready:
            self._mark(exchange)
        if isinstance(message, Opened):
            self._asking.answered(exchange)
            self._ask()
            return [ChannelOpened(channel=exchange.channel, room=exchange.room), *outputs]
        return outputs

    def _take_open(self, number: int, lane: Lane, request: Open) -> list[Output]:
        if self.role is Role.DIALER:
            raise OwnWireError(OwnCode.SEQUENCE, "only the dialer opens conferences")
        if request.channel <= lane.highest or request.channel in self._channels:
            raise OwnWireError(OwnCode.SEQUENCE, f"channel {request.channel} after {lane.highest}")
        if len(self._channels) >= self._settings.max_channels + self._settings.max_waiting:
            raise OwnWireError(OwnCode.LIMIT, f"more than {self._settings.max_channels} conferences")
        lane.highest = request.channel
        exchange = self._add(request.channel, number, request.room, ChannelState.ASKED, self._now)
        if len(self._channels) > self._settings.max_channels:
            return self._close(exchange, OwnCode.LIMIT, "too many conferences")
        if len(self._requests) >= self._settings.max_waiting:
            return self._close(exchange, OwnCode.BUSY, "too many at once")
        self._requests[request.channel] = request
        return [OpenRequested(channel=request.channel, room=request.room, token=request.token)]

    def _take_close(self, exchange: Exchange, message: Close) -> list[Output]:
        open_ = exchange.state not in _SHUT
        gone = exchange.gone(message.code, message.reason, by_peer=True)
        outputs = exchange.closed_by_peer(self._now)
        self._forget(exchange)
        self._ask()
        return [*outputs, gone] if open_ else outputs

    def _pass_over(self) -> None:
        self.counters["unknown_messages"] += 1
        if self.counters["unknown_messages"] > self._settings.max_unknown:
            raise OwnWireError(OwnCode.LIMIT, "too many messages of unknown numbers")

    # --- inside: going out ------------------------------------------------------------------------------

    def _say_hello(self) -> None:
        self._control.append(encode(Hello(list(VERSIONS), self._cluster, self._settings.limits)))

    def _control_to_send(self) -> bytes:
        if self.greeted:
            self._control += [encode(message) for message in self._pinger.to_send(self._now)]
        data = b"".join(self._control)
        self._control.clear()
        return data

    def _too_large(self, exchange: Exchange, error: OwnWireError) -> None:
        self._pending += self._refuse(exchange, error)

    # --- inside: channels -------------------------------------------------------------------------------

    def _add(self, channel: int, lane: int, room: str, state: ChannelState, now: float) -> Exchange:
        exchange = Exchange(
            channel,
            lane=lane,
            room=room,
            peer=self.peer,
            state=state,
            now=now,
            notify=lambda: self._mark(exchange),
            superseded=lambda: self._supersede(exchange),
        )
        self._channels[channel] = exchange
        self._lanes.use(lane).channels += 1
        return exchange

    def _ask(self) -> None:
        """Ask for what waits, as far as the peer takes it."""
        for exchange, relay, token in self._asking.take(self._limits.waiting):
            exchange.ask(relay, token, self._settings, max_message=self._limits.message, now=self._now)
            self._mark(exchange)

    def _mark(self, exchange: Exchange) -> None:
        """Note that a channel has something to send."""
        self._lanes.use(exchange.lane).ready[exchange] = None
        if not self._inside:
            self._wake()

    def _supersede(self, exchange: Exchange) -> None:
        """Close a channel whose place a newer one has taken, perhaps on another connection."""
        if exchange.state not in _SHUT:
            self._pending += self._close(exchange, OwnCode.SUPERSEDED, "a newer channel took its place")

    def _close(self, exchange: Exchange, code: int, reason: str) -> list[Output]:
        self._requests.pop(exchange.channel, None)
        gone = exchange.gone(code, reason)
        if self._asking.withdraw(exchange):
            self._forget(exchange)
            return [gone]
        return [*exchange.close(code, reason, self._now), gone]

    def _refuse(self, exchange: Exchange, error: OwnWireError) -> list[Output]:
        """Close one conference for what the peer did wrong in it."""
        self.counters[f"refused_{error.reason.name.lower()}"] += 1
        refused = Refused(room=exchange.room, code=error.reason, reason=str(error))
        return [refused, *self._close(exchange, error.reason, str(error)), *self._strike(str(error))]

    def _strike(self, why: str) -> list[Output]:
        """Count what concerns one conference, or none; a peer that goes on so is given up."""
        self.counters["strikes"] += 1
        if self.counters["strikes"] <= self._settings.max_strikes:
            return []
        return self._violate(OwnCode.LIMIT, f"too many wrong messages, the last: {why}")

    def _forget(self, exchange: Exchange) -> None:
        self._channels.pop(exchange.channel, None)
        self._requests.pop(exchange.channel, None)
        self._asking.answered(exchange)
        self._lanes.use(exchange.lane).channels -= 1

    def _violate(self, code: OwnCode, reason: str) -> list[Output]:
        """Give the connection up."""
        if self.closed:
            return []
        self.counters[f"closed_{code.name.lower()}"] += 1
        return [*self._end(code, reason), Violated(code=code, reason=reason)]

    def _end(self, code: int, reason: str) -> list[Output]:
        if self.closed:
            return []
        self.closed = True
        outputs: list[Output] = []
        for exchange in list(self._channels.values()):
            gone = exchange.gone(code, reason)
            shut, exchange.state = exchange.state in _SHUT, ChannelState.CLOSED
            outputs += exchange.detach(self._now)
            if not shut:
                outputs.append(gone)
        self._channels.clear()
        self._requests.clear()
        self._asking.clear()
        self._control.clear()
        self._lanes.silence()
        return outputs

    def _tick(self, now: float) -> list[Output]:
        """Give up what takes too long to open, and have the next channels compare their states."""
        outputs: list[Output] = []
        for exchange in (*self._asking.asked, *(self._channels[channel] for channel in self._requests)):
            if now - exchange.since >= self._settings.open_timeout:
                outputs += self._close(exchange, OwnCode.TIMED_OUT, "it took too long to open")
        for channel in self._rounds.take(self._channels, now):
            one = self._channels.get(channel)
            if one is not None and one.outlet is not None and one.outlet.due_digests(now):
                self._mark(one)
        return outputs
