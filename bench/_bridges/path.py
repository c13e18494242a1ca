"""A bad path before a bridge: a relay of real datagrams, or in virtual time the loop's own network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.impairment.relay import Relay
from tests.impairment.virtual import VirtualLoop

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from tests.impairment.core import Profile
    from tests.impairment.virtual import Path

__all__ = ["impaired"]


async def impaired(
    stack: AsyncExitStack, port: int, profile: Profile, *, seed: int
) -> tuple[Path | Relay, int]:
    """Put a path before a port of this machine, until `stack` ends; return it, and the port to dial."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        return loop.network.impair(port, there=profile, seed=seed), port
    relay = await stack.enter_async_context(Relay.running(("127.0.0.1", port), there=profile, seed=seed))
    return relay, relay.port
