"""The bridge process: the bridges of one cluster, each a worker of it, under one roof.

Composition only: what a bridge does is in its own package, how the cluster is reached in bridges.node.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import socket
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from bridges.control.channel import Agent
from bridges.control.core import AgentCore
from bridges.control.port import Cascader
from bridges.event.bridge import EventBridge
from bridges.media.bridge import MediaBridge
from bridges.node.port import RpcService
from bridges.node.websocket import WebSocketNode
from bridges.quic import Certificate
from causeway import __version__
from causeway.api.agents import (
    AgentAddress,
    AgentAddresses,
    AgentCapacity,
    AgentRegistration,
    ProtocolRange,
)
from causeway.channel import PROTOCOL
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.node.port import ClusterNode
    from bridges.settings import BridgeKind, BridgeSettings

__all__ = ["STOP_TIMEOUT", "Bridge", "check", "run", "serve"]

log = structlog.get_logger(__name__)

STOP_TIMEOUT: Final = 2.5
"""Seconds that an orderly stop may take; what is not done by then is cut."""
_MAX_ID: Final = 128


class Bridge(RpcService, Cascader, Protocol):
    """What the process wants of a bridge beyond serving its cluster's calls, and control's orders."""

    @property
    def fingerprint(self) -> str:
        """Of the certificate that other clusters' bridges are shown."""

    @property
    def port(self) -> int:
        """The UDP port that other clusters' bridges dial; known once started."""

    async def start(self) -> None:
        """Listen. Raises UnavailableError when the address is taken."""

    async def run(self) -> None:
        """Work until cancelled; then end streams, close connections, stop listening, within a second."""


_BRIDGES: Final[dict[BridgeKind, Callable[[ClusterNode, BridgeSettings, Certificate], Bridge]]] = {
    "event": EventBridge,
    "media": MediaBridge,
}


def check(settings: BridgeSettings) -> None:
    """Raise ConfigError when something is missing that has no default."""
    for name, value in (
        ("cluster", settings.cluster),
        ("node_url", settings.node_url),
        ("node_secret", settings.node_secret),
        ("kinds", settings.kinds),
    ):
        if not value:
            raise ConfigError(
                f"bridge.{name} is not set (CAUSEWAY_BRIDGE__{name.upper()} in the environment)"
            )
    if settings.control.url:
        for name, value in (("key", settings.control.key), ("region", settings.control.region)):
            if not value:
                raise ConfigError(
                    f"bridge.control.{name} is not set, which bridge.control.url needs "
                    f"(CAUSEWAY_BRIDGE__CONTROL__{name.upper()} in the environment)"
                )


async def run(settings: BridgeSettings) -> None:
    """Run the bridges until SIGTERM or SIGINT. Raises ConfigError, UnavailableError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop=stop)


async def serve(settings: BridgeSettings, *, stop: asyncio.Event) -> None:
    """Run the bridges until `stop` is set. Raises ConfigError, UnavailableError."""
    check(settings)
    try:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            bridges: dict[BridgeKind, Bridge] = {}
            work: list[asyncio.Task[None]] = []
            for kind in settings.kinds:
                bridges[kind], started = await _start(kind, settings, tasks)
                work += started
            if settings.control.url:
                work.append(tasks.create_task(_agent(bridges, settings).run()))
            log.info("bridge.started", cluster=settings.cluster, kinds=settings.kinds)
            await stop.wait()
            limit.reschedule(asyncio.get_running_loop().time() + STOP_TIMEOUT)
            for task in work:
                task.cancel()
    except TimeoutError:
        log.warning("bridge.stop_cut", seconds=STOP_TIMEOUT)
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    log.info("bridge.stopped", cluster=settings.cluster)


async def _start(
    kind: BridgeKind, settings: BridgeSettings, tasks: asyncio.TaskGroup
) -> tuple[Bridge, list[asyncio.Task[None]]]:
    """Have one bridge listen, work, and be a worker of its cluster."""
    node = WebSocketNode(
        settings.node_url,
        secret=settings.node_secret,
        purpose=f"{kind}bridge",
        host=settings.public_host,
        settings=settings.node,
    )
    bridge = _BRIDGES[kind](node, settings, Certificate.self_signed(f"{settings.cluster} {kind} bridge"))
    await bridge.start()
    # The bridge works before the cluster can call it: tasks begin in this order.
    return bridge, [
        tasks.create_task(bridge.run()),
        tasks.create_task(node.run(bridge, info={"port": bridge.port})),
    ]


def _agent(bridges: dict[BridgeKind, Bridge], settings: BridgeSettings) -> Agent:
    """Return what lets control order these bridges; they listen already."""
    addresses = {
        kind: AgentAddress(host=settings.public_host, port=bridge.port, fingerprint=bridge.fingerprint)
        for kind, bridge in bridges.items()
    }
    limits = {"event": settings.event.max_links, "media": settings.media.max_links}
    core = AgentCore(
        cluster=settings.cluster,
        kinds=settings.kinds,
        pinned=not settings.quic.insecure_unpinned,
        max_links=min(limits[kind] for kind in settings.kinds),
    )
    registration = AgentRegistration(
        cluster=settings.cluster,
        region=settings.control.region,
        kinds=list(settings.kinds),
        addresses=AgentAddresses(event=addresses.get("event"), media=addresses.get("media")),
        capacity=AgentCapacity(conferences=settings.control.max_conferences),
        version=__version__,
        protocol=ProtocolRange(min=PROTOCOL, max=PROTOCOL),
        instance=secrets.token_hex(16),
    )
    return Agent(
        settings.control.agent or _agent_id(settings),
        core,
        bridges,
        registration=registration,
        settings=settings.control,
    )


def _agent_id(settings: BridgeSettings) -> str:
    """Return what stays the same whenever these bridges are started on this machine."""
    name = f"{settings.cluster}-{'-'.join(settings.kinds)}@{socket.gethostname()}"
    return re.sub(r"[^A-Za-z0-9._~@:-]", "-", name)[:_MAX_ID]
