"""A cluster with its event bridge: the real bridge, and conference nodes played in the same process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bridges.event.bridge import EventBridge
from bridges.node.port import RpcError
from bridges.quic import Certificate
from bridges.settings import BridgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from bridges.event.settings import EventSettings
    from bridges.quic import QuicSettings

__all__ = ["Nodes", "Site"]

Event = dict[str, Any]


class Nodes:
    """The conference nodes of a cluster, one for each room. Calls are answered at once, or after `pause` s.

    `state` gives a room's `initialize`, asked for whenever a peer is there; `told` hears the events of peers
    (room, origin, event).
    """

    def __init__(
        self,
        cluster: str,
        *,
        state: Callable[[str], Event],
        told: Callable[[str, str, Event], None],
        pause: float = 0.0,
    ) -> None:
        self.worker_id = f"eventbridge-0123456789abcdef0123@{cluster}"
        self.node_id = self.worker_id
        self.counters: dict[str, int] = {}
        self.rooms: set[str] = set()
        self.bridge: EventBridge | None = None
        self._state = state
        self._told = told
        self._pause = pause
        self._tasks = asyncio.TaskGroup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer until the end of the block."""
        async with self._tasks:
            yield

    async def find_conference_node(self, room: str) -> str:
        """Return the node of a room."""
        if room not in self.rooms:
            raise RpcError("no such room")
        return f"node of {room}"

    async def call(self, target: str, method: str, args: Sequence[Any], *, timeout: float = 2.0) -> Any:
        """Answer the bridge."""
        del timeout  # `pause` is shorter
        room = target.removeprefix("node of ")
        if self._pause:
            await asyncio.sleep(self._pause)
        match method, args:
            case "getRoomToken", _:
                return f"token of {room}"
            case "onCascadingConnected", [_, session, stream]:
                self.spawn(self._initialize(room, session, stream))
            case "handleCascadingEvents", [_, origin, event]:
                self._told(room, origin, event)
        return "ok"

    async def notify(self, room: str, event: Event) -> None:
        """Have the bridge tell everybody an event."""
        node = f"node of {room}"
        assert self.bridge is not None
        await self.bridge.handle("notify", [node, {"rpcId": node}, event])

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, as part of what `running` waits for."""
        self._tasks.create_task(work)

    async def _initialize(self, room: str, session: str, stream: str) -> None:
        node = f"node of {room}"
        message = {"rpcId": node, "type": "initialize", "session": session, "stream": stream}
        assert self.bridge is not None
        await self.bridge.handle("notify", [node, message, self._state(room)])


class Site:
    """What is running of one cluster."""

    def __init__(self, cluster: str, nodes: Nodes, bridge: EventBridge) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self.bridge = bridge

    @classmethod
    @asynccontextmanager
    async def running(
        cls, cluster: str, nodes: Nodes, *, quic: QuicSettings, event: EventSettings
    ) -> AsyncIterator[Site]:
        """Run the bridge until the end of the block."""
        settings = BridgeSettings(cluster=cluster, quic=quic, event=event)
        bridge = EventBridge(nodes, settings, Certificate.self_signed(cluster))
        nodes.bridge = bridge
        await bridge.start()
        async with nodes.running(), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(bridge.run())
            await asyncio.sleep(0)  # it takes calls once it runs
            bridge.node_connected()
            try:
                yield cls(cluster, nodes, bridge)
            finally:
                task.cancel()

    @property
    def address(self) -> dict[str, Any]:
        """What others need to know to dial."""
        return {
            "targetCluster": self.cluster,
            "evIP": "127.0.0.1",
            "evPort": self.bridge.port,
            "evFingerprint": self.bridge.fingerprint,
        }

    def drop_connections(self) -> None:
        """Close every connection that others have dialled, without a reason."""
        listener = self.bridge._listener  # noqa: SLF001 - nobody but a benchmark wants this
        assert listener is not None
        for connection in list(listener._connections):  # noqa: SLF001 - as above
            connection.close()

    async def cascade(self, room: str, address: dict[str, Any]) -> None:
        """Have the bridge dial the room's other cluster."""
        options = {
            "room": room,
            "token": f"token of {room}",
            "selfCluster": self.cluster,
            "mediaIP": "127.0.0.1",
            "mediaPort": 9,
        }
        await self.bridge.handle("startCascading", [{**options, **address}])
