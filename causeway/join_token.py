"""Join tokens: making the compact text, and checking one. Pure: time and keys are arguments.

`sign` is for control. `kid_of` and `verify` are for clusters: what they leave to the cluster, because only it
knows, is whether the room is the one of this placement, whether the role exists there, and whether the token
was shown before (docs/api.md, "Signed tokens").

Format: RFC 7515 compact serialisation, EdDSA with Ed25519 (RFC 8037), claims of RFC 7519. Deliberately less
than a JOSE library accepts: one algorithm, one type, exactly three header fields, canonical base64url.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from causeway.api.tokens import JoinClaims, Jwk, TokenHeader
from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_TOKEN_CHARS", "TokenRefusedError", "kid_of", "read_keys", "sign", "verify"]

MAX_TOKEN_CHARS: Final = 4096
_PARTS: Final = 3
_SIGNATURE_BYTES: Final = 64


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


_KEY_SET: Final = msgspec.json.Decoder(_KeySet)
_JWK: Final = msgspec.json.Decoder(Jwk)
_HEADER: Final = msgspec.json.Decoder(TokenHeader)
_CLAIMS: Final = msgspec.json.Decoder(JoinClaims)
_ENCODER: Final = msgspec.json.Encoder()


class TokenRefusedError(CausewayError):
    """The token is not taken. The text says why, for the cluster's log; clients need not know."""

    code: ClassVar[str] = "bad-token"


def sign(key: Ed25519PrivateKey, *, kid: str, claims: JoinClaims) -> str:
    """Return the token's text."""
    signed = _head(kid) + "." + _text(_ENCODER.encode(claims))
    return signed + "." + _text(key.sign(signed.encode()))


def kid_of(token: str) -> str:
    """Return which key the token says it is signed with, without checking anything else but its form.

    Raises TokenRefusedError for a text that can be no token at all.
    """
    head, _, _ = _split(token)
    return _header(head).kid


def verify(
    token: str,
    keys: Mapping[str, Ed25519PublicKey],
    *,
    issuer: str,
    cluster: str,
    incarnation: str,
    now: float,
    leeway: float = 10.0,
) -> JoinClaims:
    """Return the claims of a token that `cluster` may take; raises TokenRefusedError.

    `incarnation`: which start of the cluster this is. `now`: seconds since 1970; clocks may be apart by
    `leeway` seconds.
    """
    head, body, signature = _split(token)
    key = keys.get(_header(head).kid)
    if key is None:
        raise TokenRefusedError("signed with an unknown key")
    raw = _bytes(signature)
    if len(raw) != _SIGNATURE_BYTES:
        raise TokenRefusedError("not a token")
    try:
        key.verify(raw, f"{head}.{body}".encode())
    except InvalidSignature:
        raise TokenRefusedError("the signature is wrong") from None
    claims = _claims(body)
    if claims.iss != issuer:
        raise TokenRefusedError("from another issuer")
    if claims.aud != cluster:
        raise TokenRefusedError("for another cluster")
    if claims.exp + leeway <= now:
        raise TokenRefusedError("too old")
    if claims.iat > now + leeway:
        raise TokenRefusedError("from the future")
    if claims.incarnation != incarnation:
        raise TokenRefusedError("for an earlier start of this cluster")
    return claims


def read_keys(jwks: bytes, *, limit: int = 64) -> dict[str, Ed25519PublicKey]:
    """Return the keys of a JWK Set (`GET /.well-known/jwks.json`) by their `kid`.

    Keys of other types are skipped, as RFC 7517 (section 5) has it. Raises ValueError for what is no JWK Set,
    has more than `limit` keys, or two keys by one `kid`.
    """
    try:
        entries = _KEY_SET.decode(jwks).keys
    except RecursionError:
        raise ValueError("not a JWK Set") from None
    if len(entries) > limit:
        raise ValueError(f"more than {limit} keys")
    keys: dict[str, Ed25519PublicKey] = {}
    for entry in entries:
        try:
            jwk = _JWK.decode(entry)
            key = Ed25519PublicKey.from_public_bytes(_bytes(jwk.x))
        except (msgspec.DecodeError, TokenRefusedError):
            continue
        if jwk.kid in keys:
            raise ValueError("two keys by one kid")
        keys[jwk.kid] = key
    return keys


# --- parts ------------------------------------------------------------------------------------


@lru_cache(64)
def _head(kid: str) -> str:
    return _text(_ENCODER.encode(TokenHeader(kid=kid)))


def _split(token: str) -> tuple[str, str, str]:
    parts = token.split(".", _PARTS) if len(token) <= MAX_TOKEN_CHARS else []
    if len(parts) != _PARTS:
        raise TokenRefusedError("not a token")
    return parts[0], parts[1], parts[2]


def _header(part: str) -> TokenHeader:
    try:
        return _HEADER.decode(_bytes(part))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        raise TokenRefusedError("not a join token") from None


def _claims(part: str) -> JoinClaims:
    try:
        return _CLAIMS.decode(_bytes(part))
    except (ValueError, RecursionError):
        raise TokenRefusedError("not the claims of a join token") from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Read base64url without padding, and only as `_text` writes it: one text for each value."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefusedError("not a token") from None
    if _text(data) != text:
        raise TokenRefusedError("not a token")
    return data
