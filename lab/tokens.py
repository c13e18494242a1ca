"""Tokens that let a client in: made by the management API, taken by the portal, once.

The text is OWT's: base64 of JSON `{tokenId, host, secure, webTransportUrl, signature}`. What it stands for
(room, user, role) stays here; the signature covers that, too, so a token is good for nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from msgspec import Struct

from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Admission", "TokenError", "Tokens"]

_MAX_TOKEN: Final = 2048


class TokenError(CausewayError):
    """The token is none of ours, was shown before, or is too old: which of these is not said."""

    code: ClassVar[str] = "bad-token"


class Admission(Struct, frozen=True):
    """What a token stands for."""

    room: str
    user: str
    role: str
    participant: str | None = None
    """Id that whoever made the token has given; None: the room draws one."""


class _Text(Struct, frozen=True, rename="camel"):
    token_id: str
    host: str
    secure: bool
    web_transport_url: str
    signature: str


class Tokens:
    """Tokens that have been made and not been shown yet, at most `limit`: beyond that the oldest is void."""

    def __init__(self, *, ttl: float, limit: int, clock: Callable[[], float]) -> None:
        """`ttl` is in seconds of `clock`, any monotonic one."""
        self._ttl = ttl
        self._limit = limit
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._pending: dict[str, tuple[Admission, float]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def make(self, admission: Admission, *, host: str, secure: bool = False) -> str:
        """Return a token for the portal at `host` (`host:port`)."""
        now = self._clock()
        # They are in order of expiry, as all live equally long.
        while self._pending:
            oldest = next(iter(self._pending))
            if self._pending[oldest][1] > now and len(self._pending) < self._limit:
                break
            del self._pending[oldest]
        token_id = secrets.token_hex(16)
        self._pending[token_id] = (admission, now + self._ttl)
        text = _Text(token_id, host, secure, "", self._sign(token_id, host, admission, secure=secure))
        return b64encode(msgspec.json.encode(text)).decode()

    def redeem(self, token: str) -> Admission:
        """Return what a token stands for; it is void from then on. Raises TokenError."""
        try:
            text = msgspec.json.decode(b64decode(token[:_MAX_TOKEN], validate=True), type=_Text)
        except (ValueError, RecursionError):  # binascii.Error and msgspec's errors are ValueErrors
            raise TokenError("the token is not valid") from None
        admission, expires = self._pending.get(text.token_id, (None, 0.0))
        if admission is None or expires <= self._clock():
            raise TokenError("the token is not valid")
        expected = self._sign(text.token_id, text.host, admission, secure=text.secure)
        if not hmac.compare_digest(text.signature.encode(), expected.encode()):
            raise TokenError("the token is not valid")
        del self._pending[text.token_id]
        return admission

    def _sign(self, token_id: str, host: str, admission: Admission, *, secure: bool) -> str:
        signed = msgspec.json.encode([token_id, host, secure, admission])
        return b64encode(hmac.digest(self._key, signed, hashlib.sha256).hex().encode()).decode()
