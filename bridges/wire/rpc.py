"""OWT's RPC, the conversation between the parts of one cluster, without its carrier.

Over AMQP the receiver is the routing key and replies go to `replyTo`; over a WebSocket, which has two ends
only, a request names its receiver in `to` and the reply comes back on the same socket. A request without
corrID is a cast: nobody waits for an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from bridges.wire.errors import MessageError

__all__ = ["FAILED", "MAX_RPC_BYTES", "Reply", "Request", "decode", "encode"]

MAX_RPC_BYTES: Final = 4 << 20
FAILED: Final = "error"
"""`Reply.data` of a call that failed; the reason is in `err`."""


class Request(
    Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"corr_id": "corrID", "reply_to": "replyTo"}
):
    """Call `method` of the server `to`."""

    to: Annotated[str, Meta(min_length=1, max_length=512)]
    method: Annotated[str, Meta(min_length=1, max_length=128)]
    args: Annotated[list[Any], Meta(max_length=16)] = []
    corr_id: int | None = None
    reply_to: str | None = None


class Reply(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="callback",
    rename={"corr_id": "corrID"},
):
    """The answer to the request with the same `corr_id`."""

    corr_id: int
    data: Any = None
    err: Any = None


class _Probe(Struct):
    type: str | None = None


_PROBE: Final = msgspec.json.Decoder(_Probe)
_REQUEST: Final = msgspec.json.Decoder(Request)
_REPLY: Final = msgspec.json.Decoder(Reply)
_ENCODER: Final = msgspec.json.Encoder()


def encode(message: Request | Reply) -> bytes:
    """Return `message` as JSON."""
    return _ENCODER.encode(message)


def decode(data: bytes) -> Request | Reply:
    """Read a message. Raises MessageError for anything that is neither request nor reply."""
    if len(data) > MAX_RPC_BYTES:
        raise MessageError(f"RPC message of {len(data)} bytes; the limit is {MAX_RPC_BYTES} bytes")
    try:
        if _PROBE.decode(data).type == "callback":
            return _REPLY.decode(data)
        return _REQUEST.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(str(error)) from None
