"""What travels between the parts of an OWT cluster over AMQP, as JSON bodies: requests, replies, notices.

Who is called is the routing key, not a field; otherwise these are the messages of bridges.wire.rpc. A request
without `corrID` or `replyTo` is a cast. After owt-server 5.x.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from bridges.wire import rpc
from bridges.wire.errors import MessageError

__all__ = [
    "Exit",
    "decode_exit",
    "decode_reply",
    "decode_request",
    "encode_refusal",
    "encode_reply",
    "encode_request",
]


class _Request(
    Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"corr_id": "corrID", "reply_to": "replyTo"}
):
    method: Annotated[str, Meta(min_length=1, max_length=128)]
    args: Annotated[list[Any], Meta(max_length=16)] | None = None
    corr_id: int | None = None
    reply_to: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class Exit(Struct, frozen=True, kw_only=True):
    """Who is gone: a worker with all its nodes, or one node."""

    purpose: str
    id: Annotated[str, Meta(min_length=1, max_length=512)]
    type: Literal["worker", "node"]


class _Notice(Struct, frozen=True):
    reason: Literal["abnormal", "error", "quit"]
    message: Exit


_REQUEST: Final = msgspec.json.Decoder(_Request)
_NOTICE: Final = msgspec.json.Decoder(_Notice)
_ENCODER: Final = msgspec.json.Encoder()
_MEDIA_CALLS: Final = frozenset({"publish", "unpublish", "subscribe", "unsubscribe", "linkup", "cutoff"})

T = TypeVar("T")


def encode_request(request: rpc.Request) -> bytes:
    """Return the body of a call or a cast; `request.to` is not part of it."""
    return _ENCODER.encode(
        {
            "method": request.method,
            "args": request.args,
            **({} if request.corr_id is None else {"corrID": request.corr_id, "replyTo": request.reply_to}),
        }
    )


def encode_reply(corr_id: int, data: Any, error: str | None = None) -> bytes:
    """Return the body of an answer; with `error` the call failed and `data` does not count."""
    about = {"corrID": corr_id, "type": "callback"}
    if error is not None:
        return _ENCODER.encode({"data": rpc.FAILED, **about, "err": error})
    return _ENCODER.encode({"data": data, **about})


def encode_refusal(corr_id: int, method: str, reason: str) -> bytes:
    """Return the body of the answer to a call that was refused, as owt-server's nodes expect it.

    A media call is answered with an object that says so; any other call fails.
    """
    if method in _MEDIA_CALLS:
        return encode_reply(corr_id, {"type": "failed", "reason": reason})
    return encode_reply(corr_id, None, reason)


def decode_request(body: bytes, *, to: str, max_bytes: int) -> rpc.Request:
    """Read what came for the server `to`. Raises MessageError."""
    message = _decode(_REQUEST, body, max_bytes)
    answer = message.corr_id is not None and message.reply_to is not None
    return rpc.Request(
        to=to,
        method=message.method,
        args=message.args or [],
        corr_id=message.corr_id if answer else None,
        reply_to=message.reply_to if answer else None,
    )


def decode_reply(body: bytes, *, max_bytes: int) -> rpc.Reply:
    """Read what came for a client. Raises MessageError."""
    if len(body) > max_bytes:
        raise MessageError(f"{len(body)} bytes; the limit is {max_bytes} bytes")
    message = rpc.decode(body)
    if not isinstance(message, rpc.Reply):
        raise MessageError("not a reply")
    return message


def decode_exit(body: bytes, *, max_bytes: int) -> Exit:
    """Read a notice that somebody is gone. Raises MessageError."""
    return _decode(_NOTICE, body, max_bytes).message


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, max_bytes: int) -> T:
    if len(body) > max_bytes:
        raise MessageError(f"{len(body)} bytes; the limit is {max_bytes} bytes")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's words name the field and the expected type, never the value.
        raise MessageError(str(error)) from None
