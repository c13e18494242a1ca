"""The id that an OWT cluster goes by between clusters, asked of its cluster manager.

It stands in the manager's own settings only (`clusterID` of cluster_manager.toml), so no agent's file names
it. A process that is not told asks before anything else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from bridges.node.amqp.broker import BrokerLostError, connect
from bridges.node.amqp.client import RpcClient
from bridges.node.port import RPC_TIMEOUT, NodeUnreachableError, RpcError
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from bridges.node.amqp.settings import AmqpSettings

__all__ = ["ask_cluster_id"]

log = structlog.get_logger(__name__)


class _Asker:
    """An Inbox for replies only."""

    def __init__(self, settings: AmqpSettings) -> None:
        self.client = RpcClient(settings)

    async def called(self, server: str, body: bytes) -> None:
        """Serve nothing."""

    def announced(self, body: bytes) -> None:
        """Hear nothing."""

    def replied(self, body: bytes) -> None:
        """Take the answer."""
        self.client.replied(body)


async def ask_cluster_id(settings: AmqpSettings) -> str:
    """Return the cluster's id, asking until there is an answer.

    One connection is kept meanwhile: the broker deletes OWT's exchange with the last queue bound to it, and
    were that ours, a manager that is just starting would find it gone between declaring and binding.
    Raises ConfigError for settings that cannot be used.
    """
    backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
    asker = _Asker(settings)
    while True:
        try:
            async with connect(settings, asker) as broker:
                asker.client.attach(broker)
                try:
                    while not broker.lost:
                        cluster = await _ask(settings, asker.client)
                        if cluster is not None:
                            return cluster
                        await asyncio.sleep(backoff.next_delay())
                finally:
                    asker.client.detach()
        except BrokerLostError as error:
            log.warning("node.no_cluster_id", broker=settings.where, error=str(error))
        await asyncio.sleep(backoff.next_delay())


async def _ask(settings: AmqpSettings, client: RpcClient) -> str | None:
    try:
        answer = await client.call_once(settings.manager, "getClusterID", [], timeout=RPC_TIMEOUT)
    except (NodeUnreachableError, RpcError) as error:
        log.warning("node.no_cluster_id", broker=settings.where, error=str(error))
        return None
    if isinstance(answer, str) and answer:
        return answer
    log.warning("node.no_cluster_id", broker=settings.where, error="it names none: set bridge.cluster")
    return None
