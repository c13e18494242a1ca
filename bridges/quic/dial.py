"""Dialling a peer: one socket per connection, the certificate pinned before anything is handed out."""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection

from bridges.quic import internals, recovery
from bridges.quic.certificate import fingerprint_of
from bridges.quic.connection import Connection
from bridges.quic.errors import DialError
from bridges.quic.sockets import udp_socket

if TYPE_CHECKING:
    from bridges.quic.settings import QuicSettings

__all__ = ["dial"]

_BAD_CERTIFICATE: Final = 0x100 + 42  # CRYPTO_ERROR with TLS alert bad_certificate, RFC 9001 section 4.8


async def dial(host: str, port: int, *, fingerprint: str | None, settings: QuicSettings) -> Connection:
    """Return a connection to `host` (name or address) whose handshake is done and whose certificate fits.

    `fingerprint` is the SHA-256 of the peer's DER certificate in hex; None is refused unless
    `settings.insecure_unpinned`. Every address of a name is tried in turn, all within
    `settings.handshake_timeout` seconds. No byte of ours travels on a stream before the certificate is known
    to be right. Raises DialError.
    """
    if fingerprint is None and not settings.insecure_unpinned:
        raise DialError(f"{host}:{port}: the fingerprint of its certificate is not known")
    try:
        async with asyncio.timeout(settings.handshake_timeout):
            return await _dial_any(host, port, fingerprint, settings)
    except TimeoutError:
        raise DialError(f"{host}:{port}: no handshake within {settings.handshake_timeout} s") from None
    except OSError as error:
        raise DialError(f"{host}:{port}: {error.strerror or error}") from None


async def _dial_any(host: str, port: int, fingerprint: str | None, settings: QuicSettings) -> Connection:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    addresses = [(info[0], cast("NetworkAddress", info[4])) for info in infos]
    share = settings.handshake_timeout / len(addresses)
    for family, address in addresses[:-1]:
        try:
            async with asyncio.timeout(share):
                return await _dial_one(host, family, address, fingerprint, settings)
        except (DialError, OSError):  # TimeoutError is an OSError; the next address may do better
            continue
    family, address = addresses[-1]
    return await _dial_one(host, family, address, fingerprint, settings)


async def _dial_one(
    host: str,
    family: socket.AddressFamily,
    address: NetworkAddress,
    fingerprint: str | None,
    settings: QuicSettings,
) -> Connection:
    udp = udp_socket(family, buffer_bytes=settings.socket_buffer_bytes)
    try:
        # Connected, so that the kernel drops strangers' datagrams and says when nobody listens there.
        udp.connect(address)
        endpoint = _DialEndpoint(fingerprint)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: endpoint, sock=udp)
    except BaseException:
        udp.close()
        raise
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=list(settings.alpn),
        congestion_control_algorithm=settings.congestion,
        idle_timeout=settings.idle_timeout - settings.keepalive,
        max_datagram_size=settings.max_datagram_size,
        server_name=host,
        # No chain to check: the certificate is pinned. TLS still proves that the peer has its key.
        verify_mode=ssl.CERT_NONE,
    )
    quic = QuicConnection(configuration=configuration)
    recovery.steer(quic, settings.congestion)
    connection = Connection(quic, endpoint=endpoint, remote=address, settings=settings)
    return await endpoint.connect(connection, address)


class _DialEndpoint(asyncio.DatagramProtocol):
    """The socket of one dialled connection."""

    def __init__(self, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint
        self._transport: asyncio.DatagramTransport | None = None
        self._connection: Connection | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, connection: Connection, address: NetworkAddress) -> Connection:
        """Shake hands; raises DialError."""
        self._connection = connection
        connection.connect(address)
        try:
            await self._done
        except BaseException:
            connection.close(0, "dial given up")
            raise
        return connection

    # --- asyncio's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: NetworkAddress) -> None:
        if self._connection is not None:
            self._connection.datagram_received(data, addr)

    def error_received(self, exc: Exception) -> None:
        # Believed only as long as there is no connection: anybody in the path can send an ICMP message, and
        # an established connection is judged by what is encrypted.
        if not self._done.done():
            self._done.set_exception(exc)

    # --- the connection's side ------------------------------------------------------------------

    def send_datagram(self, data: bytes, address: NetworkAddress) -> None:  # noqa: ARG002 - the socket is connected
        assert self._transport is not None
        self._transport.sendto(data)

    def established(self, connection: Connection) -> None:
        if self._done.done():
            return
        if self._fingerprint is not None and not self._fits(connection):
            self._done.set_exception(DialError("the peer shows another certificate than expected"))
            connection.close(_BAD_CERTIFICATE, "")
            return
        self._done.set_result(None)

    def _fits(self, connection: Connection) -> bool:
        assert self._fingerprint is not None
        certificate = internals.peer_certificate(connection.quic)
        if certificate is None:
            return False
        expected = self._fingerprint.replace(":", "").lower()
        return hmac.compare_digest(fingerprint_of(certificate).encode(), expected.encode())

    def finished(self, connection: Connection, reason: str) -> None:  # noqa: ARG002
        if not self._done.done():
            self._done.set_exception(DialError(reason))
        if self._transport is not None:
            self._transport.close()

    def connection_id_issued(self, connection: Connection, connection_id: bytes) -> None:
        """One connection has this socket for itself."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """One connection has this socket for itself."""
