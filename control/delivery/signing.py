"""Signatures of webhook messages, as Standard Webhooks (standardwebhooks.com) has them. Pure.

What is signed is `<id>.<timestamp>.<body>` with HMAC-SHA256. The header `webhook-signature` lists one
signature for each secret that is valid, separated by spaces: a receiver that knows any of them accepts the
message, so a secret can be replaced without losing one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ID", "SIGNATURE", "TIMESTAMP", "headers", "new_secret", "secret_bytes", "verify"]

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"
_SECRET_BYTES: Final = 32
_SHORTEST, _LONGEST = 24, 64
"""Bytes of a secret; the specification's limits."""
_MAX_SIGNATURES: Final = 16
"""Signatures of one header that are looked at."""


def new_secret() -> str:
    """Return a new secret's text: `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def secret_bytes(text: str) -> bytes:
    """Return the key that a secret's text stands for; raises ValueError, which does not quote it."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a secret is {_PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} bytes")
    return key


def headers(message: str, body: bytes, *, timestamp: int, valid: Iterable[str]) -> dict[str, str]:
    """Return the three headers of a message.

    `message` is its id, `timestamp` the time of this try in seconds since 1970, `valid` the texts of the
    secrets, newest first. Raises ValueError for a secret that is none.
    """
    signatures = [_signature(message, body, timestamp, secret_bytes(secret)) for secret in valid]
    return {ID: message, TIMESTAMP: str(timestamp), SIGNATURE: " ".join(signatures)}


def verify(received: Mapping[str, str], body: bytes, secret: str, *, now: float, tolerance: float) -> bool:
    """Say whether a message is genuine and from within `tolerance` seconds of `now`: the receiver's side.

    `received` are the headers, named in lower case. Raises ValueError for a secret that is none.
    """
    key = secret_bytes(secret)
    stamp = received.get(TIMESTAMP, "")
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= len(str(2**63))):
        return False
    if abs(now - int(stamp)) > tolerance:
        return False
    expected = _signature(received.get(ID, ""), body, int(stamp), key)
    candidates = received.get(SIGNATURE, "").split(" ")[:_MAX_SIGNATURES]
    # Not any(): every candidate is compared, whichever fits.
    fitting = [hmac.compare_digest(each.encode(), expected.encode()) for each in candidates]
    return True in fitting


def _signature(message: str, body: bytes, timestamp: int, key: bytes) -> str:
    signed = f"{message}.{timestamp}.".encode() + body
    return f"{_VERSION},{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
