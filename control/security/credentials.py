"""Who may do what: access keys, made once, stored as hashes, checked on every request.

A checked key is remembered for a few seconds, so that joins do not ask the database each time. A revocation
is announced to every replica, which then forgets the key at once; while announcements cannot be heard, a
revoked key works for as long as it is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from causeway.errors import ConfigError
from causeway.keys import KINDS, new_key, parse_key
from control.errors import DatabaseUnavailableError, InvalidRequestError, UnauthenticatedError
from control.registry import credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from causeway.api import KeyView
    from causeway.keys import Key, KeyKind, Scope
    from control.registry.credentials import StoredKey
    from control.registry.store import Store
    from control.settings import KeySettings

__all__ = ["Authenticator", "MadeKey", "make_key", "prepare_keys"]

_log = structlog.get_logger(__name__)
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
        self._good: OrderedDict[bytes, tuple[float, StoredKey]] = OrderedDict()
        """The same by SHA-256 of the whole header, for those who come again and again: finding a digest says
        nothing about a secret that is close to it."""
        self._asking: dict[str, asyncio.Lock] = {}
        self._forgotten = 0
        """Counts what was forgotten: an answer of the database that is older than that is not remembered."""
        self._used: set[str] = set()

    async def authenticate(self, header: str | None) -> StoredKey:
        """Return the key that the header carries; raises UnauthenticatedError."""
        digest = hashlib.sha256((header or "").encode()).digest()
        good = self._good.get(digest)
        if good is not None and good[0] > self._clock():
            self._used.add(good[1].id)
            return good[1]
        key = _key_in(header)
        if key is None:
            raise UnauthenticatedError("send an access key: Authorization: Bearer cw_…")
        stored = await self._find(key.id)
        if stored is None or stored.kind != key.kind or not _same(stored.secret_hash, key):
            raise UnauthenticatedError("this access key is not valid")
        self._used.add(stored.id)
        known = self._known.get(stored.id)
        if known is not None and known[1] is stored:
            self._good[digest] = known
            if len(self._good) > self._capacity:
                self._good.popitem(last=False)
        return stored

    def remembers(self, header: str | None) -> bool:
        """Return whether the very key in the header has been seen to be good; asks nobody."""
        key = _key_in(header)
        known = self._known.get(key.id) if key is not None else None
        return key is not None and known is not None and _same(known[1].secret_hash, key)

    def forget(self, key: str) -> None:
        """Ask the database again for this key: it was revoked."""
        self._forgotten += 1
        self._known.pop(key, None)
        self._good.clear()

    def forget_all(self) -> None:
        """Ask the database again for every key: an announcement may have been missed."""
        self._forgotten += 1
        self._known.clear()
        self._good.clear()

    async def note_use(self, *, interval: float = 60.0) -> None:
        """Write down every `interval` seconds which keys were in use, for ever."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.note_use_now()
            except DatabaseUnavailableError as error:
                _log.warning("keys.use_not_noted", reason=error.detail)

    async def note_use_now(self) -> None:
        """Write down which keys were in use since the last time."""
        used, self._used = self._used, set()
        if used:
            await self._store.write(credentials.used, used)

    async def _find(self, key: str) -> StoredKey | None:
        now = self._clock()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        # Of many requests with the same key one asks; the others wait for what it hears.
        asking = self._asking.setdefault(key, asyncio.Lock())
        async with asking:
            known = self._known.get(key)
            if known is not None and known[0] > now:
                return known[1]
            try:
                return await self._ask(key, now)
            finally:
                self._asking.pop(key, None)

    async def _ask(self, key: str, now: float) -> StoredKey | None:
        forgotten = self._forgotten
        stored = await self._store.read(credentials.find, key)
        self._known.pop(key, None)
        if stored is not None and forgotten == self._forgotten:
            self._known[key] = (now + self._lifetime, stored)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return stored


class MadeKey(NamedTuple):
    """A new key and its text; the registry has only the former."""

    text: str
    view: KeyView

    def __repr__(self) -> str:
        """Leave the text out."""
        return f"MadeKey(view={self.view!r})"


async def make_key(
    store: Store, kind: KeyKind, *, name: str, scopes: Collection[Scope] | None, by: str | None
) -> MadeKey:
    """Make and store a key. Raises InvalidRequestError for scopes of a key that takes none."""
    if scopes is not None and kind != "application":
        raise InvalidRequestError(f"scopes: only application keys have them, not a key of kind {kind}")
    text = new_key(kind)
    key = parse_key(text)
    assert key is not None
    view = await store.write(
        credentials.create, key.id, kind=kind, secret_hash=_hash(key), name=name, scopes=scopes, by=by
    )
    _log.info("key.created", key=key.id, kind=kind, by=by)
    return MadeKey(text, view)


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


def _key_in(header: str | None) -> Key | None:
    scheme, _, text = (header or "").partition(" ")
    return parse_key(text.strip()) if scheme.lower() == _SCHEME else None


def _hash(key: Key) -> bytes:
    return hashlib.sha256(bytes.fromhex(key.secret)).digest()


def _same(stored: bytes, key: Key) -> bool:
    return hmac.compare_digest(stored, _hash(key))
