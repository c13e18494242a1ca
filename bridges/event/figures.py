"""What the event bridge knows of its links on OWT's wire, per (peer, room), over all streams that had it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict

from bridges.figures import Counters, LinkFigures, PeerFigures, Tally, named, sendable
from bridges.quic.figures import describe_peer, round_trip_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridges.event.delivery import Lag
    from bridges.event.streams import EventStream
    from bridges.figures import Tallies
    from bridges.quic import Connection

__all__ = ["OWT", "Figures", "Standing", "peer_figures"]

OWT: Final = "owt"
"""The wire's name in figures."""


class Standing(TypedDict):
    """How a link is, beside what was counted of it: whether we dial, its stream, why there is none."""

    dials: bool
    current: EventStream | None
    error: str


class Figures:
    """What was refused, and how it is shown together with the tallies, which are the same on every wire."""

    def __init__(self, tallies: Tallies) -> None:
        self.counters: Final = Counters()
        self._tallies = tallies

    def initialized(self, stream: EventStream) -> None:
        """Count a stream whose peer has got our node's state: the link is up."""
        tally = self._tallies.of(stream.peer, stream.room)
        tally.up()
        tally.snapshots += 1

    def ended(self, stream: EventStream, reason: str) -> None:
        """Add what a stream has moved."""
        tally = self._tallies.of(stream.peer, stream.room)
        tally.messages_in += stream.events_in
        tally.messages_out += stream.events_out
        tally.bytes_in += stream.bytes_in
        tally.bytes_out += stream.bytes_out
        tally.down(reason)

    def dropped(self, stream: EventStream) -> None:
        """Count an event that was not delivered: refused by the node, or beyond a limit."""
        self._tallies.of(stream.peer, stream.room).drops += 1

    def forget(self, room: str) -> None:
        """Drop what was counted of a room."""
        self._tallies.forget(room)

    def describe(
        self, peer: str, room: str, *, dials: bool, current: EventStream | None, error: str
    ) -> dict[str, Any]:
        """Return a link's entry of getStats; it is `up` once the peer has got our node's state."""
        tally = self._tallies.get(peer, room) or Tally()
        return {
            "peer": peer,
            "room": room,
            "role": "dialer" if dials else "listener",
            "state": "up" if current is not None and current.initialized else "down",
            "events_in": tally.messages_in + (0 if current is None else current.events_in),
            "events_out": tally.messages_out + (0 if current is None else current.events_out),
            "connects": tally.connects,
            "error": error,
        }

    def link(
        self, peer: str, room: str, *, dials: bool, current: EventStream | None, error: str, lag: Lag
    ) -> LinkFigures:
        """Return a link's figures of this moment."""
        tally = self._tallies.get(peer, room) or Tally()
        moved = _moved(current)
        return LinkFigures(
            kind="event",
            conference=named(room),
            peer=named(peer),
            state="up" if tally.is_up and current is not None else "down",
            since=tally.since,
            role="dialer" if dials else "listener",
            wire="" if current is None else OWT,
            sequence_in=moved.events_in,
            sequence_out=moved.events_out,
            lag_in=lag.events,
            lag_ms=None if lag.seconds is None else 1000 * lag.seconds,
            backlog=0 if current is None else current.backlog,
            messages_in=tally.messages_in + moved.events_in,
            messages_out=tally.messages_out + moved.events_out,
            bytes_in=tally.bytes_in + moved.bytes_in,
            bytes_out=tally.bytes_out + moved.bytes_out,
            drops=tally.drops,
            connects=tally.connects,
            reconnects=tally.reconnects,
            snapshots=tally.snapshots,
            round_trip_ms=None if current is None else round_trip_ms(current.connection),
            error=sendable(error or tally.error),
        )


def peer_figures(streams: Iterable[EventStream]) -> list[PeerFigures]:
    """Return the figures of the connections that carry these streams, by peer."""
    connections: dict[str, dict[Connection, int]] = {}
    for stream in streams:
        of_peer = connections.setdefault(stream.peer, {})
        of_peer[stream.connection] = of_peer.get(stream.connection, 0) + stream.initialized
    return [
        describe_peer("event", peer, OWT, list(of_peer), links=sum(of_peer.values()))
        for peer, of_peer in sorted(connections.items())
    ]


class _Moved(NamedTuple):
    events_in: int = 0
    events_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def _moved(stream: EventStream | None) -> _Moved:
    """Return what a stream has moved that is in no tally yet."""
    if stream is None:
        return _Moved()
    return _Moved(stream.events_in, stream.events_out, stream.bytes_in, stream.bytes_out)
