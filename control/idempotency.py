"""Idempotency-Key: the same request again gets the same answer again, and is done once.

An answer may carry a token, so it is sealed. A refusal is not kept: the request may be tried again with the
same key. Keys belong to the access key they come with.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

import structlog

from control.errors import IdempotencyBusyError, IdempotencyMismatchError, RefusedError
from control.registry import kept_answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from control.registry.store import Store
    from control.security.vault import Vault

__all__ = ["KeptAnswers", "fingerprint_of"]

_log = structlog.get_logger(__name__)
_PLACE: Final = "kept_answers.answer"


def fingerprint_of(*parts: bytes) -> bytes:
    """Return a digest of what was asked."""
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


class KeptAnswers:
    """Keeps answers for `ttl` seconds; whoever works on one has `patience` seconds for it."""

    def __init__(self, store: Store, vault: Vault, *, ttl: float, patience: float) -> None:
        self._store = store
        self._vault = vault
        self._ttl = ttl
        self._patience = patience

    async def once(
        self, caller: str, key: str, fingerprint: bytes, work: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Return the answer that the key already has, else that of `work`, which is kept.

        Raises IdempotencyMismatchError if the key came with another request, IdempotencyBusyError while the
        first one is being worked on, SealError, and what `work` raises.
        """
        known = await self._store.write(
            kept_answers.begin,
            caller,
            key,
            fingerprint=fingerprint,
            patience=self._patience,
            ttl=self._ttl,
        )
        if known.fingerprint != fingerprint:
            raise IdempotencyMismatchError("this Idempotency-Key came with another request before")
        if known.answer is not None:
            return self._vault.open(known.answer, _PLACE, caller, key).encode()
        if known.claim is None:
            raise IdempotencyBusyError("the first request with this key is not done yet", retry_after=1)
        try:
            answer = await work()
        except BaseException:
            await asyncio.shield(self._store.write(kept_answers.drop, caller, key, claim=known.claim))
            raise
        sealed = self._vault.seal(answer.decode(), _PLACE, caller, key)
        await self._store.write(kept_answers.finish, caller, key, claim=known.claim, answer=sealed)
        return answer

    async def run(self, *, interval: float = 60.0) -> None:
        """Delete what ran out, every `interval` seconds, for ever."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self._store.write(kept_answers.sweep)
            except RefusedError as error:
                _log.warning("kept_answers.sweep_failed", reason=error.detail)
