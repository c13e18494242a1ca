"""One conference on one connection: a channel, with what it gives and what it takes. Pure.

    dialer:    QUEUED ──there is room──▶ OPENING ──opened──▶ OPEN
    listener:  ASKED ──accepted──▶ OPEN
    any ──close, either way──▶ CLOSING ──close, the other way──▶ CLOSED

After its own `close` an end passes over whatever still comes on the channel, until the peer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from bridges.event.own.intake import Intake
from bridges.event.own.outlet import Outlet
from bridges.event.own.outputs import ChannelClosed
from bridges.wire.own.codec import encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import (
    NOTHING,
    Close,
    Credit,
    Digest,
    Happened,
    Leave,
    Offer,
    Open,
    Opened,
    Resume,
    Snapshot,
    Take,
    Withdraw,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.origin import Route
    from bridges.event.own.outputs import Output
    from bridges.event.own.relay import Relay
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.messages import ChannelMessage, Position, Reach

__all__ = ["ChannelFigures", "ChannelState", "Exchange"]

_MAX_REASON: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFigures:
    """What was counted of one conference on this connection, since it was opened."""

    room: str
    channel: int
    lane: int
    open: bool
    events_in: int
    events_out: int
    bytes_in: int
    bytes_out: int
    duplicates: int
    """Events that had come another way already."""
    resumes: int
    """Takes that were answered from the log, by either end."""
    snapshots_in: int
    snapshots_out: int
    divergences: int
    """States found to differ, by either end."""
    owed: int
    """Events that the peer has taken up and was not sent yet."""
    unconsumed_bytes: int
    """Bytes of the peer's events that our node has not taken yet."""
    sent: dict[str, int]
    """Number of the last event sent, by origin."""


