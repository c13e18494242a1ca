"""Bridges and the connections between them: who is really linked with whom.

A bridge keeps up what it was told to dial, redialling by itself, until it is told to stop or its own room is
closed. It takes a peer that presents the room's token. One connection per peer and conference: a new one
replaces the old one. A peer that is gone is noticed after the idle timeout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from bench._simulation.kernel import Event, Future
from bench._simulation.rows import Address
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from bench._simulation.kernel import Host, Kernel
    from bench._simulation.network import Network

__all__ = ["Bridge", "Connection", "Rooms", "Wire"]

LinkNews: TypeAlias = Literal["up", "down", "gone"]
_IDLE: Final = 3.0


class Rooms(Protocol):
    """What a bridge knows of its cluster."""

    name: str

    def token_of(self, conference: str) -> str | None:
        """Return the token of a room that runs, else None."""


@dataclass(eq=False, slots=True)
class Connection:
    """A conference's connection between two bridges; the first one dialled."""

    conference: str
    dialer: Bridge
    listener: Bridge
    ended: Event = field(default_factory=Event)
    alive: bool = True

    def other(self, bridge: Bridge) -> Bridge:
        """Return the other end."""
        return self.listener if bridge is self.dialer else self.dialer


@dataclass(slots=True)
class _Dial:
    token: str
    address: Address
    end: Callable[[], None] = lambda: None


class Bridge:
    """One start of a bridge."""

    def __init__(
        self,
        wire: Wire,
        rooms: Rooms,
        host: Host,
        address: Address,
        tell: Callable[[str, str, LinkNews], None],
    ) -> None:
        """`tell` is called with conference, peer and what is new of their link."""
        self._wire = wire
        self._tell = tell
        self._dials: dict[tuple[str, str], _Dial] = {}
        self.rooms = rooms
        self.host = host
        self.address = address
        self.connections: dict[tuple[str, str], Connection] = {}

    @property
    def cluster(self) -> str:
        """Whose bridge it is."""
        return self.rooms.name

    def start(self, conference: str, peer: str, token: str, address: Address) -> None:
        """Connect and stay connected. An order that is known already changes nothing."""
        known = self._dials.get((conference, peer))
        if known is not None and (known.token, known.address) == (token, address):
            return
        if known is not None:
            self.stop(conference, peer)
        dial = self._dials[conference, peer] = _Dial(token, address)
        dial.end = self.host.spawn(self._hold(conference, peer, dial))

    def stop(self, conference: str, peer: str) -> None:
        """Want that no more; what the peer dialled stays."""
        dial = self._dials.pop((conference, peer), None)
        if dial is not None:
            dial.end()
        connection = self.connections.get((conference, peer))
        if connection is not None and connection.dialer is self:
            self._wire.close(connection)

    def room_closed(self, conference: str) -> None:
        """End everything of a room that runs no more."""
        for where, peer in [key for key in self._dials if key[0] == conference]:
            self._dials.pop((where, peer)).end()
            self._tell(conference, peer, "gone")
        for key in [key for key in self.connections if key[0] == conference]:
            self._wire.close(self.connections[key])

    def die(self) -> None:
        """Stop without a word."""
        self.host.kill()
        for connection in list(self.connections.values()):
            self._wire.lose(connection)

    async def _hold(self, conference: str, peer: str, dial: _Dial) -> None:
        backoff = Backoff(base=0.2, cap=5.0, uniform=self._wire.chance.uniform)
        while True:
            if self.rooms.token_of(conference) is None:
                del self._dials[conference, peer]
                self._tell(conference, peer, "gone")
                return
            there = self.connections.get((conference, peer))
            if there is None or not there.alive:
                there = await self._wire.connect(self, conference, dial.token, dial.address)
            if there is None:
                self._tell(conference, peer, "down")
            else:
                backoff.reset()
                await there.ended.wait()
            await self._wire.sleep(backoff.next_delay())

    def attach(self, connection: Connection) -> None:
        """Take a connection, in place of any other of the same conference and peer."""
        peer = connection.other(self).cluster
        before = self.connections.get((connection.conference, peer))
        if before is not None:
            self._wire.close(before)
        self.connections[connection.conference, peer] = connection
        self._tell(connection.conference, peer, "up")

    def detach(self, connection: Connection) -> None:
        """Notice that a connection is no more."""
        peer = connection.other(self).cluster
        if self.host.alive and self.connections.get((connection.conference, peer)) is connection:
            del self.connections[connection.conference, peer]
            self._tell(connection.conference, peer, "down")
        if connection.dialer is self:
            connection.ended.set()


class Wire:
    """All connections, and the bridges by their addresses."""

    def __init__(self, kernel: Kernel, network: Network, chance: Random) -> None:
        self._kernel = kernel
        self._network = network
        self.chance = chance
        self._bridges: dict[Address, Bridge] = {}
        self._connections: list[Connection] = []
        self._starts = 0

    @property
    def connections(self) -> list[Connection]:
        """Those that work."""
        self._connections = [each for each in self._connections if each.alive]
        return self._connections

    def open(self, rooms: Rooms, host: Host, tell: Callable[[str, str, LinkNews], None]) -> Bridge:
        """Start a bridge; no two starts have the same address."""
        self._starts += 1
        bridge = Bridge(self, rooms, host, Address(rooms.name, self._starts), tell)
        self._bridges[bridge.address] = bridge
        return bridge

    def sleep(self, seconds: float) -> Future[None]:
        """Return what is known after that time."""
        return self._kernel.sleep(seconds)

    async def connect(self, near: Bridge, conference: str, token: str, address: Address) -> Connection | None:
        """Return a connection if the bridge at the address is there and takes the token."""
        await self._kernel.sleep(3 * self._network.delay())
        far = self._bridges.get(address)
        if far is None or not far.host.alive or not self._network.passes(near.cluster, far.cluster):
            await self._kernel.sleep(_IDLE)
            return None
        if far.rooms.token_of(conference) != token or near.rooms.token_of(conference) is None:
            return None
        connection = Connection(conference, near, far)
        self._connections.append(connection)
        far.attach(connection)
        near.attach(connection)
        return connection

    def close(self, connection: Connection) -> None:
        """End a connection; the ends notice at once."""
        if connection.alive:
            connection.alive = False
            connection.dialer.detach(connection)
            connection.listener.detach(connection)

    def lose(self, connection: Connection) -> None:
        """End a connection without a word; those ends that are left notice after a while."""
        if connection.alive:
            connection.alive = False
            self._kernel.later(_IDLE, lambda: connection.dialer.detach(connection))
            self._kernel.later(_IDLE, lambda: connection.listener.detach(connection))

    def cut(self, one: str, other: str) -> None:
        """Lose every connection between two clusters."""
        for connection in self.connections:
            if {connection.dialer.cluster, connection.listener.cluster} == {one, other}:
                self.lose(connection)
