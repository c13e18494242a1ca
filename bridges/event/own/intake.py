"""What one channel takes from the peer: what it offers, the runs of events that were asked for, credit. Pure.

A *run* is what follows a Take: a Resume or a Snapshot that bears its number, then events whose numbers have
no gap. What still comes of an older run is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from bridges.event.own.origin import Route, is_event, picture_of
from bridges.event.own.picture import PictureFullError
from bridges.wire.own.codec import encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import NOTHING, Credit, Leave, Position, Take
from bridges.wire.own.values import decode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from msgspec import Raw

    from bridges.event.own.outputs import Output
    from bridges.event.own.picture import Picture
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.messages import Digest, Happened, Reach, Resume, Snapshot

__all__ = ["Intake", "Sink"]

_CREDIT_STEP: Final = 4
"""Credit is renewed when a fourth of it was used."""
_HELD_PART: Final = 2
"""A snapshot holds half of the credit back at most until our node has taken it; it may be larger than all."""


class Sink(Protocol):
    """The relay, as an intake needs it. `peer` is the one who says it."""

    @property
    def cluster(self) -> str:
        """Our own cluster's id."""

    def routes_changed(self, origin: str, now: float) -> list[Output]:
        """Look at the offers of an origin anew."""

    def happened(
        self, peer: str, message: Happened, data: Any, consumed: Callable[[], None]
    ) -> list[Output] | None:
        """Take an event; None if it is not the next one that is missing here. Raises OwnWireError."""

    def replaced(
        self, peer: str, message: Snapshot, picture: Picture, *, whole: bool, consumed: Callable[[], None]
    ) -> list[Output]:
        """Take a state; `whole` if it was asked for because ours differs. Calls `consumed` once."""

    def compared(self, peer: str, message: Digest) -> list[Output]:
        """Compare our state with the peer's; returns nothing unless ours differs."""


@dataclass(slots=True)
class _Run:
    """What was asked for of an origin. `at` is None until the run has begun."""

    number: int
    have: Position
    whole: bool = False
    at: Position | None = None
    assembling: Position | None = None
    participants: dict[str, Raw] = field(default_factory=dict)
    streams: dict[str, Raw] = field(default_factory=dict)
    assembled: int = 0
    held: int = 0


