"""What every request passes: limits, the key, the path's parts, the body; and what every answer looks like.

The layers are plain ASGI around Starlette's router. Starlette's own body limit answers in plain text and
replaces whatever answer there was, so the limit is kept here.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.websockets import WebSocketState

from causeway.api import EPOCH_HEADER, REPORT_HEADER
from control.errors import (
    BodyTooLargeError,
    EpochMissingError,
    InvalidRequestError,
    MalformedJsonError,
    OverloadedError,
    RefusedError,
    UnsupportedMediaError,
)
from control.http.entry import PARTS
from control.http.etag import IfMatch
from control.http.problems import problem, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from control.http.entry import Entry
    from control.http.gate import Caller, Gate

__all__ = [
    "Body",
    "Edge",
    "actor_of",
    "admitted",
    "admitted_socket",
    "caller_of",
    "epoch_of",
    "if_match",
    "is_mapping",
    "json",
    "no_content",
    "optional_epoch_of",
    "part",
    "query_of",
    "report_of",
]

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Q = TypeVar("Q", bound=msgspec.Struct)
_MAX_EPOCH: Final = 2**63 - 1
_ENCODER: Final = msgspec.json.Encoder()


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
        started = released = False

        def release() -> None:
            """Stop counting: streams of events have a limit of their own."""
            nonlocal released
            self._under_way -= not released
            released = True

        scope["causeway.release"] = release

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
                "request.failed", instance=instance, method=scope["method"], path=_shown(scope["path"])
            )
            if started:
                raise
            await problem("internal-error", instance=instance)(scope, receive, send)
        finally:
            release()

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` that raises BodyTooLargeError before a byte too many is kept."""
        announced = b""
        for name, value in scope["headers"]:
            if name == b"content-length":
                announced = value
                break
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


def admitted(entry: Entry, gate: Gate) -> Callable[[Request], Awaitable[Response]]:
    """Return the entry's handler behind the checks that its row asks for: the key, the query's parameters."""
    query = None if entry.query is None else _Query(entry.query)

    async def check(request: Request) -> Response:
        await _pass(request, entry, gate, query)
        return await entry.handler(request)

    return check


def admitted_socket(entry: Entry, gate: Gate) -> Callable[[WebSocket], Awaitable[None]]:
    """Return what serves the entry's WebSockets, behind the same checks; a refusal is an HTTP answer."""
    query = None if entry.query is None else _Query(entry.query)
    serve = entry.socket
    assert serve is not None

    async def check(socket: WebSocket) -> None:
        try:
            await _pass(socket, entry, gate, query)
            await serve(socket)
        except RefusedError as error:
            if socket.application_state is not WebSocketState.CONNECTING:
                raise
            await socket.send_denial_response(refusal(error))
        except Exception:
            instance = f"urn:causeway:error:{secrets.token_hex(8)}"
            _log.exception("socket.failed", instance=instance, path=_shown(socket.scope["path"]))
            if socket.application_state is not WebSocketState.CONNECTING:
                raise
            await socket.send_denial_response(problem("internal-error", instance=instance))

    return check


async def _pass(connection: HTTPConnection, entry: Entry, gate: Gate, query: _Query | None) -> None:
    if entry.kinds is not None:
        connection.state.caller = await gate.admit(connection, entry)
    if query is not None:
        connection.state.query = query.read(connection)
    elif connection.scope["query_string"]:
        raise InvalidRequestError("this path takes no query parameters")


# --- what a request says ----------------------------------------------------------------------


class Body:
    """Reads request bodies of one type; make it once, its decoder is compiled."""

    def __init__(self, kind: type[T], *, empty: T | None = None) -> None:
        """With `empty` given, a request without a body means that."""
        self.kind = kind
        self.optional = empty is not None
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


