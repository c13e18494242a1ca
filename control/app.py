"""Composition root: from settings to a running central service.

`serve` is the process: database, key material, services, HTTP server, reconciler, lease sweeper and the
LISTEN connection, in one task group: when one of them dies the process ends with an error, it does not limp.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import socket
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from causeway import __version__
from control.agents.service import Agents, sweep_agents
from control.attendance import Attendance
from control.beats import Beats
from control.bell import Bell
from control.cascade.breaker import Breakers
from control.cascade.hands import Hands
from control.cascade.moving import Moving
from control.cascade.reconcile import Reconciler
from control.delivery import dispatch
from control.delivery.dispatch import Dispatcher
from control.delivery.feeds import Feeds
from control.delivery.guard import Guard
from control.delivery.keeping import keep_days
from control.delivery.sender import Sender
from control.delivery.webhooks import Webhooks
from control.drivers.openvidu import OpenViduConnections
from control.drivers.owt import OwtConnections
from control.duties import Duty, Replica
from control.expiry import sweep_empty
from control.fleet import Fleet
from control.http.agents import AgentRoutes
from control.http.cluster_admin import ClusterAdminRoutes
from control.http.compat.openvidu import OpenViduRoutes
from control.http.compat.owt import OwtRoutes
from control.http.conferences import ConferenceRoutes
from control.http.events import EventRoutes
from control.http.gate import Gate
from control.http.health import HealthRoutes
from control.http.hints import Hints
from control.http.joining import JoinRoutes
from control.http.keys import KeyRoutes
from control.http.openapi import DocumentRoutes
from control.http.plans import PlanRoutes
from control.http.regions import RegionRoutes
from control.http.registration import ClusterRoutes
from control.http.replicas import ReplicaRoutes
from control.http.routes import application
from control.http.server import address_of, bind, make_server
from control.http.signing_keys import SigningKeyRoutes
from control.http.templates import TemplateRoutes
from control.http.webhooks import WebhookRoutes
from control.idempotency import KeptAnswers
from control.joining import Joining
from control.keyring import Keyring
from control.leftover_rooms import sweep_rooms
from control.openvidu_clusters import OpenViduClusters
from control.owt_clusters import OwtClusters
from control.placing import Placing
from control.probing import Prober
from control.registry import agent_leases, clusters, credentials, events, replicas, webhook_queue, work
from control.registry.database import connector, ensure_schema, is_current, newest_revision, open_database
from control.registry.lane import Lane
from control.registry.notices import follow
from control.registry.store import Store
from control.reporting import Reporting, sweep_leases
from control.security.credentials import Authenticator, prepare_keys
from control.security.events_token import EventTokens
from control.security.vault import Vault, load_master_key
from control.templates import seed_templates
from control.upkeep import keep_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.applications import Starlette

    from control.http.entry import Entry
    from control.http.server import Server
    from control.registry.database import Database
    from control.settings import ControlSettings, Settings

__all__ = ["Control", "build", "serve", "settle_memory"]

_log = structlog.get_logger(__name__)

_COLLECT_AFTER: Final = 20_000
"""Objects made more than freed until the garbage collector looks at the youngest; the default is 700."""


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
    stopping: Callable[[], None]
    """To be called when it is about to stop: answers that go on come to their end."""

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
    await seed_templates(store, own.templates_file)
    new_keys = await prepare_keys(store, own.keys)
    authenticator = Authenticator(store)
    keyring = Keyring(store, vault, own.tokens)
    await keyring.prepare()
    hints = Hints(own.placement)
    guard = Guard.of(own.webhooks.allow_networks, http=own.webhooks.allow_http)
    # What joins and beats say is short, and planning it would take longer than doing it.
    lane = connector(database.url, settings.database, planned_once=True)
    async with (
        hints,
        OwtConnections(cascade_timeout=own.reconcile.cascade_timeout) as owt,
        OpenViduConnections() as openvidu,
        Sender(guard, own.webhooks) as sender,
    ):
        fleet = Fleet(owt=owt, openvidu=openvidu, signer=keyring, vault=vault)
        replica = Replica(
            store,
            Lane(lane),
            own.replica,
            name=own.replica.name or socket.gethostname(),
            version=__version__,
            revision=newest_revision() or "",
            duties=_duties(own, bell, fleet),
            remembered={"credentials": authenticator.forget_all, "signing_keys": keyring.look_again},
            on_return=partial(_grace, store, own),
        )
        gate = Gate(authenticator, own.rate)
        placing = Placing(
            store,
            [Lane(lane) for _ in range(own.placement.lanes)],
            own.placement,
            own.regions,
            required_modules=frozenset(own.join.required_modules),
            patience=own.join.timeout,
            rng=random.Random(),  # noqa: S311 - spreads clients; nothing secret
        )
        breakers = Breakers(own.cascade.breaker)
        moving = Moving(store, placing, own.cascade)
        hands = Hands(store, fleet, vault, moving, settings=own.reconcile, cascade=own.cascade)
        reconciler = Reconciler(
            store,
            hands,
            bell,
            breakers,
            settings=own.reconcile,
            idle_grace=own.cascade.idle_grace,
            replica=replica.id,
        )
        attendance = Attendance(store, fleet, bell, own.attendance)
        joining = Joining(store, fleet, bell, placing, own.join, attendance=attendance)
        kept = KeptAnswers(store, vault, ttl=own.placement.answer_ttl, patience=2 * own.join.timeout)
        owt_clusters = OwtClusters(store, vault, bell, own.owt, own.probe)
        prober = Prober(store, fleet, bell, own.probe, on_alive=owt_clusters.attach, replica=replica.id)
        agents = Agents(store, vault, bell, own.agents)
        beats = Beats(store, Lane(lane), ttl=own.lease.ttl, gather=own.lease.gather)
        webhooks = Webhooks(store, vault, guard, sender, own.webhooks)
        dispatcher = Dispatcher(store, webhooks, own.webhooks, replica=replica.id)

        feeds = Feeds(store, own.events)
        event_routes = EventRoutes(store, feeds, EventTokens(keyring, ttl=own.events.token_ttl), own.events)

        async def ready() -> bool:
            return await store.check(is_current)

        async def listen() -> None:
            connect = connector(database.url, settings.database)
            channels = {
                work.CHANNEL: bell.ring,
                credentials.REVOKED: authenticator.forget,
                replicas.CHANGED: replica.changed,
                events.CHANNEL: feeds.notice,
                webhook_queue.CHANNEL: dispatcher.heard,
                agent_leases.CHANNEL: agents.channels.heard,
            }
            await follow(connect, channels, on_gap=missed)

        def missed() -> None:
            bell.ring_all()
            feeds.notice_all()
            dispatcher.wake()
            agents.channels.missed()
            authenticator.forget_all()

        documents = DocumentRoutes()
        entries = [
            # First: they are asked for most often.
            *JoinRoutes(store, joining, kept, hints, event_routes.url_of).entries(),
            *ClusterRoutes(Reporting(store, vault, bell, beats, lease=own.lease, probe=own.probe)).entries(),
            *HealthRoutes(ready).entries(),
            *ClusterAdminRoutes(store, bell, breakers).entries(),
            *AgentRoutes(store, agents, gate).entries(),
            *ConferenceRoutes(store, bell, own.conference).entries(),
            *PlanRoutes(store, breakers, idle_grace=own.cascade.idle_grace).entries(),
            *event_routes.entries(),
            *RegionRoutes(placing, own.regions).entries(),
            *TemplateRoutes(store).entries(),
            *KeyRoutes(store).entries(),
            *SigningKeyRoutes(keyring).entries(),
            *ReplicaRoutes(store).entries(),
            *WebhookRoutes(store, webhooks, own.webhooks).entries(),
            *OwtRoutes(gate, store, owt_clusters, joining, own.owt).entries(),
            *OpenViduRoutes(gate, OpenViduClusters(store, bell, attendance)).entries(),
            *documents.entries(),
        ]
        documents.describe(entries)
        yield Control(
            app=application(entries, gate, own.http),
            entries=entries,
            stopping=feeds.close,
            new_keys=new_keys,
            background=(
                reconciler.run,
                placing.run,
                kept.run,
                beats.run,
                prober.run,
                attendance.run,
                replica.run,
                listen,
                authenticator.note_use,
                keyring.run,
                feeds.run,
                dispatcher.run,
            ),
        )


def _duties(own: ControlSettings, bell: Bell, fleet: Fleet) -> list[Duty]:
    """Return what exactly one replica does at a time."""
    return [
        Duty(name="agents", body=partial(sweep_agents, bell=bell, settings=own.agents)),
        Duty(name="conferences", body=partial(sweep_empty, bell=bell, settings=own.conference)),
        # Each of its steps may be done twice, and it computes for long between statements.
        Duty(name="events", body=partial(keep_days, settings=own.events), fenced=False),
        Duty(name="leases", body=partial(sweep_leases, bell=bell, settings=own.lease)),
        # It writes nothing, and what it has clusters do may be done twice.
        Duty(name="rooms", body=partial(sweep_rooms, fleet=fleet, settings=own.rooms), fenced=False),
        Duty(
            name="upkeep",
            body=partial(keep_up, settings=own.upkeep, owt=own.owt, replica=own.replica),
        ),
        Duty(name="webhooks", body=partial(dispatch.keep_up, settings=own.webhooks)),
    ]


async def _grace(store: Store, own: ControlSettings, absence: float) -> None:
    """Let leases hold that nobody could renew while no replica was there for `absence` seconds."""
    await store.write(clusters.grace, ttl=min(own.lease.ttl, absence))
    await store.write(agent_leases.grace, ttl=min(own.agents.ttl, absence))


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
    with closing(bind(own.host, own.port, share=own.share_port)) as listener:
        async with (
            open_database(settings.database, settings.state) as database,
            _prepared(settings, database) as control,
        ):
            if control.new_keys:
                on_keys(control.new_keys)
            server = make_server(control.app, own.http, stop_timeout=own.stop_timeout)
            settle_memory()
            await _run(control, server, listener, on_listening)


def settle_memory() -> None:
    """Tell the garbage collector that what there is now stays.

    Without this, each full collection looks at every module's objects again, and a service that makes
    thousands of short-lived ones a second is stopped for tens of milliseconds time and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


@asynccontextmanager
async def _prepared(settings: Settings, database: Database) -> AsyncIterator[Control]:
    await ensure_schema(database)
    async with build(settings, database) as control:
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
            control.stopping()
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
