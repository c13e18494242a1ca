"""What every request passes: limits, the key, the path's parts, the body; and what every answer looks like.

The layers are plain ASGI around Starlette's router. Starlette's own body limit answers in plain text and
replaces whatever answer there was, so the limit is kept here.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from causeway.api import EPOCH_HEADER
from control.errors import (
    BodyTooLargeError,
    EpochMissingError,
    ForbiddenError,
    InvalidRequestError,
    MalformedJsonError,
    OverloadedError,
    RefusedError,
    UnsupportedMediaError,
)
from control.http.problems import problem, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from causeway.keys import KeyKind

__all__ = [
    "Authenticates",
    "Body",
    "Edge",
    "epoch_of",
    "json",
    "no_content",
    "optional_epoch_of",
    "part",
    "protected",
]

_log = structlog.get_logger(__name__)

T = TypeVar("T")
_MAX_EPOCH: Final = 2**63 - 1
_ENCODER: Final = msgspec.json.Encoder()


class Authenticates(Protocol):
    """Who checks keys."""

    async def authenticate(self, header: str | None) -> KeyKind:
        """Return the kind of the key in an Authorization header; raises UnauthenticatedError."""
        ...


# --- around everything ------------------------------------------------------------------------


class Edge:
    """Outermost layer: bounds requests under way and bodies, and turns what nobody caught into a problem."""

    def __init__(self, app: ASGIApp, *, max_requests: int, max_body_bytes: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._max_requests:
            busy = OverloadedError("too many requests are being worked on", retry_after=1)
            await refusal(busy)(scope, receive, send)
            return
        self._under_way += 1
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, self._limited(scope, receive), watched)
        except RefusedError as error:  # raised outside of the router
            if not started:
                await refusal(error)(scope, receive, send)
        except ClientDisconnect:
            _log.info("request.abandoned", method=scope["method"], path=scope["path"][:200])
        except Exception:
            instance = f"urn:causeway:error:{secrets.token_hex(8)}"
            _log.exception(
                "request.failed", instance=instance, method=scope["method"], path=scope["path"][:200]
            )
            if started:
                raise
            await problem("internal-error", instance=instance)(scope, receive, send)
        finally:
            self._under_way -= 1

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` that raises BodyTooLargeError before a byte too many is kept."""
        announced = next((v for n, v in scope["headers"] if n == b"content-length"), b"")
        too_large = announced.isdigit() and int(announced[:20]) > self._max_body_bytes
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message: Message = {} if too_large else await receive()
            taken += len(message.get("body", b""))
            if too_large or taken > self._max_body_bytes:
                raise BodyTooLargeError(f"at most {self._max_body_bytes} bytes are taken")
            return message

        return limited


def protected(
    handler: Callable[[Request], Awaitable[Response]],
    kinds: frozenset[KeyKind],
    authenticator: Authenticates,
) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler behind a check for a valid key of one of these kinds."""

    async def check(request: Request) -> Response:
        kind = await authenticator.authenticate(request.headers.get("authorization"))
        if kind not in kinds:
            raise ForbiddenError(f"needs a key of kind {' or '.join(sorted(kinds))}, this is {kind}")
        return await handler(request)

    return check


# --- what a request says ----------------------------------------------------------------------


class Body:
    """Reads request bodies of one type; make it once, its decoder is compiled."""

    def __init__(self, kind: type[T], *, empty: T | None = None) -> None:
        """With `empty` given, a request without a body means that."""
        self._decoder: Any = msgspec.json.Decoder(kind)
        self._empty = empty

    async def read(self, request: Request) -> Any:
        """Return the body. Raises RefusedError for one that is too large, no JSON or not allowed."""
        body = await request.body()
        if not body and self._empty is not None:
            return self._empty
        media = request.headers.get("content-type", "")
        # Lenient: none at all is fine, and so is everything that has to do with JSON.
        if media and "json" not in media.lower():
            raise UnsupportedMediaError("send application/json")
        try:
            value = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedJsonError(_sentence(error)) from None
        if b"\\u0000" in body and _has_nul(msgspec.to_builtins(value)):
            raise InvalidRequestError("texts must not contain U+0000")
        return value


def part(request: Request, name: str, kind: Any) -> str:
    """Return a part of the path, held against the same pattern as everywhere; raises InvalidRequestError."""
    try:
        return str(msgspec.convert(request.path_params[name], kind))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{name}: {error}") from None


def epoch_of(request: Request) -> int:
    """Return the epoch that a report carries; raises EpochMissingError and InvalidRequestError."""
    epoch = optional_epoch_of(request)
    if epoch is None:
        raise EpochMissingError(f"send the header {EPOCH_HEADER}")
    return epoch


def optional_epoch_of(request: Request) -> int | None:
    """Return the epoch if the request carries one; raises InvalidRequestError."""
    text = request.headers.get(EPOCH_HEADER)
    if text is None:
        return None
    if not (
        text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_EPOCH)) and int(text) <= _MAX_EPOCH
    ):
        raise InvalidRequestError(f"{EPOCH_HEADER}: must be a number")
    return int(text)


# --- what an answer is ------------------------------------------------------------------------


def json(value: Any, status: int = 200) -> Response:
    """Return the value as JSON."""
    return Response(_ENCODER.encode(value), status_code=status, media_type="application/json")


def no_content() -> Response:
    """Return success without words."""
    return Response(status_code=204)


def _has_nul(value: Any) -> bool:
    """PostgreSQL's text cannot hold U+0000, which JSON can."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(each) for each in value.values())
    return isinstance(value, list) and any(_has_nul(each) for each in value)


def _sentence(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
