"""What agents ask of control before they open their channel, and what operators ask about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causeway.api.agents import AgentLease, AgentList, AgentQuery, AgentView
from causeway.client.connection import Connection, headers_of, path_of, query_of

if TYPE_CHECKING:
    from causeway.api.agents import AgentRegistration

__all__ = ["AgentCalls"]


class AgentCalls(Connection):
    """Calls for enrolment keys (registration) and operator keys (all others)."""

    async def register_agent(self, agent: str, registration: AgentRegistration) -> AgentLease:
        """Register; the lease says where the channel is, and its epoch goes into the first message there."""
        return await self._ask("PUT", path_of("agents", agent), AgentLease, body=registration)

    async def unregister_agent(self, agent: str, *, epoch: int | None = None) -> None:
        """Leave in good order; with an `epoch`, only if that registration is still the current one."""
        await self._call("DELETE", path_of("agents", agent), headers=headers_of(epoch=epoch))

    async def list_agents(self, *, cluster: str | None = None) -> list[AgentView]:
        """Return the agents of a cluster, or all, by cluster and id."""
        path = "agents" + query_of(AgentQuery(cluster=cluster))
        return (await self._ask("GET", path, AgentList)).agents

    async def get_agent(self, agent: str) -> AgentView:
        """Return one agent."""
        return await self._ask("GET", path_of("agents", agent), AgentView)

    async def drain_agent(self, agent: str) -> AgentView:
        """Give the agent nothing new, and what it has to others."""
        return await self._ask("PUT", path_of("agents", agent, "drain"), AgentView)

    async def undrain_agent(self, agent: str) -> None:
        """Take a drain back."""
        await self._call("DELETE", path_of("agents", agent, "drain"))
