"""Links that we dial: kept up for as long as they are wanted, several conferences on one connection."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from bridges.codes import CloseCode
from bridges.event.session import EventSession
from bridges.event.streams import EventStream, PeerConnection, StreamOwner
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.quic import ConnectionClosedError, DialError, QuicSettings, TooManyStreamsError, dial
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bridges.event.settings import EventSettings
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode

__all__ = ["Dialler", "Link"]

log = structlog.get_logger(__name__)


class _Address(NamedTuple):
    """What a connection is shared by: cluster, address and certificate."""

    peer: str
    host: str
    port: int
    fingerprint: str | None


class _Slot:
    """A connection that is shared, or being dialled."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.peer: PeerConnection | None = None


class Dialler:
    """The connections that we dialled: one per address, closed when the last link lets go of it."""

    def __init__(self, owner: StreamOwner, settings: EventSettings, quic: QuicSettings) -> None:
        self._owner = owner
        self._settings = settings
        self._quic = quic
        self._slots: dict[_Address, _Slot] = {}

    def __len__(self) -> int:
        return sum(slot.peer is not None and not slot.peer.connection.closed for slot in self._slots.values())

    @asynccontextmanager
    async def connection(self, options: CascadingOptions) -> AsyncIterator[PeerConnection]:
        """Hold the connection to the options' event bridge; raises DialError."""
        assert options.ev_ip is not None
        assert options.ev_port is not None
        address = _Address(options.target_cluster, options.ev_ip, options.ev_port, options.ev_fingerprint)
        slot = self._slots.setdefault(address, _Slot())
        slot.users += 1
        try:
            async with slot.lock:
                if slot.peer is None or slot.peer.connection.closed:
                    slot.peer = await self._dial(address)
            yield slot.peer
        finally:
            slot.users -= 1
            if not slot.users:
                if slot.peer is not None:
                    slot.peer.connection.close(0, "no conference is left")
                del self._slots[address]

    async def _dial(self, address: _Address) -> PeerConnection:
        connection = await dial(
            address.host,
            address.port,
            fingerprint=address.fingerprint,
            settings=self._quic,
            alpn=self._quic.owt_alpn,
        )
        peer = PeerConnection(connection, self._owner, settings=self._settings)
        connection.handler = peer
        return peer


class Link:
    """The wish that `options.room` be cascaded to `options.target_cluster`."""

    def __init__(
        self,
        options: CascadingOptions,
        node: ClusterNode,
        dialler: Dialler,
        settings: EventSettings,
        *,
        current: Callable[[str, str], EventStream | None],
        node_up: Callable[[], Awaitable[Any]],
        failed: Callable[[], None],
    ) -> None:
        self.options = options
        self.error = ""
        """Why there is no stream, or why the last one ended."""
        self._node = node
        self._dialler = dialler
        self._settings = settings
        self._current = current
        self._node_up = node_up
        self._failed = failed
        self._backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Dial now instead of waiting for the next try: there is reason to think that it succeeds."""
        self._backoff.reset()
        self._hurry.set()

    async def run(self) -> None:
        """Keep the link up until cancelled, or until our own cluster says that the room is gone."""
        options = self.options
        while True:
            await self._node_up()
            other = self._current(options.target_cluster, options.room)
            if other is not None:
                # The peer dialled us for the same conference: one stream is enough.
                await other.wait_ended()
                continue
            try:
                await self._hold()
            except RpcError as error:
                self.error = str(error)
                log.info("link.room_gone", peer=options.target_cluster, room=options.room, error=self.error)
                return
            except (DialError, TooManyStreamsError, ConnectionClosedError, NodeUnreachableError) as error:
                self.error = str(error)
            log.info("link.down", peer=options.target_cluster, room=options.room, error=self.error)
            self._failed()
            await self._pause()

    async def _hold(self) -> None:
        """Open a stream and wait for its end."""
        options = self.options
        node = await self._node.find_conference_node(options.room)
        async with self._dialler.connection(options) as peer:
            session = EventSession.dialer(
                cluster=options.self_cluster,
                room=options.room,
                token=options.token,
                max_event_bytes=self._settings.max_event_bytes,
                max_hello_bytes=self._settings.max_hello_bytes,
            )
            loop = asyncio.get_running_loop()
            began = loop.time()
            stream = peer.open(session, peer=options.target_cluster, room=options.room, node=node)
            try:
                self.error = await stream.wait_ended()
            finally:
                stream.give_up(CloseCode.NOT_WANTED, "the link is not wanted any more")
            if stream.initialized and loop.time() - began >= self._settings.stable_after:
                self._backoff.reset()

    async def _pause(self) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(self._backoff.next_delay()):
                await self._hurry.wait()
        except TimeoutError:
            return
