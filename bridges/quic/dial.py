"""Dialling a peer: one socket per connection, the certificate pinned before anything is handed out."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection

from bridges.quic import pump
from bridges.quic.connection import Connection
from bridges.quic.errors import DialError
from bridges.quic.inside import reads, recovery
from bridges.quic.settings import MAX_DATAGRAM_FRAME
from bridges.quic.sockets import udp_socket
from bridges.quic.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.quic.pump import Count
    from bridges.quic.settings import QuicSettings

__all__ = ["dial"]

_BAD_CERTIFICATE: Final = 0x100 + 42  # CRYPTO_ERROR with TLS alert bad_certificate, RFC 9001 section 4.8


async def dial(
    host: str,
    port: int,
    *,
    fingerprint: str | None,
    settings: QuicSettings,
    alpn: Sequence[str] | None = None,
    count: Count = lambda _name, _by=1: None,
) -> Connection:
    """Return a connection to `host` (name or address) whose handshake is done and whose certificate fits.

    `fingerprint` is the SHA-256 of the peer's DER certificate in hex. If it is None, it must be one of
    `settings.trusted_fingerprints`, and if there are none, the dial is refused unless
    `settings.insecure_unpinned`. `alpn` are the protocols that are offered, `settings.alpn` if None;
    `Connection.protocol` is what was agreed upon. Every address of a name is tried in turn, all within
    `settings.handshake_timeout` seconds. `count` is called with the name of whatever the connection's socket
    loses (bridges.quic.pump). No byte of ours travels on a stream before the certificate is known
    to be right. Raises DialError.
    """
    if fingerprint is None and not settings.takes_unnamed:
        raise DialError(f"{host}:{port}: the fingerprint of its certificate is not known")
    named = settings.trusted_fingerprints if fingerprint is None else (fingerprint,)
    attempt = _Attempt(
        host, Trust(named or None), tuple(settings.alpn if alpn is None else alpn), settings, count
    )
    try:
        async with asyncio.timeout(settings.handshake_timeout):
            return await _dial_any(attempt, port)
    except TimeoutError:
        raise DialError(f"{host}:{port}: no handshake within {settings.handshake_timeout} s") from None
    except OSError as error:
        raise DialError(f"{host}:{port}: {error.strerror or error}") from None


class _Attempt(NamedTuple):
    """What is the same for every address of a host."""

    host: str
    trust: Trust
    alpn: tuple[str, ...]
    settings: QuicSettings
    counted: Count


async def _dial_any(attempt: _Attempt, port: int) -> Connection:
    infos = await asyncio.get_running_loop().getaddrinfo(attempt.host, port, type=socket.SOCK_DGRAM)
    addresses = [(info[0], cast("NetworkAddress", info[4])) for info in infos]
    share = attempt.settings.handshake_timeout / len(addresses)
    for family, address in addresses[:-1]:
        try:
            async with asyncio.timeout(share):
                return await _dial_one(attempt, family, address)
        except (DialError, OSError):  # TimeoutError is an OSError; the next address may do better
            continue
    family, address = addresses[-1]
    return await _dial_one(attempt, family, address)


async def _dial_one(attempt: _Attempt, family: socket.AddressFamily, address: NetworkAddress) -> Connection:
    settings = attempt.settings
    udp = udp_socket(family, buffer_bytes=settings.socket_buffer_bytes)
    try:
        # Connected, so that the kernel drops strangers' datagrams and says when nobody listens there.
        udp.connect(address)
        endpoint = _DialEndpoint(udp, attempt)
    except BaseException:
        udp.close()
        raise
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=list(attempt.alpn),
        congestion_control_algorithm=settings.congestion,
        idle_timeout=settings.idle_timeout - settings.keepalive,
        max_datagram_size=settings.max_datagram_size,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        server_name=attempt.host,
        # No chain to check: the certificate is pinned. TLS still proves that the peer has its key.
        verify_mode=ssl.CERT_NONE,
    )
    quic = QuicConnection(configuration=configuration)
    recovery.steer(quic, settings.congestion)
    connection = Connection(quic, endpoint=endpoint, remote=address, settings=settings)
    return await endpoint.connect(connection, address)


class _DialEndpoint:
    """The socket of one dialled connection."""

    def __init__(self, udp: socket.socket, attempt: _Attempt) -> None:
        self._trust = attempt.trust
        self._pump = pump.Pump(udp, self, count=attempt.counted, offload=attempt.settings.offload)
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

    # --- the socket's side ----------------------------------------------------------------------

    def datagram_received(self, data: bytes, address: NetworkAddress, now: float) -> None:
        if self._connection is not None:
            self._connection.datagram_received(data, address, now)

    def error_received(self, error: OSError) -> None:
        # Believed only as long as there is no connection: anybody in the path can send an ICMP message, and
        # an established connection is judged by what is encrypted.
        if not self._done.done():
            self._done.set_exception(error)

    # --- the connection's side ------------------------------------------------------------------

    def send_datagrams(self, datagrams: Sequence[bytes], address: NetworkAddress) -> None:  # noqa: ARG002 - the socket is connected
        self._pump.send(datagrams)

    def established(self, connection: Connection) -> None:
        if self._done.done():  # given up a moment ago: the peer must not hear that the handshake is done
            connection.close(0, "dial given up")
            return
        if not self._trust.believes(reads.peer_certificate(connection.quic)):
            self._done.set_exception(DialError("the peer shows another certificate than expected"))
            connection.close(_BAD_CERTIFICATE, "")
            return
        self._done.set_result(None)

    def verified(self, connection: Connection) -> None:
        """Whoever is dialled is known by the certificate."""

    def finished(self, connection: Connection, reason: str) -> None:  # noqa: ARG002
        if not self._done.done():
            self._done.set_exception(DialError(reason))
        self._pump.close()

    def connection_id_issued(self, connection: Connection, connection_id: bytes) -> None:
        """One connection has this socket for itself."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """One connection has this socket for itself."""
