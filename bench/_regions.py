"""What cascading is measured on: control with its own Postgres, and in each region a cluster and a bridge."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causeway.client import ControlClient
from causeway.errors import CausewayError
from lab.launcher.processes import Keys, Processes, Region
from lab.launcher.supervisor import ChildSpec, Supervisor
from lab.launcher.workplace import free_ports, region_names, workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lab.launcher.processes import Process

__all__ = ["Regions", "regions", "until"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What is running."""

    names: list[str]
    url: str
    client: ControlClient


@asynccontextmanager
async def regions(count: int) -> AsyncIterator[Regions]:
    """Start everything; stop it and delete its files."""
    keys = Keys()
    with workplace(None) as directory:
        control_port, *ports = free_ports(count + 1)
        places = [Region(name=n, port=p) for n, p in zip(region_names(count), ports, strict=True)]
        environment = {**os.environ, "CAUSEWAY_LOG__LEVEL": "warning"}
        recipes = Processes(directory, control_port=control_port, keys=keys, environment=environment)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                ControlClient(recipes.control_url, keys.operator, timeout=30.0)
            )
            supervisor = await stack.enter_async_context(Supervisor(directory, grace=10.0))
            await _start(supervisor, recipes.control(), client.list_regions, leash="TERM", timeout=60)
            for place in places:
                await _start(supervisor, recipes.cluster(place), _is_online(client, place))
            for place in places:
                await _start(supervisor, recipes.bridge(place), _has_bridges(client, place))
            yield Regions(names=[place.name for place in places], url=recipes.control_url, client=client)


async def until(look: Callable[[], Awaitable[Any]], *, timeout: float, pause: float = 0.02) -> Any:
    """Look until there is something true to see; return it. What control refuses is not there yet."""
    async with asyncio.timeout(timeout):
        while True:
            with suppress(CausewayError):
                seen = await look()
                if seen:
                    return seen
            await asyncio.sleep(pause)


def _is_online(client: ControlClient, place: Region) -> Callable[[], Awaitable[Any]]:
    async def look() -> bool:
        return (await client.get_cluster(place.cluster)).state == "online"

    return look


def _has_bridges(client: ControlClient, place: Region) -> Callable[[], Awaitable[Any]]:
    async def look() -> bool:
        cluster = await client.get_cluster(place.cluster)
        return cluster.event_bridge is not None and cluster.media_bridge is not None

    return look


async def _start(
    supervisor: Supervisor,
    process: Process,
    look: Callable[[], Awaitable[Any]],
    *,
    leash: str = "KILL",
    timeout: float = 30,
) -> None:
    async def ready() -> None:
        async def seen() -> bool:
            return await look() is not False

        await until(seen, timeout=timeout, pause=0.1)

    await supervisor.start(
        ChildSpec(
            name=process.name,
            command=process.command,
            environment=process.environment,
            ready=ready,
            ready_timeout=timeout,
            restart=False,
            leash=leash,
        )
    )
