"""The agent's shell: registers with control, holds the channel, gives the bridges their orders.

What is to be done is the core's to say. Losing control ends nothing: the bridges go on, timers run, and the
way back is tried for ever, each time by registering first, so that a control that knows nothing of us any
more is as good as one that does.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from bridges.control.figures import NAME, FiguresTelling
from bridges.control.orders import Dial, HangUp, Leave, Relay, Say
from bridges.control.traffic import Traffic
from bridges.load import machine_load
from bridges.node.cascading import CascadingOptions
from bridges.node.port import RpcError
from causeway.api.agents import AgentLoad
from causeway.api.figures import ControlFigures
from causeway.backoff import Backoff
from causeway.channel import MAX_TO_AGENT, MessageError, RoundTrip, decode_from_control, encode, subprotocol
from causeway.client import ControlClient
from causeway.errors import ApiError, CausewayError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridges.control.core import AgentCore
    from bridges.control.orders import Kind, LegState, Output
    from bridges.control.port import Cascader
    from bridges.control.settings import ControlSettings
    from bridges.figures import Source
    from bridges.quic import RoundTrip as Measured
    from causeway.api.agents import AgentAddresses, AgentLease, AgentRegistration
    from causeway.channel import Figures, FromAgent

__all__ = ["Agent"]

log = structlog.get_logger(__name__)

_MAX_MS: Final = 600_000.0
_MAX_PEERS: Final = 1000


class _Connect(connect):
    """websockets' connect, which follows no redirect: the key is for control alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect for the failure that it is."""
        return exc


