"""Tokens with which clients read the events of their conference: made for joins, and checked here.

A token is a JWS (causeway.jws) with EventsClaims, signed with the keys of join tokens, which its `typ` tells
it from. Joins of one conference that come close to each other get the same one: it says nothing of whose it
is.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from causeway.api import EventsClaims, EventsHeader
from causeway.jws import TokenRefusedError, bytes_of, compact, opened, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.keyring import Keyring

__all__ = ["EventTokens"]

_HEADER: Final = msgspec.json.Decoder(EventsHeader)
_CLAIMS: Final = msgspec.json.Decoder(EventsClaims)
_ENCODER: Final = msgspec.json.Encoder()
_ID_BYTES: Final = 10
_SHARED: Final = 0.1
"""Part of a token's life during which others get it as well."""
_LEEWAY: Final = 10
"""Seconds that the clocks of replicas may be apart."""


class EventTokens:
    """`ttl`: seconds that a token is good; `capacity`: conferences whose token is remembered."""

    def __init__(
        self,
        keyring: Keyring,
        *,
        ttl: int,
        capacity: int = 4096,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keyring = keyring
        self._ttl = ttl
        self._capacity = capacity
        self._clock = clock
        self._made: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """The newest token of each conference, and until when it is handed out."""

    def token(self, conference: str) -> str:
        """Return a token for the conference. Raises NoSigningKeyError."""
        now = self._clock()
        known = self._made.get(conference)
        if known is not None and known[0] > now:
            return known[1]
        key = self._keyring.active()
        claims = EventsClaims(
            iss=self._keyring.issuer,
            conference=conference,
            iat=int(now),
            exp=int(now) + self._ttl,
            jti=secrets.token_hex(_ID_BYTES),
        )
        made = compact(key.private, _ENCODER.encode(EventsHeader(kid=key.kid)), _ENCODER.encode(claims))
        self._made[conference] = (now + self._ttl * _SHARED, made)
        self._made.move_to_end(conference)
        if len(self._made) > self._capacity:
            self._made.popitem(last=False)
        return made

    def check(self, token: str) -> EventsClaims:
        """Return what a token says; raises TokenRefusedError."""
        head, _, _ = split(token)
        try:
            kid = _HEADER.decode(bytes_of(head)).kid
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            raise TokenRefusedError("not a token of events") from None
        key = self._keyring.public(kid)
        if key is None:
            raise TokenRefusedError("signed with an unknown key")
        try:
            claims = _CLAIMS.decode(opened(token, key))
        except (ValueError, RecursionError):
            raise TokenRefusedError("not the claims of a token of events") from None
        if claims.iss != self._keyring.issuer:
            raise TokenRefusedError("from another issuer")
        if claims.exp + _LEEWAY <= self._clock():
            raise TokenRefusedError("too old")
        return claims
