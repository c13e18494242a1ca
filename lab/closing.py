"""Closing a server's WebSocket so that nobody waits for a peer that does not read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from starlette.websockets import WebSocketDisconnect

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

__all__ = ["GOING_AWAY", "NORMAL", "POLICY_VIOLATION", "TOO_BIG", "TRY_AGAIN_LATER", "close"]

_log: Final = structlog.get_logger(__name__)

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
TRY_AGAIN_LATER: Final = 1013
"""Close codes, RFC 6455 section 7.4.1 and the IANA registry."""

_MAX_REASON: Final = 100


async def close(websocket: WebSocket, code: int, reason: str, *, timeout: float = 0.5) -> None:
    """Send a close frame, waiting at most `timeout` seconds; a peer that has gone is fine."""
    try:
        async with asyncio.timeout(timeout):
            await websocket.close(code, reason[:_MAX_REASON])
    except (TimeoutError, WebSocketDisconnect, RuntimeError) as error:
        # Starlette raises RuntimeError for what is closed already.
        _log.debug("websocket.close", reason=str(error) or "the peer does not read")
