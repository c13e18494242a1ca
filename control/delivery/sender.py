"""One message to one receiver, over HTTP: what goes out, how long it may take, where it may not go.

The guard is asked twice: for every address that the host's name has, before any is connected to, and for the
very address of each socket, which also covers URLs that name an address. So it does not matter what the name
means a moment later. Redirects are not followed, no proxy of the environment is used, nothing that a receiver
says gets into an error's text, and no URL gets into a log: it may hold a secret.
"""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from causeway import __version__
from control.delivery.attempts import Attempt
from control.delivery.guard import AddressRefusedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from control.delivery.guard import Guard
    from control.webhook_settings import WebhookSettings

__all__ = ["Sender"]

_RESOLVERS: Final = 8
"""Threads that look up names; of our own, so that a slow name server holds up nobody else."""
_MAX_ANSWER: Final = 1 << 16
"""Bytes of an answer's body that are read, to use the connection again; what they say does not matter."""
_DRAIN_TIMEOUT: Final = 1.0
_KEEPALIVE: Final = 10.0
_SUCCESS: Final = range(200, 300)
_MAX_RETRY_AFTER: Final = 10**9


class Sender:
    """Connections to receivers: an async context manager, made and used on one event loop."""

    def __init__(
        self,
        guard: Guard,
        settings: WebhookSettings,
        *,
        ssl_context: ssl.SSLContext | None = None,
        lookup: Callable[..., Any] = socket.getaddrinfo,
    ) -> None:
        """`ssl_context` replaces the verification against the system's authorities, `lookup` its resolver."""
        self._guard = guard
        self._settings = settings
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=self._settings.max_at_once,
            use_dns_cache=False,  # every new connection is judged by what the name means then
            resolver=_Resolver(self._guard, self._lookup),
            socket_factory=self._socket,
            keepalive_timeout=_KEEPALIVE,
            ssl=self._ssl,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nothing compressed is asked for; a bomb stays small
            headers={"Accept-Encoding": "identity", "User-Agent": f"causeway/{__version__}"},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float | None = None
    ) -> Attempt:
        """POST a JSON body and return what came of it; whatever goes wrong is in there, too.

        `timeout`: seconds for everything until the answer's head; None: as the settings say.
        """
        limit = self._settings.timeout if timeout is None else timeout
        began = time.monotonic()
        try:
            self._guard.check_url(url)  # the settings may have changed since it was stored
        except ValueError as error:
            return Attempt(status=None, error=f"url: {error}")
        try:
            async with asyncio.timeout(limit):
                response = await self._post(url, body, headers)
        except aiohttp.ServerTimeoutError:
            error_text = f"no connection within {self._settings.connect_timeout:g} s"
        except TimeoutError:
            error_text = f"no answer within {limit:g} s"
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            # ValueError: names that cannot be written in DNS. RuntimeError: uvloop's, for an OSError.
            error_text = _sentence(error)
        else:
            took = time.monotonic() - began
            await _drain(response)
            return Attempt(
                status=response.status,
                error="" if response.status in _SUCCESS else f"the receiver answered {response.status}",
                retry_after=_retry_after(response.headers.get("Retry-After")),
                seconds=took,
            )
        return Attempt(status=None, error=error_text, seconds=time.monotonic() - began)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise aiohttp.ClientConnectionError("the sender is closed")
        return await self._session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout),
        )

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Make the socket for an address, if connections may go there. Raises AddressRefusedError."""
        family, kind, protocol, _, place = address
        self._guard.check(place[0])
        return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(AbstractResolver):
    """Looks names up, and finds none if any of their addresses is forbidden."""

    def __init__(self, guard: Guard, lookup: Callable[..., Any]) -> None:
        self._guard = guard
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(max_workers=_RESOLVERS, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._lookup(host, port, type=socket.SOCK_STREAM, family=family)
        )
        for _, _, _, _, place in found:
            self._guard.check(place[0])
        return [
            ResolveResult(
                hostname=host,
                host=place[0],
                port=port,
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of_family, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again. A body that breaks off changes nothing."""
    length = response.content_length
    if length is not None and length <= _MAX_ANSWER:
        with suppress(aiohttp.ClientError, OSError):
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                await response.read()
    response.close()  # no harm if it has ended


_SENTENCES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid for the URL's host"),
    (aiohttp.ClientConnectorDNSError, "its name is not found"),
    (aiohttp.ClientSSLError, "TLS with it does not come about"),
    (aiohttp.ClientResponseError, "its answer is not HTTP"),
    (aiohttp.ClientError, "no connection, or it broke"),
    (OSError, "no connection, or it broke"),
)


def _sentence(error: Exception) -> str:
    """Say what went wrong without the URL and the receiver's words, which libraries like to quote."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, AddressRefusedError):
        return str(inner)
    said = next(
        (sentence for kind, sentence in _SENTENCES if isinstance(error, kind)), "the URL is not usable"
    )
    return f"{said} ({type(inner).__name__})"


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110, 10.2.3), None for none or nonsense."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return float(min(int(text[:10]), _MAX_RETRY_AFTER))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
