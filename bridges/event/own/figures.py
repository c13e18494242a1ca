"""What is known of the links on our own wire, per (peer, room), over all connections that carried them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridges.event.own.conversation import Role
from bridges.figures import LinkFigures, OriginFigures, PeerFigures, Tally, sendable
from bridges.quic.figures import describe_peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bridges.event.own.conversation import ChannelFigures
    from bridges.event.own.link import OwnConnection
    from bridges.event.own.wire import OwnChannel
    from bridges.figures import Tallies

__all__ = ["OWN", "Figures"]

OWN: Final = "causeway/1"
"""The wire's name in figures."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """What a connection has counted of a link, and is in no tally yet."""

    now: ChannelFigures | None

    def __getattr__(self, name: str) -> int:
        return 0 if self.now is None else int(getattr(self.now, name))


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

    def links(self, channels: Mapping[tuple[str, str], OwnChannel]) -> Iterator[LinkFigures]:
        """Yield the figures of what is carried."""
        counted = _counted(channels.values())
        for (peer, room), channel in sorted(channels.items()):
            tally = self._tallies.get(peer, room) or Tally()
            now = counted.get((channel.connection, channel.number))
            moved = _Moved(now)
            sent: Mapping[str, int] = {} if now is None else now.sent
            origins = channel.room.relay.origins()
            measured = channel.connection.round_trip
            yield LinkFigures(
                kind="event",
                conference=room,
                peer=peer,
                state="up" if tally.is_up else "down",
                since=tally.since,
                role=channel.role.name.lower(),
                wire=OWN,
                sequence_in=max((each.at.seq for each in origins if each.origin == peer), default=0),
                sequence_out=max((each.at.seq for each in origins if not each.path), default=0),
                origins=[
                    OriginFigures(
                        origin=each.origin,
                        incarnation=f"{each.at.incarnation:x}",
                        seq=each.at.seq,
                        told=sent.get(each.origin, 0),
                        hops=len(each.path),
                    )
                    for each in origins
                ],
                lag_in=channel.room.waiting,
                lag_out=moved.owed,
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
        counted = _counted(channels.values())
        entries = []
        for (peer, room), channel in sorted(channels.items()):
            tally = self._tallies.get(peer, room) or Tally()
            moved = _Moved(counted.get((channel.connection, channel.number)))
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


def _counted(channels: Iterable[OwnChannel]) -> dict[tuple[OwnConnection, int], ChannelFigures]:
    """Return what the connections of these channels have counted, by connection and channel."""
    connections = {channel.connection for channel in channels}
    return {(each, figures.channel): figures for each in connections for figures in each.figures()}
