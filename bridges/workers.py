"""Several bridge processes in place of one, so that every core of a machine has work: `bridge.workers`.

Each is a whole bridge: a worker of its cluster and an agent of control of its own, with its own ports,
certificate and status endpoint. They share nothing and know nothing of each other: whoever assigns rooms
(control to its agents, a cluster to its workers) spreads them, and hands out the addresses of the one that
has the room. Here is only what makes their settings out of one, and what keeps them running: a process that
dies is started again, with growing pauses; the others go on. They end with this process, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from msgspec import structs

from bridges.agent import STOP_TIMEOUT, agent_id, check, until_stopped
from bridges.node.carriers import cluster_id
from bridges.settings import Settings
from bridges.status.places import numbered
from causeway.backoff import Backoff
from causeway.errors import ConfigError, UnavailableError
from causeway.leash import leashed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.settings import BridgeSettings

__all__ = ["count_of", "received", "run", "settings_of", "supervise"]

log = structlog.get_logger(__name__)

_SETTLED: Final = 10.0
"""Seconds after which a process has shown that it can work, and its earlier failures are forgiven."""
_GRACE: Final = STOP_TIMEOUT + 1.5
"""Seconds that a process has to end when it is told to."""
_MAX_PORT: Final = 65_535
_MAX_NAME: Final = 124
"""Of an agent, before its number."""


def count_of(settings: BridgeSettings) -> int:
    """Return how many processes are wanted: as many as there are cores for this one, if it is not said."""
    return settings.workers or len(os.sched_getaffinity(0))


def settings_of(settings: BridgeSettings) -> list[BridgeSettings]:
    """Return the settings of each process. Raises ConfigError when there are not enough ports for all.

    The first keeps what is configured; those after it have the ports, the status endpoint and the agent's id
    that follow, by their number from 1 on.
    """
    count = count_of(settings)
    _check_ports(settings, count)
    name = settings.control.agent or agent_id(settings)
    return [
        structs.replace(
            settings,
            workers=1,
            event_port=settings.event_port and settings.event_port + number,
            media_port=settings.media_port and settings.media_port + number,
            status=structs.replace(settings.status, listen=numbered(settings.status.listen, number)),
            control=structs.replace(settings.control, agent=_numbered(name, number)),
        )
        for number in range(count)
    ]


async def run(settings: Settings, command: Sequence[str]) -> None:
    """Run the bridge processes until SIGTERM or SIGINT; see `supervise`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    check(settings.bridge)
    await supervise(settings, command, stop=stop)


async def supervise(settings: Settings, command: Sequence[str], *, stop: asyncio.Event) -> None:
    """Run the bridge processes until `stop` is set.

    `command` runs one: its number is added to it, and its settings it reads from standard input.
    Raises ConfigError, and UnavailableError when one of them cannot begin; what it had to say it has said.
    """
    bridge = settings.bridge
    cluster = bridge.cluster or await until_stopped(cluster_id(bridge), stop)
    if cluster is None:
        return
    shares = settings_of(structs.replace(bridge, cluster=cluster))
    try:
        async with asyncio.TaskGroup() as tasks:
            keepers = [
                tasks.create_task(_keep(number, structs.replace(settings, bridge=share), command))
                for number, share in enumerate(shares)
            ]
            log.info("workers.started", count=len(keepers))
            await stop.wait()
            for keeper in keepers:
                keeper.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    log.info("workers.stopped")


async def _keep(number: int, settings: Settings, command: Sequence[str]) -> None:
    """Run one process again and again, until cancelled."""
    backoff, loop, has_worked = Backoff(base=0.2, cap=5.0), asyncio.get_running_loop(), False
    while True:
        began = loop.time()
        code = await _live(number, settings, command)
        if loop.time() - began >= _SETTLED:
            has_worked = True
            backoff.reset()
        if code > 0 and not has_worked:
            raise UnavailableError(f"bridge process {number} could not begin; it says why above")
        delay = backoff.next_delay()
        log.warning("worker.ended", number=number, code=code, again_in=round(delay, 2))
        await asyncio.sleep(delay)


async def _live(number: int, settings: Settings, command: Sequence[str]) -> int:
    """Run one process once and return its exit code; it has ended whichever way this is left."""
    process = await asyncio.create_subprocess_exec(
        *leashed([*command, str(number)], signal="TERM"),
        stdin=asyncio.subprocess.PIPE,
        # Its own group: Ctrl-C reaches this process alone, which then ends the others in order.
        start_new_session=True,
    )
    log.info("worker.started", number=number, pid=process.pid)
    try:
        await process.communicate(msgspec.json.encode(settings))
        return await process.wait()
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def received() -> Settings:
    """Return the settings that stand on standard input, for a process that supervise() has started."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)


def _numbered(name: str, number: int) -> str:
    return f"{name[:_MAX_NAME]}.{number}" if number else name


def _check_ports(settings: BridgeSettings, count: int) -> None:
    ports = [port for port in (settings.event_port, settings.media_port) if port]
    if any(port + count - 1 > _MAX_PORT for port in ports):
        raise ConfigError(
            f"bridge.workers: {count} processes need as many ports, and there are none that high"
        )
    if len(ports) > 1 and abs(ports[0] - ports[1]) < count:
        raise ConfigError(
            f"bridge.workers: {count} processes take the ports from bridge.event_port and bridge.media_port "
            f"on; leave at least {count} between the two"
        )
