"""Which agents serve a conference at its clusters: who is missing, who is to be relieved. Pure.

A cluster with a live agent for events is *served by agents*: links of its placements are made and ended by
them, and by nothing else. Its placement gets one agent of each kind that the cluster has alive, as soon as
the conference has a second placement to be linked with, so that nobody waits for it later: the one that has
the conference already for another kind, else the one with the most room left. It keeps them while it can:

- one that died is relieved at once, and so is one that the conference needs no more;
- one that drains is relieved once another one has room for the conference. Until then it is better than none,
  and so it is taken where there is no other.

A cluster whose agents are all full has to wait: its own bridges are those agents.
Other clusters' bridges are their own business, and reached by their driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from control.cascade.view import AssignAgent, UnassignAgent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from control.cascade.view import AgentFacts, AgentKind, PlacementFacts, View

__all__ = ["Staffing"]

_KINDS: Final[tuple[AgentKind, ...]] = ("event", "media")
"""What links are made of, in the order in which agents are found for it."""


class Staffing:
    """Who serves the conference of `view`; `linked`: its placements that are, or are soon to be, linked."""

    def __init__(self, view: View, linked: Iterable[PlacementFacts]) -> None:
        self._view = view
        self._agents: dict[str, list[AgentFacts]] = {}
        for agent in sorted(view.agents, key=lambda agent: agent.id):
            if agent.live:
                self._agents.setdefault(agent.cluster, []).append(agent)
        needy = [placement.cluster for placement in linked]
        self._needy = frozenset(needy if len(needy) > 1 else ())
        self.actions: tuple[AssignAgent | UnassignAgent, ...] = tuple(
            action for placement in view.placements for action in self._of(placement)
        )
        """What is to be done about it, all of it at once."""
        self._unsettled = {action.cluster for action in self.actions}
        self._assigned = {p.cluster: dict(p.agents) for p in view.placements}

    def served(self, cluster: str) -> bool:
        """Say whether the cluster is served by agents, rather than reached by its driver."""
        return bool(self._alive(cluster, "event"))

    def relays(self, cluster: str) -> bool:
        """Say whether whoever serves the cluster, now or after a change, passes on what it receives."""
        agents = [agent for kind in _KINDS for agent in self._alive(cluster, kind)]
        return self.served(cluster) and all(agent.relays for agent in agents)

    def ready(self, cluster: str) -> bool:
        """Say whether a link may be ordered as far as the cluster's agents are concerned."""
        if not self.served(cluster):
            return True
        return cluster not in self._unsettled and "event" in self._assigned.get(cluster, {})

    def _alive(self, cluster: str, kind: AgentKind) -> list[AgentFacts]:
        return [agent for agent in self._agents.get(cluster, ()) if kind in agent.kinds]

    def _of(self, placement: PlacementFacts) -> Iterator[AssignAgent | UnassignAgent]:
        cluster = placement.cluster
        kept: dict[AgentKind, str] = {}
        for kind, agent in placement.agents:
            if self._may_stay(placement, kind, agent):
                kept[kind] = agent
            else:
                yield UnassignAgent(cluster, kind, agent)
        if cluster not in self._needy or not self.served(cluster):
            return
        left = {kind for kind, _ in placement.agents} - kept.keys()
        for kind in _KINDS:
            if kind in kept or kind in left:  # one thing at a time: the next look finds another one
                continue
            found = self._best(cluster, kind, kept.values())
            if found is not None:
                kept[kind] = found.id
                yield AssignAgent(cluster, kind, found.id)

    def _may_stay(self, placement: PlacementFacts, kind: AgentKind, name: str) -> bool:
        if kind not in _KINDS:
            return True  # somebody else's concern
        agent = next((a for a in self._alive(placement.cluster, kind) if a.id == name), None)
        if agent is None or placement.cluster not in self._needy or not self.served(placement.cluster):
            return False
        if not agent.draining:
            return True
        best = self._best(placement.cluster, kind, [other for _, other in placement.agents if other != name])
        return best is None or best.draining

    def _best(self, cluster: str, kind: AgentKind, having: Iterable[str]) -> AgentFacts | None:
        """Return who shall take the conference; `having`: agents that have it for another kind."""
        here = set(having)
        able = [agent for agent in self._alive(cluster, kind) if agent.room > 0 or agent.id in here]
        return max(able, key=lambda agent: (not agent.draining, agent.id in here, agent.room), default=None)
