"""The least of a conference node, and a media bridge that works for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from bridges.media.bridge import MediaBridge
from bridges.quic import Certificate, QuicSettings
from bridges.settings import BridgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["TOKEN", "WIRES", "Node", "bridge"]

TOKEN: Final = "token"
WIRES: Final[dict[str, QuicSettings]] = {
    "causeway": QuicSettings(),
    "owt, Reno": QuicSettings(alpn=("h3",), congestion="reno"),
    "owt, CUBIC": QuicSettings(alpn=("h3",), congestion="cubic"),
    "owt, our controller": QuicSettings(alpn=("h3",)),
}
"""What two bridges may speak: our own wire, or OWT's with one of the controllers."""


class Node:
    """Knows every room, and has every track at one internal address: by stream and kind."""

    def __init__(self, publisher_port: int) -> None:
        self._publisher_port = publisher_port
        self.worker_id = "mediabridge-bench@127.0.0.1"
        self.node_id = self.worker_id
        self.counters: dict[str, int] = {}
        self.bridge: MediaBridge | None = None

    async def find_conference_node(self, room: str) -> str:
        """Return the one node that there is."""
        del room
        return "node"

    async def call(self, target: str, method: str, args: Sequence[Any], *, timeout: float = 2.0) -> Any:
        """Answer the bridge."""
        del target, timeout
        assert self.bridge is not None
        if method == "getRoomToken":
            return TOKEN
        if method == "subscribe":
            _admin, connection_id, options = args
            (track,) = options["media"]["tracks"]
            name = f"{track['from']}-{track['type']}"
            address = {"id": name, "ip": "127.0.0.1", "port": self._publisher_port}
            await self.bridge.handle("linkup", [connection_id, {track["type"]: address}])
        return "ok"


@asynccontextmanager
async def bridge(cluster: str, publisher_port: int, wire: str = "causeway") -> AsyncIterator[MediaBridge]:
    """Run one media bridge, whose cluster's tracks are at `publisher_port`."""
    node = Node(publisher_port)
    settings = BridgeSettings(cluster=cluster, quic=WIRES[wire])
    own = MediaBridge(node, settings, Certificate.self_signed(cluster))
    node.bridge = own
    await own.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(own.run())
        await asyncio.sleep(0)
        own.node_connected()
        try:
            yield own
        finally:
            running.cancel()