class Intake:
    """The taking side of a channel."""

    def __init__(self, channel: int, peer: str, sink: Sink, settings: OwnWireSettings) -> None:
        self.events = 0
        self.snapshots = 0
        self.resumes = 0
        self.duplicates = 0
        self.divergences = 0
        self.passed_over = 0
        """Offers beyond the limit, or of ways that lead through us."""
        self.bytes = 0
        """Of events and snapshots."""
        self.offers: dict[str, Route] = {}
        self.ended = False
        """Whether the channel is gone: nothing is taken, and consuming gives no credit."""
        self.on_credit: Callable[[], None] | None = None
        """Called when there is credit to tell and consuming was what made it."""
        self._channel = channel
        self._peer = peer
        self._sink = sink
        self._settings = settings
        self._runs: dict[str, _Run] = {}
        self._numbers: dict[str, int] = {}
        self._unsaid: dict[str, None] = {}
        self._consumed = 0
        self._limit = settings.credit_bytes

    @property
    def unconsumed(self) -> int:
        """Bytes of the peer's events that our node has not taken yet."""
        return self.bytes - self._consumed

    @property
    def ready(self) -> bool:
        """Whether there is something to say."""
        return bool(self._unsaid) or self._credit_is_due

    # --- the relay ----------------------------------------------------------------------------------

    def takes_in_advance(self, takes: Mapping[str, Position]) -> None:
        """Note what was asked for when the channel was opened."""
        for origin, have in takes.items():
            self._numbers[origin] = 1
            self._runs[origin] = _Run(1, have)

    def taking(self, origin: str) -> Position | None:
        """Return where the run of an origin has come to, or begins; None if it is not taken."""
        run = self._runs.get(origin)
        return None if run is None else run.at or run.have

    def take(self, origin: str, have: Position, *, whole: bool = False) -> None:
        """Ask for what follows a position."""
        number = self._numbers[origin] = self._numbers.get(origin, 0) + 1
        self._release(self._runs.get(origin))
        self._runs[origin] = _Run(number, have, whole)
        self._unsaid[origin] = None

    def leave(self, origin: str) -> None:
        """Take an origin no more."""
        run = self._runs.pop(origin, None)
        if run is not None:
            self._release(run)
            self._unsaid[origin] = None

    def end(self) -> None:
        """Take nothing any more."""
        self.ended = True
        self.offers.clear()
        self._runs.clear()

    # --- the peer -----------------------------------------------------------------------------------

    def offered_in_advance(self, offers: Mapping[str, Reach], now: float) -> list[Output]:
        """Take what was offered when the channel was opened. Raises OwnWireError."""
        outputs: list[Output] = []
        for origin, reach in offers.items():
            outputs += self.offered(origin, reach.incarnation, tuple(reach.path), now)
        return outputs

    def offered(self, origin: str, incarnation: int, path: tuple[str, ...], now: float) -> list[Output]:
        """Take an offer. Raises OwnWireError."""
        if path[0] != origin or path[-1] != self._peer or len(set(path)) != len(path):
            raise OwnWireError(OwnCode.PATH, "an offer whose path does not lead from its origin to the peer")
        if origin == self._sink.cluster:
            raise OwnWireError(OwnCode.PATH, "an offer of our own events")
        new = origin not in self.offers
        if self._sink.cluster in path or len(path) > self._settings.max_hops:
            self.passed_over += 1
            return [] if new else self._drop_offer(origin, now)
        if new and len(self.offers) >= self._settings.max_origins:
            self.passed_over += 1
            return []
        self.offers[origin] = Route(incarnation, path)
        return self._sink.routes_changed(origin, now)

    def withdrawn(self, origin: str, now: float) -> list[Output]:
        """Take note that the peer cannot give an origin any more. Raises OwnWireError."""
        run = self._runs.pop(origin, None)
        self._release(run)
        return self._drop_offer(origin, now)

    def resumed(self, message: Resume) -> None:
        """Take the beginning of a run. Raises OwnWireError."""
        run = self._run_of(message.origin, message.number)
        if run is None:
            return
        if run.at is not None:
            raise OwnWireError(OwnCode.SEQUENCE, "a run that begins twice")
        if run.whole or message.at != run.have:
            raise OwnWireError(OwnCode.GAP, f"a run that begins at {_said(message.at)}, not where it was to")
        run.at = message.at
        self.resumes += 1

    def snapshot(self, message: Snapshot, size: int) -> list[Output]:
        """Take a state, or a part of it. Raises OwnWireError."""
        self._receive(size)
        self._check_hops(message.origin, message.hops)
        run = self._run_of(message.origin, message.number)
        if run is None:
            self._consume(size)
            return []
        self._assemble(run, message, size)
        if message.more:
            return []
        picture = self._picture(run)
        whole, held = run.whole and run.at is None, run.held
        run.at, run.assembling, run.assembled, run.held = message.at, None, 0, 0
        run.participants, run.streams = {}, {}
        run.whole = False
        self.snapshots += 1
        consumed = partial(self._consume, held)
        return self._sink.replaced(self._peer, message, picture, whole=whole, consumed=consumed)

    def happened(self, message: Happened, size: int) -> list[Output]:
        """Take an event. Raises OwnWireError."""
        self._receive(size)
        self._check_hops(message.origin, message.hops)
        run = self._runs.get(message.origin)
        if run is None or run.at is None:
            self._consume(size)
            return []
        if run.assembling is not None or message.at != Position(run.at.incarnation, run.at.seq + 1):
            raise OwnWireError(OwnCode.GAP, f"event {_said(message.at)} after {_said(run.at)}")
        data = _event_data(message)
        run.at = message.at
        outputs = self._sink.happened(self._peer, message, data, partial(self._consume, size))
        if outputs is None:
            self.duplicates += 1
            self._consume(size)
            return []
        self.events += 1
        return outputs

    def compared(self, message: Digest) -> list[Output]:
        """Take the digest of the peer's state; asks for the whole if ours differs."""
        run = self._runs.get(message.origin)
        if run is None or run.at != message.at:
            return []
        outputs = self._sink.compared(self._peer, message)
        if outputs:
            self.divergences += 1
            self.take(message.origin, message.at, whole=True)
        return outputs

    # --- out ----------------------------------------------------------------------------------------

    def next_message(self) -> bytes | None:
        """Return the next message, None when there is none."""
        if self._credit_is_due:
            self._limit = self._consumed + self._settings.credit_bytes
            return encode(Credit(self._channel, self._limit))
        while self._unsaid:
            origin = next(iter(self._unsaid))
            del self._unsaid[origin]
            run = self._runs.get(origin)
            if run is None:
                return encode(Leave(self._channel, origin))
            return encode(Take(self._channel, origin, run.number, run.have, run.whole))
        return None

    # --- inside ---------------------------------------------------------------------------------------

    @property
    def _credit_is_due(self) -> bool:
        window = self._settings.credit_bytes
        return self._consumed + window - self._limit >= window // _CREDIT_STEP

    def _drop_offer(self, origin: str, now: float) -> list[Output]:
        if self.offers.pop(origin, None) is None:
            return []
        return self._sink.routes_changed(origin, now)

    def _run_of(self, origin: str, number: int) -> _Run | None:
        """Return the run that a number means; says to the peer that it is not wanted if there is none."""
        run = self._runs.get(origin)
        if run is None:
            if number == self._numbers.get(origin, 0):
                self._unsaid[origin] = None
            return None
        if number > run.number:
            raise OwnWireError(OwnCode.SEQUENCE, f"run {number}, which was not asked for")
        return run if number == run.number else None

    def _check_hops(self, origin: str, hops: list[str]) -> None:
        if hops[0] != origin or hops[-1] != self._peer or len(hops) > self._settings.max_hops:
            raise OwnWireError(OwnCode.PATH, "hops that do not lead from the origin to the peer, or too many")

    def _receive(self, size: int) -> None:
        if self.bytes >= self._limit:
            raise OwnWireError(OwnCode.LIMIT, "events beyond the credit")
        self.bytes += size

    def _consume(self, size: int) -> None:
        if self.ended or not size:
            return
        self._consumed += size
        if self._credit_is_due and self.on_credit is not None:
            self.on_credit()

    def _release(self, run: _Run | None) -> None:
        """Give the credit of an unfinished snapshot back."""
        if run is not None:
            self._consume(run.held)
            run.held = 0

    def _assemble(self, run: _Run, message: Snapshot, size: int) -> None:
        if message.at == NOTHING or (run.assembling or message.at) != message.at:
            raise OwnWireError(OwnCode.SEQUENCE, "parts of different snapshots")
        run.assembling = message.at
        run.participants.update(message.participants)
        run.streams.update(message.streams)
        run.assembled += size
        if run.assembled > 2 * self._settings.max_state_bytes:
            raise OwnWireError(
                OwnCode.LIMIT, f"a snapshot of more than {self._settings.max_state_bytes} bytes"
            )
        held = min(size, max(0, self._settings.credit_bytes // _HELD_PART - run.held))
        run.held += held
        self._consume(size - held)

    def _picture(self, run: _Run) -> Picture:
        try:
            return picture_of(run.participants, run.streams, self._settings)
        except PictureFullError as error:
            raise OwnWireError(OwnCode.LIMIT, f"snapshot: {error}") from None
        except ValueError as error:
            raise OwnWireError(OwnCode.MESSAGE, f"snapshot: {error}") from None


def _event_data(message: Happened) -> Any:
    try:
        data = decode_value(message.data)
    except ValueError as error:
        raise OwnWireError(OwnCode.MESSAGE, f"{message.type}: {error}") from None
    if not is_event(message.type, data):
        raise OwnWireError(OwnCode.MESSAGE, f"{message.type}: no event of this wire, or not its data")
    return data


def _said(position: Position) -> str:
    return f"{position.incarnation:x}.{position.seq}"
