"""Listening for peers: one socket, its datagrams given to connections by their connection ids."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

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

from bridges.codes import CloseCode
from bridges.quic import pump
from bridges.quic.connection import Connection
from bridges.quic.gate import HandshakeGate, Verdict
from bridges.quic.inside import recovery
from bridges.quic.settings import MAX_DATAGRAM_FRAME
from bridges.quic.sockets import udp_socket
from bridges.quic.unverified import Unverified
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridges.quic.certificate import Certificate
    from bridges.quic.parties import ConnectionHandler
    from bridges.quic.pump import Count
    from bridges.quic.settings import QuicSettings

__all__ = ["Listener", "listen"]

log = structlog.get_logger(__name__)

_INTERNAL_ERROR: Final = 0x1FF
_LONG_HEADER: Final = 0x80


async def listen(
    host: str,
    port: int,
    *,
    certificate: Certificate,
    on_connection: Callable[[Connection], ConnectionHandler],
    settings: QuicSettings,
    alpn: Sequence[str] | None = None,
    count: Count = lambda _name, _by=1: None,
) -> Listener:
    """Listen on a UDP port (0: a free one) and return the listener.

    `alpn` are the protocols that are taken, the best first; `settings.alpn` if None. `count` is called with
    the name of whatever is refused: see Listener.
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
            return Listener(
                udp,
                certificate,
                on_connection,
                settings,
                alpn=settings.alpn if alpn is None else alpn,
                count=count,
            )
        except BaseException:
            udp.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host}:{port} (UDP): {error.strerror or error}; choose another address or port"
        ) from None


