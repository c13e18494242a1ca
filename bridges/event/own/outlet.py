"""What one channel gives the peer: offers, and the events that it takes up, from the relay's logs. Pure.

Messages are made when there is room for them (`next_message`); what waits is a set of origins that something
has changed of, a cursor for each origin that the peer takes, and a snapshot in parts for each cursor at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Raw

from bridges.wire.own.codec import encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import Digest, Happened, Offer, Position, Reach, Resume, Snapshot, Withdraw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridges.event.own.origin import Origin, Route
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.messages import Message, Take

__all__ = ["Outlet", "Supply"]


class Supply(Protocol):
    """The relay, as an outlet needs it."""

    @property
    def cluster(self) -> str:
        """Our own cluster's id."""

    def route(self, origin: str, peer: str) -> Route | None:
        """Return what may be offered of an origin to a peer, None if nothing may."""

    def names(self) -> list[str]:
        """Return the origins that are known, our own among them."""

    def origin(self, name: str) -> Origin | None:
        """Return an origin that is known."""

    def surpassed(self, origin: str, position: Position) -> None:
        """Take note of what a peer has of an origin: perhaps of a newer start than the origin knows."""


@dataclass(slots=True)
class _Cursor:
    """How far the peer was sent an origin's events."""

    number: int
    at: Position
    whole: bool
    started: bool = False
    parts: Iterator[Snapshot] | None = None
    compared: Position | None = None
    compared_at: float = 0.0
    digest_due: bool = False


