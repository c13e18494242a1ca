"""Composition root: from settings to a running central service.

`serve` is the process: database, key material, services, HTTP server, reconciler, lease sweeper and the
LISTEN connection, in one task group: when one of them dies the process ends with an error, it does not limp.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from control.bell import Bell
from control.cascade.hands import Hands
from control.cascade.reconcile import Reconciler
from control.drivers.owt import OwtConnections
from control.fleet import Fleet
from control.http.conferences import ConferenceRoutes
from control.http.health import HealthRoutes
from control.http.registration import ClusterRoutes
from control.http.routes import application, table
from control.http.server import address_of, bind, make_server
from control.joining import Joining
from control.registry import clusters
from control.registry.database import connector, ensure_schema, is_current, open_database
from control.registry.notices import follow
from control.registry.store import Store
from control.reporting import Reporting, sweep_leases
from control.security.credentials import Authenticator, prepare_keys
from control.security.vault import Vault, load_master_key

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.applications import Starlette

    from control.http.routes import Entry
    from control.http.server import Server
    from control.registry.database import Database
    from control.settings import Settings

__all__ = ["Control", "build", "serve"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The service without its HTTP server."""

    app: Starlette
    entries: list[Entry]
    """The routes, with who may use each."""
    new_keys: list[str] = field(repr=False)
    """Texts of access keys that were just made, to be shown once."""
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    """What has to run beside it, each for ever."""

    async def run(self) -> None:
        """Do everything but HTTP, until cancelled or one part fails."""
        async with asyncio.TaskGroup() as group:
            for each in self.background:
                group.create_task(each())


@asynccontextmanager
async def build(settings: Settings, database: Database) -> AsyncIterator[Control]:
    """Put the service together on an open database with a current schema. Raises ConfigError."""
    own = settings.control
    vault = Vault(load_master_key(own.master_key, state=settings.state.path))
    store, bell = Store(database.engine), Bell()
    new_keys = await prepare_keys(store, own.keys)
    authenticator = Authenticator(store)
    async with OwtConnections(cascade_timeout=own.reconcile.cascade_timeout) as owt:
        fleet = Fleet(owt, vault)
        reconciler = Reconciler(store, Hands(store, fleet, vault, own.reconcile), bell, own.reconcile)

        async def ready() -> bool:
            return await store.check(is_current)

        async def listen() -> None:
            connect = connector(database.url, settings.database)
            await follow(connect, on_notice=bell.ring, on_gap=bell.ring_all)

        async def sweep() -> None:
            await sweep_leases(store, bell, own.lease)

        entries = table(
            ClusterRoutes(store, Reporting(store, vault, bell, own.lease)),
            ConferenceRoutes(store, Joining(store, fleet, bell, own.join), bell),
            HealthRoutes(ready),
        )
        yield Control(
            app=application(entries, authenticator, own.http),
            entries=entries,
            new_keys=new_keys,
            background=(reconciler.run, sweep, listen),
        )


async def serve(
    settings: Settings,
    *,
    on_keys: Callable[[list[str]], None],
    on_listening: Callable[[str, int], None],
) -> None:
    """Run the central service until SIGTERM or SIGINT; requests then get `stop_timeout` to finish.

    `on_keys(texts)` gets new access keys, `on_listening(host, port)` is told when requests are served. Raises
    ConfigError and UnavailableError when it cannot start; an ExceptionGroup when a part of it fails later.
    """
    own = settings.control
    with closing(bind(own.host, own.port)) as listener:
        async with (
            open_database(settings.database, settings.state) as database,
            _prepared(settings, database) as control,
        ):
            if control.new_keys:
                on_keys(control.new_keys)
            server = make_server(control.app, own.http, stop_timeout=own.stop_timeout)
            await _run(control, server, listener, on_listening)


@asynccontextmanager
async def _prepared(settings: Settings, database: Database) -> AsyncIterator[Control]:
    await ensure_schema(database)
    async with build(settings, database) as control:
        await Store(database.engine).write(clusters.grace, ttl=settings.control.lease.ttl)
        yield control


async def _run(
    control: Control, server: Server, listener: socket.socket, on_listening: Callable[[str, int], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            background = group.create_task(control.run())
            serving = group.create_task(_serve(server, listener, stop))
            await server.wait_started()
            on_listening(*address_of(listener))
            await stop.wait()
            _log.info("control.stopping")
            server.should_exit = True
            await asyncio.wait([serving])
            background.cancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _serve(server: Server, listener: socket.socket, stop: asyncio.Event) -> None:
    await server.serve(sockets=[listener])
    if not stop.is_set():
        raise RuntimeError("the HTTP server ended by itself")