class _Query:
    """Reads the parameters after the `?`; each at most once, unless its field is a list.

    A field that is a mapping takes any number of `<name>.<key>=<value>`.
    """

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._kind = kind
        self._fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}

    def read(self, request: HTTPConnection) -> msgspec.Struct:
        if not request.scope["query_string"]:
            return msgspec.convert({}, self._kind)
        values: dict[str, Any] = {}
        for given, text in request.query_params.multi_items():
            name, key = self._split(given)
            if "\x00" in given + text:
                raise InvalidRequestError(f"{name}: must not contain U+0000")
            if _is_list(self._fields[name]):
                values.setdefault(name, []).append(text)
                continue
            place = values if key is None else values.setdefault(name, {})
            if (key or name) in place:
                raise InvalidRequestError(f"{given[:100]}: given twice")
            place[key or name] = text
        try:
            return msgspec.convert(values, self._kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"query: {error}") from None

    def _split(self, given: str) -> tuple[str, str | None]:
        """Return the field's name, and the key if the field is a mapping."""
        name, dot, key = given.partition(".")
        mapping = name in self._fields and is_mapping(self._fields[name])
        if mapping and key:
            return name, key
        if mapping or dot or name not in self._fields:
            raise InvalidRequestError(f"there is no query parameter {given[:100]!r}")
        return name, None


def is_mapping(kind: Any) -> bool:
    """Say whether a query's field takes `<name>.<key>=<value>`."""
    return get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind) is dict


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in {list, tuple}


def query_of(request: Request, kind: type[Q]) -> Q:
    """Return the query parameters of a route whose entry names this type."""
    query = request.state.query
    assert isinstance(query, kind)
    return query


def caller_of(request: HTTPConnection) -> Caller:
    """Return whose key the request came with; only routes that need a key have one."""
    caller: Caller = request.state.caller
    return caller


def actor_of(request: Request) -> str:
    """Return what the audit calls whoever sent the request."""
    caller = caller_of(request)
    return f"{caller.kind}:{caller.id}"


def part(request: HTTPConnection, name: str) -> str:
    """Return a part of the path, held against its type in PARTS; raises InvalidRequestError.

    Not for secrets: what is read here is remembered for a while.
    """
    return _checked_part(name, request.path_params[name])


@lru_cache(4096)  # the same conferences are joined again and again
def _checked_part(name: str, text: str) -> str:
    try:
        return str(msgspec.convert(text, PARTS[name]))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{name}: {error}") from None


def if_match(request: Request) -> IfMatch:
    """Return what the request demands of the present state; raises InvalidRequestError."""
    header = request.headers.getlist("if-match")
    return IfMatch.parse(", ".join(header) if header else None)


def epoch_of(request: Request) -> int:
    """Return the epoch that a report carries; raises EpochMissingError and InvalidRequestError."""
    epoch = optional_epoch_of(request)
    if epoch is None:
        raise EpochMissingError(f"send the header {EPOCH_HEADER}")
    return epoch


def optional_epoch_of(request: Request) -> int | None:
    """Return the epoch if the request carries one; raises InvalidRequestError."""
    return _number_in(request, EPOCH_HEADER)


def report_of(request: Request) -> int | None:
    """Return the number of a report that carries one; raises InvalidRequestError."""
    return _number_in(request, REPORT_HEADER)


def _number_in(request: Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (
        text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_EPOCH)) and int(text) <= _MAX_EPOCH
    ):
        raise InvalidRequestError(f"{header}: must be a number")
    return int(text)


# --- what an answer is ------------------------------------------------------------------------


def json(value: Any, status: int = 200, *, tag: str | None = None) -> Response:
    """Return the value as JSON, with its entity tag (control.http.etag) if it has one."""
    headers = {} if tag is None else {"ETag": tag}
    return Response(
        _ENCODER.encode(value), status_code=status, headers=headers, media_type="application/json"
    )


def no_content() -> Response:
    """Return success without words."""
    return Response(status_code=204)


def _shown(path: str) -> str:
    """Return a path for the log: short, and without the key that stands in paths of other systems."""
    return re.sub(r"^/(owt|openvidu)/[^/]*", r"/\1/…", path)[:200]


def _has_nul(value: Any) -> bool:
    """PostgreSQL's text cannot hold U+0000, which JSON can."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(_has_nul(each) for each in value)


def _sentence(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
