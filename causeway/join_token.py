"""Join tokens: making the compact text, and checking one. Pure: time and keys are arguments.

`sign` is for control. `kid_of` and `verify` are for clusters: what they leave to the cluster, because only it
knows, is whether the room is the one of this placement, whether the role exists there, and whether the token
was shown before (docs/api.md, "Signed tokens").

Format: RFC 7515 compact serialisation, EdDSA with Ed25519 (RFC 8037), claims of RFC 7519. Deliberately less
than a JOSE library accepts: one algorithm, one type, exactly three header fields, canonical base64url.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from causeway.api.tokens import JoinClaims, Jwk, TokenHeader
from causeway.jws import MAX_TOKEN_CHARS, TokenRefusedError, bytes_of, compact, opened, split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["MAX_TOKEN_CHARS", "TokenRefusedError", "kid_of", "read_keys", "sign", "verify"]


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


_KEY_SET: Final = msgspec.json.Decoder(_KeySet)
_JWK: Final = msgspec.json.Decoder(Jwk)
_HEADER: Final = msgspec.json.Decoder(TokenHeader)
_CLAIMS: Final = msgspec.json.Decoder(JoinClaims)
_ENCODER: Final = msgspec.json.Encoder()


def sign(key: Ed25519PrivateKey, *, kid: str, claims: JoinClaims) -> str:
    """Return the token's text."""
    return compact(key, _head(kid), _ENCODER.encode(claims))


def kid_of(token: str) -> str:
    """Return which key the token says it is signed with, without checking anything else but its form.

    Raises TokenRefusedError for a text that can be no token at all.
    """
    head, _, _ = split(token)
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
    head, _, _ = split(token)
    key = keys.get(_header(head).kid)
    if key is None:
        raise TokenRefusedError("signed with an unknown key")
    claims = _claims(opened(token, key))
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
            key = Ed25519PublicKey.from_public_bytes(bytes_of(jwk.x))
        except (msgspec.DecodeError, TokenRefusedError):
            continue
        if jwk.kid in keys:
            raise ValueError("two keys by one kid")
        keys[jwk.kid] = key
    return keys


# --- parts ------------------------------------------------------------------------------------


@lru_cache(64)
def _head(kid: str) -> bytes:
    return _ENCODER.encode(TokenHeader(kid=kid))


def _header(part: str) -> TokenHeader:
    try:
        return _HEADER.decode(bytes_of(part))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        raise TokenRefusedError("not a join token") from None


def _claims(body: bytes) -> JoinClaims:
    try:
        return _CLAIMS.decode(body)
    except (ValueError, RecursionError):
        raise TokenRefusedError("not the claims of a join token") from None