class Outlet:
    """The giving side of a channel. `max_message`: bytes of a message that the peer takes."""

    def __init__(
        self,
        channel: int,
        peer: str,
        supply: Supply,
        settings: OwnWireSettings,
        *,
        max_message: int,
        now: float,
    ) -> None:
        self.events = 0
        self.snapshots = 0
        self.resumes = 0
        self.repairs = 0
        """Times that the peer has found its state to differ."""
        self.bytes = 0
        """Of events and snapshots."""
        self._channel = channel
        self._peer = peer
        self._supply = supply
        self._settings = settings
        self._max_message = max_message
        self._began = self._look_at = now
        self._limit = 0
        self._changed: dict[str, None] = {}
        self._offered: dict[str, Route] = {}
        self._cursors: dict[str, _Cursor] = {}
        self._active: dict[str, None] = {}

    # --- the peer ---------------------------------------------------------------------------------

    def taken(self, take: Take) -> None:
        """Begin to send an origin. Raises OwnWireError."""
        cursor = self._cursors.get(take.origin)
        if cursor is not None and take.number <= cursor.number:
            raise OwnWireError(OwnCode.SEQUENCE, f"take {take.number} after {cursor.number}")
        if cursor is None and len(self._cursors) >= self._settings.max_origins:
            raise OwnWireError(OwnCode.LIMIT, f"more than {self._settings.max_origins} origins taken")
        self.repairs += take.whole
        self._begin(take.origin, take.number, take.have, whole=take.whole)

    def taken_in_advance(self, takes: Mapping[str, Position]) -> None:
        """Begin to send what the peer asked for when the channel was opened. Raises OwnWireError."""
        if len(takes) > self._settings.max_origins:
            raise OwnWireError(OwnCode.LIMIT, f"more than {self._settings.max_origins} origins taken")
        for origin, have in takes.items():
            self._begin(origin, 1, have, whole=False)

    def offers_in_advance(self) -> dict[str, Reach]:
        """Return what can be offered now, to be said when the channel is opened; it counts as said."""
        for origin in self._supply.names():
            route = self._supply.route(origin, self._peer)
            if route is not None:
                self._offered[origin] = route
        return {origin: Reach(route.incarnation, list(route.path)) for origin, route in self._offered.items()}

    def left(self, origin: str) -> None:
        """Send an origin no more."""
        self._cursors.pop(origin, None)
        self._active.pop(origin, None)

    def credited(self, limit: int) -> None:
        """Send up to so many bytes. Raises OwnWireError when it is less than before."""
        if limit < self._limit:
            raise OwnWireError(OwnCode.SEQUENCE, f"credit of {limit} after {self._limit}")
        self._limit = limit

    # --- the relay --------------------------------------------------------------------------------

    def changed(self, origin: str) -> None:
        """Take note that what can be offered of an origin may have changed."""
        self._changed[origin] = None

    def grown(self, origin: str) -> bool:
        """Take note that an origin has new events; returns whether the peer takes it."""
        if origin not in self._cursors:
            return False
        self._active[origin] = None
        return True

    def restate(self, origin: str) -> None:
        """Send an origin's state anew, since what was sent of it may be wrong."""
        cursor = self._cursors.get(origin)
        if cursor is not None and cursor.started:
            cursor.whole = True  # after what is under way, whose parts must not be mixed with others
            self._active[origin] = None

    def due_digests(self, now: float) -> bool:
        """Have the states compared for which it is time; returns whether there are any."""
        if now < self._look_at:
            return False
        self._look_at = now + self._settings.digest_interval / 2
        found = False
        for origin, cursor in self._cursors.items():
            known = self._supply.origin(origin)
            if known is None or not cursor.started or cursor.digest_due:
                continue
            changed = cursor.compared != known.log.end
            interval = self._settings.digest_interval if changed else self._settings.quiet_digest_interval
            if now - max(cursor.compared_at, self._began) >= interval:
                cursor.digest_due = found = True
                self._active[origin] = None
        return found

    # --- out --------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether `next_message` would return something, as far as is known without looking closely."""
        return bool(self._changed) or (bool(self._active) and self.bytes < self._limit)

    @property
    def owed(self) -> int:
        """Events that the peer has taken up and was not sent yet."""
        owed = 0
        for origin, cursor in self._cursors.items():
            known = self._supply.origin(origin)
            if known is not None and known.log.incarnation == cursor.at.incarnation:
                owed += max(0, known.log.last - cursor.at.seq)
        return owed

    def sent(self) -> dict[str, int]:
        """Return the number of the last event sent, by origin."""
        return {origin: cursor.at.seq for origin, cursor in self._cursors.items() if cursor.started}

    def next_message(self, now: float) -> bytes | None:
        """Return the next message, None when there is none or the peer has to give credit first.

        Raises OwnWireError when something is larger than the peer takes.
        """
        while self._changed:
            origin = next(iter(self._changed))
            del self._changed[origin]
            message = self._offer(origin)
            if message is not None:
                return self._encode(message)
        while self._active and self.bytes < self._limit:
            origin = next(iter(self._active))
            message = self._continue(origin, now)
            if message is None:
                self._active.pop(origin, None)
                continue
            data = self._encode(message)
            if isinstance(message, Happened | Snapshot):
                self.bytes += len(data)
                self._active[origin] = self._active.pop(origin)  # the others have their turn
            return data
        return None

    # --- inside -------------------------------------------------------------------------------------

    def _begin(self, origin: str, number: int, have: Position, *, whole: bool) -> None:
        self._cursors[origin] = _Cursor(number, have, whole)
        self._active[origin] = None
        self._supply.surpassed(origin, have)

    def _offer(self, origin: str) -> Message | None:
        route = self._supply.route(origin, self._peer)
        told = self._offered.get(origin)
        if route == told:
            return None
        if route is None:
            del self._offered[origin]
            self.left(origin)
            return Withdraw(self._channel, origin)
        self._offered[origin] = route
        if origin in self._cursors:
            self._active[origin] = None
        return Offer(self._channel, origin, route.incarnation, list(route.path))

    def _continue(self, name: str, now: float) -> Message | None:
        """Return what comes next of an origin, None when the peer has all of it."""
        cursor, origin = self._cursors.get(name), self._supply.origin(name)
        if cursor is None or origin is None or name not in self._offered or not origin.known:
            return None
        if cursor.parts is not None:
            part = next(cursor.parts, None)
            if part is not None:
                return part
            cursor.parts = None
        if cursor.at.incarnation > origin.log.incarnation:
            # The peer knows a newer start than we do: it has to come here first, or to be surpassed.
            self._supply.surpassed(name, cursor.at)
            if cursor.at.incarnation > origin.log.incarnation:
                return None
        if cursor.whole or not origin.log.reaches(cursor.at):
            return self._begin_snapshot(cursor, origin)
        return self._follow(cursor, origin, now)

    def _follow(self, cursor: _Cursor, origin: Origin, now: float) -> Message | None:
        """Return what comes next from the log."""
        if not cursor.started:
            cursor.started = True
            self.resumes += 1
            return Resume(self._channel, origin.name, cursor.number, cursor.at)
        event = origin.log.get(cursor.at.seq + 1)
        if event is None:
            return self._compare(cursor, origin, now)
        cursor.at = Position(cursor.at.incarnation, event.seq)
        self.events += 1
        hops = self._hops(event.hops)
        return Happened(self._channel, origin.name, cursor.at, hops, event.type, Raw(event.data))

    def _begin_snapshot(self, cursor: _Cursor, origin: Origin) -> Snapshot:
        cursor.at, cursor.whole, cursor.started = origin.log.end, False, True
        cursor.parts = self._parts(cursor, origin)
        self.snapshots += 1
        return next(cursor.parts)

    def _parts(self, cursor: _Cursor, origin: Origin) -> Iterator[Snapshot]:
        """Make the messages of a snapshot, of the state as it is when the first is asked for."""
        number, at, name = cursor.number, cursor.at, origin.name
        hops = self._hops(origin.hops)
        entries = [("p", id_, entry) for id_, entry in origin.picture.participants.items()]
        entries += [("s", id_, entry) for id_, entry in origin.picture.streams.items()]
        participants: dict[str, Raw] = {}
        streams: dict[str, Raw] = {}
        size = 0
        for kind, id_, entry in entries:
            if size and size + len(entry) > self._settings.snapshot_part_bytes:
                yield Snapshot(self._channel, name, number, at, hops, participants, streams, more=True)
                participants, streams, size = {}, {}, 0
            (participants if kind == "p" else streams)[id_] = Raw(entry)
            size += len(entry) + len(id_)
        yield Snapshot(self._channel, name, number, at, hops, participants, streams)

    def _hops(self, before: tuple[str, ...]) -> list[str]:
        """Return where something has come by, ours included; of too long a way the middle is left out."""
        if len(before) < self._settings.max_hops:
            return [*before, self._supply.cluster]
        return [before[0], self._supply.cluster]

    def _compare(self, cursor: _Cursor, origin: Origin, now: float) -> Digest | None:
        if not cursor.digest_due or cursor.at != origin.log.end:
            return None
        cursor.digest_due, cursor.compared, cursor.compared_at = False, cursor.at, now
        return Digest(self._channel, origin.name, cursor.at, origin.picture.digest)

    def _encode(self, message: Message) -> bytes:
        data = encode(message)
        if len(data) > self._max_message:
            raise OwnWireError(
                OwnCode.LIMIT, f"{len(data)} bytes, of which the peer takes {self._max_message}"
            )
        return data
