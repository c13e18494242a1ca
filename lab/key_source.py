"""Control's public keys, fetched over HTTP and kept: a token needs no question to control.

Control being away changes nothing as long as it signs with a key that is known here. A key that is not known
makes us ask at once, but not more often than `min_interval`: whoever invents key ids makes nobody busy.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import httpx2
import structlog

from causeway.api.tokens import JWKS_PATH
from causeway.backoff import Backoff
from causeway.errors import UnavailableError
from causeway.join_token import TokenRefusedError, kid_of, read_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from lab.settings import KeySettings

__all__ = ["KeySource"]

_log: Final = structlog.get_logger(__name__)


class KeySource:
    """The keys of the control at `url`; an async context manager. `run` keeps them fresh."""

    def __init__(
        self,
        url: str,
        *,
        settings: KeySettings,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`clock` is any monotonic one, in seconds; `transport` replaces the network, for tests."""
        self._url = url.rstrip("/") + JWKS_PATH
        self._settings = settings
        self._clock = clock
        self._http = httpx2.AsyncClient(
            timeout=None, follow_redirects=False, trust_env=False, transport=transport
        )
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._keys: Mapping[str, Ed25519PublicKey] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def keys(self) -> Mapping[str, Ed25519PublicKey]:
        """What is known now, by key id."""
        return self._keys

    async def look_up(self, token: str) -> None:
        """Try to know the key of a token: when this returns, it is known, or not to be had now."""
        try:
            kid = kid_of(token)
        except TokenRefusedError:
            return
        if kid in self._keys:
            return
        async with self._asking:
            if kid in self._keys:
                return
            if self._asked_at is not None and self._clock() < self._asked_at + self._settings.min_interval:
                return
            try:
                await self._ask()
            except UnavailableError as error:
                _log.warning("keys.not_fetched", error=str(error))

    async def run(self) -> None:
        """Fetch the keys now, and again from time to time, for ever."""
        backoff = Backoff(base=self._settings.min_interval, cap=self._settings.refresh_interval)
        while True:
            try:
                async with self._asking:
                    await self._ask()
            except UnavailableError as error:
                _log.warning("keys.not_fetched", error=str(error))
                await asyncio.sleep(backoff.next_delay())
            else:
                backoff.reset()
                await asyncio.sleep(self._settings.refresh_interval)

    async def _ask(self) -> None:
        """Fetch what control publishes, in place of what is known. Raises UnavailableError."""
        self._asked_at = self._clock()
        try:
            async with asyncio.timeout(self._settings.timeout):
                body = await self._fetch()
            keys = read_keys(body)
        except TimeoutError:
            raise UnavailableError("control did not send its keys in time") from None
        except httpx2.HTTPError as error:
            raise UnavailableError(f"control's keys: {type(error).__name__}") from None
        except ValueError:
            raise UnavailableError("control sent no keys that could be read") from None
        self._keys = keys

    async def _fetch(self) -> bytes:
        async with self._http.stream("GET", self._url) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise UnavailableError(f"control answered {answer.status_code} for its keys")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > self._settings.max_bytes:
                    raise UnavailableError("control's keys are too long")
            return bytes(body)
