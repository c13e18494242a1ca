"""Which carrier reaches the cluster: the one place where both are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bridges.node.amqp.tls import tls_context
from bridges.node.port import ClusterNode
from bridges.node.websocket import WebSocketNode
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from bridges.node.port import RpcService
    from bridges.settings import BridgeKind, BridgeSettings

__all__ = ["Worker", "check_carrier", "cluster_id", "make_node"]


class Worker(ClusterNode, Protocol):
    """A carrier: the cluster, and what keeps this process a worker of it."""

    async def run(self, service: RpcService, *, info: dict[str, Any]) -> None:
        """Be a worker and let the cluster call `service`; ends only by being cancelled.

        `info` is added to what the worker says of itself when joining, for example `{"port": 7700}`.
        """


def check_carrier(settings: BridgeSettings) -> None:
    """Raise ConfigError when something is missing or wrong that the carrier needs."""
    if settings.node_carrier == "amqp":
        _ = settings.amqp.where  # raises for a URL that is none
        tls_context(settings.amqp)
        return
    for name in ("cluster", "node_url", "node_secret"):
        if not getattr(settings, name):
            raise ConfigError(
                f"bridge.{name} is not set (CAUSEWAY_BRIDGE__{name.upper()} in the environment)"
            )


async def cluster_id(settings: BridgeSettings) -> str:
    """Return the id of an OWT cluster whose id is not in the settings, asking it for as long as it takes."""
    from bridges.node.amqp.cluster_id import ask_cluster_id  # noqa: PLC0415 - see make_node

    return await ask_cluster_id(settings.amqp)


def make_node(kind: BridgeKind, settings: BridgeSettings) -> Worker:
    """Return what reaches the cluster for one bridge. Raises ConfigError for a URL that is none."""
    purpose = f"{kind}bridge"
    if settings.node_carrier == "amqp":
        # Not above: the library takes a while to import, and only an OWT cluster needs it.
        from bridges.node.amqp.node import AmqpNode  # noqa: PLC0415

        # A media bridge is called at its node, as OWT's media agents are; an event bridge is its own server.
        return AmqpNode(settings.amqp, purpose=purpose, host=settings.public_host, has_node=kind == "media")
    return WebSocketNode(
        settings.node_url,
        secret=settings.node_secret,
        purpose=purpose,
        host=settings.public_host,
        settings=settings.node,
    )