class Listener:
    """A listening socket with its connections. Made by listen().

    Peers that have shown nothing yet are held apart: a connection is *verified* once its user says so
    (`Connection.verified`), and what is not verified in `settings.verify_timeout` is closed. Counted are
    `handshake_full` (too many connections), `handshake_limited` (too many from one address),
    `handshake_failed`, `retry_sent`, `retry_refused` (a forged, old or stolen proof of an address),
    `unverified` (no token in time), `unverified_crowded` (closed for others, who may be quicker), and what
    the socket loses (bridges.quic.pump).
    """

    def __init__(
        self,
        udp: socket.socket,
        certificate: Certificate,
        on_connection: Callable[[Connection], ConnectionHandler],
        settings: QuicSettings,
        *,
        alpn: Sequence[str],
        count: Count,
    ) -> None:
        self._port: Final[int] = udp.getsockname()[1]
        self._on_connection = on_connection
        self._settings = settings
        self._count = count
        self._alpn = list(alpn)
        self._configuration = self._configure(certificate)
        self._gate = HandshakeGate(
            always_prove=settings.retry,
            prove_above=settings.retry_above,
            rate=settings.handshakes_per_address,
            burst=settings.handshake_burst,
        )
        self._retry = QuicRetryTokenHandler()
        self._connections: dict[Connection, set[bytes]] = {}
        self._by_id: dict[bytes, Connection] = {}
        self._shaking: set[Connection] = set()
        """Handshakes under way of peers whose address is not proven."""
        self._unverified: Unverified[Connection] = Unverified(
            most=settings.max_unverified, most_of_one=settings.max_unverified_per_address
        )
        self._pump = pump.Pump(udp, self, count=count, offload=settings.offload)

    @property
    def port(self) -> int:
        """The UDP port that peers dial."""
        return self._port

    @property
    def connections(self) -> int:
        """Connections now, handshakes included."""
        return len(self._connections)

    def show(self, certificate: Certificate) -> None:
        """Show another certificate from now on; connections that there are stay."""
        self._configuration = self._configure(certificate)

    def close(self) -> None:
        """Close all connections and stop listening; peers are told at once."""
        for connection in list(self._connections):
            connection.close(0, "going away")
        self._pump.close()

    # --- the socket's side ----------------------------------------------------------------------

    def datagram_received(self, data: bytes, address: NetworkAddress, now: float) -> None:
        """Give a datagram to its connection, or begin one."""
        connection = self._connection_of(data, address)
        if connection is not None:
            connection.datagram_received(data, address, now)

    def error_received(self, error: OSError) -> None:
        """Do nothing: what cannot be sent to one peer is lost, as on the way; its connection will notice."""

    def _connection_of(self, data: bytes, address: NetworkAddress) -> Connection | None:
        id_end = 1 + self._configuration.connection_id_length
        if data and not data[0] & _LONG_HEADER:  # most of all: RFC 9000 section 17.3
            return self._by_id.get(data[1:id_end])
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=id_end - 1)
        except ValueError:
            return None  # not QUIC; the port is open to everybody
        return self._by_id.get(header.destination_cid) or self._begin(header, len(data), address)

    # --- the connections' side ------------------------------------------------------------------

    def send_datagrams(self, datagrams: Sequence[bytes], address: NetworkAddress) -> None:
        """Put datagrams on the network."""
        self._pump.send(datagrams, address)

    def established(self, connection: Connection) -> None:
        """Hand a connection out."""
        self._shaking.discard(connection)
        connection.verify_within(self._settings.verify_timeout, self._overdue)
        try:
            connection.handler = self._on_connection(connection)
        except Exception:
            log.exception("quic.accept_failed", remote=connection.remote)
            connection.close(_INTERNAL_ERROR, "internal error")

    def verified(self, connection: Connection) -> None:
        """Hold a connection among those that have shown who they are."""
        self._unverified.discard(connection)

    def finished(self, connection: Connection, reason: str) -> None:
        """Forget a connection."""
        if not connection.established:
            self._count("handshake_failed")
            log.debug("quic.handshake_failed", remote=connection.remote, reason=reason)
        self._shaking.discard(connection)
        self._unverified.discard(connection)
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
        """Return a new connection if the datagram begins one, and may."""
        if not self._may_begin(header, size, address):
            return None
        if len(self._connections) >= self._settings.max_connections:
            self._count("handshake_full")
            return None
        now = asyncio.get_running_loop().time()
        if header.token:
            return self._begin_proven(header, address, now)
        if self._gate.unproven(address[0], under_way=len(self._shaking), now=now) is Verdict.PROVE:
            self._count("retry_sent")
            self._send_retry(header, address, now)
            return None
        connection = self._create(header, header.destination_cid, None, address)
        if connection is not None:
            self._shaking.add(connection)
        return connection

    def _may_begin(self, header: QuicHeader, size: int, address: NetworkAddress) -> bool:
        """Return whether a datagram is a beginning at all (RFC 9000 sections 5.2.2, 6.1 and 14.1)."""
        if not header.version or size < SMALLEST_MAX_DATAGRAM_SIZE:
            return False  # version 0 is version negotiation: never answered
        if header.version not in self._configuration.supported_versions:
            self._negotiate_version(header, address)
            return False
        return header.packet_type is QuicPacketType.INITIAL

    def _begin_proven(self, header: QuicHeader, address: NetworkAddress, now: float) -> Connection | None:
        """Return a new connection if the peer has shown that it receives at its address (RFC 9000, 8.1.2)."""
        try:
            original_id = self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            self._count("retry_refused")
            return None
        if self._gate.proven(address[0], now=now) is Verdict.IGNORE:
            self._count("handshake_limited")
            return None
        return self._create(header, original_id, header.destination_cid, address)

    def _create(
        self, header: QuicHeader, original_id: bytes, retry_id: bytes | None, address: NetworkAddress
    ) -> Connection | None:
        if not self._unverified.has_share_for(address[0]):
            self._count("handshake_limited")
            return None
        self._make_room()
        quic = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        recovery.steer(quic, self._settings.congestion)
        connection = Connection(quic, endpoint=self, remote=address, settings=self._settings)
        self._unverified.add(connection, address[0])
        self._connections[connection] = set()
        self.connection_id_issued(connection, header.destination_cid)
        self.connection_id_issued(connection, quic.host_cid)
        return connection

    def _make_room(self) -> None:
        """Close the stranger that has been here for longest, if there are as many as there may be."""
        crowding = self._unverified.in_the_way()
        if crowding is not None:
            self._count("unverified_crowded")
            self._unverified.discard(crowding)
            crowding.close(CloseCode.BUSY, "too many that have shown no token")

    def _overdue(self, connection: Connection) -> None:
        """Close a connection that has not shown a token."""
        self._count("unverified")
        log.warning("quic.unverified", remote=connection.remote)
        connection.close(CloseCode.TIMED_OUT, "no token in time")

    def _configure(self, certificate: Certificate) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=False,
            alpn_protocols=self._alpn,
            congestion_control_algorithm=self._settings.congestion,
            certificate=certificate.certificate,
            certificate_chain=list(certificate.chain),
            private_key=certificate.private_key,
            idle_timeout=self._settings.idle_timeout - self._settings.keepalive,
            max_datagram_size=self._settings.max_datagram_size,
            max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        )

    def _negotiate_version(self, header: QuicHeader, address: NetworkAddress) -> None:
        answer = encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=self._configuration.supported_versions,
        )
        self._pump.send([answer], address)

    def _send_retry(self, header: QuicHeader, address: NetworkAddress, now: float) -> None:
        assert header.version is not None
        source_id = os.urandom(self._configuration.connection_id_length)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_id,
            now=now,
        )
        answer = encode_quic_retry(
            version=header.version,
            source_cid=source_id,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._pump.send([answer], address)
