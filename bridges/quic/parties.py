"""Between whom a connection stands: who uses it, who sends datagrams on it, and the socket's side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bridges.quic.inside.datagrams import DatagramSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioquic.quic.connection import NetworkAddress

    from bridges.quic.connection import Connection

__all__ = ["ConnectionHandler", "DatagramSender", "Endpoint"]


class ConnectionHandler(Protocol):
    """Who uses a connection. Called synchronously, never from within a call that it makes itself."""

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: FBT001 - as QUIC's FIN bit
        """Take bytes of a stream; `end`: the peer writes no more. An unknown id is a stream it opened."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Take note that the peer gave the stream up; our half is already given up as well."""

    def connection_lost(self, reason: str) -> None:
        """Take note that the connection is gone. Called once, also after our own close()."""


class DatagramSender(DatagramSource, Protocol):
    """Where a connection's datagrams come from."""

    def resized(self, largest: int) -> None:
        """Take note that a datagram may have so many bytes from now on, which may be fewer than before."""


class Endpoint(Protocol):
    """The socket's side of a connection."""

    def send_datagrams(self, datagrams: Sequence[bytes], address: NetworkAddress) -> None:
        """Put datagrams on the network, in order."""

    def established(self, connection: Connection) -> None:
        """Take note that the handshake is done."""

    def verified(self, connection: Connection) -> None:
        """Take note that the peer has shown that it is let in."""

    def finished(self, connection: Connection, reason: str) -> None:
        """Take note that the connection sends and takes no more datagrams."""

    def connection_id_issued(self, connection: Connection, connection_id: bytes) -> None:
        """Take note that datagrams for `connection_id` are this connection's."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """Take note that `connection_id` is used no more."""
