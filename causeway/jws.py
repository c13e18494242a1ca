"""The compact form of signed tokens, without their meaning: RFC 7515, EdDSA with Ed25519 (RFC 8037). Pure.

Deliberately less than a JOSE library accepts: one algorithm and canonical base64url, so that there is one
text for each value. What header and payload must be is said where a kind of token is (causeway.join_token).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, ClassVar, Final

from cryptography.exceptions import InvalidSignature

from causeway.errors import CausewayError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["MAX_TOKEN_CHARS", "TokenRefusedError", "bytes_of", "compact", "opened", "split", "text_of"]

MAX_TOKEN_CHARS: Final = 4096
_PARTS: Final = 3
_SIGNATURE_BYTES: Final = 64


class TokenRefusedError(CausewayError):
    """The token is not taken. The text says why, for the log of whoever checked it; clients need not know."""

    code: ClassVar[str] = "bad-token"


def compact(key: Ed25519PrivateKey, header: bytes, payload: bytes) -> str:
    """Return the token's text."""
    signed = _encoded(header) + b"." + _encoded(payload)
    return (signed + b"." + _encoded(key.sign(signed))).decode()


def split(token: str) -> tuple[str, str, str]:
    """Return header, payload and signature, as texts; raises TokenRefusedError."""
    parts = token.split(".", _PARTS) if len(token) <= MAX_TOKEN_CHARS else []
    if len(parts) != _PARTS:
        raise TokenRefusedError("not a token")
    return parts[0], parts[1], parts[2]


def opened(token: str, key: Ed25519PublicKey) -> bytes:
    """Return the payload of a token that this key has signed; raises TokenRefusedError."""
    head, body, signature = split(token)
    raw = bytes_of(signature)
    if len(raw) != _SIGNATURE_BYTES:
        raise TokenRefusedError("not a token")
    try:
        key.verify(raw, f"{head}.{body}".encode())
    except InvalidSignature:
        raise TokenRefusedError("the signature is wrong") from None
    return bytes_of(body)


def text_of(data: bytes) -> str:
    """Return bytes as base64url without padding."""
    return _encoded(data).decode()


def bytes_of(text: str) -> bytes:
    """Read base64url without padding, and only as `text_of` writes it; raises TokenRefusedError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefusedError("not a token") from None
    if text_of(data) != text:
        raise TokenRefusedError("not a token")
    return data


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
