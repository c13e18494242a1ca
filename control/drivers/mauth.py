"""MAuth, the signature that OWT's management API wants on every request (owt-server 5.x). No I/O.

`Authorization: MAuth realm=…,mauth_signature_method=HMAC_SHA256,mauth_serviceid=…,mauth_cnonce=…,
mauth_timestamp=…,mauth_signature=…` with the signature base64(hex(HMAC-SHA256(key, "timestamp,cnonce"))).

A cluster with `timestampCheck` refuses a timestamp older than the newest that it has seen from the service
(an equal one passes, as long as its nonce differs). Requests travel over several connections and arrive in
another order than they were signed in, so timestamps that grow with every request would have concurrent
requests refused at random. Hence `MAuthClock`: time in coarse steps, so that nearly all concurrent requests,
of all replicas, carry the same timestamp; it never goes back; and whoever is refused may move it on by a step
and try again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from control.drivers.base import CredentialsRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REALM", "MAuthClock", "authorization", "signature"]

REALM: Final = "http://marte3.dit.upm.es"

# The receiver splits the header at commas and equals signs, without any quoting.
_PLAIN: Final = re.compile(r"[!-+\--<>-~]+")


class MAuthClock:
    """Timestamps in milliseconds since 1970, never decreasing. One for all clusters of a process."""

    def __init__(
        self,
        *,
        step: int = 1000,
        max_lead: int = 10_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`step`: granularity; `max_lead`: how far refusals may push it before real time; both in ms."""
        self._step = step
        self._max_lead = max_lead
        self._now = now
        self._last = 0

    def stamp(self) -> int:
        """Return the timestamp to sign with."""
        self._last = max(self._last, self._floor(self._now()))
        return self._last

    def move_on(self, refused: int) -> None:
        """Go beyond a timestamp that a cluster refused, as somebody else may be ahead of us.

        Once per step, however many requests were refused at it; and never further than `max_lead`, as a
        refusal may have another cause.
        """
        ceiling = self._floor(self._now()) + self._max_lead
        if self._last == refused and refused + self._step <= ceiling:
            self._last = refused + self._step

    def _floor(self, seconds: float) -> int:
        return int(seconds * 1000) // self._step * self._step


def signature(key: str, *, timestamp: int, cnonce: str) -> str:
    """Return base64 of the hexadecimal HMAC-SHA256, as the receiver computes it."""
    mac = hmac.digest(key.encode(), f"{timestamp},{cnonce}".encode(), hashlib.sha256)
    return b64encode(mac.hex().encode()).decode()


def authorization(service_id: str, service_key: str, *, timestamp: int, cnonce: str | None = None) -> str:
    """Return the header's value; the nonce is drawn anew unless given.

    Raises CredentialsRefusedError for a service id that the header cannot carry.
    """
    if not _PLAIN.fullmatch(service_id):
        raise CredentialsRefusedError("the service id has characters that MAuth cannot carry")
    cnonce = cnonce or secrets.token_hex(16)
    signed = signature(service_key, timestamp=timestamp, cnonce=cnonce)
    return (
        f"MAuth realm={REALM},mauth_signature_method=HMAC_SHA256,mauth_serviceid={service_id},"
        f"mauth_cnonce={cnonce},mauth_timestamp={timestamp},mauth_signature={signed}"
    )
