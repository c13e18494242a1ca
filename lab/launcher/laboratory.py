"""One machine, several regions, one conference: the story of a laboratory from start to verdict.

Starts control, then a cluster and a bridge for each region, then the participants; shows what goes on;
judges. How children are kept is in `supervisor`, what they are in `processes`, what is seen of them in
`observer`, how it looks in `table`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import structlog
from msgspec import structs
from rich.console import Console

from causeway.api import ConferenceCreate, ConferenceQuery, Topology
from causeway.client import ControlClient
from causeway.telemetry import LogSettings, configure
from lab.launcher.observer import Observer
from lab.launcher.processes import Keys, Process, Processes, Region
from lab.launcher.scoreboard import Scoreboard
from lab.launcher.screen import Screen
from lab.launcher.seat import Seat
from lab.launcher.supervisor import ChildFailedError, ChildSpec, Supervisor
from lab.launcher.table import summary
from lab.launcher.view import View
from lab.launcher.workplace import free_ports, region_names, require_free, workplace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from causeway.api import BridgeAddress
    from lab.launcher.observer import Observation

__all__ = ["Laboratory", "Options", "run"]

_TEMPLATE: Final = "default"
EXIT_GOOD: Final = 0
EXIT_BAD: Final = 1
_EXIT_SIGNAL: Final = 128  # plus the signal's number, as a shell does

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says; see there."""

    seconds: float | None
    regions: int
    port: int
    state: Path | None
    media: Path | None
    fps: int
    agents: bool = True
    topology: Literal["mesh", "tree", "star"] = "mesh"


def run(options: Options) -> int:
    """Run a laboratory and return the exit code; everything it started has ended.

    Raises ConfigError for a port or directory that cannot be used, ChildFailedError for a part that did not
    come up or ended for good.
    """
    require_free(options.port)
    with workplace(options.state) as directory:
        (directory / "logs").mkdir(exist_ok=True)
        with _log_to(directory / "logs" / "laboratory.log"):
            return asyncio.run(Laboratory(options, directory).run())


