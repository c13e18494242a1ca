"""The LISTEN connection: what any replica announces is heard here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from causeway.backoff import Backoff
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["follow"]

_log = structlog.get_logger(__name__)


async def follow(
    connect: Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]],
    channels: Mapping[str, Callable[[str], None]],
    *,
    on_gap: Callable[[], None],
    check_interval: float = 10.0,
) -> None:
    """Call `channels[name](payload)` for every announcement, for ever; `on_gap()` after each (re)connection.

    `connect` opens one connection with a timeout for its commands; it is asked for a sign of life every
    `check_interval` seconds.
    """
    backoff = Backoff(base=0.1, cap=5.0)

    def ready() -> None:
        backoff.reset()
        on_gap()

    while True:
        try:
            connection = await connect()
            try:
                await _listen(connection, channels, ready, check_interval)
            finally:
                connection.terminate()
            reason = "the server closed the connection"
        except (
            UnavailableError,
            OSError,
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:
            reason = type(error).__name__
        _log.warning("notices.lost", reason=reason)
        await asyncio.sleep(backoff.next_delay())


async def _listen(
    connection: asyncpg.Connection[asyncpg.Record],
    channels: Mapping[str, Callable[[str], None]],
    on_ready: Callable[[], None],
    check_interval: float,
) -> None:
    """Listen until the connection is gone."""
    ended = asyncio.Event()

    def noticed(_connection: Any, _pid: int, channel: str, payload: object) -> None:
        channels[channel](str(payload))

    def terminated(_connection: Any) -> None:
        ended.set()

    connection.add_termination_listener(terminated)
    for channel in channels:
        await connection.add_listener(channel, noticed)
    on_ready()
    while not ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(check_interval):
                await ended.wait()
                return
        await connection.fetchval("SELECT 1")
