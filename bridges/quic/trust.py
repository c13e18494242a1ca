"""Which certificates of a peer are believed: by fingerprint alone, there is no chain to check. Pure."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

from bridges.quic.certificate import fingerprint_of
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography import x509

__all__ = ["FINGERPRINT", "OWT_VARIABLE", "Trust", "fingerprints_of_environment"]

FINGERPRINT: Final = "^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$"
"""A SHA-256 in hex of either case, with colons or without."""
OWT_VARIABLE: Final = "QUIC_SERVER_FINGERPRINTS"
"""Where OWT's bridges find the fingerprints of those they dial, separated by commas."""


class Trust:
    """The certificates that one dial takes: those with one of these fingerprints, or any if None."""

    def __init__(self, fingerprints: Iterable[str] | None) -> None:
        self._expected = None if fingerprints is None else [_plain(one).encode() for one in fingerprints]

    def believes(self, certificate: x509.Certificate | None) -> bool:
        """Return whether the peer that showed this certificate is the one that was meant."""
        if self._expected is None:
            return True
        if certificate is None:
            return False
        shown = fingerprint_of(certificate).encode()
        return any(hmac.compare_digest(shown, expected) for expected in self._expected)


def fingerprints_of_environment(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the fingerprints of OWT's variable, none if it is not set. Raises ConfigError."""
    found = [one.strip() for one in environ.get(OWT_VARIABLE, "").split(",")]
    for one in filter(None, found):
        if not re.fullmatch(FINGERPRINT, one):
            raise ConfigError(
                f"{OWT_VARIABLE}: {one[:100]!r} is no SHA-256 fingerprint: 32 bytes in hex, as "
                "`openssl x509 -noout -fingerprint -sha256` prints them, separated by commas"
            )
    return tuple(filter(None, found))


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()
