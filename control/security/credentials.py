"""Who may do what: access keys, made once, stored as hashes, checked on every request.

A checked key is remembered for a few seconds, so that joins do not ask the database each time; a revoked one
therefore works for that long after.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from causeway.errors import ConfigError
from causeway.keys import KINDS, new_key, parse_key
from control.errors import UnauthenticatedError
from control.registry import credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from causeway.keys import Key
    from control.registry.credentials import StoredKey
    from control.registry.store import Store
    from control.settings import KeySettings

__all__ = ["Authenticator", "prepare_keys"]

_SCHEME: Final = "bearer"


class Authenticator:
    """Checks `Authorization` headers. `lifetime`: seconds that a key is remembered; `capacity`: how many."""

    def __init__(
        self,
        store: Store,
        *,
        lifetime: float = 5.0,
        capacity: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._capacity = capacity
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, StoredKey]] = OrderedDict()

    async def authenticate(self, header: str | None) -> StoredKey:
        """Return the key that the header carries; raises UnauthenticatedError."""
        scheme, _, text = (header or "").partition(" ")
        key = parse_key(text.strip()) if scheme.lower() == _SCHEME else None
        if key is None:
            raise UnauthenticatedError("send an access key: Authorization: Bearer cw_…")
        stored = await self._find(key.id)
        if stored is None or stored.kind != key.kind or not _same(stored.secret_hash, key):
            raise UnauthenticatedError("this access key is not valid")
        return stored

    async def _find(self, key: str) -> StoredKey | None:
        now = self._clock()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        stored = await self._store.read(credentials.find, key)
        self._known.pop(key, None)
        if stored is not None:
            self._known[key] = (now + self._lifetime, stored)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return stored


async def prepare_keys(store: Store, settings: KeySettings) -> list[str]:
    """Make the configured keys valid, or else, if there never was any, make one of each kind.

    Returns the texts of the new ones, to be shown once. Raises ConfigError for a configured text that is no
    key of its kind, or whose id belongs to another or to a revoked key.
    """
    configured = {kind: text for kind in KINDS if (text := getattr(settings, kind))}
    for kind, text in configured.items():
        key = parse_key(text)
        if key is None or key.kind != kind:
            raise ConfigError(f"control.keys.{kind}: not a key of this kind (cw_{kind}_<id>_<secret>)")
        if not await store.write(credentials.ensure, key.id, kind=kind, secret_hash=_hash(key)):
            raise ConfigError(f"control.keys.{kind}: the id {key.id} belongs to another or to a revoked key")
    if configured:
        return []
    fresh = [new_key(kind) for kind in KINDS]
    keys = [key for text in fresh if (key := parse_key(text)) is not None]
    made = await store.write(credentials.create_first, [(key.id, key.kind, _hash(key)) for key in keys])
    return fresh if made else []


def _hash(key: Key) -> bytes:
    return hashlib.sha256(bytes.fromhex(key.secret)).digest()


def _same(stored: bytes, key: Key) -> bool:
    return hmac.compare_digest(stored, _hash(key))