class Laboratory:
    """One run in one directory."""

    def __init__(self, options: Options, directory: Path) -> None:
        ports = free_ports(options.regions)
        names = region_names(options.regions)
        keys = Keys()
        self._options = options
        self._directory = directory
        self._regions = [Region(name=name, port=port) for name, port in zip(names, ports, strict=True)]
        self._conference = f"lab-{secrets.token_hex(4)}"
        self._processes = Processes(
            directory,
            control_port=options.port,
            keys=keys,
            environment=os.environ,
            agents=options.agents,
        )
        self._client = ControlClient(self._processes.control_url, keys.operator, timeout=3.0)
        self._observer = Observer(self._client, self._processes.control_url, self._regions)
        self._scoreboard = Scoreboard()
        self._supervisor = Supervisor(directory)
        self._view = View(
            conference=self._conference,
            regions=self._regions,
            supervisor=self._supervisor,
            observer=self._observer,
            scoreboard=self._scoreboard,
        )
        self._console = Console(highlight=False)

    async def run(self) -> int:
        """Start everything, run for as long as the options say, stop everything; return the exit code."""
        started_at = time.monotonic()
        try:
            async with self._client, self._supervisor:
                number = await self._run_until_signal()
                stopping_at = time.monotonic()
                self._view.doing = "stopping"
            log.info(
                "laboratory.stopped", seconds=time.monotonic() - stopping_at, ran=stopping_at - started_at
            )
        except BaseExceptionGroup as group:
            raise _first_failure(group) from None
        if self._view.running_since is None:
            return _EXIT_SIGNAL + (number or 0)
        verdict = self._scoreboard.ledger.judge()
        self._console.print(summary(self._view.snapshot(), verdict), soft_wrap=True, markup=False)
        if number is not None:
            return _EXIT_SIGNAL + number
        return EXIT_GOOD if verdict.good else EXIT_BAD

    async def _run_until_signal(self) -> int | None:
        """Work and show it; return the signal that ended it, None when the time was over."""
        with _signals() as signalled:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self._observer.run()),
                    tasks.create_task(Screen(self._console, self._view).run()),
                ]
                work = tasks.create_task(self._work())
                # Whichever ends it: cancelling the other leaves nothing of it.
                work.add_done_callback(lambda _: signalled.cancel())
                await asyncio.wait({signalled})
                for task in (work, *background):
                    task.cancel()
            return None if signalled.cancelled() else signalled.result()

    async def _work(self) -> None:
        self._console.print(f"state, logs and process ids: {self._directory}", soft_wrap=True, markup=False)
        await self._start_control()
        await self._start_regions()
        await self._start_participants()
        self._view.start_clock()
        if self._options.seconds is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(self._options.seconds)

    # --- starting, in this order ------------------------------------------------------------------

    async def _start_control(self) -> None:
        self._view.doing = "starting control and its database"

        async def ready() -> None:
            await self._observer.until(lambda seen: seen.ready)

        # SIGTERM on the leash: control then stops its Postgres in order.
        await self._start(self._processes.control(), ready, timeout=40.0, leash="TERM")
        await self._delete_conferences()
        await self._client.create_conference(
            ConferenceCreate(id=self._conference, type=await self._conference_type())
        )
        self._observer.conference = self._conference

    async def _conference_type(self) -> str:
        """Return the template to use; one that wants another shape than usual is made of the usual one."""
        if self._options.topology == "mesh":
            return _TEMPLATE
        usual = (await self._client.get_template(_TEMPLATE)).value.template
        hubs = (self._regions[1].name,) if self._options.topology == "star" else ()
        wish = Topology(kind=self._options.topology, hubs=hubs)
        name = f"{_TEMPLATE}-{self._options.topology}"
        await self._client.put_template(name, structs.replace(usual, topology=wish))
        return name

    async def _delete_conferences(self) -> None:
        """Delete what an earlier run in the same directory has left."""
        query = ConferenceQuery()
        while True:
            page = await self._client.list_conferences(query)
            for conference in page.conferences:
                await self._client.delete_conference(conference.id)
            if page.next is None:
                return
            query = ConferenceQuery(cursor=page.next)

    async def _start_regions(self) -> None:
        self._view.doing = "starting clusters and bridges"
        async with asyncio.TaskGroup() as tasks:
            for region in self._regions:
                tasks.create_task(self._start_cluster(region))
                tasks.create_task(self._start_bridge(region))

    async def _start_cluster(self, region: Region) -> None:
        async def ready() -> None:
            await self._observer.until(lambda seen: region.name in seen.stats)

        await self._start(self._processes.cluster(region), ready, restart=False)

    async def _start_bridge(self, region: Region) -> None:
        async def ready() -> None:
            before = _bridges(self._observer.seen, region)

            def is_back(seen: Observation) -> bool:
                now = _bridges(seen, region)
                return None not in now and not set(now) & set(before)

            await self._observer.until(is_back)

        await self._start(self._processes.bridge(region), ready)

    async def _start_participants(self) -> None:
        self._view.doing = "participants join"
        others = list(self._regions)
        if self._options.topology != "mesh":
            # Who comes first is in the middle, as far as nothing else is known.
            await self._start_participant(others.pop(1))
        async with asyncio.TaskGroup() as tasks:
            for region in others:
                tasks.create_task(self._start_participant(region))

    async def _start_participant(self, region: Region) -> None:
        publishes = region is self._regions[0]
        process = self._processes.participant(
            region,
            conference=self._conference,
            publishes=publishes,
            fps=self._options.fps,
            media=self._options.media,
        )
        score = self._scoreboard.add(process.name, region=region.name, publishes=publishes)
        seat = Seat(self._scoreboard, score, self._directory / "logs" / f"{process.name}.jsonl")
        await self._start(process, seat.ready, timeout=40.0, on_line=seat.take)

    async def _start(
        self,
        process: Process,
        ready: Callable[[], Awaitable[None]],
        *,
        timeout: float = 20.0,
        restart: bool = True,
        leash: str = "KILL",
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        spec = ChildSpec(
            name=process.name,
            command=process.command,
            environment=process.environment,
            ready=ready,
            ready_timeout=timeout,
            restart=restart,
            leash=leash,
            on_line=on_line,
        )
        await self._supervisor.start(spec)


def _bridges(seen: Observation, region: Region) -> tuple[BridgeAddress | None, BridgeAddress | None]:
    """Return the addresses of a region's event bridge and media bridge, as control knows them."""
    cluster = seen.clusters.get(region.cluster)
    return (cluster.event_bridge, cluster.media_bridge) if cluster is not None else (None, None)


def _first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what to tell: the child that failed, else the only other thing that went wrong, else all."""
    leaves = list(_leaves(group))
    for leaf in leaves:
        if isinstance(leaf, ChildFailedError):
            return leaf
    return leaves[0] if len(leaves) == 1 else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exception in group.exceptions:
        if isinstance(exception, BaseExceptionGroup):
            yield from _leaves(exception)
        else:
            yield exception


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Future[int]]:
    """Give a future that becomes the number of the first signal that asks to stop."""
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[int] = loop.create_future()

    def take(number: signal.Signals) -> None:
        if not signalled.done():
            signalled.set_result(number)

    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in stops:
        loop.add_signal_handler(number, take, number)
    try:
        yield signalled
    finally:
        # The handlers stay until the loop closes: a second Ctrl-C while children stop changes nothing.
        signalled.cancel()


@contextlib.contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Send this process's log to a file: standard error is the terminal, where the table is."""
    configure(LogSettings(), process="laboratory")
    handler = logging.getLogger().handlers[0]
    with file.open("a", encoding="utf-8") as stream:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stream)
        try:
            yield
        finally:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
