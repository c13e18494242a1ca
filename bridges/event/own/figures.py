"""What is known of the links on our own wire, per (peer, room), over all connections that carried them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridges.event.own.conversation import Role
from bridges.event.own.exchange import ChannelFigures
from bridges.figures import LinkFigures, OriginFigures, PeerFigures, Tally, named, sendable
from bridges.quic.figures import describe_peer
from causeway.api.figures import MAX_ORIGINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridges.event.own.channel import OwnChannel
    from bridges.event.own.link import OwnConnection
    from bridges.figures import Tallies

__all__ = ["OWN", "Figures"]

OWN: Final = "causeway/1"
"""The wire's name in figures."""

_NOTHING: Final = ChannelFigures(
    room="",
    channel=0,
    lane=0,
    open=False,
    events_in=0,
    events_out=0,
    bytes_in=0,
    bytes_out=0,
    duplicates=0,
    resumes=0,
    snapshots_in=0,
    snapshots_out=0,
    divergences=0,
    owed=0,
    unconsumed_bytes=0,
    sent={},
)
"""Of a channel that is gone by now: what it moved is in the tally."""


class Figures:
    """How the tallies, which are the same on every wire, are shown together with what is counted now."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def up(self, channel: OwnChannel) -> None:
        """Note that a link is up: the peer can have our node's state. May be said again of a channel."""
        tally = self._tallies.of(channel.peer, channel.room.name)
        if not (tally.is_up and channel.counted):
            tally.up()
        channel.counted = True

    def down(self, peer: str, room: str, reason: str) -> None:
        """Note that a link is down, and why."""
        self._tallies.of(peer, room).down(reason)

    def diverged(self, peer: str, room: str) -> None:
        """Count a state that differed."""
        self._tallies.of(peer, room).divergences += 1

    def ended(self, peer: str, room: str, moved: ChannelFigures) -> None:
        """Add what a connection has counted of a link that it carries no more."""
        tally = self._tallies.of(peer, room)
        tally.messages_in += moved.events_in
        tally.messages_out += moved.events_out
        tally.bytes_in += moved.bytes_in
        tally.bytes_out += moved.bytes_out
        tally.duplicates += moved.duplicates
        tally.resumes += moved.resumes
        tally.snapshots += moved.snapshots_in + moved.snapshots_out

    def forget(self, room: str) -> None:
        """Drop what was counted of a room."""
        self._tallies.forget(room)

    def link(self, channel: OwnChannel) -> LinkFigures:
        """Return the figures of what is carried."""
        peer, room = channel.peer, channel.room.name
        tally = self._tallies.get(peer, room) or Tally()
        moved = channel.connection.figures(channel.number) or _NOTHING
        origins = channel.room.relay.origins()
        measured = channel.connection.round_trip
        waits = channel.room.oldest_waits
        return LinkFigures(
            kind="event",
            conference=named(room),
            peer=named(peer),
            state="up" if tally.is_up else "down",
            since=tally.since,
            role=channel.role.name.lower(),
            wire=OWN,
            sequence_in=max((each.at.seq for each in origins if each.origin == peer), default=0),
            sequence_out=max((each.at.seq for each in origins if not each.path), default=0),
            origins=[
                OriginFigures(
                    origin=named(each.origin),
                    incarnation=f"{each.at.incarnation:x}",
                    seq=each.at.seq,
                    told=moved.sent.get(each.origin, 0),
                    hops=len(each.path),
                )
                for each in origins[:MAX_ORIGINS]
            ],
            lag_in=channel.room.waiting,
            lag_out=moved.owed,
            lag_ms=None if waits is None else 1000 * waits,
            messages_in=tally.messages_in + moved.events_in,
            messages_out=tally.messages_out + moved.events_out,
            bytes_in=tally.bytes_in + moved.bytes_in,
            bytes_out=tally.bytes_out + moved.bytes_out,
            drops=tally.drops + channel.room.rejected,
            duplicates=tally.duplicates + moved.duplicates,
            connects=tally.connects,
            reconnects=tally.reconnects,
            resumes=tally.resumes + moved.resumes,
            snapshots=tally.snapshots + moved.snapshots_in + moved.snapshots_out,
            divergences=tally.divergences,
            round_trip_ms=None if measured is None else 1000 * measured.seconds,
            error=sendable(tally.error),
        )

    def peers(
        self, channels: Iterable[OwnChannel], connections: Iterable[OwnConnection]
    ) -> list[PeerFigures]:
        """Return the figures of the connections, by peer."""
        up: dict[str, int] = {}
        for channel in channels:
            up[channel.peer] = up.get(channel.peer, 0) + channel.up
        by_peer: dict[str, list[OwnConnection]] = {}
        for each in connections:
            if each.peer and not each.closed:
                by_peer.setdefault(each.peer, []).append(each)
        return [
            describe_peer("event", peer, OWN, [each.connection for each in of_peer], links=up.get(peer, 0))
            for peer, of_peer in sorted(by_peer.items())
        ]

    def describe(self, channels: Mapping[tuple[str, str], OwnChannel]) -> list[dict[str, Any]]:
        """Return an entry of getStats for each link that is carried."""
        entries = []
        for (peer, room), channel in sorted(channels.items()):
            tally = self._tallies.get(peer, room) or Tally()
            moved = channel.connection.figures(channel.number) or _NOTHING
            entries.append(
                {
                    "peer": peer,
                    "room": room,
                    "role": "dialer" if channel.role is Role.DIALER else "listener",
                    "state": "up" if channel.up else "down",
                    "events_in": tally.messages_in + moved.events_in,
                    "events_out": tally.messages_out + moved.events_out,
                    "connects": tally.connects,
                    "error": "",
                }
            )
        return entries
