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

    Raises ConfigError for settings that cannot be used.
    """
    backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
    while True:
        try:
            answer = await _ask(settings)
        except (BrokerLostError, NodeUnreachableError, RpcError) as error:
            log.warning("node.no_cluster_id", broker=settings.where, error=str(error))
        else:
            if isinstance(answer, str) and answer:
                return answer
            log.warning(
                "node.no_cluster_id", broker=settings.where, error="it names none: set bridge.cluster"
            )
        await asyncio.sleep(backoff.next_delay())


async def _ask(settings: AmqpSettings) -> object:
    asker = _Asker(settings)
    async with connect(settings, asker) as broker:
        asker.client.attach(broker)
        try:
            return await asker.client.call_once(settings.manager, "getClusterID", [], timeout=RPC_TIMEOUT)
        finally:
            asker.client.detach()
