"""What goes wrong, and who comes and goes: one thing after the other, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench._simulation.world import World

__all__ = ["Faults"]

_PAUSE: Final = 1.5
"""Seconds between two things that happen where there are few people; where there are more, more happens."""
_FEW: Final = 8

Fault: TypeAlias = "Callable[[], str | None]"


class Faults:
    """Makes things happen in a world until told to stop; then mends what is mended by somebody."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self._share = min(1.0, _FEW / max(1, len(world.people)))
        self._down: dict[str, Callable[[], None]] = {}
        self._table: list[tuple[int, Fault]] = [
            (30, self._somebody_comes),
            (22, self._somebody_goes),
            (4, self._cluster_crashes),
            (3, self._cluster_unregisters),
            (8, self._something_comes_back),
            (5, self._bridge_restarts),
            (6, self._cut_from_control),
            (7, self._cut_from_each_other),
            (3, self._replica_is_killed),
            (3, self._replica_freezes),
            (2, self._database_goes),
            (2, self._conference_ends),
            (5, self._agent_crashes),
            (2, self._agent_drains),
            (2, self._channel_breaks),
        ]

        self._for_all: list[Fault] = [
            self._conference_ends,
            self._database_goes,
            self._replica_freezes,
            self._replica_is_killed,
        ]

    def run(self, until: float) -> None:
        """Let things happen from now on."""
        kernel = self._world.kernel

        def happen() -> None:
            if kernel.now >= until:
                return
            [(_, what)] = self._chance.choices(self._table, [weight for weight, _ in self._table])
            # What concerns everybody does not become more frequent with their number.
            spared = what in self._for_all and self._chance.random() > self._share
            done = None if spared else what()
            if done is not None:
                self._world.note(f"— {done}")
            kernel.later(self._chance.expovariate(1 / (_PAUSE * self._share)), happen)

        kernel.later(0.1, happen)

    def mend(self) -> None:
        """Start again what is down, all but a few."""
        for name in list(self._down):
            if name in self._world.agents or self._chance.random() < 0.8:
                self._down.pop(name)()
                self._world.note(f"— {name} is back")
        self._world.database_away = False
        self._world.lost_commits = 0.0
        if not any(replica.host.alive for replica in self._world.replicas):
            self._world.start_replica()
        for agent in self._world.agents.values():
            self._world.registry.drain_agent(agent.name, draining=False)

    # --- one each -----------------------------------------------------------------------------

    def _somebody_comes(self) -> str | None:
        away = [person for person in self._world.people if not person.wants]
        if not away:
            return None
        person = self._chance.choice(away)
        person.come()
        return f"{person.name} wants into {person.conference}"

    def _somebody_goes(self) -> str | None:
        there = [person for person in self._world.people if person.wants]
        if not there:
            return None
        person = self._chance.choice(there)
        person.go()
        return f"{person.name} wants out of {person.conference}"

    def _cluster_crashes(self) -> str | None:
        alive = [cluster for cluster in self._world.clusters.values() if cluster.alive]
        if len(alive) < 2:
            return None
        cluster = self._chance.choice(alive)
        cluster.crash()
        self._down[cluster.name] = cluster.start
        if self._chance.random() < 0.4:
            delay = self._chance.uniform(0.2, 3.0)
            self._world.kernel.later(delay, lambda: self._come_back(cluster.name))
        return f"{cluster.name} crashes"

    def _cluster_unregisters(self) -> str | None:
        alive = [cluster for cluster in self._world.clusters.values() if cluster.alive]
        if len(alive) < 2:
            return None
        cluster = self._chance.choice(alive)
        row = self._world.registry.clusters.get(cluster.name)
        if row is None:
            return None
        self._world.registry.unregister(cluster.name, epoch=row.epoch)
        cluster.crash()
        self._down[cluster.name] = cluster.start
        return f"{cluster.name} is taken away"

    def _something_comes_back(self) -> str | None:
        if not self._down:
            return None
        name = self._chance.choice(sorted(self._down))
        self._down.pop(name)()
        return f"{name} is back"

    def _come_back(self, name: str) -> None:
        if name in self._down:
            self._down.pop(name)()
            self._world.note(f"— {name} is back at once")

    def _bridge_restarts(self) -> str | None:
        able = [each for each in self._world.clusters.values() if each.alive and each.bridge is not None]
        if not able:
            return None
        cluster = self._chance.choice(able)
        cluster.restart_bridge()
        return f"{cluster.name}'s bridge restarts"

    def _cut_from_control(self) -> str:
        name = self._chance.choice(sorted(self._world.clusters))
        seconds = self._chance.choice((0.5, 2.0, 10.0))
        self._world.network.cut("control", name, seconds)
        return f"{name} and control cannot hear each other for {seconds:g} s"

    def _cut_from_each_other(self) -> str | None:
        if len(self._world.clusters) < 2:
            return None
        one, other = self._chance.sample(sorted(self._world.clusters), 2)
        seconds = self._chance.choice((0.5, 4.0, 12.0))
        self._world.network.cut(one, other, seconds)
        if seconds > 3:
            self._world.wire.cut(one, other)
        return f"{one} and {other} cannot hear each other for {seconds:g} s"

    def _replica_is_killed(self) -> str | None:
        alive = [replica for replica in self._world.replicas if replica.host.alive]
        if not alive:
            return None
        replica = self._chance.choice(alive)
        replica.host.kill()
        self._world.kernel.later(self._chance.uniform(0.0, 8.0), self._world.start_replica)
        return f"{replica.name} is killed"

    def _replica_freezes(self) -> str | None:
        alive = [replica for replica in self._world.replicas if replica.host.alive]
        if not alive:
            return None
        replica = self._chance.choice(alive)
        seconds = self._chance.uniform(1.0, 12.0)
        replica.host.freeze(seconds)
        return f"{replica.name} is frozen for {seconds:.1f} s"

    def _database_goes(self) -> str:
        seconds = self._chance.uniform(0.5, 5.0)
        self._world.database_away = True

        def back() -> None:
            self._world.database_away = False

        self._world.kernel.later(seconds, back)
        return f"the database is away for {seconds:.1f} s"

    def _conference_ends(self) -> str | None:
        there = sorted(self._world.registry.conferences)
        if not there:
            return None
        conference = self._chance.choice(there)
        for person in self._world.people:
            if person.conference == conference:
                person.go()
        self._world.registry.end(conference)
        return f"{conference} is ended"

    def _agent_crashes(self) -> str | None:
        alive = [agent for agent in self._world.agents.values() if agent.alive]
        if not alive:
            return None
        agent = self._chance.choice(alive)
        agent.crash()
        if self._chance.random() < 0.5:
            self._world.kernel.later(self._chance.uniform(0.1, 3.0), lambda: self._come_back(agent.name))
        self._down[agent.name] = agent.start
        return f"{agent.name} crashes"

    def _agent_drains(self) -> str | None:
        if not self._world.registry.agents:
            return None
        name = self._chance.choice(sorted(self._world.registry.agents))
        draining = self._chance.random() < 0.6
        self._world.registry.drain_agent(name, draining=draining)
        return f"{name} {'drains' if draining else 'takes conferences again'}"

    def _channel_breaks(self) -> str | None:
        able = [agent for agent in self._world.agents.values() if agent.channel is not None]
        if not able:
            return None
        agent = self._chance.choice(able)
        if agent.channel is not None:
            agent.channel.close()
        return f"{agent.name} loses control"
