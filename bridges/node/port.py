"""What a bridge may ask of its cluster, and what the cluster may ask of a bridge.

The conversation is OWT's RPC; a carrier (WebSocket here, AMQP in an OWT cluster) implements `ClusterNode` and
delivers the cluster's calls to an `RpcService`. Bridges know this file only, never a carrier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RPC_TIMEOUT", "ClusterNode", "NodeUnreachableError", "RpcError", "RpcService", "runs_on"]

RPC_TIMEOUT: Final = 2.0
"""Seconds that OWT waits for a reply, and so do we."""


class RpcError(CausewayError):
    """The other side answered that the call failed."""

    code: ClassVar[str] = "rpc-failed"


class NodeUnreachableError(CausewayError):
    """No answer: the connection is down, or nothing came in time."""

    code: ClassVar[str] = "node-unreachable"


class ClusterNode(Protocol):
    """The bridge's cluster."""

    @property
    def worker_id(self) -> str:
        """This bridge's id in its cluster: `<purpose>-<20 hex>@<host>`."""

    @property
    def node_id(self) -> str:
        """Where the cluster calls this bridge: the worker's id, or that of a node of the worker."""

    @property
    def counters(self) -> dict[str, int]:
        """Since the start: times that the cluster was lost (`node_losses`), and what could not be read."""

    async def find_conference_node(self, room: str) -> str:
        """Return the RPC id of the conference node that runs `room`.

        Raises RpcError when the cluster cannot give one, NodeUnreachableError when it does not answer.
        """

    async def call(
        self, target: str, method: str, args: Sequence[Any], *, timeout: float = RPC_TIMEOUT
    ) -> Any:
        """Call `method` of `target` and return the reply's data.

        Raises RpcError when the call failed there, NodeUnreachableError when no reply came in `timeout`
        seconds.
        """


class RpcService(Protocol):
    """A bridge, as its cluster calls it."""

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call and return the reply's data; raise RpcError to answer that it failed."""

    def node_connected(self) -> None:
        """Take note that the connection to the cluster is up (again) and the worker has joined."""

    def node_lost(self) -> None:
        """Take note that the connection broke: what the node knew of our links, it has removed."""

    def conference_lost(self, gone: str) -> None:
        """Take note that a conference node is gone, or a conference worker with its nodes; see `runs_on`."""


def runs_on(node: str, gone: str) -> bool:
    """Whether the conference node `node` is `gone`, or one of the nodes of the worker `gone`."""
    return node == gone or node.startswith(f"{gone}_")
