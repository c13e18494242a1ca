"""Our own wire's framing and encoding: `u32 big-endian length`, then a message as msgpack.

Bytes may arrive cut anywhere. A message that is not of its shape is told apart from one that concerns a known
channel only, so that one conference pays for it and not all. Sans-IO.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import msgspec

from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import Message

__all__ = ["LENGTH_BYTES", "Framed", "OwnDeframer", "Unknown", "encode"]

LENGTH_BYTES: Final = 4
"""Of the length before each message; what is counted for credit includes it."""

_KNOWN: Final = frozenset({1, 2, 3, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24})
_FIRST_OF_CHANNEL: Final = 8
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(cast("type[Message]", Message))
_LOOSE: Final = msgspec.msgpack.Decoder()


class Unknown(NamedTuple):
    """A message of a number that this version does not know: to be passed over."""

    number: int


class Framed(NamedTuple):
    """A message and the bytes that it took, its length included."""

    message: Message | Unknown | OwnWireError
    size: int
    channel: int | None = None
    """Whom it concerns; None if not a conference."""


def encode(message: Message) -> bytes:
    """Return the bytes of one message, ready to write."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class OwnDeframer:
    """Cuts the bytes of one lane into messages.

    `limit` is what a message may have at most, in bytes without the length; it may be changed between
    messages. `next_message` returns None when more bytes are needed, and raises OwnWireError when nothing
    can be read any more: after that the lane is dead, and the same is raised again.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._start = 0
        self._error: OwnWireError | None = None

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._error is not None:
            return
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_message(self) -> Framed | None:
        """Return the next message, or None when it has not wholly arrived."""
        if self._error is not None:
            raise self._error
        begin = self._start + LENGTH_BYTES
        if len(self._buffer) < begin:
            return None
        length = int.from_bytes(self._buffer[self._start : begin], "big")
        if not 0 < length <= self.limit:
            self._die(
                OwnWireError(OwnCode.FRAMING, f"a message of {length} bytes; the limit is {self.limit}")
            )
        end = begin + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[begin:end])
        self._start = end
        return self._read(body)

    def _read(self, body: bytes) -> Framed:
        size = len(body) + LENGTH_BYTES
        try:
            message = _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # msgspec's words name the field and the expected type, never the value: no token leaks from here.
            wrong = OwnWireError(OwnCode.MESSAGE, str(error))
        else:
            return Framed(message, size, getattr(message, "channel", None))
        number, channel = _head_of(body)
        if number is not None and number not in _KNOWN:
            return Framed(Unknown(number), size)
        if number is None or number < _FIRST_OF_CHANNEL or channel is None:
            self._die(wrong)
        return Framed(wrong, size, channel)

    def _die(self, error: OwnWireError) -> None:
        self._error = error
        self._buffer.clear()
        self._start = 0
        raise error


def _head_of(body: bytes) -> tuple[int | None, int | None]:
    """Return number and channel of a message that could not be read otherwise, as far as it has them."""
    try:
        loose: Any = _LOOSE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    if not isinstance(loose, list):
        return None, None
    head = [value if type(value) is int and value >= 0 else None for value in loose[:2]]
    head += [None] * (2 - len(head))
    return head[0], head[1]
