"""MAuth, the receiving side: who may call the management API (owt-server 5.x).

`Authorization: MAuth realm=…,mauth_signature_method=HMAC_SHA256,mauth_serviceid=…,mauth_cnonce=…,
mauth_timestamp=…,mauth_signature=…` with
signature = base64(hex(HMAC-SHA256(service key, "timestamp,cnonce"))); `mauth_username` and `mauth_role`, when
both are given, are appended to the signed text as ",username,role".
Pure: a header in, yes or no out.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import Final

__all__ = ["MAuth"]

_PREFIX: Final = "MAuth "
_MAX_HEADER: Final = 4096
_REQUIRED: Final = ("mauth_serviceid", "mauth_cnonce", "mauth_timestamp", "mauth_signature")


class MAuth:
    """Knows one service. With `timestamp_check`, a timestamp older than the last good one is refused."""

    def __init__(self, service_id: str, service_key: str, *, timestamp_check: bool = False) -> None:
        self._service_id = service_id.encode()
        self._key = service_key.encode()
        self._timestamp_check = timestamp_check
        self._last_timestamp = 0

    def accepts(self, header: str) -> bool:
        """Return whether a request with this Authorization header may pass."""
        fields = _fields(header)
        if fields is None:
            return False
        signed = f"{fields['mauth_timestamp']},{fields['mauth_cnonce']}"
        if "mauth_username" in fields and "mauth_role" in fields:
            signed += f",{fields['mauth_username']},{fields['mauth_role']}"
        mac = hmac.digest(self._key, signed.encode(), hashlib.sha256).hex()
        # Both are compared in any case, so that the time taken does not tell which one was wrong.
        known = hmac.compare_digest(fields["mauth_serviceid"].encode(), self._service_id)
        good = hmac.compare_digest(fields["mauth_signature"].encode(), b64encode(mac.encode()))
        return known and good and self._fresh(fields["mauth_timestamp"])

    def _fresh(self, text: str) -> bool:
        if not (text.isascii() and text.isdecimal()):
            return False
        timestamp = int(text[:20])
        if self._timestamp_check and timestamp < self._last_timestamp:
            return False
        self._last_timestamp = max(self._last_timestamp, timestamp)
        return True


def _fields(header: str) -> dict[str, str] | None:
    if not header.startswith(_PREFIX) or len(header) > _MAX_HEADER:
        return None
    fields: dict[str, str] = {}
    for part in header[len(_PREFIX) :].split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name in fields:
            return None
        fields[name] = value
    if any(not fields.get(name) for name in _REQUIRED):
        return None
    if fields.get("mauth_signature_method", "HMAC_SHA256") != "HMAC_SHA256":
        return None
    return fields
