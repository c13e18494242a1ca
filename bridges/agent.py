"""The bridge process: the bridges of one cluster, each a worker of it, under one roof.

Composition only: what a bridge does is in its own package, how the cluster is reached in bridges.node.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import structlog
from msgspec import structs

from bridges.control.channel import Agent
from bridges.control.core import AgentCore
from bridges.control.port import Cascader
from bridges.event.bridge import EventBridge
from bridges.figures import Source
from bridges.media.bridge import MediaBridge
from bridges.node.carriers import check_carrier, cluster_id, make_node
from bridges.node.port import RpcService
from bridges.pauses import shorten_pauses
from bridges.quic import Certificates, fingerprints_of_environment
from bridges.status.process import ProcessSource
from bridges.status.server import status_endpoint
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
    from collections.abc import Callable, Coroutine, Mapping

    from bridges.node.port import ClusterNode
    from bridges.quic import Certificate
    from bridges.settings import BridgeKind, BridgeSettings

__all__ = ["STOP_TIMEOUT", "Bridge", "agent_id", "check", "run", "serve", "until_stopped", "with_environment"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

STOP_TIMEOUT: Final = 2.5
"""Seconds that an orderly stop may take; what is not done by then is cut."""
_MAX_ID: Final = 128


class Bridge(RpcService, Cascader, Source, Protocol):
    """What the process wants of a bridge beyond serving its cluster's calls, and control's orders."""

    @property
    def fingerprint(self) -> str:
        """Of the certificate that other clusters' bridges are shown."""

    @property
    def port(self) -> int:
        """The UDP port that other clusters' bridges dial; known once started."""

    def show(self, certificate: Certificate) -> None:
        """Show another certificate from now on; connections stay."""

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
    check_carrier(settings)
    if not settings.kinds:
        raise ConfigError("bridge.kinds is not set (CAUSEWAY_BRIDGE__KINDS in the environment)")
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
    shorten_pauses()
    await serve(with_environment(settings, os.environ), stop=stop)


def with_environment(settings: BridgeSettings, environ: Mapping[str, str]) -> BridgeSettings:
    """Return the settings with what OWT's bridges take from the environment. Raises ConfigError."""
    quic = settings.quic
    trusted = (*quic.trusted_fingerprints, *fingerprints_of_environment(environ))
    return structs.replace(settings, quic=structs.replace(quic, trusted_fingerprints=trusted))


async def serve(settings: BridgeSettings, *, stop: asyncio.Event) -> None:
    """Run the bridges until `stop` is set. Raises ConfigError, UnavailableError."""
    check(settings)
    cluster = settings.cluster or await until_stopped(cluster_id(settings), stop)
    if cluster is None:
        return
    settings = structs.replace(settings, cluster=cluster)
    process = secrets.token_hex(8)
    try:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            bridges: dict[BridgeKind, Bridge] = {}
            work: list[asyncio.Task[None]] = []
            shown: list[Certificates] = []
            for kind in settings.kinds:
                certificates = Certificates(f"{settings.cluster} {kind} bridge", settings.quic.certificate)
                bridges[kind], started = await _start(kind, settings, certificates, tasks, process)
                work += [*started, tasks.create_task(certificates.run())]
                shown.append(certificates)
            agent = _agent(bridges, settings) if settings.control.url else None
            if agent is not None:
                for certificates in shown:
                    certificates.watch(lambda _: agent.register_anew(_addresses(bridges, settings)))
                work.append(tasks.create_task(agent.run()))
            log.info("bridge.started", cluster=settings.cluster, kinds=settings.kinds)
            source = ProcessSource(settings.cluster, bridges.values(), agent)
            async with status_endpoint(settings.status, source.figures):
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


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Return what `work` returns, or None when `stop` is set before."""
    tasks = (asyncio.ensure_future(work), asyncio.ensure_future(stop.wait()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return None if stop.is_set() else tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _start(
    kind: BridgeKind,
    settings: BridgeSettings,
    certificates: Certificates,
    tasks: asyncio.TaskGroup,
    process: str,
) -> tuple[Bridge, list[asyncio.Task[None]]]:
    """Have one bridge listen, work, and be a worker of its cluster; `process` is the same for both."""
    node = make_node(kind, settings)
    bridge = _BRIDGES[kind](node, settings, certificates.current)
    certificates.watch(bridge.show)
    await bridge.start()
    # The bridge works before the cluster can call it: tasks begin in this order.
    return bridge, [
        tasks.create_task(bridge.run()),
        tasks.create_task(node.run(bridge, info={"port": bridge.port, "process": process})),
    ]


def _agent(bridges: dict[BridgeKind, Bridge], settings: BridgeSettings) -> Agent:
    """Return what lets control order these bridges; they listen already."""
    limits = {"event": settings.event.max_links, "media": settings.media.max_links}
    core = AgentCore(
        cluster=settings.cluster,
        kinds=settings.kinds,
        pinned=not settings.quic.takes_unnamed,
        max_links=min(limits[kind] for kind in settings.kinds),
    )
    registration = AgentRegistration(
        cluster=settings.cluster,
        region=settings.control.region,
        kinds=list(settings.kinds),
        addresses=_addresses(bridges, settings),
        wires=list(settings.quic.alpn),
        capacity=AgentCapacity(conferences=settings.control.max_conferences),
        version=__version__,
        protocol=ProtocolRange(min=PROTOCOL, max=PROTOCOL),
        instance=secrets.token_hex(16),
    )
    return Agent(
        settings.control.agent or agent_id(settings),
        core,
        bridges,
        registration=registration,
        settings=settings.control,
        sources=list(bridges.values()),
    )


def _addresses(bridges: dict[BridgeKind, Bridge], settings: BridgeSettings) -> AgentAddresses:
    """Return where other clusters' bridges reach these, and which certificates they are shown now."""
    addresses = {
        kind: AgentAddress(host=settings.public_host, port=bridge.port, fingerprint=bridge.fingerprint)
        for kind, bridge in bridges.items()
    }
    return AgentAddresses(event=addresses.get("event"), media=addresses.get("media"))


def agent_id(settings: BridgeSettings) -> str:
    """Return what stays the same whenever these bridges are started on this machine."""
    name = f"{settings.cluster}-{'-'.join(settings.kinds)}@{socket.gethostname()}"
    return re.sub(r"[^A-Za-z0-9._~@:-]", "-", name)[:_MAX_ID]