class ChannelState(Enum):
    """Where a channel stands."""

    QUEUED = auto()
    OPENING = auto()
    ASKED = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Exchange:
    """A channel. `notify` is called when there is something to send, `superseded` when a newer one opened."""

    def __init__(
        self,
        channel: int,
        *,
        lane: int,
        room: str,
        peer: str,
        state: ChannelState,
        now: float,
        notify: Callable[[], None],
        superseded: Callable[[], None],
    ) -> None:
        self.channel: Final = channel
        self.lane: Final = lane
        self.room: Final = room
        self.peer: Final = peer
        self.state = state
        self.since = now
        """When it was asked for, in either role."""
        self.attempt: Position = NOTHING
        """Which of several channels of a conference and a peer is the newest."""
        self.intake: Intake | None = None
        self.outlet: Outlet | None = None
        self.superseded: Final = superseded
        self._notify = notify
        self._relay: Relay | None = None
        self._first: list[bytes] = []
        """What has to be said before everything else: Open, Opened, Close."""

    # --- our wish -------------------------------------------------------------------------------------

    def ask(
        self, relay: Relay, token: str, settings: OwnWireSettings, *, max_message: int, now: float
    ) -> None:
        """Ask the listener to carry the conference."""
        self._compose(relay, settings, max_message=max_message)
        self.state, self.since = ChannelState.OPENING, now
        self.attempt = relay.next_attempt()
        takes, credit = self._takes(relay), settings.credit_bytes
        offers = self._offers()
        request = Open(self.channel, self.room, token, takes, credit, self.attempt, offers)
        self._first.append(encode(request))

    def accept(
        self, relay: Relay, request: Open, settings: OwnWireSettings, *, max_message: int, now: float
    ) -> list[Output]:
        """Carry the conference that the dialer asked for. Raises OwnWireError."""
        self.attempt = request.attempt
        self._compose(relay, settings, max_message=max_message)
        self._first.append(
            encode(Opened(self.channel, self._takes(relay), settings.credit_bytes, self._offers()))
        )
        return self._open(request, now)

    def close(self, code: int, reason: str, now: float) -> list[Output]:
        """Carry the conference no more, and say so."""
        outputs = self.detach(now)
        self.state = ChannelState.CLOSING
        # An Open that was not sent yet is sent all the same: a Close without it would mean nothing.
        self._first.append(encode(Close(self.channel, code, reason[:_MAX_REASON])))
        self._notify()
        return outputs

    # --- the peer -------------------------------------------------------------------------------------

    def receive(self, message: ChannelMessage, size: int, now: float) -> list[Output]:
        """Take a message of an open channel, or the answer to ours. Raises OwnWireError."""
        if isinstance(message, Opened):
            if self.state is not ChannelState.OPENING:
                raise OwnWireError(OwnCode.SEQUENCE, "`opened` is not allowed now")
            return self._open(message, now)
        if self.state is not ChannelState.OPEN or self.intake is None or self.outlet is None:
            raise OwnWireError(OwnCode.SEQUENCE, "the conference is not open")
        if isinstance(message, Happened):
            return self.intake.happened(message, size)
        if isinstance(message, Take | Leave | Credit):
            _give(self.outlet, message)
            return []
        return _take(self.intake, message, size, now)

    def closed_by_peer(self, now: float) -> list[Output]:
        """Take the peer's `close`: answer it, unless we closed first."""
        closing = self.state is ChannelState.CLOSING
        outputs = [] if closing else self.close(OwnCode.DONE, "", now)
        self.state = ChannelState.CLOSED
        return outputs

    def detach(self, now: float) -> list[Output]:
        """Take part in the conference no more; nothing is said."""
        if self.intake is not None:
            self.intake.end()
        relay, self._relay = self._relay, None
        return [] if relay is None else relay.remove(self, now)

    # --- out ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is something to send."""
        if self._first:
            return True
        if self.state is not ChannelState.OPEN or self.intake is None or self.outlet is None:
            return False
        return self.intake.ready or self.outlet.ready

    def next_message(self, now: float) -> bytes | None:
        """Return the next message, None when there is none now. Raises OwnWireError: see Outlet."""
        if self._first:
            return self._first.pop(0)
        if self.state is not ChannelState.OPEN or self.intake is None or self.outlet is None:
            return None
        return self.intake.next_message() or self.outlet.next_message(now)

    # --- the relay ------------------------------------------------------------------------------------

    def offer_changed(self, origin: str) -> None:
        """Take note that what can be offered of an origin may have changed."""
        if self.outlet is not None:
            self.outlet.changed(origin)
            self._notify()

    def grown(self, origin: str) -> None:
        """Take note that an origin has new events."""
        if self.outlet is not None and self.outlet.grown(origin):
            self._notify()

    def restate(self, origin: str) -> None:
        """Have an origin's state sent anew."""
        if self.outlet is not None:
            self.outlet.restate(origin)
            self._notify()

    def offer_of(self, origin: str) -> Route | None:
        """Return what the peer offers of an origin."""
        return None if self.intake is None else self.intake.offers.get(origin)

    def path_of(self, origin: str) -> tuple[str, ...]:
        """Return the way from an origin to the peer, both included; empty if it is not offered."""
        offered = self.offer_of(origin)
        return () if offered is None else offered.path

    def taking(self, origin: str) -> Position | None:
        """Return how far we have come in taking an origin from the peer; None if we do not."""
        return None if self.intake is None else self.intake.taking(origin)

    def take(self, origin: str, have: Position) -> None:
        """Ask the peer for what follows a position."""
        if self.intake is not None:
            self.intake.take(origin, have)
            self._notify()

    def leave(self, origin: str) -> None:
        """Ask the peer for nothing more of an origin."""
        if self.intake is not None:
            self.intake.leave(origin)
            self._notify()

    # --- looking --------------------------------------------------------------------------------------

    def figures(self) -> ChannelFigures:
        """Return what was counted."""
        intake, outlet = self.intake, self.outlet
        return ChannelFigures(
            room=self.room,
            channel=self.channel,
            lane=self.lane,
            open=self.state is ChannelState.OPEN,
            events_in=0 if intake is None else intake.events,
            events_out=0 if outlet is None else outlet.events,
            bytes_in=0 if intake is None else intake.bytes,
            bytes_out=0 if outlet is None else outlet.bytes,
            duplicates=0 if intake is None else intake.duplicates,
            resumes=(0 if intake is None else intake.resumes) + (0 if outlet is None else outlet.resumes),
            snapshots_in=0 if intake is None else intake.snapshots,
            snapshots_out=0 if outlet is None else outlet.snapshots,
            divergences=(0 if intake is None else intake.divergences)
            + (0 if outlet is None else outlet.repairs),
            owed=0 if outlet is None else outlet.owed,
            unconsumed_bytes=0 if intake is None else intake.unconsumed,
            sent={} if outlet is None else outlet.sent(),
        )

    def gone(self, code: int, reason: str, *, by_peer: bool = False) -> ChannelClosed:
        """Return what is said of the channel when it ends, with what was counted of it until now."""
        return ChannelClosed(
            channel=self.channel,
            room=self.room,
            code=code,
            reason=reason,
            by_peer=by_peer,
            figures=self.figures(),
        )

    # --- inside ---------------------------------------------------------------------------------------

    def _compose(self, relay: Relay, settings: OwnWireSettings, *, max_message: int) -> None:
        self._relay = relay
        self.intake = Intake(self.channel, self.peer, relay, settings)
        self.intake.on_credit = self._notify
        self.outlet = Outlet(
            self.channel, self.peer, relay, settings, max_message=max_message, now=self.since
        )

    def _takes(self, relay: Relay) -> dict[str, Position]:
        assert self.intake is not None
        takes = relay.wanted_of(self.peer)
        self.intake.takes_in_advance(takes)
        return takes

    def _offers(self) -> dict[str, Reach]:
        assert self.outlet is not None
        return self.outlet.offers_in_advance()

    def _open(self, message: Open | Opened, now: float) -> list[Output]:
        assert self._relay is not None
        assert self.outlet is not None
        self.outlet.credited(message.credit)
        self.outlet.taken_in_advance(message.takes)
        self.state = ChannelState.OPEN
        outputs = self._relay.add(self, now)
        if self.state is ChannelState.OPEN and self.intake is not None:  # and was not superseded by this
            outputs += self.intake.offered_in_advance(message.offers, now)
        return outputs


def _give(outlet: Outlet, message: Take | Leave | Credit) -> None:
    match message:
        case Credit(limit=limit):
            outlet.credited(limit)
        case Take():
            outlet.taken(message)
        case Leave(origin=origin):
            outlet.left(origin)


def _take(intake: Intake, message: ChannelMessage, size: int, now: float) -> list[Output]:
    match message:
        case Digest():
            return intake.compared(message)
        case Offer(origin=origin, incarnation=incarnation, path=path):
            return intake.offered(origin, incarnation, tuple(path), now)
        case Withdraw(origin=origin):
            return intake.withdrawn(origin, now)
        case Resume():
            intake.resumed(message)
            return []
        case Snapshot():
            return intake.snapshot(message, size)
        case _:
            raise OwnWireError(OwnCode.SEQUENCE, "not allowed now")
