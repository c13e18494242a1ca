"""The channel between an agent and a replica of control, and control's end of it.

The channel keeps order and loses nothing until it breaks; then both ends find out, sooner or later. Control's
end follows control.agents.session; what is to be told is worked out by its core, control.agents.telling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from bench._simulation.kernel import Event, LateError
from bench._simulation.replica import DatabaseAwayError
from bench._simulation.tables import StaleEpochError
from causeway.api.agents import AgentAddress
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
)
from control.agents.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench._simulation.agent import Agent
    from bench._simulation.registry import Registry
    from bench._simulation.replica import Replica
    from bench._simulation.world import World
    from causeway.channel import FromAgent, FromControl, Refusal

__all__ = ["TTL", "Channel", "Session"]

TTL: Final = 6.0
"""Of agents' leases."""
_POLL: Final = 3.0


class Channel:
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


class Session:
    """Control's end of a channel, after control.agents.session; its core works out what is to be told."""

    def __init__(self, world: World, agent: Agent, replica: Replica, channel: Channel) -> None:
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
                self._id = await write(lambda registry: registry.open_channel(name, epoch=epoch, ttl=TTL))
                await self._tell_everything()
            case Heartbeat(round_trips=round_trips):

                def beat(registry: Registry) -> None:
                    self._hold(registry)
                    registry.round_trips |= {(cluster, each.cluster): each.ms for each in round_trips}

                await write(beat)
                self._channel.down(LeaseRenewed(ttl=TTL))
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
        registry.hold_channel(self._agent.name, self._id, ttl=TTL)

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
