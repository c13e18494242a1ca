"""What a peer's bytes can be guilty of.

WireError                 the one error that parsing raises
├── FramingError          length, type byte or struct is not of the format
├── MessageError          the JSON is not one of the messages, or not of its shape
└── SequenceError         a well-formed message that is not allowed now (premature, repeated, unknown token)
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["FramingError", "MessageError", "SequenceError", "WireError"]


class WireError(Exception):
    """The peer broke the protocol; the stream it came on cannot be used any more.

    `code` is what a closing QUIC stream or connection says to the peer.
    """

    code: ClassVar[int] = 0x100


class FramingError(WireError):
    """A length, a type byte or a struct is not of the format."""

    code: ClassVar[int] = 0x101


class MessageError(WireError):
    """Metadata is not JSON, or not of the shape that its `type` asks for."""

    code: ClassVar[int] = 0x102


class SequenceError(WireError):
    """A well-formed message came when it is not allowed."""

    code: ClassVar[int] = 0x103
