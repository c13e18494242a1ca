"""Both ends of a connection of bare aioquic, as a yardstick: its own asyncio protocols, nothing of ours."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from bridges.quic import Certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["connected", "listening"]

P = TypeVar("P", bound=QuicConnectionProtocol)

_ALPN: Final = ["bench"]
_DATAGRAM_BYTES: Final = 65536
_IDLE: Final = 60.0
"""Seconds after which aioquic gives a silent connection up, unless it is told otherwise."""


@asynccontextmanager
async def listening(
    protocol: Callable[..., QuicConnectionProtocol], *, idle: float = _IDLE
) -> AsyncIterator[int]:
    """Listen on loopback until the end; give the UDP port."""
    certificate = Certificate.self_signed("bench")
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=_ALPN,
        idle_timeout=idle,
        max_datagram_frame_size=_DATAGRAM_BYTES,
        certificate=certificate.certificate,
        private_key=certificate.private_key,
    )
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=protocol)
    try:
        transport = server._transport  # noqa: SLF001 - there is no public way to the port
        assert transport is not None
        yield transport.get_extra_info("sockname")[1]
    finally:
        server.close()


@asynccontextmanager
async def connected(port: int, protocol: type[P], *, idle: float = _IDLE) -> AsyncIterator[P]:
    """Stay connected until the end."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=_ALPN,
        idle_timeout=idle,
        max_datagram_frame_size=_DATAGRAM_BYTES,
        verify_mode=ssl.CERT_NONE,
    )
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=protocol) as made:
        assert isinstance(made, protocol)
        yield made
