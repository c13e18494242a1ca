"""An agent: the real core (bridges.control.core), with a modelled bridge below and a modelled channel above.

The channel keeps order and loses nothing until it breaks; then both ends find out, sooner or later. Control's
end is a task on a replica: it tells the desired state in full, then what changes, and writes down the rest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from bench._simulation.kernel import Event, Host, HostGoneError, LateError
from bench._simulation.replica import DatabaseAwayError
from bench._simulation.rows import Address
from bench._simulation.tables import StaleEpochError
from bridges.control.core import AgentCore
from bridges.control.orders import Dial, HangUp, Leave, Say
from causeway.api.agents import AgentAddress, AgentLoad
from causeway.backoff import Backoff
from causeway.channel import (
    Ack,
    Assignment,
    DesiredLink,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    Refuse,
    Report,
    Resync,
    RoundTrip,
)
from control.agents.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench._simulation.cluster import Cluster
    from bench._simulation.registry import Registry
    from bench._simulation.replica import Replica
    from bench._simulation.wire import Bridge, LinkNews
    from bench._simulation.world import World
    from bridges.control.orders import Output
    from causeway.channel import FromAgent, FromControl, Refusal

__all__ = ["Agent"]

_TTL: Final = 6.0
_BEAT: Final = 1.5
_POLL: Final = 3.0
_CAPACITY: Final = 8


class _Channel:
    """One connection between an agent and a replica."""

    def __init__(self, world: World, agent: Agent, replica: Replica) -> None:
        self._world = world
        self._agent = agent
        self._replica = replica
        self._arrives = {"up": 0.0, "down": 0.0}
        self.open = True
        self.upwards: list[FromAgent] = []
        self.downwards: list[FromControl] = []
        self.heard_above = Event()
        self.heard_below = Event()

    def up(self, message: FromAgent) -> None:
        """Tell control."""

        def arrive() -> None:
            self.upwards.append(message)
            self.heard_above.set()

        self._send("up", arrive)

    def down(self, message: FromControl) -> None:
        """Tell the agent."""

        def arrive() -> None:
            self.downwards.append(message)
            self.heard_below.set()

        self._send("down", arrive)

    def _send(self, way: str, arrive: Callable[[], None]) -> None:
        world = self._world
        at = max(self._arrives[way], world.kernel.now + world.network.delay())
        self._arrives[way] = at

        def land() -> None:
            if not self.open:
                return
            if not world.network.passes("control", self._agent.cluster.name) or not self._replica.host.alive:
                self.close()
            else:
                arrive()

        world.kernel.later(at - world.kernel.now, land)

    def close(self) -> None:
        """Break it."""
        self.open = False
        self.heard_above.set()
        self.heard_below.set()


class Agent:
    """One agent of a cluster, through all of its starts."""

    def __init__(self, world: World, name: str, cluster: Cluster) -> None:
        self._world = world
        self.name = name
        self.cluster = cluster
        self.instance = 0
        self.host: Host | None = None
        self.bridge: Bridge | None = None
        self.channel: _Channel | None = None
        self._starts: dict[int, Address] = {}
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
            channel = self.channel = _Channel(world, self, replica)
            replica.host.spawn(_Session(world, self, replica, channel).run())
            self._do(self._core.connected(epoch=epoch, ttl=_TTL, now=kernel.now))
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
            ttl=_TTL,
        )

    def _taken(self, channel: _Channel) -> list[FromControl]:
        taken, channel.downwards = channel.downwards, []
        return taken

    def _round_trips(self) -> list[RoundTrip]:
        return [
            RoundTrip(cluster=other.name, ms=self._world.true_round_trip(self.cluster.name, other.name))
            for other in self._world.clusters.values()
            if other is not self.cluster
        ]


class _Session:
    """Control's end of a channel, after control.agents.session; its core works out what is to be told."""

    def __init__(self, world: World, agent: Agent, replica: Replica, channel: _Channel) -> None:
        self._world = world
        self._agent = agent
        self._replica = replica
        self._channel = channel
        self._id = 0
        self._telling = Telling()

    async def run(self) -> None:
        """Serve it until it breaks."""
        self._world.registry.on_agent.append(self._notified)
        try:
            while self._channel.open:
                await self._turn()
        except StaleEpochError:
            self._channel.down(Goodbye(reason="register"))
            await self._world.kernel.sleep(1.0)
        except DatabaseAwayError:
            pass
        finally:
            self._channel.close()
            self._world.registry.on_agent.remove(self._notified)

    def _notified(self, agent: str) -> None:
        if agent == self._agent.name and self._world.chance.random() < 0.9:
            self._world.kernel.later(self._world.network.delay(), self._channel.heard_above.set)

    async def _turn(self) -> None:
        channel = self._channel
        channel.heard_above.clear()
        taken, channel.upwards = channel.upwards, []
        for message in taken:
            await self._hear(message)
        if self._telling.version is not None:
            state = await self._replica.write(self._state)
            change = self._telling.compare(state)
            if change is not None:
                channel.down(self._telling.tell(await self._next_version(), change))
        try:
            await self._world.kernel.within(channel.heard_above.wait(), _POLL)
        except LateError:
            await self._replica.write(self._hold)

    async def _hear(self, message: FromAgent) -> None:
        name, cluster, write = self._agent.name, self._agent.cluster.name, self._replica.write
        match message:
            case Hello(epoch=epoch):
                self._id = await write(lambda registry: registry.open_channel(name, epoch=epoch, ttl=_TTL))
                await self._tell_everything()
            case Heartbeat(round_trips=round_trips):

                def beat(registry: Registry) -> None:
                    self._hold(registry)
                    registry.round_trips |= {(cluster, each.cluster): each.ms for each in round_trips}

                await write(beat)
                self._channel.down(LeaseRenewed(ttl=_TTL))
            case Report():
                await write(lambda registry: self._reported(registry, message))
            case Resync():
                await self._tell_everything()
            case Ack(version=version):
                await write(lambda registry: self._acknowledged(registry, version))
            case Refuse(version=version, problems=problems):
                self._world.note(f"{name} refuses: {[(p.conference, p.peer, p.reason) for p in problems]}")
                await write(lambda registry: self._refused(registry, version, problems))

    async def _tell_everything(self) -> None:
        state = await self._replica.write(self._state)
        self._channel.down(self._telling.everything(await self._next_version(), state))

    async def _next_version(self) -> int:
        return await self._replica.write(lambda registry: registry.next_version(self._agent.name, self._id))

    # --- transactions -------------------------------------------------------------------------

    def _hold(self, registry: Registry) -> None:
        registry.hold_channel(self._agent.name, self._id, ttl=_TTL)

    def _acknowledged(self, registry: Registry, version: int) -> None:
        self._hold(registry)
        registry.agents[self._agent.name].acknowledged = version

    def _refused(self, registry: Registry, version: int, problems: list[Refusal]) -> None:
        self._acknowledged(registry, version)
        known = self._known(registry)
        for each in problems:
            if each.peer is not None and known.get((each.conference, each.peer)) in {"requested", "up"}:
                self._seen(registry, each.conference, each.peer, "down")

    def _reported(self, registry: Registry, report: Report) -> None:
        self._hold(registry)
        known = self._known(registry)
        for each in report.links:
            if known.get((each.conference, each.peer)) not in {None, each.state}:
                self._seen(registry, each.conference, each.peer, each.state)
        if report.full:
            said = {(each.conference, each.peer) for each in report.links}
            for (conference, peer), state in known.items():
                if state == "up" and (conference, peer) not in said:
                    self._seen(registry, conference, peer, "down")

    def _seen(self, registry: Registry, conference: str, peer: str, state: Literal["up", "down"]) -> None:
        registry.link_seen_by_agent(self._agent.cluster.name, conference, peer, state)

    def _known(self, registry: Registry) -> dict[tuple[str, str], str]:
        """Return the states of the links that the agent speaks for."""
        return {
            (conference, listener): row.state
            for (conference, dialer, listener), row in registry.links.items()
            if dialer == self._agent.cluster.name
            and row.via == "agent"
            and self._serves(registry, conference, dialer)
        }

    def _serves(self, registry: Registry, conference: str, cluster: str) -> bool:
        placement = registry.placements.get((conference, cluster))
        return placement is not None and placement.agents.get("event") == self._agent.name

    def _state(self, registry: Registry) -> dict[str, Assignment]:
        """Return what the agent shall do, as control.registry.desired reads it."""
        cluster = self._agent.cluster.name
        state = {}
        for conference, where in sorted(registry.placements):
            if where != cluster or not self._serves(registry, conference, cluster):
                continue
            links = []
            for (at, dialer, listener), row in sorted(registry.links.items(), key=lambda each: each[0]):
                if at != conference or cluster not in {dialer, listener}:
                    continue
                if dialer != cluster:
                    links.append(DesiredLink(peer=dialer, role="listen"))
                    continue
                there = registry.placements.get((conference, listener))
                token = None if there is None else there.token
                if row.via == "agent" and row.orders and row.bridges is not None and token is not None:
                    address = AgentAddress(host=row.bridges.cluster, port=row.bridges.start)
                    links.append(
                        DesiredLink(
                            peer=listener, role="dial", attempt=row.orders, token=token, event=address
                        )
                    )
            state[conference] = Assignment(conference=conference, kinds=["event"], links=links)
        return state
