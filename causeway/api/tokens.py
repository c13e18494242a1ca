"""Signed join tokens: what they say, and the keys to check them with, as clusters see both.

A token is a JWS in compact form (RFC 7515, EdDSA over Ed25519: RFC 8037) whose payload is JoinClaims; the
keys are a JWK Set (RFC 7517) at JWKS_PATH. causeway.join_token checks one; docs/api.md says
what is to be checked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from causeway.api.base import NAME, Answer, ClusterId, ConferenceId, Role, User

__all__ = [
    "JWKS_PATH",
    "TOKEN_TYPE",
    "JoinClaims",
    "Jwk",
    "JwkSet",
    "KeyId",
    "SigningKeyList",
    "SigningKeyView",
    "TokenHeader",
]

JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_TYPE: Final = "causeway-join+jwt"  # noqa: S105 - the name of a type of tokens
"""The header's `typ` (RFC 8725, 3.11): no other text that we ever sign can be taken for a join token."""

KeyId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Drawn = Annotated[str, Meta(pattern=NAME, max_length=64)]
Instant = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Seconds since 1970."""
Epoch = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class TokenHeader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protected header. Another algorithm, or a header field more (`crit`, `jwk` …), is refused."""

    alg: Literal["EdDSA"] = "EdDSA"
    kid: KeyId
    typ: Literal["causeway-join+jwt"] = TOKEN_TYPE


class JoinClaims(Struct, frozen=True, kw_only=True):
    """The payload: this participant may join that conference there, once, in this role, until `exp`."""

    iss: Annotated[str, Meta(min_length=1, max_length=256)]
    """Which control signed it (`control.tokens.issuer`)."""
    aud: ClusterId
    """The only cluster where it is good for anything."""
    sub: Drawn
    """Id that the participant gets in the room."""
    jti: Drawn
    """Drawn for this token: it is to be taken once."""
    iat: Instant
    exp: Instant
    conference: ConferenceId
    """Also the room's id."""
    role: Role
    user: User
    incarnation: Drawn
    """The start of the cluster (ClusterRegistration.incarnation) that the placement was for."""
    placement: Epoch
    """Epoch of the conference's placement on the cluster, as given in the room's options when it was made."""


class Jwk(Struct, frozen=True, kw_only=True):
    """A public key. `x`: its 32 bytes in base64url without padding. Fields of other issuers are skipped."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    x: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$(?!\n)")]
    kid: KeyId
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"


class JwkSet(Answer, frozen=True, kw_only=True):
    """`GET /.well-known/jwks.json`: every key that a valid token may be signed with, and the next one."""

    keys: Annotated[list[Jwk], Meta(max_length=64)]


class SigningKeyView(Answer, frozen=True, kw_only=True):
    """A key that signs join tokens. `next`: published, not used yet; `retired`: only checked with."""

    kid: KeyId
    state: Literal["next", "active", "retired"]
    created_at: datetime
    active_from: datetime


class SigningKeyList(Answer, frozen=True, kw_only=True):
    """`GET /v1/signing-keys`: every published key, newest first."""

    keys: list[SigningKeyView]
