"""QUIC between bridges: dial, listen, connections, certificates; aioquic on the plain asyncio loop.

Knows bytes and streams, nothing of what they mean.
"""

from __future__ import annotations

from bridges.quic.certificate import Certificate
from bridges.quic.certificates import Certificates
from bridges.quic.connection import Connection
from bridges.quic.dial import dial
from bridges.quic.errors import ConnectionClosedError, DialError, TooManyStreamsError
from bridges.quic.listen import Listener, listen
from bridges.quic.parties import ConnectionHandler
from bridges.quic.roundtrip import RoundTrip
from bridges.quic.settings import OWN_PROTOCOL, CertificateSettings, QuicSettings
from bridges.quic.trust import fingerprints_of_environment

__all__ = [
    "OWN_PROTOCOL",
    "Certificate",
    "CertificateSettings",
    "Certificates",
    "Connection",
    "ConnectionClosedError",
    "ConnectionHandler",
    "DialError",
    "Listener",
    "QuicSettings",
    "RoundTrip",
    "TooManyStreamsError",
    "dial",
    "fingerprints_of_environment",
    "listen",
]
