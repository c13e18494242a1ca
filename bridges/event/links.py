"""Links that we dial: kept up for as long as they are wanted, on whichever wire the peer speaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from bridges.codes import CloseCode
from bridges.event.own.link import OwnConnection
from bridges.event.session import EventSession
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.quic import ConnectionClosedError, DialError, TooManyStreamsError
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bridges.event.own.channel import OwnChannel
    from bridges.event.own.wire import OwnWire
    from bridges.event.pool import Dialler
    from bridges.event.settings import EventSettings
    from bridges.event.streams import EventStream, PeerConnection
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode

__all__ = ["Link"]

log = structlog.get_logger(__name__)


class Link:
    """The wish that `options.room` be cascaded to `options.target_cluster`."""

    def __init__(
        self,
        options: CascadingOptions,
        node: ClusterNode,
        dialler: Dialler,
        own: OwnWire,
        settings: EventSettings,
        *,
        current: Callable[[str, str], EventStream | OwnChannel | None],
        node_up: Callable[[], Awaitable[Any]],
        failed: Callable[[], None],
    ) -> None:
        self.options = options
        self.error = ""
        """Why there is no stream, or why the last one ended."""
        self._node = node
        self._dialler = dialler
        self._own = own
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
        """Have the conference carried, and wait for the end of that."""
        options = self.options
        node = self._own.node_of(options.room) or await self._node.find_conference_node(options.room)
        async with self._dialler.connection(options) as carrier:
            loop = asyncio.get_running_loop()
            began = loop.time()
            held: EventStream | OwnChannel
            stable_after = self._settings.stable_after
            if isinstance(carrier, OwnConnection):
                stable_after = self._settings.own.stable_after
                held = await self._own.open(carrier, options, node)
            else:
                held = self._open(carrier, node)
            try:
                self.error = await held.wait_ended()
            finally:
                held.give_up(CloseCode.NOT_WANTED, "the link is not wanted any more")
            if held.initialized and loop.time() - began >= stable_after:
                self._backoff.reset()

    def _open(self, carrier: PeerConnection, node: str) -> EventStream:
        """Open a stream for the conference, on OWT's wire."""
        options = self.options
        session = EventSession.dialer(
            cluster=options.self_cluster,
            room=options.room,
            token=options.token,
            max_event_bytes=self._settings.max_event_bytes,
            max_hello_bytes=self._settings.max_hello_bytes,
        )
        return carrier.open(session, peer=options.target_cluster, room=options.room, node=node)

    async def _pause(self) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(self._backoff.next_delay()):
                await self._hurry.wait()
        except TimeoutError:
            return
