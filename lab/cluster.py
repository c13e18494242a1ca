"""A laboratory cluster: every part put together, and the process around it.

    python -m lab.cluster --config FILE

One port serves the management API (`/v1`), the portal (`/portal`), bridges (`/node`) and `/lab/stats`;
another one the hub's media. Settings come from the file and the environment; nothing but logs is printed.
SIGTERM and SIGINT end it in good order, within `stop_timeout`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn
import uvloop
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from bridges.internal.listener import InternalListener
from bridges.wire.rpc import MAX_RPC_BYTES
from causeway import settings as loader
from causeway import telemetry
from causeway.api import PortalAddress
from causeway.client import ControlClient
from causeway.errors import CausewayError, ConfigError, UnavailableError
from lab.hub import Hub
from lab.key_source import KeySource
from lab.management import Management
from lab.mauth import MAuth
from lab.node import ConferenceNode
from lab.portal import Portal
from lab.portal_calls import PortalCalls
from lab.pulls import RemotePulls
from lab.registrar import Registrar
from lab.room_rules import RoomError
from lab.rooms import Rooms
from lab.routing import Routing
from lab.settings import LabSettings, Settings
from lab.signed_tokens import SignedTokens
from lab.stats import Stats
from lab.stopping import run_until_signal
from lab.tasks import Tasks
from lab.tokens import Tokens
from lab.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

__all__ = ["Cluster", "main", "running_cluster"]

_log: Final = structlog.get_logger(__name__)
_USAGE: Final = 2
_FAILED: Final = 1


class Cluster:
    """What a running cluster is made of, for those who started it."""

    def __init__(self, settings: LabSettings, hub: Hub, port: int) -> None:
        self.settings = settings
        self.hub = hub
        self.port = port
        host = settings.public_host
        self.workers = Workers()
        self.rooms = Rooms(
            cluster=settings.cluster,
            worker_id=f"conference-{secrets.token_hex(10)}@{host}",
            max_rooms=settings.max_rooms,
            max_streams_per_participant=settings.max_streams_per_participant,
        )
        self.routing = Routing(hub)
        self.tokens = Tokens(
            ttl=settings.rest.token_ttl, limit=settings.rest.max_tokens, clock=time.monotonic
        )
        self.pulls = RemotePulls(
            rooms=self.rooms, workers=self.workers, hub=hub, retry_cap=settings.node.republish_cap
        )
        hub.on_demand = self.pulls.demand
        self.node = ConferenceNode(
            rooms=self.rooms,
            workers=self.workers,
            routing=self.routing,
            secret=settings.node_secret,
            internal=self._internal,
            settings=settings.node,
        )
        self.registrar: Registrar | None = None
        self.keys: KeySource | None = None
        signed = SignedTokens(
            rooms=self.rooms,
            keys=lambda: self.keys.keys if self.keys is not None else {},
            incarnation=lambda: self.registrar.incarnation if self.registrar is not None else "",
            issuer=settings.issuer,
            clock=time.time,
            leeway=settings.keys.leeway,
            max_shown=settings.keys.max_shown,
            missing=self._room_missing,
        )
        calls = PortalCalls(
            rooms=self.rooms,
            routing=self.routing,
            tokens=self.tokens,
            signed=signed if settings.driver == "causeway" else None,
            portal_id=f"portal-{secrets.token_hex(10)}@{host}",
            internal=self._internal,
            foreign_sources=settings.portal.foreign_sources,
        )
        self.portal = Portal(rooms=self.rooms, calls=calls, settings=settings.portal, look_up=self._look_up)
        self.management = Management(
            cluster=settings.cluster,
            rooms=self.rooms,
            workers=self.workers,
            tokens=self.tokens,
            mauth=MAuth(
                settings.service_id, settings.service_key, timestamp_check=settings.rest.timestamp_check
            ),
            portal_host=lambda: f"{_bracketed(host)}:{port}",
            settings=settings.rest,
        )
        # Routes first: whoever hears of a subscription finds them made.
        self.rooms.listeners = [self.routing.hear, self.portal.hear, self.node.hear]

    @property
    def url(self) -> str:
        """Base of the management API, without `/v1`."""
        return f"http://{_bracketed(self.settings.public_host)}:{self.port}"

    def report_to(self, client: ControlClient) -> Registrar:
        """Have control told about this cluster while the registrar runs."""
        self.registrar = Registrar(
            client,
            settings=self.settings,
            workers=self.workers,
            rest_url=lambda: self.url,
            portal=lambda: PortalAddress(host=self.settings.public_host, port=self.port, secure=False),
            load=self._load,
        )
        self.rooms.listeners.append(self.registrar.hear)
        self.management.ordered.append(self.registrar.link_ordered)
        self.registrar.unknown.append(self._forget_room)
        return self.registrar

    def _room_missing(self, room_id: str, placement: int) -> None:
        if self.registrar is not None:
            self.registrar.room_missing(room_id, placement)

    def _forget_room(self, room_id: str) -> None:
        """Delete a room that control made and knows no more: it ended while we were out of reach."""
        with contextlib.suppress(RoomError):  # gone already
            if self.rooms.record(room_id).options.placement_epoch is not None:
                self.rooms.delete(room_id)

    def app(self) -> Starlette:
        """Return the application that serves the cluster's port."""
        stats = Stats(
            settings=self.settings,
            secret=self.settings.node_secret,
            rooms=self.rooms,
            workers=self.workers,
            hub=self.hub,
            registered=lambda: self.registrar is not None and self.registrar.lease is not None,
        )
        return Starlette(
            routes=[
                self.management.mount(),
                WebSocketRoute("/portal", self.portal.serve),
                WebSocketRoute("/node", self.node.serve),
                Route("/lab/stats", stats.serve, methods=["GET"]),
            ]
        )

    async def close_empty_rooms(self, *, interval: float = 1.0) -> None:
        """Close rooms that nobody has been in for a while, for ever; `interval` is seconds."""
        while True:
            await asyncio.sleep(interval)
            self.rooms.close_empty(time.monotonic(), linger=self.settings.empty_room_linger)

    async def _look_up(self, token: str) -> None:
        if self.keys is not None:
            await self.keys.look_up(token)

    def _internal(self) -> tuple[str, int]:
        return self.settings.public_host, self.hub.port

    def _load(self) -> tuple[int, int]:
        rooms = [running.room for running in self.rooms.running]
        return sum(len(room.local_participants) for room in rooms), sum(
            len(room.local_streams) for room in rooms
        )


