"""One conference at this bridge: what is known of each origin, from whom it comes, and who gets it. Pure.

A bridge has one Relay for each conference; each of the conference's connections (bridges.event.own.exchange)
reads from it and writes to it. Our own cluster is one of the origins.

The rules:
- each origin is taken from one peer, the one with the newest start of it and the shortest path that does
  not lead through us; when that one is lost, from the next, beginning where the log ends;
- an event is taken if it is the next one in its origin's numbers, from whomever it comes, and never again;
- an origin is offered to a peer unless its path leads through that peer; what is not our own, only if we
  relay;
- an origin that nobody offers is kept for the grace time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridges.event.own.log import LogBudget
from bridges.event.own.origin import ENVELOPE_BYTES, Origin, Route, is_event, picture_of
from bridges.event.own.outputs import Diverged, Repaired, RouteChanged, Told, Vanished, nothing_to_consume
from bridges.event.own.picture import PictureFullError, difference
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import MAX_INCARNATION, NOTHING, Position
from bridges.wire.own.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridges.event.own.exchange import Exchange
    from bridges.event.own.origin import OriginState
    from bridges.event.own.outputs import Output
    from bridges.event.own.picture import Change, Picture
    from bridges.event.own.settings import OwnWireSettings
    from bridges.wire.own.messages import Digest, Happened, Snapshot

__all__ = ["Relay"]


@dataclass(slots=True)
class _Known:
    """An origin that is not ours, and the way it comes by."""

    origin: Origin
    via: Exchange | None = None
    path: tuple[str, ...] = ()
    lost_at: float = 0.0
    """When there was nobody left who offers it; counts while `via` is None."""
    rumour: Position = NOTHING
    """The newest position that a peer has, or had. The origin is to hear of it if it is of a newer start."""


class Relay:
    """A conference. `incarnation` as drawn by draw_incarnation; `cluster` is ours.

    `relaying`: whether what comes from one peer is offered to others. `budget` is shared by all conferences
    of the bridge. The methods that change something return what is to be done for it, in order.
    """

    def __init__(
        self,
        room: str,
        *,
        cluster: str,
        incarnation: int,
        relaying: bool,
        settings: OwnWireSettings,
        budget: LogBudget | None = None,
    ) -> None:
        self.room: Final = room
        self.loops = 0
        """Events that came back to us by way of others, and were passed over."""
        self._cluster = cluster
        self._incarnation = incarnation
        self._relaying = relaying
        self._settings = settings
        self._budget = budget or LogBudget(settings.max_log_bytes)
        self._own: Origin | None = None
        self._attached = False
        self._attempts = 0
        self._bytes = 0
        self._known: dict[str, _Known] = {}
        self._exchanges: dict[str, Exchange] = {}

    # --- our conference node ----------------------------------------------------------------------

    def attach(self, participants: Mapping[str, Any], streams: Mapping[str, Any]) -> None:
        """Take our node's `initialize`: all that is local, by id. Offered to the peers from now on.

        Said again, what differs from before is told to the peers as events. Raises ValueError for what is no
        participant, no stream, or no JSON, or too large.
        """
        picture = picture_of(participants, streams, self._settings)
        self._attached = True
        if self._own is None:
            self._own = Origin(self._cluster, Position(self._incarnation, 0), self._settings, self._budget)
            self._own.picture = picture
        else:
            self._restate_own(self._own, picture)
        self._offers_changed(self._cluster)

    def detach(self) -> None:
        """Take note that our node is lost: our own events cannot be had; peers wait for their grace time."""
        self._attached = False
        self._offers_changed(self._cluster)

    def publish(self, type_: str, data: Any) -> str:
        """Take an event of our node, after `attach`; returns its id.

        Raises ValueError for what is no event, no JSON, or too large.
        """
        if self._own is None or not self._attached:
            raise ValueError("there is no state yet that the event could follow")
        if not is_event(type_, data):
            raise ValueError(f"{type_}: not such an event, or not its data")
        encoded = encode_value(data)
        self._check_size(encoded)
        at = self._own.append(type_, data, encoded, ())
        self._grown(self._cluster)
        return f"{at.incarnation:x}.{at.seq}"

    def replay(self) -> list[Told]:
        """Return an `initialize` for each origin: our node has forgotten, or is a new one.

        Nothing that was returned as Told or Vanished before has to be told any more.
        """
        told = []
        for known in self._known.values():
            if known.origin.known:
                known.origin.told = True
                told.append(self._initialize(known.origin, nothing_to_consume))
        return told

    # --- topology ---------------------------------------------------------------------------------

    @property
    def cluster(self) -> str:
        """Our own cluster's id."""
        return self._cluster

    @property
    def relaying(self) -> bool:
        """Whether what comes from one peer is offered to others."""
        return self._relaying

    def set_relaying(self, *, relaying: bool) -> None:
        """Begin or cease to offer what comes from others."""
        if relaying != self._relaying:
            self._relaying = relaying
            for name in self._known:
                self._offers_changed(name)

    # --- time ---------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """Return when `poll` wants to be called next; None: not before something else happens."""
        lost = [known.lost_at for known in self._known.values() if known.via is None]
        return min(lost) + self._settings.origin_grace if lost else None

    def poll(self, now: float) -> list[Output]:
        """Give up origins that are out of reach for longer than the grace time."""
        outputs: list[Output] = []
        for name, known in list(self._known.items()):
            if known.via is None and now - known.lost_at >= self._settings.origin_grace:
                del self._known[name]
                self._bytes -= known.origin.picture.bytes
                for exchange in self._exchanges.values():
                    self._leave(exchange, name)
                if known.origin.told:
                    outputs.append(Vanished(room=self.room, origin=name))
                outputs += self.routes_changed(name, now)  # an older start may be all that there is
        return outputs

    # --- looking ------------------------------------------------------------------------------------

    def origins(self) -> list[OriginState]:
        """Return how the origins stand, our own among them once it was attached."""
        states = [] if self._own is None else [self._own.state(())]
        return states + [known.origin.state(known.path) for known in self._known.values()]

    def peers(self) -> list[str]:
        """Return the cluster ids of the open channels."""
        return list(self._exchanges)

    def state(self, origin: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return participants and streams of an origin by id, None if it is not known."""
        found = self.origin(origin)
        if found is None or not found.known:
            return None
        data = found.picture.initialize()
        return data["participants"], data["streams"]

    # --- for exchanges: coming and going --------------------------------------------------------------

    def wanted_of(self, peer: str) -> dict[str, Position]:
        """Return what to ask a peer for when a channel to it is opened: what nobody else gives."""
        wanted = {peer: NOTHING}
        for name, known in self._known.items():
            if known.via is None or known.via.peer == peer:
                wanted[name] = known.origin.log.end
        return wanted

    def next_attempt(self) -> Position:
        """Return what marks a channel that is asked for now as newer than those before."""
        self._attempts += 1
        return Position(self._incarnation, self._attempts)

    def add(self, exchange: Exchange, now: float) -> list[Output]:
        """Let an open channel take part; of two of the same peer the one that was asked for later does."""
        outputs: list[Output] = []
        other = self._exchanges.get(exchange.peer)
        if other is not None and other.attempt > exchange.attempt:
            exchange.superseded()
            return outputs
        if other is not None:
            outputs += other.detach(now)
            other.superseded()
        self._exchanges[exchange.peer] = exchange
        if self._own is not None:
            exchange.offer_changed(self._cluster)
        for name in self._known:
            exchange.offer_changed(name)
        return outputs

    def remove(self, exchange: Exchange, now: float) -> list[Output]:
        """Let a channel take part no more; what it gave is taken from others, if they have it."""
        if self._exchanges.get(exchange.peer) is not exchange:
            return []
        del self._exchanges[exchange.peer]
        outputs: list[Output] = []
        for name, known in list(self._known.items()):
            if known.via is exchange:
                outputs += self.routes_changed(name, now)
        return outputs

    # --- for exchanges: Supply ------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the origins that are known, our own among them."""
        return [*self._known] if self._own is None else [self._cluster, *self._known]

    def origin(self, name: str) -> Origin | None:
        """Return an origin that is known."""
        if name == self._cluster:
            return self._own
        known = self._known.get(name)
        return None if known is None else known.origin

    def route(self, origin: str, peer: str) -> Route | None:
        """Return what may be offered of an origin to a peer, None if nothing may."""
        if origin == self._cluster:
            if self._own is None or not self._attached:
                return None
            return Route(self._own.log.incarnation, (self._cluster,))
        known = self._known.get(origin)
        if not self._relaying or known is None or known.via is None or not known.origin.known:
            return None
        if peer in known.path or len(known.path) >= self._settings.max_hops:
            return None
        return Route(known.origin.log.incarnation, (*known.path, self._cluster))

    def surpassed(self, origin: str, position: Position) -> None:
        """Take note of what a peer has of an origin; it may be of a newer start than we, or the origin, know.

        The origin's clock has then gone back since its last start. Whoever relays it passes this on.
        """
        known = self._known.get(origin)
        if position.incarnation >= MAX_INCARNATION:
            return
        if origin == self._cluster:
            self._surpass(position)
        elif known is not None and position > known.rumour:
            known.rumour = position
            if known.via is not None:
                self._ensure_taken(known.via, known)

    # --- for exchanges: Sink --------------------------------------------------------------------------

    def routes_changed(self, origin: str, now: float) -> list[Output]:
        """Look at the offers of an origin anew: whom to take it from."""
        known = self._known.get(origin)
        best = self._best(origin, known)
        if best is None:
            return [] if known is None else self._lose(origin, known, now)
        if known is None:
            if len(self._known) >= self._settings.max_origins:
                return []
            known = self._known[origin] = _Known(Origin(origin, NOTHING, self._settings, self._budget))
        before, known.via = known.via, best
        path, known.path = known.path, best.path_of(origin)
        for exchange in self._exchanges.values():
            if exchange is not best:
                self._leave(exchange, origin)
        self._ensure_taken(best, known)
        if path != known.path:
            self._offers_changed(origin)
        if before is best:
            return []
        return [RouteChanged(room=self.room, origin=origin, via=best.peer)]

    def happened(
        self, peer: str, message: Happened, data: Any, consumed: Callable[[], None]
    ) -> list[Output] | None:
        """Take an event; None if it is not the next one that is missing here. Raises OwnWireError."""
        known = self._known.get(message.origin)
        if known is None:
            return None
        if not _follows(message.at, known.origin.log.end):
            self.loops += self._cluster in message.hops
            self._heal(peer, known, message.at)
            return None
        before = known.origin.picture.bytes
        encoded = bytes(message.data)
        self._check_bytes(len(encoded))
        try:
            known.origin.append(message.type, data, encoded, tuple(message.hops))
        except PictureFullError as error:
            raise OwnWireError(OwnCode.LIMIT, f"{message.type}: {error}") from None
        self._bytes += known.origin.picture.bytes - before
        self._grown(message.origin)
        return [self._tell(known.origin, message.type, data, consumed)]

    def replaced(
        self, peer: str, message: Snapshot, picture: Picture, *, whole: bool, consumed: Callable[[], None]
    ) -> list[Output]:
        """Take a state; `whole` if it was asked for because ours differs. Calls `consumed` once."""
        known = self._known.get(message.origin)
        origin = None if known is None else known.origin
        if origin is None or not (message.at > origin.log.end or (whole and message.at == origin.log.end)):
            consumed()
            return []
        grown = picture.bytes - origin.picture.bytes
        self._check_bytes(grown)
        self._bytes += grown
        same = message.at == origin.log.end
        anew = message.at.incarnation != origin.log.incarnation
        changes = origin.adopt(message.at, picture, tuple(message.hops))
        if anew:
            self._offers_changed(message.origin)
        for exchange in self._exchanges.values():
            if same:
                exchange.restate(message.origin)
            else:
                exchange.grown(message.origin)
        return self._tell_state(origin, peer, changes, consumed)

    def compared(self, peer: str, message: Digest) -> list[Output]:
        """Compare our state with the peer's; returns nothing unless ours differs."""
        known = self._known.get(message.origin)
        if known is None or known.origin.log.end != message.at:
            return []
        if known.origin.picture.digest == message.digest:
            return []
        return [Diverged(room=self.room, origin=message.origin, peer=peer, at=message.at)]

    # --- inside: routes ---------------------------------------------------------------------------------

    def _best(self, origin: str, known: _Known | None) -> Exchange | None:
        """Return whom to take an origin from: newest start, shortest path, rather nobody else than before."""
        start = 0 if known is None else known.origin.log.incarnation
        via = None if known is None else known.via
        best: Exchange | None = None
        best_rank: tuple[int, int, bool, str] | None = None
        for exchange in self._exchanges.values():
            offered = exchange.offer_of(origin)
            if offered is None or offered.incarnation < start:
                continue
            rank = (-offered.incarnation, len(offered.path), exchange is not via, exchange.peer)
            if best_rank is None or rank < best_rank:
                best, best_rank = exchange, rank
        return best

    def _lose(self, origin: str, known: _Known, now: float) -> list[Output]:
        before, known.via, known.path = known.via, None, ()
        if before is not None:
            self._leave(before, origin)
            known.lost_at = now
            self._offers_changed(origin)
        for exchange in self._exchanges.values():
            if exchange.offer_of(origin) is not None and exchange.taking(origin) is None:
                exchange.take(origin, known.origin.log.end)  # says that there was a newer start
        return [] if before is None else [RouteChanged(room=self.room, origin=origin, via=None)]

    def _ensure_taken(self, exchange: Exchange, known: _Known) -> None:
        """Have the peer send what follows our log, unless it does so already."""
        end, taking = known.origin.log.end, exchange.taking(known.origin.name)
        offered = exchange.offer_of(known.origin.name)
        if offered is not None and offered.incarnation < known.rumour.incarnation:
            if taking != known.rumour:
                exchange.take(known.origin.name, known.rumour)
        elif taking is None or taking > end or (taking == NOTHING != end):
            exchange.take(known.origin.name, end)

    def _heal(self, peer: str, known: _Known, at: Position) -> None:
        """Ask anew if a run is ahead of our log: the origin was given up and has come back meanwhile."""
        if at > known.origin.log.end:
            exchange = self._exchanges.get(peer)
            if exchange is not None:
                exchange.take(known.origin.name, known.origin.log.end)

    def _leave(self, exchange: Exchange, origin: str) -> None:
        if exchange.taking(origin) is not None:
            exchange.leave(origin)

    def _offers_changed(self, origin: str) -> None:
        for exchange in self._exchanges.values():
            exchange.offer_changed(origin)

    def _grown(self, origin: str) -> None:
        for exchange in self._exchanges.values():
            exchange.grown(origin)

    def _check_bytes(self, grown: int) -> None:
        if grown > 0 and self._bytes + grown > self._settings.max_conference_bytes:
            raise OwnWireError(OwnCode.LIMIT, f"the states of the conference are {self._bytes + grown} bytes")

    # --- inside: our own origin ---------------------------------------------------------------------------

    def _restate_own(self, own: Origin, picture: Picture) -> None:
        """Make what our node says anew follow from what it said before."""
        changes = difference(own.picture, picture)
        if len(changes) > self._settings.log_events // 2:
            own.adopt(Position(own.log.incarnation, own.log.last + 1), picture, ())
            self._grown(self._cluster)
            return
        for change in changes:
            self.publish(change.type, change.data)

    def _surpass(self, position: Position) -> None:
        """Begin a start that is newer than the one that somebody knows."""
        own = self._own
        ours = Position(self._incarnation, 0) if own is None else own.log.end
        if position <= ours:
            return
        self._incarnation = position.incarnation + 1
        if own is not None:
            own.log.reset(Position(self._incarnation, 0))
            self._offers_changed(self._cluster)
            self._grown(self._cluster)

    def _check_size(self, encoded: bytes) -> None:
        if len(encoded) > self._settings.max_message_bytes - ENVELOPE_BYTES:
            raise ValueError(f"{len(encoded)} bytes are more than a message can carry")

    # --- inside: what our node is told ----------------------------------------------------------------------

    def _tell(self, origin: Origin, type_: str, data: Any, consumed: Callable[[], None]) -> Told:
        return Told(
            room=self.room, origin=origin.name, at=origin.log.end, type=type_, data=data, consumed=consumed
        )

    def _initialize(self, origin: Origin, consumed: Callable[[], None]) -> Told:
        return self._tell(origin, "initialize", origin.picture.initialize(), consumed)

    def _tell_state(
        self, origin: Origin, peer: str, changes: list[Change], consumed: Callable[[], None]
    ) -> list[Output]:
        if not origin.told:
            origin.told = True
            return [self._initialize(origin, consumed)]
        outputs: list[Output] = [
            self._tell(origin, change.type, change.data, nothing_to_consume) for change in changes[:-1]
        ]
        if changes:
            outputs.append(self._tell(origin, changes[-1].type, changes[-1].data, consumed))
        else:
            consumed()
        repaired = Repaired(
            room=self.room, origin=origin.name, peer=peer, at=origin.log.end, changes=len(changes)
        )
        return [*outputs, repaired]


def _follows(at: Position, end: Position) -> bool:
    return at.incarnation == end.incarnation and at.seq == end.seq + 1
