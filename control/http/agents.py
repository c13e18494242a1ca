"""Routes for agents: registration, their channel, and what operators see of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from starlette.websockets import WebSocketDisconnect, WebSocketState

from causeway.api.agents import AgentLease, AgentList, AgentQuery, AgentRegistration, AgentView
from causeway.channel import PROTOCOL, subprotocol
from control.agents.service import OLDEST_PROTOCOL
from control.errors import AgentIncompatibleError, UpgradeRequiredError
from control.http.edge import Body, actor_of, json, no_content, optional_epoch_of, part, query_of
from control.http.entry import CLUSTERS, EPOCH_OPTIONAL, OPERATORS, Entry
from control.registry import agent_views

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

    from control.agents.service import Agents
    from control.http.gate import Gate
    from control.registry.store import Store

__all__ = ["AgentRoutes"]

_REGISTRATION: Final = Body(AgentRegistration)
_CLOSE_TIMEOUT: Final = 2.0
_SUBPROTOCOLS: Final = [subprotocol(version) for version in range(PROTOCOL, OLDEST_PROTOCOL - 1, -1)]


class AgentRoutes:
    """Handlers under /v1/agents."""

    def __init__(self, store: Store, agents: Agents, gate: Gate) -> None:
        self._store = store
        self._agents = agents
        self._gate = gate

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        agent = "/v1/agents/{agent}"
        return [
            Entry(
                "GET",
                "/v1/agents",
                OPERATORS,
                self.index,
                tag="agents",
                summary="List agents, by cluster and id.",
                query=AgentQuery,
                answers={200: AgentList},
            ),
            Entry(
                "PUT",
                agent,
                CLUSTERS,
                self.register,
                tag="agents",
                summary="Register, or change the registration; then open the channel.",
                body=_REGISTRATION,
                answers={200: AgentLease},
                problems=("agent-incompatible",),
            ),
            Entry(
                "GET",
                agent,
                OPERATORS,
                self.show,
                tag="agents",
                summary="Show an agent.",
                answers={200: AgentView},
                problems=("agent-unknown",),
            ),
            Entry(
                "DELETE",
                agent,
                CLUSTERS,
                self.unregister,
                tag="agents",
                summary="Leave in good order; what the agent has goes to others.",
                headers=(EPOCH_OPTIONAL,),
                answers={204: None},
                problems=("stale-epoch",),
            ),
            Entry(
                "GET",
                f"{agent}/channel",
                CLUSTERS,
                self.no_channel,
                tag="agents",
                summary="The agent's WebSocket: what it shall do, and what is true (docs/agents.md).",
                answers={101: None},
                problems=("agent-incompatible", "upgrade-required"),
                socket=self.channel,
            ),
            Entry(
                "PUT",
                f"{agent}/drain",
                OPERATORS,
                self.drain,
                tag="agents",
                summary="Give the agent nothing new, and what it has to others, as far as they have room.",
                answers={200: AgentView},
                problems=("agent-unknown",),
            ),
            Entry(
                "DELETE",
                f"{agent}/drain",
                OPERATORS,
                self.undrain,
                tag="agents",
                summary="Let the agent be given conferences again.",
                answers={204: None},
                problems=("agent-unknown",),
            ),
        ]

    async def index(self, request: Request) -> Response:
        """GET /v1/agents."""
        query = query_of(request, AgentQuery)
        return json(AgentList(agents=await self._store.read(agent_views.list_all, cluster=query.cluster)))

    async def register(self, request: Request) -> Response:
        """PUT /v1/agents/{agent}."""
        agent = part(request, "agent")
        registration: AgentRegistration = await _REGISTRATION.read(request)
        return json(await self._agents.register(agent, registration, actor=actor_of(request)))

    async def show(self, request: Request) -> Response:
        """GET /v1/agents/{agent}."""
        return json(await self._store.snapshot(agent_views.show, part(request, "agent")))

    async def unregister(self, request: Request) -> Response:
        """DELETE /v1/agents/{agent}; the same for one that is not registered."""
        await self._agents.unregister(
            part(request, "agent"), optional_epoch_of(request), actor=actor_of(request)
        )
        return no_content()

    async def drain(self, request: Request) -> Response:
        """PUT /v1/agents/{agent}/drain."""
        await self._agents.drain(part(request, "agent"), actor=actor_of(request))
        return await self.show(request)

    async def undrain(self, request: Request) -> Response:
        """DELETE /v1/agents/{agent}/drain."""
        await self._agents.undrain(part(request, "agent"), actor=actor_of(request))
        return no_content()

    async def no_channel(self, request: Request) -> Response:
        """GET /v1/agents/{agent}/channel, of somebody who does not ask for a WebSocket."""
        part(request, "agent")
        raise UpgradeRequiredError(f"open a WebSocket with the subprotocol {_SUBPROTOCOLS[0]}")

    async def channel(self, socket: WebSocket) -> None:
        """Serve the WebSocket at /v1/agents/{agent}/channel."""
        agent = part(socket, "agent")
        offered = socket.scope["subprotocols"]
        chosen = next((each for each in _SUBPROTOCOLS if each in offered), None)
        if chosen is None:
            raise AgentIncompatibleError(f"the subprotocols spoken here are {', '.join(_SUBPROTOCOLS)}")
        authorization = socket.headers.get("authorization")
        with self._agents.room(agent) as waker:
            await socket.accept(subprotocol=chosen)
            carrier = _Socket(socket)
            await self._agents.serve(
                agent, carrier, waker, allowed=lambda: self._gate.still_admits(authorization)
            )
            await carrier.close()


class _Socket:
    """A session's Socket on Starlette's."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def send(self, text: str) -> None:
        with suppress(WebSocketDisconnect):
            if self._socket.application_state is WebSocketState.CONNECTED:
                await self._socket.send_text(text)

    async def close(self) -> None:
        """Say good-bye in the WebSocket's own words, if the agent is still there."""
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._socket.close(1000)
