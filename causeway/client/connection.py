"""One call to control: what goes out, how long it may take, what an answer is turned into.

The key goes out in the Authorization header and appears nowhere else. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from causeway.api import EPOCH_HEADER, REPORT_HEADER, Problem
from causeway.errors import ApiError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["Connection", "Tagged", "headers_of", "path_of", "query_of", "refusal_of"]

_KEY: Final = re.compile(r"[!-~]+")

_T = TypeVar("_T")


class Tagged(NamedTuple, Generic[_T]):
    """What was read, and its ETag for `if_match`."""

    value: _T
    tag: str


class Connection:
    """One control service, one key. An async context manager; any number of calls may run at once."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout: float = 10.0,
        max_connections: int = 20,
        max_answer_bytes: int = 16 << 20,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`base_url` is without `/v1`; `timeout` limits each call as a whole, in seconds.

        `transport` replaces the network, for tests. Raises ConfigError for an address or a key that is none.
        """
        try:
            url = httpx2.URL(base_url.rstrip("/") + "/v1/")
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError("control's address must be an http(s) URL")
        if not _KEY.fullmatch(key):
            raise ConfigError("control's key must be printable ASCII without spaces")
        self._timeout = timeout
        self._max_answer_bytes = max_answer_bytes
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=None,
            limits=httpx2.Limits(max_connections=max_connections),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[_T],
        *,
        body: msgspec.Struct | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        answer, _ = await self._call(method, path, body=body, headers=headers)
        return _decoded(answer, kind, f"{method} /v1/{path}")

    async def _ask_tagged(self, method: str, path: str, kind: type[_T]) -> Tagged[_T]:
        answer, tag = await self._call(method, path)
        return Tagged(_decoded(answer, kind, f"{method} /v1/{path}"), tag)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: msgspec.Struct | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, str]:
        """Return the answer's body and its ETag, which may be empty."""
        if self._http.is_closed:
            raise UnavailableError("this client of control is closed")
        sent = dict(headers or {})
        content: bytes | None = None
        if body is not None:
            content = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, content=content, headers=sent) as response,
            ):
                answer = await self._read(response)
        except TimeoutError as error:
            raise UnavailableError(
                f"{method} /v1/{path}: control did not answer within {self._timeout:g} s"
            ) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise UnavailableError(
                f"{method} /v1/{path}: control cannot be reached ({type(error).__name__})"
            ) from error
        if not response.is_success:
            raise refusal_of(response.status_code, answer)
        return answer, response.headers.get("etag", "")

    async def _read(self, response: httpx2.Response) -> bytes:
        answer = bytearray()
        async for chunk in response.aiter_bytes():
            answer += chunk
            if len(answer) > self._max_answer_bytes:
                raise UnavailableError(f"control's answer is larger than {self._max_answer_bytes} bytes")
        return bytes(answer)


def path_of(*segments: str) -> str:
    """Join segments into a path; whatever an id holds, it stays one segment."""
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise ApiError(HTTPStatus.BAD_REQUEST, "bad-id", f"{segment!r} cannot be an id")
    return "/".join(quote(segment, safe="") for segment in segments)


def query_of(wanted: msgspec.Struct | None) -> str:
    """Return the parameters of a request, with the `?`; a mapping's are `<name>.<key>`."""
    pairs: list[tuple[str, str]] = []
    for name, value in ({} if wanted is None else msgspec.to_builtins(wanted)).items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", _text(each)) for key, each in value.items()]
        elif value is not None:
            pairs.append((name, _text(value)))
    return f"?{urlencode(pairs)}" if pairs else ""


def headers_of(
    *,
    epoch: int | None = None,
    number: int | None = None,
    if_match: str | None = None,
    idempotency_key: str | None = None,
) -> dict[str, str]:
    """Return the headers for what is given; `number` is a report's."""
    values = {
        EPOCH_HEADER: None if epoch is None else str(epoch),
        REPORT_HEADER: None if number is None else str(number),
        "If-Match": if_match,
        "Idempotency-Key": idempotency_key,
    }
    return {name: value for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(answer: bytes, kind: type[_T], call: str) -> _T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Not chained: the error could quote an answer that holds a token.
        raise UnavailableError(f"{call}: the answer is not control's") from None


def refusal_of(status: int, answer: bytes) -> ApiError:
    """Read a problem document; anything else (a proxy's page) is named after its status."""
    try:
        problem: Any = msgspec.json.decode(answer, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "unknown status"
        return ApiError(status, phrase.lower().replace(" ", "-"), phrase)
    return ApiError(status, problem.type, problem.detail or problem.title)
