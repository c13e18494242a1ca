"""One conference on our wire, between its relay and our conference node. A thin shell.

The node is asked for what is local (`onCascadingConnected`, as on OWT's wire), and from then on says what
happens (`notify`); what comes from other clusters it is told, one call after the other. A node that does not
answer, or is another one by now, is asked anew and told everything anew; the other clusters notice nothing of
that within their grace time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from bridges.event.own.outputs import Told, Vanished
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.trail import following, step
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from bridges.event.own.relay import Relay
    from bridges.event.settings import EventSettings
    from bridges.node.port import ClusterNode
    from bridges.trail import Step
    from bridges.wire.messages import Event

__all__ = ["OwnRoom", "RoomOwner"]

log = structlog.get_logger(__name__)

_STREAM: Final = "0"
"""What a node knows a room's way out by, besides the session that is drawn each time that it is asked."""


class RoomOwner(Protocol):
    """Who looks after rooms. Called synchronously."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the bridge, at the latest."""

    async def node_up(self) -> None:
        """Wait until our cluster is connected."""

    def attached_changed(self, room: OwnRoom) -> None:
        """Take note that the peers can have our node's state from now on, or cannot any more."""

    def node_changed(self, room: OwnRoom, former: str) -> None:
        """Take note that a room has another conference node than `former`, or none."""

    def room_is_gone(self, room: str) -> None:
        """Take note that our cluster says that there is no such room (any more)."""


class _Initialize(msgspec.Struct):
    participants: dict[str, Any] = {}
    streams: dict[str, Any] = {}