class _LeftError(CausewayError):
    """The channel is to be closed and opened anew."""

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Agent:
    """One agent: its core, its bridges, and the way to control. `run` until cancelled."""

    def __init__(
        self,
        agent: str,
        core: AgentCore,
        bridges: Mapping[Kind, Cascader],
        *,
        registration: AgentRegistration,
        settings: ControlSettings,
        sources: Sequence[Source] = (),
    ) -> None:
        """Order `bridges`, which are `registration`, and tell control what the `sources` measure."""
        self._id = agent
        self._sources = sources
        self._core = core
        self._bridges = bridges
        self._registration = registration
        self._settings = settings
        self._wake = asyncio.Event()
        self._unsent: asyncio.Queue[FromAgent] = asyncio.Queue(settings.max_unsent)
        self._left: asyncio.Future[NoReturn] | None = None
        self._lease: AgentLease | None = None
        self._backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
        self._traffic = Traffic()
        for kind, bridge in bridges.items():
            bridge.on_leg = partial(self._leg_changed, kind)
            if settings.expected_only:
                bridge.expects = core.expects

    async def run(self) -> None:
        """Serve control for ever; cancelled, take the registration back."""
        client = ControlClient(
            self._settings.url, self._settings.key, timeout=self._settings.call_timeout, max_connections=1
        )
        async with client:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._keep_time())
                    tasks.create_task(self._stay_connected(client))
            finally:
                await self._take_back(client)

    def register_anew(self, addresses: AgentAddresses) -> None:
        """Tell control that the bridges are reached in another way: it has their links made anew."""
        self._registration = structs.replace(self._registration, addresses=addresses)
        self._leave("the addresses have changed")

    def figures(self) -> ControlFigures:
        """Return how the process stands with control."""
        core = self._core
        return ControlFigures(
            agent=self._id,
            connected=core.in_step,
            version=core.version,
            conferences=core.conferences,
            links_wanted=core.links_wanted,
            links_up=core.links_up,
        )

    # --- the bridges ------------------------------------------------------------------------------

    def _leg_changed(self, kind: Kind, peer: str, room: str, state: LegState, error: str) -> None:
        self._core.leg_changed(kind, room, peer, state, error=error, now=_now())
        self._wake.set()

    def _do(self, outputs: Iterable[Output]) -> None:
        """Do what the core says, in this order."""
        for output in outputs:
            match output:
                case Dial():
                    self._dial(output)
                case HangUp():
                    self._bridges[output.kind].stop_cascading(output.peer, output.conference)
                case Relay():
                    self._bridges[output.kind].set_relays(output.conference, output.ways)
                case Say():
                    self._say(output.message)
                case Leave():
                    self._leave(output.reason, retry_after=output.retry_after)
        self._wake.set()

    def _dial(self, order: Dial) -> None:
        events = order.kind == "event"
        where = order.address
        options = CascadingOptions(
            room=order.conference,
            token=order.token,
            self_cluster=self._registration.cluster,
            target_cluster=order.peer,
            ev_ip=where.host if events else None,
            ev_port=where.port if events else None,
            ev_fingerprint=where.fingerprint if events else None,
            media_ip=None if events else where.host,
            media_port=None if events else where.port,
            media_fingerprint=None if events else where.fingerprint,
        )
        try:
            self._bridges[order.kind].start_cascading(options)
        except RpcError as error:
            log.warning("agent.order_refused", order=repr(order), error=str(error))
            self._core.refused(order, str(error), _now())

    async def _keep_time(self) -> None:
        """Let the core do what is due, also while control is away."""
        while True:
            self._wake.clear()
            due = self._core.next_timer()
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                assert due is not None
                self._do(self._core.handle_timer(max(due, _now())))

    # --- the way to control -----------------------------------------------------------------------

    async def _stay_connected(self, client: ControlClient) -> None:
        while True:
            retry_after = 0.0
            try:
                await self._connection(client)
            except _LeftError as error:
                retry_after = error.retry_after
                log.info("agent.channel_left", agent=self._id, reason=str(error))
            except (ApiError, UnavailableError, OSError, WebSocketException, MessageError) as error:
                log.warning("agent.channel_lost", agent=self._id, error=str(error) or type(error).__name__)
            await asyncio.sleep(max(self._backoff.next_delay(), retry_after))

    async def _connection(self, client: ControlClient) -> None:
        """Register and hold the channel until it breaks; raises why."""
        registration = self._registration
        lease = self._lease = await client.register_agent(self._id, registration)
        async with self._connect(lease) as socket:
            log.info("agent.connected", agent=self._id, epoch=lease.epoch)
            self._unsent = asyncio.Queue(self._settings.max_unsent)
            self._left = asyncio.get_running_loop().create_future()
            if registration is not self._registration:
                self._leave("the addresses have changed meanwhile")
            self._do(self._core.connected(epoch=lease.epoch, ttl=lease.ttl, now=_now()))
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_raised(self._left))
                    tasks.create_task(self._read(socket))
                    tasks.create_task(self._write(socket))
                    tasks.create_task(self._beat(lease.heartbeat_interval))
                    tasks.create_task(self._tell_figures())
            except BaseExceptionGroup as group:
                raise _first(group) from None
            finally:
                self._core.disconnected()
                self._left.cancel()
                self._left = None
                self._wake.set()

    def _connect(self, lease: AgentLease) -> _Connect:
        settings = self._settings
        return _Connect(
            f"ws{settings.url.rstrip('/').removeprefix('http')}/{lease.channel.lstrip('/')}",
            subprotocols=[subprotocol(lease.protocol)],  # type: ignore[list-item]  # websockets' NewType of str
            additional_headers={"Authorization": f"Bearer {settings.key}"},
            compression=None,
            proxy=None,
            open_timeout=settings.call_timeout,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            close_timeout=1.0,
            max_size=MAX_TO_AGENT,
        )

    async def _read(self, socket: ClientConnection) -> NoReturn:
        while True:
            message = decode_from_control(await socket.recv())
            before = self._core.version
            self._do(self._core.receive(message, _now()))
            if self._core.in_step:
                self._backoff.reset()
            if self._core.version != before:
                log.info("agent.state_taken", version=self._core.version, conferences=self._core.conferences)

    async def _write(self, socket: ClientConnection) -> NoReturn:
        while True:
            await socket.send(encode(await self._unsent.get()), text=True)

    async def _beat(self, interval: float) -> NoReturn:
        while True:
            await asyncio.sleep(interval)
            self._do(self._core.heartbeat(self._load(), self._round_trips()))

    async def _tell_figures(self) -> NoReturn:
        telling = FiguresTelling(max_links=self._settings.figures_links)
        while True:
            await asyncio.sleep(self._settings.figures_interval)
            if self._sources and self._core.in_step:
                self._say(await self._measure(telling))

    async def _measure(self, telling: FiguresTelling) -> Figures:
        telling.begin([source.link_keys() for source in self._sources])
        while (batch := telling.look()) is not None:
            telling.take(batch.bridge, self._sources[batch.bridge].link_figures(batch.keys))
            await asyncio.sleep(0)  # The bridges' own work goes on.
        return telling.message([source.overview() for source in self._sources])

    def _load(self) -> AgentLoad:
        peers = [peer for source in self._sources for peer in source.overview().peers]
        moved = self._traffic.bandwidth(peers, _now())
        return AgentLoad(
            conferences=self._core.conferences,
            links=self._core.links_up,
            cpu=machine_load(),
            bandwidth_in=moved.incoming,
            bandwidth_out=moved.outgoing,
        )

    def _round_trips(self) -> list[RoundTrip]:
        measured = [item for bridge in self._bridges.values() for item in bridge.round_trips().items()]
        best: dict[str, Measured] = {}
        for peer, round_trip in measured:
            # Peers that dialled us say themselves who they are: one that control could not know is left out.
            if NAME.fullmatch(peer) and len(best) < _MAX_PEERS:
                best[peer] = min(round_trip, best.get(peer, round_trip))
        return [
            RoundTrip(
                cluster=peer,
                ms=min(round_trip.seconds * 1000, _MAX_MS),
                jitter_ms=min(round_trip.variation * 1000, _MAX_MS),
            )
            for peer, round_trip in sorted(best.items())
        ]

    def _say(self, message: FromAgent) -> None:
        try:
            self._unsent.put_nowait(message)
        except asyncio.QueueFull:
            self._leave("control does not read")

    def _leave(self, reason: str, *, retry_after: float = 0.0) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_exception(_LeftError(reason, retry_after=retry_after))

    async def _take_back(self, client: ControlClient) -> None:
        """Leave in good order, if control can be reached in time."""
        if self._lease is None:
            return
        try:
            async with asyncio.timeout(self._settings.stop_timeout):
                await client.unregister_agent(self._id, epoch=self._lease.epoch)
        except (ApiError, UnavailableError, TimeoutError) as error:
            log.warning("agent.not_taken_back", agent=self._id, error=str(error) or "no answer in time")


async def _raised(future: asyncio.Future[NoReturn]) -> None:
    """Wait for what ends the channel, and raise it."""
    await future


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first(group: BaseExceptionGroup) -> BaseException:
    """Return the first single exception of a group: the one that ended the others."""
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
