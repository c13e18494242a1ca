"""Listening for peers: one socket, its datagrams given to connections by their connection ids."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, cast

import structlog
from aioquic.buffer import Buffer  # type: ignore[attr-defined] # re-exported without saying so
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from bridges.quic import recovery
from bridges.quic.connection import Connection
from bridges.quic.sockets import udp_socket
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.quic.certificate import Certificate
    from bridges.quic.connection import ConnectionHandler
    from bridges.quic.settings import QuicSettings

__all__ = ["Listener", "listen"]

log = structlog.get_logger(__name__)

_INTERNAL_ERROR: Final = 0x1FF


async def listen(
    host: str,
    port: int,
    *,
    certificate: Certificate,
    on_connection: Callable[[Connection], ConnectionHandler],
    settings: QuicSettings,
) -> Listener:
    """Listen on a UDP port (0: a free one) and return the listener.

    `on_connection` is called for every connection whose handshake is done, and returns its handler.
    Raises UnavailableError when the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        family, address = infos[0][0], infos[0][4]
        udp = udp_socket(family, buffer_bytes=settings.socket_buffer_bytes)
        try:
            udp.bind(address)
            listener = Listener(certificate, on_connection, settings)
            await loop.create_datagram_endpoint(lambda: listener, sock=udp)
        except BaseException:
            udp.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host}:{port} (UDP): {error.strerror or error}; choose another address or port"
        ) from None
    return listener


class Listener(asyncio.DatagramProtocol):
    """A listening socket with its connections. Made by listen()."""

    def __init__(
        self,
        certificate: Certificate,
        on_connection: Callable[[Connection], ConnectionHandler],
        settings: QuicSettings,
    ) -> None:
        self.refused = 0
        """Handshakes that were not answered because of the limit of connections."""
        self._on_connection = on_connection
        self._settings = settings
        self._configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=list(settings.alpn),
            congestion_control_algorithm=settings.congestion,
            certificate=certificate.certificate,
            private_key=certificate.private_key,
            idle_timeout=settings.idle_timeout - settings.keepalive,
            max_datagram_size=settings.max_datagram_size,
        )
        self._retry = QuicRetryTokenHandler() if settings.retry else None
        self._transport: asyncio.DatagramTransport | None = None
        self._connections: dict[Connection, set[bytes]] = {}
        self._by_id: dict[bytes, Connection] = {}

    @property
    def port(self) -> int:
        """The UDP port that peers dial."""
        assert self._transport is not None
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    @property
    def connections(self) -> int:
        """Connections now, handshakes included."""
        return len(self._connections)

    def close(self) -> None:
        """Close all connections and stop listening; peers are told at once."""
        for connection in list(self._connections):
            connection.close(0, "going away")
        if self._transport is not None:
            self._transport.close()

    # --- asyncio's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: NetworkAddress) -> None:
        """Give a datagram to its connection, or begin one."""
        try:
            header = pull_quic_header(
                Buffer(data=data), host_cid_length=self._configuration.connection_id_length
            )
        except ValueError:
            return  # not QUIC; the port is open to everybody
        connection = self._by_id.get(header.destination_cid)
        if connection is None:
            connection = self._begin(header, len(data), addr)
        if connection is not None:
            connection.datagram_received(data, addr)

    # --- the connections' side ------------------------------------------------------------------

    def send_datagram(self, data: bytes, address: NetworkAddress) -> None:
        """Put a datagram on the network."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def established(self, connection: Connection) -> None:
        """Hand a connection out."""
        try:
            connection.handler = self._on_connection(connection)
        except Exception:
            log.exception("quic.accept_failed", remote=connection.remote)
            connection.close(_INTERNAL_ERROR, "internal error")

    def finished(self, connection: Connection, reason: str) -> None:  # noqa: ARG002 - the handler is told
        """Forget a connection."""
        for connection_id in self._connections.pop(connection, ()):
            self._by_id.pop(connection_id, None)

    def connection_id_issued(self, connection: Connection, connection_id: bytes) -> None:
        """Route a further id to a connection."""
        self._by_id[connection_id] = connection
        self._connections[connection].add(connection_id)

    def connection_id_retired(self, connection_id: bytes) -> None:
        """Stop routing an id."""
        connection = self._by_id.pop(connection_id, None)
        if connection is not None:
            self._connections[connection].discard(connection_id)

    # --- new connections ------------------------------------------------------------------------

    def _begin(self, header: QuicHeader, size: int, address: NetworkAddress) -> Connection | None:
        """Return a new connection if the datagram may begin one (RFC 9000 sections 5.2.2, 6.1, 8.1, 14.1)."""
        version = header.version
        if not version or size < SMALLEST_MAX_DATAGRAM_SIZE:  # 0 is version negotiation: never answered
            return None
        if version not in self._configuration.supported_versions:
            self._negotiate_version(header, address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            return None
        if len(self._connections) >= self._settings.max_connections:
            self.refused += 1
            return None
        if self._retry is None:
            return self._create(header, header.destination_cid, None, address)
        return self._begin_proven(self._retry, header, version, address)

    def _begin_proven(
        self, retry: QuicRetryTokenHandler, header: QuicHeader, version: int, address: NetworkAddress
    ) -> Connection | None:
        """Return a new connection if the peer has shown that it receives at its address (RFC 9000, 8.1.2)."""
        if not header.token:
            self._send_retry(retry, header, version, address)
            return None
        try:
            original_id = retry.validate_token(
                address=address,
                destination_cid=header.destination_cid,
                token=header.token,
                now=asyncio.get_running_loop().time(),
            )
        except ValueError:
            return None
        return self._create(header, original_id, header.destination_cid, address)

    def _create(
        self, header: QuicHeader, original_id: bytes, retry_id: bytes | None, address: NetworkAddress
    ) -> Connection:
        quic = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        recovery.steer(quic, self._settings.congestion)
        connection = Connection(quic, endpoint=self, remote=address, settings=self._settings)
        self._connections[connection] = set()
        self.connection_id_issued(connection, header.destination_cid)
        self.connection_id_issued(connection, quic.host_cid)
        return connection

    def _negotiate_version(self, header: QuicHeader, address: NetworkAddress) -> None:
        self.send_datagram(
            encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=self._configuration.supported_versions,
            ),
            address,
        )

    def _send_retry(
        self, retry: QuicRetryTokenHandler, header: QuicHeader, version: int, address: NetworkAddress
    ) -> None:
        source_id = os.urandom(8)
        token = retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_id,
            now=asyncio.get_running_loop().time(),
        )
        self.send_datagram(
            encode_quic_retry(
                version=version,
                source_cid=source_id,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            ),
            address,
        )
