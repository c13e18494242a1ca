"""An agent: the real core (bridges.control.core), a modelled bridge below and a modelled channel above."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from bench._simulation.kernel import Event, Host, HostGoneError, LateError
from bench._simulation.replica import DatabaseAwayError
from bench._simulation.rows import Address
from bench._simulation.session import TTL, Channel, Session
from bridges.control.core import AgentCore
from bridges.control.orders import Dial, HangUp, Leave, Say
from causeway.api.agents import AgentLoad
from causeway.backoff import Backoff
from causeway.channel import RoundTrip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench._simulation.cluster import Cluster
    from bench._simulation.registry import Registry
    from bench._simulation.wire import Bridge, LinkNews
    from bench._simulation.world import World
    from bridges.control.orders import Output
    from causeway.channel import FromControl

__all__ = ["Agent"]

_BEAT: Final = 1.5
_CAPACITY: Final = 8


class Agent:
    """One agent of a cluster, through all of its starts."""

    def __init__(self, world: World, name: str, cluster: Cluster) -> None:
        self._world = world
        self.name = name
        self.cluster = cluster
        self.instance = 0
        self.host: Host | None = None
        self.bridge: Bridge | None = None
        self.channel: Channel | None = None
        self._timer = Event()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.host is not None and self.host.alive

    def start(self) -> None:
        """Start anew, knowing nothing."""
        self.instance += 1
        self.host = Host(self._world.kernel, f"{self.name}.{self.instance}")
        self.bridge = self._world.wire.open(self.cluster, self.host, self._link_news)
        self._timer = Event()
        self._core = AgentCore(
            cluster=self.cluster.name,
            kinds=("event",),
            pinned=False,
            backoff=lambda: Backoff(base=0.2, cap=5.0, uniform=self._world.chance.uniform),
        )
        self.host.spawn(self._run())
        self.host.spawn(self._timers())

    def crash(self) -> None:
        """Stop without a word."""
        if self.bridge is not None:
            self.bridge.die()
        if self.channel is not None:
            self.channel.close()

    # --- below --------------------------------------------------------------------------------

    def _link_news(self, conference: str, peer: str, news: LinkNews) -> None:
        self._core.leg_changed("event", conference, peer, news, now=self._world.kernel.now)
        self._timer.set()

    def _do(self, outputs: Iterable[Output]) -> None:
        assert self.bridge is not None
        for output in outputs:
            match output:
                case Say(message):
                    if self.channel is not None:
                        self.channel.up(message)
                case Dial(conference=conference, peer=peer, token=token, address=address):
                    self._world.note(f"{self.name}: dial {peer} for {conference}, attempt {output.attempt}")
                    self.bridge.start(conference, peer, token, Address(address.host, address.port))
                case HangUp(conference=conference, peer=peer):
                    self._world.note(f"{self.name}: hang up {peer} of {conference}")
                    self.bridge.stop(conference, peer)
                case Leave():
                    if self.channel is not None:
                        self.channel.close()
        self._timer.set()

    async def _timers(self) -> None:
        kernel = self._world.kernel
        while True:
            self._timer.clear()
            due = self._core.next_timer()
            if due is None:
                await self._timer.wait()
            elif due > kernel.now:
                with suppress(LateError):
                    await kernel.within(self._timer.wait(), due - kernel.now)
            else:
                self._do(self._core.handle_timer(kernel.now))
                await kernel.sleep(0.001)

    # --- above --------------------------------------------------------------------------------

    async def _run(self) -> None:
        world, kernel = self._world, self._world.kernel
        backoff = Backoff(base=0.2, cap=2.0, uniform=world.chance.uniform)
        assert self.bridge is not None
        while True:
            try:
                epoch = await world.ask_control(self.cluster.name, self._register, timeout=2.0)
            except (LateError, HostGoneError, DatabaseAwayError):
                await kernel.sleep(backoff.next_delay())
                continue
            replica = world.some_replica()
            if replica is None:
                await kernel.sleep(backoff.next_delay())
                continue
            channel = self.channel = Channel(world, self, replica)
            replica.host.spawn(Session(world, self, replica, channel).run())
            self._do(self._core.connected(epoch=epoch, ttl=TTL, now=kernel.now))
            last_beat = kernel.now
            while channel.open:
                channel.heard_below.clear()
                for message in self._taken(channel):
                    backoff.reset()
                    self._do(self._core.receive(message, kernel.now))
                try:
                    await kernel.within(channel.heard_below.wait(), max(0.01, last_beat + _BEAT - kernel.now))
                except LateError:
                    last_beat = kernel.now
                    self._do(self._core.heartbeat(AgentLoad(), self._round_trips()))
            self._core.disconnected()
            self.channel = None
            await kernel.sleep(backoff.next_delay())

    def _register(self, registry: Registry) -> int:
        assert self.bridge is not None
        return registry.register_agent(
            self.name,
            cluster=self.cluster.name,
            kinds=frozenset({"event"}),
            address=self.bridge.address,
            instance=self.instance,
            room=_CAPACITY,
            ttl=TTL,
        )

    def _taken(self, channel: Channel) -> list[FromControl]:
        taken, channel.downwards = channel.downwards, []
        return taken

    def _round_trips(self) -> list[RoundTrip]:
        return [
            RoundTrip(cluster=other.name, ms=self._world.true_round_trip(self.cluster.name, other.name))
            for other in self._world.clusters.values()
            if other is not self.cluster
        ]
