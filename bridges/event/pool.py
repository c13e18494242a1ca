"""The connections that we dialled: as many for each peer as its conferences need.

Which wire is spoken the two ends agree on when they shake hands. On ours one connection carries everything.
On OWT's each conference is a stream: a QUIC stack lets a peer open some hundred of them on one connection,
and what a packet costs grows with the streams that are open. So a connection carries a limited number of
conferences, and the next one goes on a further connection. Until one connection has shown which wire it is,
the others wait. Which conferences there are, and when a lost one is tried again, is not known here.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import structlog

from bridges.event.own.link import OwnConnection
from bridges.event.streams import PeerConnection
from bridges.quic import DialError, TooManyStreamsError, dial
from bridges.quic.settings import OWN_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from bridges.event.own.wire import OwnWire
    from bridges.event.settings import EventSettings
    from bridges.event.streams import StreamOwner
    from bridges.node.cascading import CascadingOptions
    from bridges.quic import QuicSettings
    from bridges.quic.pump import Count

__all__ = ["Carrier", "Dialler"]

Carrier: TypeAlias = PeerConnection | OwnConnection
"""A connection, on whichever wire."""

log = structlog.get_logger(__name__)

_DIALS_AT_ONCE: Final = 8
"""Handshakes under way with one address: more would only wait for each other."""


class _Address(NamedTuple):
    """What connections are shared by: cluster, address and certificate."""

    peer: str
    host: str
    port: int
    fingerprint: str | None


class _Carrier:
    """A connection, or one that is being dialled, with the places on it that are taken."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.made_at = asyncio.get_running_loop().time()
        self.ready: asyncio.Future[Carrier] = asyncio.get_running_loop().create_future()

    @property
    def peer(self) -> Carrier | None:
        """The connection, once there is one."""
        ready = self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None
        return self.ready.result() if ready else None

    @property
    def closed(self) -> bool:
        """Whether the connection is gone, or never came about."""
        return self.ready.done() and (self.peer is None or self.peer.connection.closed)

    @property
    def has_room(self) -> bool:
        """Whether one more conference may go on it."""
        return self.taken < self.places and not self.closed

    def fail(self, error: DialError) -> None:
        """Tell everybody who waits for the connection that there will be none."""
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # nobody may be waiting, which is no mistake


class _Pool:
    """The carriers to one address."""

    def __init__(self) -> None:
        self.carriers: list[_Carrier] = []
        self.users = 0
        self.first = asyncio.Lock()
        """Held by who finds out which wire the peer speaks."""
        self.dials = asyncio.Semaphore(_DIALS_AT_ONCE)
        self.failed_at = float("-inf")
        self.failure = ""

    @property
    def wire_known(self) -> bool:
        """Whether there is a connection that shows which wire the peer speaks."""
        return any(one.peer is not None and not one.closed for one in self.carriers)


class Dialler:
    """The connections that we dialled: each closed when the last conference lets go of it.

    `count` is called with the name of whatever their sockets lose.
    """

    def __init__(
        self, owner: StreamOwner, own: OwnWire, settings: EventSettings, quic: QuicSettings, *, count: Count
    ) -> None:
        self._own = own
        self._count = count
        self._owner = owner
        self._settings = settings
        self._quic = quic
        self._pools: dict[_Address, _Pool] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self.connections())

    def connections(self) -> Iterator[Carrier]:
        """Return the connections that there are."""
        for pool in self._pools.values():
            for carrier in pool.carriers:
                if carrier.peer is not None and not carrier.closed:
                    yield carrier.peer

    @asynccontextmanager
    async def connection(self, options: CascadingOptions) -> AsyncIterator[Carrier]:
        """Hold a place on a connection to the options' event bridge.

        Raises DialError, and TooManyStreamsError when the peer has as many connections as it may have.
        """
        assert options.ev_ip is not None
        assert options.ev_port is not None
        address = _Address(options.target_cluster, options.ev_ip, options.ev_port, options.ev_fingerprint)
        pool = self._pools.setdefault(address, _Pool())
        pool.users += 1
        try:
            async with self._place(address, pool) as carrier:
                yield await asyncio.shield(carrier.ready)  # one that is called off takes nobody along
        finally:
            pool.users -= 1
            if not pool.users and self._pools.get(address) is pool:
                del self._pools[address]

    @asynccontextmanager
    async def _place(self, address: _Address, pool: _Pool) -> AsyncIterator[_Carrier]:
        """Hold a place on a carrier, which is dialled for it if there is none with room."""
        began = asyncio.get_running_loop().time()
        async with AsyncExitStack() as finding_out:
            if not pool.wire_known:
                await finding_out.enter_async_context(pool.first)
            if pool.failed_at > began:  # what failed while we waited would fail again
                raise DialError(pool.failure)
            carrier = next((one for one in pool.carriers if one.has_room), None)
            made = carrier is None
            if carrier is None:
                carrier = self._add(pool)
            carrier.taken += 1
            try:
                if made:
                    await self._dial(address, pool, carrier)
            except BaseException:
                self._let_go(pool, carrier)
                raise
        try:
            yield carrier
        except TooManyStreamsError:
            # The peer takes fewer than we thought: from now on this connection is full.
            carrier.places = min(carrier.places, carrier.taken - 1)
            raise
        finally:
            self._let_go(pool, carrier)

    def _add(self, pool: _Pool) -> _Carrier:
        alive = [one for one in pool.carriers if not one.closed]
        if len(alive) >= self._settings.connections_per_peer:
            raise TooManyStreamsError(f"there are {len(alive)} connections to this peer, and all are full")
        carrier = _Carrier(min(self._settings.conferences_per_connection, self._quic.max_streams))
        pool.carriers.append(carrier)
        return carrier

    def _let_go(self, pool: _Pool, carrier: _Carrier) -> None:
        carrier.taken -= 1
        if carrier.taken:
            return
        pool.carriers.remove(carrier)
        if carrier.peer is not None:
            carrier.peer.connection.close(0, "no conference is left")

    async def _dial(self, address: _Address, pool: _Pool, carrier: _Carrier) -> None:
        """Make the carrier's connection; whoever waits for it, the caller too, hears how it went."""
        try:
            async with pool.dials:
                carrier.ready.set_result(await self._connect(address, pool, carrier))
        except DialError as error:
            carrier.fail(error)
        finally:
            carrier.fail(DialError("the dial was called off"))

    async def _connect(self, address: _Address, pool: _Pool, carrier: _Carrier) -> Carrier:
        if pool.failed_at > carrier.made_at:  # what failed while we waited would fail again
            raise DialError(pool.failure)
        try:
            connection = await dial(
                address.host,
                address.port,
                fingerprint=address.fingerprint,
                settings=self._quic,
                alpn=self._quic.alpn,
                count=self._count,
            )
            if connection.protocol == OWN_PROTOCOL:
                own = self._own.take(connection, address.peer)
                connection.handler = own
                await own.greeted()
                carrier.places = sys.maxsize  # the connection says itself when it takes no more
                return own
        except DialError as error:
            pool.failed_at, pool.failure = asyncio.get_running_loop().time(), str(error)
            raise
        peer = PeerConnection(connection, self._owner, settings=self._settings)
        peer.let_in(address.peer)
        connection.handler = peer
        return peer
