"""A certificate that a bridge shows, trusted by its fingerprint alone: made here, or read from a file."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["Certificate", "PrivateKey", "fingerprint_of"]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""What a certificate may be signed with for TLS here; OWT's are elliptic curves."""

_LIFETIME: Final = timedelta(days=14)  # the most that browsers accept of a certificate pinned by its hash
_CLOCK_SKEW: Final = timedelta(hours=1)
_MAX_COMMON_NAME: Final = 64  # X.520's upper bound
_MAX_FILE_BYTES: Final = 1 << 20
_PEM: Final = b"-----BEGIN "


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER certificate in lower-case hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class Certificate:
    """A certificate with its private key, and the chain that stands behind it, in memory."""

    def __init__(
        self,
        certificate: x509.Certificate,
        private_key: PrivateKey,
        chain: Sequence[x509.Certificate] = (),
    ) -> None:
        self.certificate: Final = certificate
        self.private_key: Final = private_key
        self.chain: Final = tuple(chain)
        self.fingerprint: Final = fingerprint_of(certificate)

    @property
    def expires(self) -> datetime:
        """When it is not valid any more (UTC)."""
        return self.certificate.not_valid_after_utc

    @classmethod
    def self_signed(cls, common_name: str, *, now: datetime | None = None) -> Self:
        """Return a new self-signed ECDSA P-256 certificate, valid for 14 days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_MAX_COMMON_NAME])])
        # The start lies back, so that a peer's clock may be late; the whole stays within 14 days.
        begin = (now or datetime.now(UTC)) - _CLOCK_SKEW
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

    @classmethod
    def load(cls, file: str, *, key_file: str = "", password: str = "") -> Self:
        """Return the certificate of a file: PKCS12 (`.pfx`, as OWT has it) or PEM, told by its content.

        A PEM file has the certificate first, then its chain; the key may stand in it, too, or in `key_file`.
        `password` opens the PKCS12 file, or the key. Raises ConfigError.
        """
        data = _read(file)
        secret = password.encode() or None
        try:
            if data.lstrip().startswith(_PEM):
                certificate, *chain = x509.load_pem_x509_certificates(data)
                key: PrivateKeyTypes | None = serialization.load_pem_private_key(
                    _read(key_file) if key_file else data, secret
                )
            else:
                key, found, chain = pkcs12.load_key_and_certificates(data, secret)
                if found is None or key is None:
                    raise ConfigError(f"{file}: there is no certificate with its private key in it")
                certificate = found
        except (ValueError, TypeError) as error:  # TypeError: a password is missing, or there should be none
            raise ConfigError(
                f"{key_file or file}: not a PKCS12 or PEM file with a certificate and its private key, "
                f"or not with this password ({type(error).__name__})"
            ) from None
        if not isinstance(key, PrivateKey):
            raise ConfigError(f"{file}: a key of this kind cannot be used: elliptic curve, RSA or Ed25519")
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{file}: the private key is another certificate's")
        return cls(certificate, key, chain)

    def __repr__(self) -> str:
        return f"Certificate(fingerprint={self.fingerprint!r}, expires={self.expires.isoformat()})"


def _read(file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than any certificate")
    return data
