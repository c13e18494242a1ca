"""One conference on one connection of our wire, as those see it who hold it or wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from bridges.wire.own.errors import OwnCode

if TYPE_CHECKING:
    from bridges.event.own.link import OwnConnection
    from bridges.event.own.room import OwnRoom

__all__ = ["OwnChannel"]

_OWN_CODES: Final = 0x200


class OwnChannel:
    """One conference on one connection, from the wish to its end."""

    def __init__(self, connection: OwnConnection, number: int, *, peer: str, room: OwnRoom) -> None:
        self.connection: Final = connection
        self.number: Final = number
        self.peer: Final = peer
        self.room: Final = room
        self.role: Final = connection.role
        self.open = False
        self.reason = ""
        """Why it is over."""
        self.ended = False
        self.counted = False
        """Whether it is among the times that the link came up."""
        self._changed = asyncio.Event()

    @property
    def initialized(self) -> bool:
        """Whether it has ever been carried."""
        return self.open

    @property
    def up(self) -> bool:
        """Whether the peer can have our node's state."""
        return self.open and not self.ended and self.room.attached

    async def wait_opened(self) -> None:
        """Wait until the conference is carried, or is not going to be."""
        while not (self.open or self.ended):
            await self._changed.wait()
            self._changed.clear()

    async def wait_ended(self) -> str:
        """Wait until the conference is carried no more, and return why."""
        while not self.ended:
            await self._changed.wait()
            self._changed.clear()
        return self.reason

    def give_up(self, code: int, reason: str) -> None:
        """Carry it no more. A code of OWT's wire becomes ours of the same meaning, 0x100 above it."""
        if not self.ended:
            self.connection.close_channel(self.number, OwnCode(_OWN_CODES | code & 0xFF), reason)

    def note(self) -> None:
        """Wake who waits."""
        self._changed.set()
