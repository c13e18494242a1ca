"""What the media bridge knows of its links, per (peer, room), over all connections and tracks of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.figures import Counters, LinkFigures, PeerFigures, Tallies, Tally, named, sendable
from bridges.media.carriage import Carried
from bridges.quic.figures import describe_peer, round_trip_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bridges.media.connection import MediaConnection

__all__ = ["Figures", "Moved", "peer_figures"]


class Moved(NamedTuple):
    """What a track has moved: it came from the peer (`incoming`), or went there."""

    incoming: bool
    frames: int
    bytes: int
    dropped: int
    waiting: int = 0
    """Bytes of it that wait in our own cluster now."""
    slowed: bool = False
    """Whether its source is asked for less now."""


class Figures:
    """The tallies by (peer, room), what was refused, and how both are shown."""

    def __init__(self, *, max_entries: int) -> None:
        self.counters: Final = Counters()
        self._tallies = Tallies(max_entries=max_entries)

    def came_up(self, peer: str, room: str) -> None:
        """Count a connection over which tracks may be pulled."""
        self._tallies.of(peer, room).up()

    def went_down(self, peer: str, room: str, reason: str) -> None:
        """Note that a link has no connection any more, and why."""
        self._tallies.of(peer, room).down(reason)

    def track_ended(self, peer: str, room: str, moved: Moved) -> None:
        """Add what a track has moved."""
        tally = self._tallies.of(peer, room)
        if moved.incoming:
            tally.messages_in += moved.frames
            tally.bytes_in += moved.bytes
        else:
            tally.messages_out += moved.frames
            tally.bytes_out += moved.bytes
        tally.drops += moved.dropped

    def connection_ended(self, peer: str, room: str, carried: Carried) -> None:
        """Add what became of a connection's datagrams."""
        tally = self._tallies.of(peer, room)
        tally.datagrams_lost += carried.datagrams_lost
        tally.datagrams_repeated += carried.datagrams_repeated
        tally.datagrams_parity += carried.datagrams_parity
        tally.datagrams_recovered += carried.datagrams_recovered

    def forget(self, room: str) -> None:
        """Drop what was counted of a room."""
        self._tallies.forget(room)

    def link(
        self,
        peer: str,
        room: str,
        *,
        dials: bool,
        current: MediaConnection | None,
        tracks: Sequence[Moved],
        error: str,
    ) -> LinkFigures:
        """Return a link's figures of this moment; `tracks` are those that there are now."""
        tally = self._tallies.get(peer, room) or Tally()
        carried = Carried() if current is None else current.carried()
        incoming = [each for each in tracks if each.incoming]
        outgoing = [each for each in tracks if not each.incoming]
        return LinkFigures(
            kind="media",
            conference=named(room),
            peer=named(peer),
            state="up" if current is not None else "down",
            since=tally.since,
            role="dialer" if dials else "listener",
            wire="" if current is None else current.wire,
            backlog=0 if current is None else current.backlog,
            messages_in=tally.messages_in + sum(each.frames for each in incoming),
            messages_out=tally.messages_out + sum(each.frames for each in outgoing),
            bytes_in=tally.bytes_in + sum(each.bytes for each in incoming),
            bytes_out=tally.bytes_out + sum(each.bytes for each in outgoing),
            drops=tally.drops + sum(each.dropped for each in tracks),
            tracks_in=len(incoming),
            tracks_out=len(outgoing),
            connects=tally.connects,
            reconnects=tally.reconnects,
            datagrams_lost=tally.datagrams_lost + carried.datagrams_lost,
            datagrams_repeated=tally.datagrams_repeated + carried.datagrams_repeated,
            datagrams_parity=tally.datagrams_parity + carried.datagrams_parity,
            datagrams_recovered=tally.datagrams_recovered + carried.datagrams_recovered,
            queued_bytes=carried.queued_bytes,
            held_bytes=carried.held_bytes,
            internal_bytes=sum(each.waiting for each in incoming),
            tracks_slowed=sum(each.slowed for each in outgoing),
            round_trip_ms=None if current is None else round_trip_ms(current.quic),
            error=sendable(error or tally.error),
        )


def peer_figures(connections: Iterable[MediaConnection]) -> list[PeerFigures]:
    """Return the figures of connections that are up, by peer and wire."""
    by_peer: dict[tuple[str, str], list[MediaConnection]] = {}
    for each in connections:
        by_peer.setdefault((each.peer, each.wire), []).append(each)
    return [
        describe_peer("media", peer, wire, [each.quic for each in of_peer], links=len(of_peer))
        for (peer, wire), of_peer in sorted(by_peer.items())
    ]
