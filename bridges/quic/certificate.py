"""The certificate that a bridge shows: made at start, trusted by its fingerprint alone."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["Certificate", "fingerprint_of"]

_LIFETIME: Final = timedelta(days=14)  # the most that browsers accept of a certificate pinned by its hash
_CLOCK_SKEW: Final = timedelta(hours=1)
_MAX_COMMON_NAME: Final = 64  # X.520's upper bound


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER certificate in lower-case hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class Certificate:
    """A certificate with its private key, in memory only."""

    def __init__(self, certificate: x509.Certificate, private_key: EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.private_key = private_key
        self.fingerprint: Final = fingerprint_of(certificate)

    @classmethod
    def self_signed(cls, common_name: str) -> Self:
        """Return a new self-signed ECDSA P-256 certificate, valid for 14 days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_MAX_COMMON_NAME])])
        # The start lies back, so that a peer's clock may be late; the whole stays within 14 days.
        begin = datetime.now(UTC) - _CLOCK_SKEW
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + _LIFETIME)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def __repr__(self) -> str:
        return f"Certificate(fingerprint={self.fingerprint!r})"