@contextlib.asynccontextmanager
async def running_cluster(settings: LabSettings) -> AsyncIterator[Cluster]:
    """Run a cluster; it listens when this gives it. Raises UnavailableError, ConfigError."""
    settings = _completed(settings)
    async with contextlib.AsyncExitStack() as stack:
        listening = _listen(settings.host, settings.port)
        stack.callback(listening.close)
        listener = await _listen_for_media(settings)
        stack.push_async_callback(listener.close)
        hub = await stack.enter_async_context(Hub(listener, settings=settings.internal))
        cluster = Cluster(settings, hub, listening.getsockname()[1])
        await stack.enter_async_context(cluster.pulls)
        tasks = await stack.enter_async_context(Tasks())
        background = [tasks.create_task(cluster.close_empty_rooms())]
        if settings.control_url:
            if settings.driver == "causeway":
                cluster.keys = await stack.enter_async_context(
                    KeySource(settings.control_url, settings=settings.keys)
                )
                background.append(tasks.create_task(cluster.keys.run()))
            client = await stack.enter_async_context(_control_client(settings))
            background.append(tasks.create_task(cluster.report_to(client).run()))
        server = _Server(_uvicorn_config(cluster))
        serving = tasks.create_task(server.serve(sockets=[listening]))
        _log.info("cluster.up", cluster=settings.cluster, region=settings.region, port=cluster.port)
        try:
            yield cluster
        finally:
            _log.info("cluster.stopping", cluster=settings.cluster)
            for task in background:
                task.cancel()
            # Only then: what still reports needs the lease that the registrar gives back.
            await asyncio.wait(background)
            if cluster.registrar is not None:
                await cluster.registrar.stop()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _uvicorn_config(cluster: Cluster) -> uvicorn.Config:
    settings = cluster.settings
    return uvicorn.Config(
        cluster.app(),
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_RPC_BYTES,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Longer than callers keep an idle connection, so that it is never closed under a request.
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
    )


def _completed(settings: LabSettings) -> LabSettings:
    """Return settings with every secret that was left open drawn. Raises ConfigError."""
    if settings.control_url and not settings.enrolment_key:
        raise ConfigError("lab.control_url needs lab.enrolment_key")
    return replace(
        settings,
        instance=settings.instance or _deployment(settings.cluster),
        service_id=settings.service_id or secrets.token_hex(8),
        service_key=settings.service_key or secrets.token_hex(32),
        node_secret=settings.node_secret or secrets.token_hex(32),
    )


def _deployment(cluster: str) -> str:
    """Return what stays the same whenever this cluster is started on this machine."""
    return hashlib.sha256(f"{cluster}@{socket.gethostname()}".encode()).hexdigest()[:32]


def _control_client(settings: LabSettings) -> ControlClient:
    return ControlClient(
        settings.control_url, settings.enrolment_key, timeout=settings.registrar.call_timeout
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that the port is known and open before anybody is told."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def _listen_for_media(settings: LabSettings) -> InternalListener:
    try:
        return await InternalListener.start(settings.host, settings.internal_port, settings=settings.internal)
    except OSError as error:
        port = settings.internal_port
        raise UnavailableError(f"cannot listen on {settings.host}:{port}: {error.strerror}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# --- the process ------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run the process; return its exit code: 2 for wrong usage or settings, 1 for any other failure."""
    parser = argparse.ArgumentParser(prog="python -m lab.cluster", description="A laboratory cluster.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML; table [lab]")
    options = parser.parse_args(arguments)
    try:
        settings = loader.load(Settings, file=options.config, environment=os.environ)
        telemetry.configure(settings.log, process="cluster")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lab = settings.lab
            runner.run(run_until_signal(running_cluster(lab), stop_timeout=lab.stop_timeout))
    except TimeoutError:
        _log.warning("cluster.stopped_late")
    except CausewayError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE if isinstance(error, ConfigError) else _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
