"""What our conference nodes are told of the peers: one call after the other per (peer, room).

Performs the orders of bridges.event.table. A node that does not take an event in time costs the stream,
so that a new one brings the whole state; a disconnection is told until the node has heard it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from bridges.codes import CloseCode
from bridges.event.table import Announce, Deliver, SessionTable, Withdraw
from bridges.node.port import NodeUnreachableError, RpcError
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bridges.event.settings import EventSettings
    from bridges.event.streams import EventStream
    from bridges.event.table import Feed, Order
    from bridges.node.port import ClusterNode
    from bridges.trail import Step
    from bridges.wire.messages import Event

__all__ = ["Delivery", "Lag"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """An event on its way to the node: its number on the stream, and when it came (the loop's clock)."""

    event: Event
    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the node is behind: events that it has not answered, and the oldest one's age in seconds."""

    events: int = 0
    seconds: float | None = None


class Delivery:
    """The way from peers' streams to the conference nodes.

    `spawn` starts a task that is waited for by whoever runs the bridge; `room_gone` is called when a node
    says that there is no such room (any more), `dropped` for each event that the node will never take.
    """

    def __init__(
        self,
        node: ClusterNode,
        settings: EventSettings,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        room_gone: Callable[[str], None],
        dropped: Callable[[EventStream], None],
    ) -> None:
        self.table: SessionTable[EventStream] = SessionTable(max_queued=settings.max_queued_events)
        self.overflows = 0
        """Streams that were given up because too many events waited for the node."""
        self.rejected = 0
        """Events that a node refused."""
        self._node = node
        self._settings = settings
        self._spawn = spawn
        self._room_gone = room_gone
        self._dropped = dropped
        self._connected = False
        self._working: set[tuple[str, str]] = set()
        self._under_way: dict[tuple[str, str], _Arrived] = {}
        """What the node is being told right now."""

    # --- what streams do ------------------------------------------------------------------------

    def streams_of(self, node: str) -> list[EventStream]:
        """Return the current streams of the conferences that a node has."""
        return [stream for stream in self.table.sessions() if stream.node == node]

    def begin(self, stream: EventStream) -> None:
        """Announce a stream that has opened; it supersedes the one before it."""
        if not self._connected:
            stream.give_up(CloseCode.NODE_LOST, "our cluster is not connected")
            return
        superseded = self.table.feed(stream.peer, stream.room).begin(stream)
        if superseded is not None:
            superseded.give_up(CloseCode.SUPERSEDED, "a newer stream took its place")
        self._work(stream.peer, stream.room)

    def event(self, stream: EventStream, event: Event) -> None:
        """Hand on an event that has just come, or give the stream up when too many wait."""
        arrived = _Arrived(event, stream.events_in, asyncio.get_running_loop().time())
        if self.table.feed(stream.peer, stream.room).event(stream, arrived):
            self._work(stream.peer, stream.room)
            return
        self.overflows += 1
        self._dropped(stream)
        stream.trace("dropped", event, stream.events_in, ours=False)
        stream.give_up(CloseCode.TOO_SLOW, "the conference node does not take the events")

    def end(self, stream: EventStream) -> None:
        """Withdraw a stream that has ended."""
        if self.table.current(stream.peer, stream.room) is stream:
            self.table.feed(stream.peer, stream.room).end(stream)
            self._work(stream.peer, stream.room)

    def forget(self, stream: EventStream) -> None:
        """Tell the stream's node nothing more: it is gone."""
        self.table.feed(stream.peer, stream.room).forget()

    def lag(self, peer: str, room: str) -> Lag:
        """Return how far the node is behind with a peer's events."""
        waiting: list[_Arrived] = []
        if (peer, room) in self._under_way:
            waiting.append(self._under_way[peer, room])
        feed = self.table.find(peer, room)
        if feed is not None:
            waiting += feed.waiting()
        if not waiting:
            return Lag()
        return Lag(len(waiting), asyncio.get_running_loop().time() - waiting[0].at)

    # --- what the cluster does ------------------------------------------------------------------

    def node_connected(self) -> None:
        """Begin to tell the nodes what happens."""
        self._connected = True

    def node_lost(self) -> None:
        """Drop what waits: the nodes have removed everything that came from us."""
        self._connected = False
        for _, feed in self.table:
            feed.forget()

    # --- inside ---------------------------------------------------------------------------------

    def _work(self, peer: str, room: str) -> None:
        """Have the orders performed, or dropped while there is nobody to tell."""
        key = (peer, room)
        if not self._connected:
            self.table.feed(peer, room).forget()
            self.table.tidy(peer, room)
            return
        if key not in self._working:
            self._working.add(key)
            self._spawn(self._perform_all(key, self.table.feed(peer, room)))

    async def _perform_all(self, key: tuple[str, str], feed: Feed[EventStream]) -> None:
        try:
            while (order := feed.take()) is not None:
                await self._perform(key, order)
        finally:
            self._working.discard(key)
            self.table.tidy(*key)

    async def _perform(self, key: tuple[str, str], order: Order[EventStream]) -> None:
        stream = order.session
        try:
            match order:
                case Announce():
                    await self._call(
                        stream, "onCascadingConnected", [self._node.worker_id, stream.session, stream.stream]
                    )
                case Deliver(event=arrived):
                    await self._deliver(key, stream, arrived)
                case Withdraw():
                    await self._withdraw(key[0], stream)
        except NodeUnreachableError as error:
            stream.give_up(CloseCode.NODE_LOST, f"the conference node does not answer: {error}")
        except RpcError as error:
            await self._refused(stream, order, str(error))

    async def _deliver(self, key: tuple[str, str], stream: EventStream, arrived: _Arrived) -> None:
        event = arrived.event
        outcome: Step = "dropped"
        self._under_way[key] = arrived
        try:
            await self._tell(key[0], stream, {"type": event.type, "data": event.data})
            outcome = "told"
        except RpcError:
            outcome = "refused"
            raise
        finally:
            del self._under_way[key]
            stream.trace(outcome, event, arrived.number, ours=False)

    async def _refused(self, stream: EventStream, order: Order[EventStream], reason: str) -> None:
        """Find out what a refusal means: the room is gone, lives elsewhere, or it was the event's fault."""
        log.warning("event.refused_by_node", peer=stream.peer, room=stream.room, reason=reason)
        try:
            node = await self._node.find_conference_node(stream.room)
        except RpcError:
            self._room_gone(stream.room)
            return
        except NodeUnreachableError as error:
            stream.give_up(CloseCode.NODE_LOST, f"the conference node does not answer: {error}")
            return
        if node == stream.node and isinstance(order, Deliver):
            self.rejected += 1
            self._dropped(stream)
        else:
            stream.give_up(CloseCode.NODE_LOST, f"the conference node refused: {reason}")

    async def _withdraw(self, peer: str, stream: EventStream) -> None:
        """Tell the node until it has heard it: what it kept of the peer would stay for ever."""
        backoff = Backoff(base=0.1, cap=2.0)
        while self._connected:
            try:
                await self._tell(peer, stream, {"type": "onCascadingDisconnected"})
            except RpcError as error:
                log.debug("event.withdraw_refused", peer=peer, room=stream.room, reason=str(error))
                return  # the node or its room is gone, and with it what came from the peer
            except NodeUnreachableError:
                await asyncio.sleep(backoff.next_delay())
            else:
                return

    async def _tell(self, peer: str, stream: EventStream, event: dict[str, Any]) -> None:
        await self._call(stream, "handleCascadingEvents", [self._node.worker_id, peer, event])

    async def _call(self, stream: EventStream, method: str, args: list[Any]) -> None:
        await self._node.call(stream.node, method, args, timeout=self._settings.node_call_timeout)
