"""Which key signs join tokens and which ones are published, at a given time. Pure.

A key's life: it is made and published at once, signs from `active_from` on, is succeeded by the next one, and
stays published until every token that it signed has run out. The time between publishing and signing lets
every replica of control, and every cluster that caches the keys, learn of it first. So with any number of
replicas no token is ever signed with a key that is not published everywhere.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from causeway.api.tokens import JoinClaims, Jwk
from causeway.errors import CausewayError
from causeway.join_token import sign

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = [
    "LONGEST_EVENTS_TOKEN",
    "LONGEST_TOKEN",
    "Grant",
    "KeyRing",
    "NoSigningKeyError",
    "SigningKey",
    "new_private_key",
    "public_text",
]

LONGEST_TOKEN: Final = timedelta(hours=1)
"""No join token lives longer, whatever is set: so long, and a bit, a succeeded key stays published."""
LONGEST_EVENTS_TOKEN: Final = timedelta(hours=24)
"""Nor a token of an event stream. Control checks those itself: so long it remembers a succeeded key."""
_SLACK: Final = timedelta(minutes=5)
"""For clocks that are apart, and clusters' leeway."""
_ID_BYTES: Final = 10


class NoSigningKeyError(CausewayError):
    """There is no key to sign with; the central service makes one when it starts."""

    code: ClassVar[str] = "no-signing-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One key."""

    kid: str
    public: str
    """Base64url of its 32 bytes."""
    created_at: datetime
    active_from: datetime
    private: Ed25519PrivateKey = field(repr=False)


class Grant(Struct, frozen=True, kw_only=True):
    """Who may join what: the claims that are not of the token itself."""

    cluster: str
    incarnation: str
    conference: str
    placement: int
    user: str
    role: str


class KeyRing:
    """Every key that is known, at whatever point of its life."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        # Newest last; of two that become active at once the later made one counts, on every replica.
        self._keys = sorted(keys, key=lambda key: (key.active_from, key.created_at, key.kid))

    def __len__(self) -> int:
        return len(self._keys)

    def active(self, now: datetime) -> SigningKey:
        """Return the key that signs; raises NoSigningKeyError."""
        for key in reversed(self._keys):
            if key.active_from <= now:
                return key
        raise NoSigningKeyError("no key to sign join tokens with")

    def published(self, now: datetime) -> list[tuple[SigningKey, Literal["next", "active", "retired"]]]:
        """Return every key that a token may be signed with now, or soon, newest first."""
        found: list[tuple[SigningKey, Literal["next", "active", "retired"]]] = []
        for key in reversed(self._keys):
            if key.active_from > now:
                found.append((key, "next"))
            elif not any(state == "active" for _, state in found):
                found.append((key, "active"))
            elif not self._over(key, now):
                found.append((key, "retired"))
        return found

    def jwks(self, now: datetime) -> list[Jwk]:
        """Return the same as JWKs."""
        return [Jwk(kid=key.kid, x=key.public) for key, _ in self.published(now)]

    def over(self, now: datetime) -> list[str]:
        """Return the ids of keys that no valid join token can be signed with any more."""
        kept = {key.kid for key, _ in self.published(now)}
        return [key.kid for key in self._keys if key.kid not in kept]

    def useless(self, now: datetime) -> list[str]:
        """Return the ids of keys that no valid token of any kind can be signed with any more."""
        kept = {key.kid for key, _ in self.published(now)}
        return [
            key.kid
            for key in self._keys
            if key.kid not in kept and self._over(key, now, longest=LONGEST_EVENTS_TOKEN)
        ]

    def public(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public half of a key that control remembers."""
        return next((key.private.public_key() for key in self._keys if key.kid == kid), None)

    def sign(self, grant: Grant, *, issuer: str, now: datetime, ttl: timedelta) -> tuple[str, JoinClaims]:
        """Return a token that lives for `ttl`, and what it says. Raises NoSigningKeyError."""
        key = self.active(now)
        issued = int(now.timestamp())
        drawn = secrets.token_hex(2 * _ID_BYTES)
        claims = JoinClaims(
            iss=issuer,
            aud=grant.cluster,
            sub=drawn[: 2 * _ID_BYTES],
            jti=drawn[2 * _ID_BYTES :],
            iat=issued,
            exp=issued + int(min(ttl, LONGEST_TOKEN).total_seconds()),
            conference=grant.conference,
            role=grant.role,
            user=grant.user,
            incarnation=grant.incarnation,
            placement=grant.placement,
        )
        return sign(key.private, kid=key.kid, claims=claims), claims

    def _over(self, key: SigningKey, now: datetime, longest: timedelta = LONGEST_TOKEN) -> bool:
        successors = (other.active_from for other in self._keys if other.active_from > key.active_from)
        succeeded = min(successors, default=key.active_from)
        return succeeded + longest + _SLACK <= now


def new_private_key() -> Ed25519PrivateKey:
    """Draw a key."""
    return Ed25519PrivateKey.generate()


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public half as a JWK's `x`."""
    return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
