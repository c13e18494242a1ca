"""What an operator may set about QUIC: the table `[bridge.quic]`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["QuicSettings"]

Seconds = Annotated[float, Meta(gt=0, le=600)]


class QuicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and timing of every QUIC connection, dialled or accepted.

    `idle_timeout` must be at least twice `keepalive`, or one lost PING would end a healthy connection.
    """

    alpn: tuple[str, ...] = ("h3",)
    """Protocols offered and accepted, best first. OWT's bridges use their QUIC stack's default, `h3`."""
    idle_timeout: Seconds = 3.0
    """Seconds after which a silent peer is given up."""
    keepalive: Seconds = 0.75
    """Seconds of silence after which the peer is pinged."""
    handshake_timeout: Seconds = 3.0
    """Seconds that a handshake may take, on either side."""
    max_streams: Annotated[int, Meta(ge=1, le=128)] = 100
    """Streams that we open at once on one connection. aioquic lets a peer open 128."""
    max_connections: Annotated[int, Meta(ge=1)] = 256
    """Connections that a listener holds at once; further ones are not answered."""
    max_datagram_size: Annotated[int, Meta(ge=1200, le=65000)] = 1200
    """Bytes of UDP payload; more than 1,200 only where every path is known to carry it."""
    max_reassembly_bytes: Annotated[int, Meta(ge=1 << 20)] = 16 << 20
    """Bytes of one connection that may wait for missing ones before them; beyond, it is closed."""
    socket_buffer_bytes: Annotated[int, Meta(ge=1 << 16)] = 1 << 20
    """Size asked for the socket's receive and send buffers."""
    congestion: Literal["causeway", "reno", "cubic"] = "causeway"
    """Who decides how fast is sent: our controller, made for media on bad paths, or one of the library's."""
    retry: bool = False
    """Let every new peer prove its address by a round trip before a handshake is begun."""
    insecure_unpinned: bool = False
    """Dial peers whose fingerprint is not known: whoever is in the path can pose as the peer."""

    def __post_init__(self) -> None:
        if self.idle_timeout < 2 * self.keepalive:
            raise ValueError("idle_timeout must be at least twice keepalive")
