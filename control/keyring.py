"""The keys that sign join tokens, in memory: made at the first start, looked up again from time to time.

Signing asks neither the database nor a cluster. What is published and what signs is decided by
control.security.signing; this holds the present set of keys and the clock.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from causeway.api.tokens import JwkSet, SigningKeyList, SigningKeyView
from control.errors import DatabaseUnavailableError, RateLimitedError
from control.registry import audit, signing_keys
from control.security.signing import LONGEST_TOKEN, KeyRing, SigningKey, new_private_key, public_text
from control.security.vault import SealError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api.tokens import JoinClaims
    from control.registry.store import Store
    from control.security.signing import Grant
    from control.security.vault import Vault
    from control.token_settings import TokenSettings

__all__ = ["PRIVATE_KEY", "Keyring"]

_log = structlog.get_logger(__name__)

PRIVATE_KEY: Final = "signing_keys.private"
"""Where private keys are sealed for, followed by the key's id."""
_KID_BYTES: Final = 9
_MOST_KEYS: Final = 32
"""Published at once; causeway.join_token.read_keys takes twice as many."""


class Keyring:
    """Signs, publishes and renews. `prepare` comes first."""

    def __init__(self, store: Store, vault: Vault, settings: TokenSettings) -> None:
        self._store = store
        self._vault = vault
        self._settings = settings
        self._ttl = timedelta(seconds=settings.ttl)
        self._ring = KeyRing(())
        self._stale = asyncio.Event()

    # --- signing and publishing ---------------------------------------------------------------

    def sign(self, grant: Grant) -> tuple[str, JoinClaims]:
        """Return a token and what it says. Raises NoSigningKeyError."""
        return self._ring.sign(grant, issuer=self._settings.issuer, now=_now(), ttl=self._ttl)

    @property
    def issuer(self) -> str:
        """Who signs."""
        return self._settings.issuer

    def active(self) -> SigningKey:
        """Return the key that signs. Raises NoSigningKeyError."""
        return self._ring.active(_now())

    def public(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public half of a key that some token may still be good of."""
        return self._ring.public(kid)

    def jwks(self) -> JwkSet:
        """Return the public keys."""
        return JwkSet(keys=self._ring.jwks(_now()))

    @property
    def max_age(self) -> int:
        """Seconds that caches may keep the public keys."""
        return self._settings.max_age

    def shown(self) -> SigningKeyList:
        """Return what operators see."""
        return SigningKeyList(
            keys=[
                SigningKeyView(
                    kid=key.kid, state=state, created_at=key.created_at, active_from=key.active_from
                )
                for key, state in self._ring.published(_now())
            ]
        )

    # --- keeping up ---------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Have a key. Raises SealError when the stored ones do not open, and DatabaseUnavailableError."""
        kid, public, sealed = self._draw()
        if await self._store.write(signing_keys.create_first, kid, public=public, sealed=sealed):
            _log.info("signing_key.made", kid=kid)
        await self.refresh()

    async def rotate(self, *, actor: str) -> SigningKeyList:
        """Make and publish a new key, which signs after the lead; forget those that are over.

        Raises RateLimitedError while as many are published as clusters are sure to take.
        """
        await self.refresh()
        now = _now()
        published = self._ring.published(now)
        if len(published) >= _MOST_KEYS:
            raise RateLimitedError(
                f"{len(published)} keys are published already; the oldest goes when its tokens have run out",
                retry_after=int(LONGEST_TOKEN.total_seconds()),
            )
        kid, public, sealed = self._draw()

        async def write(connection: AsyncConnection) -> None:
            await signing_keys.remove(connection, self._ring.useless(now))
            await signing_keys.add(connection, kid, public=public, sealed=sealed, lead=self._settings.lead)
            await audit.note(
                connection, actor=actor, subject="signing-keys", action="rotated", after={"kid": kid}
            )

        await self._store.write(write)
        _log.info("signing_key.made", kid=kid)
        await self.refresh()
        return self.shown()

    async def refresh(self) -> None:
        """Take what is stored now. Raises SealError and DatabaseUnavailableError; then all stays as it is."""
        stored = await self._store.read(signing_keys.find_all)
        self._ring = KeyRing(
            SigningKey(
                kid=key.kid,
                public=key.public,
                created_at=key.created_at,
                active_from=key.active_from,
                private=Ed25519PrivateKey.from_private_bytes(
                    base64.b64decode(self._vault.open(key.sealed, PRIVATE_KEY, key.kid))
                ),
            )
            for key in stored
        )

    def look_again(self) -> None:
        """Refresh soon: the stored keys have changed."""
        self._stale.set()

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.refresh_interval):
                    await self._stale.wait()
            self._stale.clear()
            try:
                await self.refresh()
            except DatabaseUnavailableError as error:
                _log.warning("signing_keys.not_refreshed", error=error.detail)
            except SealError as error:
                _log.error("signing_keys.not_refreshed", error=str(error))

    def _draw(self) -> tuple[str, str, bytes]:
        """Return a new key: its id, public half, and private half as it is stored."""
        private = new_private_key()
        kid = secrets.token_urlsafe(_KID_BYTES)
        text = base64.b64encode(private.private_bytes_raw()).decode()
        return kid, public_text(private), self._vault.seal(text, PRIVATE_KEY, kid)


def _now() -> datetime:
    return datetime.now(UTC)
