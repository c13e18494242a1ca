"""Agents as the service's edge sees them: registrations, channels, and the lease of what went silent."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from causeway.api.agents import AgentLease
from causeway.channel import PROTOCOL
from control.agents.channels import Channels
from control.agents.desired import DesiredStates
from control.agents.session import Parts, Session
from control.errors import AgentIncompatibleError, DatabaseUnavailableError, OverloadedError
from control.registry import agent_leases, agent_views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from causeway.api.agents import AgentRegistration, ProtocolRange
    from control.agent_settings import AgentSettings
    from control.agents.channels import Waker
    from control.agents.session import Socket
    from control.bell import Bell
    from control.registry.store import Store
    from control.security.vault import Vault

__all__ = ["OLDEST_PROTOCOL", "Agents", "sweep_agents"]

_log = structlog.get_logger(__name__)

OLDEST_PROTOCOL: Final = 1
"""The oldest version of the channel's messages that is still spoken here."""
_WAITING_AT_ONCE: Final = 1000
_DAY: Final = 86_400.0


class Agents:
    """What an agent may ask for."""

    def __init__(self, store: Store, vault: Vault, bell: Bell, settings: AgentSettings) -> None:
        self._store = store
        self._bell = bell
        self._settings = settings
        self._parts = Parts(store=store, states=DesiredStates(store, vault), bell=bell, settings=settings)
        self.channels = Channels()
        """Those that are open here; notices go to them."""

    async def register(self, agent: str, request: AgentRegistration, *, actor: str) -> AgentLease:
        """Take the agent in and start its lease. Raises AgentIncompatibleError."""
        protocol = _agreed(request.protocol)
        done = await self._store.write(
            agent_leases.register, agent, request, protocol=protocol, ttl=self._settings.ttl, actor=actor
        )
        self._bell.any.set()
        if not done.again:
            _log.info(
                "agent.registered",
                agent=agent,
                cluster=request.cluster,
                kinds=request.kinds,
                version=request.version,
                epoch=done.epoch,
            )
        return AgentLease(
            agent=agent,
            epoch=done.epoch,
            ttl=self._settings.ttl,
            heartbeat_interval=self._settings.ttl / 3,
            protocol=protocol,
            channel=f"/v1/agents/{agent}/channel",
        )

    async def unregister(self, agent: str, epoch: int | None, *, actor: str) -> None:
        """Let the agent go. Raises StaleEpochError."""
        await self._store.write(agent_leases.unregister, agent, epoch=epoch, actor=actor)
        self._bell.any.set()
        _log.info("agent.unregistered", agent=agent)

    async def drain(self, agent: str, *, actor: str) -> None:
        """Relieve the agent of what it has, as far as others can take it. Raises AgentUnknownError."""
        await self._store.write(agent_views.drain, agent, actor=actor)
        self._bell.any.set()

    async def undrain(self, agent: str, *, actor: str) -> None:
        """Let the agent be given conferences again. Raises AgentUnknownError."""
        await self._store.write(agent_views.undrain, agent, actor=actor)
        self._bell.any.set()

    def room(self, agent: str) -> AbstractContextManager[Waker]:
        """Take room for a channel; raises OverloadedError when as many are open here as may be."""
        if len(self.channels) >= self._settings.max_channels:
            raise OverloadedError("as many agents are connected here as may be", retry_after=1)
        return self.channels.open(agent)

    async def serve(
        self, agent: str, socket: Socket, waker: Waker, *, allowed: Callable[[], Awaitable[bool]]
    ) -> None:
        """Serve a channel that was accepted, until it ends; the caller closes the socket.

        `allowed` says whether the key that opened it is still valid.
        """
        await Session(self._parts, agent, socket, waker, allowed=allowed).run()


async def sweep_agents(store: Store, bell: Bell, settings: AgentSettings) -> None:
    """Write off agents whose lease ran out, and find agents for conferences that wait for one, for ever.

    One replica does it at a time; two at once would do no harm.
    """
    away = False
    waited = float("-inf")
    while True:
        try:
            if away:  # nobody could renew a lease
                await store.write(agent_leases.grace, ttl=settings.ttl)
                away = False
            if await store.read(agent_leases.run_out):
                while (agent := await store.write(agent_leases.sweep)) is not None:
                    _log.warning("agent.lost", agent=agent)
                    bell.any.set()
            if time.monotonic() - waited >= settings.waiting_interval:
                waited = time.monotonic()
                await store.write(agent_leases.mark_waiting, limit=_WAITING_AT_ONCE)
                await store.write(agent_leases.forget, after=settings.forget_days * _DAY)
        except DatabaseUnavailableError as error:
            away = True
            _log.warning("agents.database_unavailable", error=error.detail)
        await asyncio.sleep(settings.sweep_interval)


def _agreed(spoken: ProtocolRange) -> int:
    """Return the highest version that both speak."""
    version = min(spoken.max, PROTOCOL)
    if version < max(spoken.min, OLDEST_PROTOCOL):
        raise AgentIncompatibleError(
            f"the agent speaks versions {spoken.min} to {spoken.max} of the channel's messages, "
            f"control {OLDEST_PROTOCOL} to {PROTOCOL}"
        )
    return version
