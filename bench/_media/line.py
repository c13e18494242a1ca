"""The path between two bridges, in a process of its own: the relay of tests.impairment."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.impairment.core import Profile

__all__ = ["Line"]


class Line:
    """Relays to one port of this machine."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int, profile: Profile, seed: int) -> AsyncIterator[Line]:
        """Relay to `port` until the end; both directions are alike."""
        async with Relay.running(("127.0.0.1", port), there=profile, seed=seed) as relay:
            yield cls(relay)

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve `port`, `sent` (datagrams and bytes towards who dialled) and `cut` (for so many seconds)."""
        match method, args:
            case "port", []:
                return self._relay.port
            case "sent", []:
                return self._relay.back.sent, self._relay.back.sent_bytes
            case "overflowed", []:
                return self._relay.overflowed
            case "cut", [seconds]:
                return self._relay.cut(seconds)
        raise ValueError(method)
