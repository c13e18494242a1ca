"""OWT's framing: `u32 big-endian length`, one type byte, payload. The length counts the type byte.

The same framing serves both bridges' QUIC streams and the internal TCP between the agents of one cluster.
Bytes may arrive cut anywhere: a read is never taken for a message. Sans-IO: feed bytes, take messages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from bridges.wire.errors import FramingError, OversizedError, UnknownMessageError, WireError
from bridges.wire.frame import FEEDBACK_BYTES, Feedback, MediaFrame

__all__ = ["Deframer", "Message", "MessageType", "Metadata", "encode"]

_PREFIX_BYTES: Final = 5


class MessageType(IntEnum):
    """The type byte."""

    METADATA = 0x3A
    FEEDBACK = 0x5A
    FRAME = 0x8F


class Metadata(msgspec.Struct, frozen=True):
    """UTF-8 JSON, not yet read: bridges.wire.messages knows what may stand in it."""

    payload: bytes


Message = Metadata | MediaFrame | Feedback


def encode(message: Message) -> bytes:
    """Return the bytes of one message, ready to write."""
    match message:
        case Metadata(payload):
            return _join(MessageType.METADATA, payload)
        case MediaFrame():
            return _join(MessageType.FRAME, message.raw)
        case Feedback():
            return _join(MessageType.FEEDBACK, message.raw)


def _join(type_: MessageType, body: bytes) -> bytes:
    return (len(body) + 1).to_bytes(4, "big") + type_.to_bytes(1, "big") + body


class Deframer:
    """Cuts a byte stream into messages.

    `feed` takes bytes; `next_message` returns the next whole message, None when more bytes are needed, and
    raises WireError for what is none. After an error the stream is dead: `next_message` raises the same
    error again and `feed` takes nothing. A length is judged before its body has arrived, so a peer cannot
    make us buffer more than the limit of the type it claims. A limit of 0 says that there are no such
    messages here.
    """

    def __init__(
        self,
        *,
        max_metadata_bytes: int = 1 << 20,
        max_frame_bytes: int = 4 << 20,
        max_feedback_bytes: int = FEEDBACK_BYTES,
    ) -> None:
        self._buffer = bytearray()
        self._error: WireError | None = None
        # The body's limits by type byte, the type byte not counted.
        self._limits: Final = {
            MessageType.METADATA: max_metadata_bytes,
            MessageType.FEEDBACK: max_feedback_bytes,
            MessageType.FRAME: max_frame_bytes,
        }

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._error is None:
            self._buffer += data

    def discard(self) -> None:
        """Forget what waits: nobody will ask for it."""
        self._buffer.clear()

    def next_message(self) -> Message | None:
        """Return the next message, or None when it has not wholly arrived."""
        if self._error is not None:
            raise self._error
        try:
            return self._parse()
        except WireError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _parse(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < _PREFIX_BYTES:
            return None
        length = int.from_bytes(buffer[:4], "big") - 1
        if length < 0:
            raise FramingError("a message of no bytes")
        try:
            type_ = MessageType(buffer[4])
        except ValueError:
            raise UnknownMessageError(f"unknown message type 0x{buffer[4]:02x}") from None
        if not self._limits[type_]:
            raise UnknownMessageError(f"a {type_.name.lower()} on a stream that has none")
        if length > self._limits[type_]:
            raise OversizedError(
                f"{type_.name.lower()} of {length} bytes; the limit is {self._limits[type_]} bytes"
            )
        end = _PREFIX_BYTES + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[_PREFIX_BYTES:end])
        del buffer[:end]
        match type_:
            case MessageType.METADATA:
                return Metadata(body)
            case MessageType.FRAME:
                return MediaFrame(body)
            case MessageType.FEEDBACK:
                return Feedback(body)
