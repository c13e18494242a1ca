"""The links that our cluster, or control, wants: a task each, until it is called off or its room is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from bridges.event.links import Link

__all__ = ["WantedLinks"]


class WantedLinks:
    """By (peer, room). `spawn` starts a task; `gone` hears of what ended though nobody called it off."""

    def __init__(
        self,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        gone: Callable[[str, str, str], None],
    ) -> None:
        self._spawn = spawn
        self._gone = gone
        self._links: dict[tuple[str, str], tuple[Link, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """Return how many are wanted."""
        return len(self._links)

    @property
    def keys(self) -> set[tuple[str, str]]:
        """Peer and room of each."""
        return set(self._links)

    def find(self, peer: str, room: str) -> Link | None:
        """Return the link of a room to a peer, None if it is not wanted."""
        known = self._links.get((peer, room))
        return None if known is None else known[0]

    def want(self, peer: str, room: str, link: Link) -> None:
        """Run a link from now on, in the place of the one that was there."""
        self.drop(peer, room)
        self._links[peer, room] = (link, self._spawn(self._keep(peer, room, link)))

    def drop(self, peer: str, room: str) -> bool:
        """Cancel a link; return whether there was one."""
        known = self._links.pop((peer, room), None)
        if known is not None:
            known[1].cancel()
        return known is not None

    def room_gone(self, room: str) -> None:
        """Cancel all of a room."""
        for key in [key for key in self._links if key[1] == room]:
            self.drop(*key)
            self._gone(*key, "the room is gone")

    async def _keep(self, peer: str, room: str, link: Link) -> None:
        """Run a link; one that ends by itself has found its room closed."""
        await link.run()
        if self.find(peer, room) is link:
            del self._links[peer, room]
            self._gone(peer, room, link.error)