class OwnRoom:
    """A conference at this bridge."""

    def __init__(
        self, relay: Relay, name: str, owner: RoomOwner, node: ClusterNode, settings: EventSettings
    ) -> None:
        self.relay: Final = relay
        self.name: Final = name
        self.attached = False
        """Whether the node has said what is local, and says what happens."""
        self.rejected = 0
        """Events that were refused: the node's by us, or the peers' by the node."""
        self._node = ""
        self._owner = owner
        self._cluster = node
        self._settings = settings
        self._session = ""
        self._joining = asyncio.Lock()
        self._initialized: asyncio.Future[None] | None = None
        self._queue: deque[tuple[float, Told | Vanished]] = deque()
        """When it came (the loop's clock), and what the node is to be told."""
        self._telling_since: float | None = None
        """When what the node is being told right now came."""
        self._unheard: set[str] = set()
        """Origins whose end the node may not have heard of."""
        self._delivering = False
        self._rejoining = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def node(self) -> str:
        """RPC id of the conference node; empty while it is not known."""
        return self._node

    @node.setter
    def node(self, node: str) -> None:
        former, self._node = self._node, node
        if node != former:
            self._owner.node_changed(self, former)

    @property
    def waiting(self) -> int:
        """Events that the node has not answered yet."""
        return len(self._queue) + (self._telling_since is not None)

    @property
    def oldest_waits(self) -> float | None:
        """Seconds that the oldest of them has waited; None: none waits."""
        since = self._queue[0][0] if self._telling_since is None and self._queue else self._telling_since
        return None if since is None else asyncio.get_running_loop().time() - since

    # --- our node -----------------------------------------------------------------------------------

    async def join(self, node: str = "") -> None:
        """Have the node say what is local; of no effect once it has. `node`: its RPC id, if that is known.

        Raises RpcError when there is no such room, NodeUnreachableError.
        """
        async with self._joining:
            if self.attached or self._over:
                return
            self.node = node or await self._cluster.find_conference_node(self.name)
            self._session = secrets.token_hex(8)
            self._initialized = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._settings.node_call_timeout):
                    await self._call("onCascadingConnected", [self._session, _STREAM])
                    await self._initialized
            except TimeoutError:
                raise NodeUnreachableError("the conference node does not say what is local") from None
            except RpcError as error:
                # Whether the room is gone, or elsewhere, is found out by looking for its node again.
                self.node = ""
                raise NodeUnreachableError(f"the conference node refused: {error}") from None
            finally:
                self._initialized = None

    def initialize(self, stream: tuple[str, str], event: Event) -> bool:
        """Take what is local, if it was asked for by this name; returns whether it was. Raises RpcError."""
        if stream != (self._session, _STREAM):
            return False
        try:
            told = msgspec.convert(event.data, _Initialize)
            self.relay.attach(told.participants, told.streams)
        except (msgspec.ValidationError, ValueError) as error:
            self.rejected += 1
            raise RpcError(f"initialize: {error}") from None
        self.attached = True
        if self._initialized is not None and not self._initialized.done():
            self._initialized.set_result(None)
        self._tell_anew()
        self._owner.attached_changed(self)
        return True

    def publish(self, event: Event) -> None:
        """Take what happened here; before the node has said what is local, it is in that. Raises RpcError."""
        if not self.attached:
            return
        try:
            id_ = self.relay.publish(event.type, event.data)
        except ValueError as error:
            self.rejected += 1
            raise RpcError(f"{event.type}: {error}") from None
        if following():
            step("sent", event, id=id_, conference=self.name, peer=",".join(self.relay.peers()))

    def node_lost(self, *, forgotten: bool) -> None:
        """Take note that the node is not there; `forgotten`: and that it has removed what came from us."""
        if forgotten:
            self._unheard.clear()
        self.node = ""
        if self.attached:
            self.attached = False
            self.relay.detach()
            self._owner.attached_changed(self)
            self.arm()

    def rejoin(self) -> None:
        """Join again as soon as that is possible, if that is needed and not being tried already."""
        if not (self._rejoining or self.attached or self._over):
            self._rejoining = True
            self._owner.spawn(self._rejoin())

    def end(self) -> None:
        """Tell the node nothing more: the room is gone, or nobody is linked with it."""
        self._over, self.attached = True, False
        self._drop_queue()
        if self._timer is not None:
            self._timer.cancel()

    async def _rejoin(self) -> None:
        backoff = Backoff(base=0.1, cap=2.0)
        try:
            while not (self.attached or self._over):
                await self._owner.node_up()
                try:
                    await self.join()
                except RpcError:
                    self._owner.room_is_gone(self.name)
                    return
                except NodeUnreachableError as error:
                    log.info("room.not_joined", room=self.name, error=str(error))
                    await asyncio.sleep(backoff.next_delay())
        finally:
            self._rejoining = False

    # --- what comes from other clusters -------------------------------------------------------------

    def tell(self, order: Told | Vanished) -> None:
        """Tell the node something, after what waits already."""
        if self._over:
            _consumed(order)
            return
        self._queue.append((asyncio.get_running_loop().time(), order))
        if self.attached:
            self._deliver_soon()

    def _tell_anew(self) -> None:
        """Tell the node everything, in the place of what waits: it has forgotten, or is another one."""
        ends = {order.origin for _, order in self._queue if isinstance(order, Vanished)}
        gone = sorted(self._unheard | ends)
        self._drop_queue()
        known = list(self.relay.replay())
        again = {told.origin for told in known}
        now = asyncio.get_running_loop().time()
        self._queue.extend((now, Vanished(room=self.name, origin=each)) for each in gone if each not in again)
        self._queue.extend((now, told) for told in known)
        self._deliver_soon()

    def _drop_queue(self) -> None:
        dropped = [order for _, order in self._queue]
        self._queue.clear()
        for order in dropped:
            _consumed(order)

    def _deliver_soon(self) -> None:
        if self._queue and not self._delivering:
            self._delivering = True
            self._owner.spawn(self._deliver())

    async def _deliver(self) -> None:
        try:
            while self._queue and self.attached:
                self._telling_since, order = self._queue.popleft()
                try:
                    await self._perform(order)
                finally:
                    self._telling_since = None
                    _consumed(order)
        finally:
            self._delivering = False

    async def _perform(self, order: Told | Vanished) -> None:
        if isinstance(order, Vanished):
            self._unheard.add(order.origin)
            event: dict[str, Any] = {"type": "onCascadingDisconnected"}
        else:
            event = {"type": order.type, "data": order.data}
        try:
            await self._call("handleCascadingEvents", [order.origin, event])
        except NodeUnreachableError as error:
            self._miss(f"the conference node does not answer: {error}")
        except RpcError as error:
            await self._refused(order, str(error))
        else:
            self._unheard.discard(order.origin)
            self._note("told", order)

    async def _refused(self, order: Told | Vanished, reason: str) -> None:
        """Find out what a refusal means: the room is gone, lives elsewhere, or it was the event's fault."""
        log.warning("event.refused_by_node", origin=order.origin, room=self.name, reason=reason)
        try:
            node = await self._cluster.find_conference_node(self.name)
        except RpcError:
            self._owner.room_is_gone(self.name)
            return
        except NodeUnreachableError as error:
            self._miss(f"the conference node does not answer: {error}")
            return
        if node == self.node:
            self.rejected += 1
            self._unheard.discard(order.origin)
            self._note("refused", order)
        else:
            self._miss("the room has another conference node")

    def _miss(self, reason: str) -> None:
        if self.attached:
            log.warning("room.node_lost", room=self.name, reason=reason)
            self.node_lost(forgotten=False)
        self.rejoin()

    async def _call(self, method: str, args: list[Any]) -> None:
        bridge = self._cluster.worker_id
        await self._cluster.call(self.node, method, [bridge, *args], timeout=self._settings.node_call_timeout)

    def _note(self, what: Step, order: Told | Vanished) -> None:
        if following() and isinstance(order, Told):
            step(what, order, id=order.id, conference=self.name, peer="", origin=order.origin)

    # --- time ---------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Have the relay looked at when it wants to be."""
        due = None if self._over else self.relay.due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self.take(self.relay.poll(asyncio.get_running_loop().time()))
        self.arm()

    def take(self, outputs: Iterable[Any]) -> None:
        """Take what the relay says: what is for the node is told to it, the rest is noted."""
        for output in outputs:
            if isinstance(output, Told | Vanished):
                self.tell(output)

    def __repr__(self) -> str:
        return f"OwnRoom({self.name!r}, attached={self.attached}, waiting={self.waiting})"


def _consumed(order: Told | Vanished) -> None:
    if isinstance(order, Told):
        order.consumed()
