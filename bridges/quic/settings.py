"""What an operator may set about QUIC: the table `[bridge.quic]`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from bridges.quic.trust import FINGERPRINT

__all__ = ["MAX_DATAGRAM_FRAME", "OWN_PROTOCOL", "CertificateSettings", "QuicSettings"]

OWN_PROTOCOL: Final = "causeway/1"
"""The ALPN name of our own wire between two bridges (docs/wire.md)."""
MAX_DATAGRAM_FRAME: Final = 65536
"""Bytes of a DATAGRAM frame that are taken: whatever fits into a packet."""

Seconds = Annotated[float, Meta(gt=0, le=600)]
Fingerprint = Annotated[str, Meta(pattern=FINGERPRINT)]
_Protocol = Annotated[str, Meta(min_length=1, max_length=255)]


class CertificateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate that the bridges show, each its own if there is no file: nobody needs to know it."""

    file: str = ""
    """A PKCS12 file (`.pfx`, as OWT's bridges have it), or a PEM file with the certificate and its chain;
    empty: a self-signed one is made at start, and renewed in time. A file that changes is read anew."""
    key_file: str = ""
    """A PEM file with the private key, if it does not stand in `file`."""
    password: str = ""
    """What opens the PKCS12 file, or the private key."""
    check_interval: Seconds = 10.0
    """Seconds between two looks at the files, or at whether a self-signed certificate is to be renewed."""

    def __repr__(self) -> str:  # without the password
        return f"CertificateSettings(file={self.file!r}, key_file={self.key_file!r})"


class QuicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and timing of every QUIC connection, dialled or accepted.

    `idle_timeout` must be at least twice `keepalive`, or one lost PING would end a healthy connection.
    """

    alpn: tuple[_Protocol, ...] = (OWN_PROTOCOL, "h3")
    """Protocols (ALPN) offered and accepted, best first. `causeway/1` is our own wire; OWT's
    bridges use their QUIC stack's default, `h3`; whatever is not our own is taken to be OWT's."""
    idle_timeout: Seconds = 3.0
    """Seconds after which a silent peer is given up."""
    keepalive: Seconds = 0.75
    """Seconds of silence after which the peer is pinged."""
    handshake_timeout: Seconds = 3.0
    """Seconds that a handshake may take, on either side."""
    max_streams: Annotated[int, Meta(ge=1, le=128)] = 100
    """Streams that we open at once on one connection. aioquic lets a peer open 128."""
    max_connections: Annotated[int, Meta(ge=1)] = 4096
    """Connections that a listener holds at once; further ones are not answered."""
    max_unverified: Annotated[int, Meta(ge=1)] = 512
    """Of these, how many may be without a token that was accepted; for one more, the oldest is closed."""
    max_unverified_per_address: Annotated[int, Meta(ge=1)] = 128
    """The same for one address, or the first 64 bits of an IPv6 address; further ones are not answered."""
    verify_timeout: Seconds = 10.0
    """Seconds after which a connection without a token that was accepted is closed."""
    max_unverified_bytes: Annotated[int, Meta(ge=1 << 16)] = 1 << 19
    """Bytes of such a connection that may wait for missing ones before them; beyond, it is closed."""
    handshakes_per_address: Annotated[float, Meta(gt=0)] = 100.0
    """Handshakes that one address may begin in a second; those of a burst are answered first."""
    handshake_burst: Annotated[int, Meta(ge=1)] = 200
    """Handshakes that one address may begin at once."""
    max_datagram_size: Annotated[int, Meta(ge=1200, le=65000)] = 1200
    """Bytes of UDP payload at first; more than 1,200 only where every path is known to carry it."""
    path_mtu: Annotated[int, Meta(ge=1200, le=65535)] = 1500
    """Bytes of an IP packet up to which is tried what a path carries, and used; 1500 is Ethernet's. Only with
    our controller, and where it is more than `max_datagram_size` needs."""
    max_reassembly_bytes: Annotated[int, Meta(ge=1 << 20)] = 16 << 20
    """Bytes of one connection that may wait for missing ones before them; beyond, it is closed."""
    socket_buffer_bytes: Annotated[int, Meta(ge=1 << 16)] = 1 << 20
    """Size asked for the socket's receive and send buffers."""
    offload: bool = True
    """Let the kernel cut and join datagrams (GSO and GRO) where it can: one call for many."""
    congestion: Literal["causeway", "reno", "cubic"] = "causeway"
    """Who decides how fast is sent: our controller, made for media on bad paths, or one of the library's."""
    retry: bool = False
    """Let every new peer prove its address by a round trip before a handshake is begun."""
    retry_above: Annotated[int, Meta(ge=0)] = 64
    """Handshakes of unproven peers under way beyond which that is done in any case."""
    certificate: CertificateSettings = CertificateSettings()
    """`[bridge.quic.certificate]`"""
    trusted_fingerprints: tuple[Fingerprint, ...] = ()
    """Certificates, by SHA-256 fingerprint, of peers for which no fingerprint is said when they are dialled.
    What the variable QUIC_SERVER_FINGERPRINTS lists, as OWT has it, is added."""
    insecure_unpinned: bool = False
    """Dial peers whose fingerprint is not known: whoever is in the path can pose as the peer. So bridges of
    OWT clusters can be dialled as they are; a fingerprint that is known is insisted on all the same."""

    @property
    def takes_unnamed(self) -> bool:
        """Whether a peer may be dialled for which no fingerprint is said."""
        return self.insecure_unpinned or bool(self.trusted_fingerprints)

    def __post_init__(self) -> None:
        if not self.alpn:
            raise ValueError("alpn must name a protocol")
        if self.idle_timeout < 2 * self.keepalive:
            raise ValueError("idle_timeout must be at least twice keepalive")
