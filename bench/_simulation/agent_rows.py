"""The modelled database: agents, as control.registry.agents, agent_leases and agent_channels keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench._simulation.link_rows import LinkRows
from bench._simulation.rows import AgentRow
from bench._simulation.tables import StaleEpochError

if TYPE_CHECKING:
    from bench._simulation.rows import Address
    from control.cascade.view import AgentKind

__all__ = ["AgentRows"]


class AgentRows(LinkRows):
    """What may be done to agents and their assignments."""

    def register_agent(
        self,
        name: str,
        *,
        cluster: str,
        kinds: frozenset[AgentKind],
        address: Address,
        instance: int,
        room: int,
        ttl: float,
    ) -> int:
        """Take the agent in; return its epoch."""
        old = self.agents.get(name)
        row = AgentRow(
            cluster=cluster,
            kinds=kinds,
            address=address,
            instance=instance,
            epoch=1 if old is None else old.epoch + 1,
            until=self.now + ttl,
            room=room,
            draining=old is not None and old.draining,
            version=0 if old is None else old.version,
        )
        self.agents[name] = row
        if old is None or old.instance != instance:
            for (conference, where), placement in self.placements.items():
                if name in placement.agents.values():
                    self._want(where, conference)
        self._mark_agent(name)
        return row.epoch

    def drain_agent(self, name: str, *, draining: bool) -> None:
        """Have the agent relieved of what it has, or not."""
        if name in self.agents:
            self.agents[name].draining = draining
            self._mark_agent(name)

    def assign(self, conference: str, cluster: str, kind: AgentKind, agent: str) -> None:
        """Have the agent serve the conference."""
        placement = self.placements.get((conference, cluster))
        if placement is not None and placement.agents.get(kind) is None:
            placement.agents[kind] = agent
            self._want(cluster, conference)
            self._tell_agent(agent)

    def unassign(self, conference: str, cluster: str, kind: AgentKind, agent: str) -> None:
        """Relieve the agent of the conference."""
        placement = self.placements.get((conference, cluster))
        if placement is not None and placement.agents.get(kind) == agent:
            del placement.agents[kind]
            self._want(cluster, conference)
            self._tell_agent(agent)

    def open_channel(self, name: str, *, epoch: int, ttl: float) -> int:
        """Have a new channel speak for the agent; return it. Raises StaleEpochError."""
        row = self.agents.get(name)
        if row is None or row.epoch != epoch or row.until <= self.now:
            raise StaleEpochError(name)
        row.until, row.channel = self.now + ttl, self._kernel.next_number()
        return row.channel

    def hold_channel(self, name: str, channel: int, *, ttl: float) -> None:
        """Renew the lease by the channel that speaks. Raises StaleEpochError."""
        row = self.agents.get(name)
        if row is None or not row.live or row.channel != channel or row.until <= self.now:
            raise StaleEpochError(name)
        row.until = self.now + ttl

    def next_version(self, name: str, channel: int) -> int:
        """Return the number of the next state that the agent is told. Raises StaleEpochError."""
        row = self.agents[name]
        if row.channel != channel:
            raise StaleEpochError(name)
        row.version += 1
        return row.version

    def _mark_agent(self, name: str) -> None:
        for conference, cluster in list(self.placements):
            if cluster == self.agents[name].cluster:
                self.mark(conference)
