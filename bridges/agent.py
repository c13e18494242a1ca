"""The bridge process: the bridges of one cluster, each a worker of it, under one roof.

Composition only: what a bridge does is in its own package, how the cluster is reached in bridges.node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from bridges.event.bridge import EventBridge
from bridges.node.port import RpcService
from bridges.node.websocket import WebSocketNode
from bridges.quic import Certificate
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from bridges.settings import BridgeKind, BridgeSettings

__all__ = ["Bridge", "check", "run"]

log = structlog.get_logger(__name__)


class Bridge(RpcService, Protocol):
    """What the process wants of a bridge beyond serving its cluster's calls."""

    @property
    def port(self) -> int:
        """The UDP port that other clusters' bridges dial; known once started."""

    async def start(self) -> None:
        """Listen. Raises UnavailableError when the address is taken."""

    async def run(self) -> None:
        """Work until cancelled; then end streams, close connections, stop listening, within a second."""
