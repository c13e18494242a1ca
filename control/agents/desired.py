"""An agent's desired state: the registry's rows as the assignments that its channel speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from causeway.api.agents import AgentAddress
from causeway.channel import Assignment, DesiredLink
from control.cascade.hands import ROOM_TOKEN
from control.registry import desired
from control.security.vault import SealError

if TYPE_CHECKING:
    from collections.abc import Collection

    from control.registry.desired import Ordered, Share
    from control.registry.store import Store
    from control.security.vault import Vault

__all__ = ["DesiredStates"]

_log = structlog.get_logger(__name__)

_EVERYTHING_FROM: Final = 1000
"""Conferences from which on it is cheaper to ask for all."""


class DesiredStates:
    """Reads what an agent shall do."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    async def read(
        self, agent: str, *, conferences: Collection[str] | None = None
    ) -> tuple[dict[str, Assignment], Collection[str] | None]:
        """Return the assignments by conference, and which conferences were looked at (None: all).

        `conferences`: those to be looked at; of very many all others are, too.
        """
        if conferences is not None and len(conferences) >= _EVERYTHING_FROM:
            conferences = None
        shares = await self._store.snapshot(desired.read, agent, conferences=conferences)
        return {name: self._assignment(share) for name, share in shares.items()}, conferences

    def _assignment(self, share: Share) -> Assignment:
        links = (self._link(share, ordered) for ordered in share.links)
        return Assignment(
            conference=share.conference,
            kinds=list(share.kinds),
            links=[link for link in links if link is not None],
        )

    def _link(self, share: Share, ordered: Ordered) -> DesiredLink | None:
        """Return the link as the agent is told of it, None if there is nothing in it for the agent."""
        if ordered.role == "listen" or ordered.token is None:
            return DesiredLink(
                peer=ordered.peer, role="listen", relays=ordered.relays, behind=list(ordered.behind)
            )
        event, media = (_address(share, ordered, kind) for kind in ("event", "media"))
        if event is None and media is None:
            return None
        try:
            token = self._vault.open(ordered.token, ROOM_TOKEN, share.conference, ordered.peer)
        except SealError as error:  # sealed with another master key: nobody can read it
            _log.error(
                "agent.token_unreadable", conference=share.conference, peer=ordered.peer, error=str(error)
            )
            return None
        return DesiredLink(
            peer=ordered.peer,
            role="dial",
            attempt=ordered.orders,
            token=token,
            event=event,
            media=media,
            relays=ordered.relays,
            behind=list(ordered.behind),
        )


def _address(share: Share, ordered: Ordered, kind: str) -> AgentAddress | None:
    stored: Any = ordered.bridges.get(kind)
    if stored is None or kind not in share.kinds:
        return None
    return msgspec.convert(stored, AgentAddress)
