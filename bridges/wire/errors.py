"""What a peer's bytes can be guilty of, each with a code of its own (docs/wire.md, "Errors").

WireError                     the one error that parsing raises
├── FramingError              malformed: a length or a struct is not of the format
│   └── OversizedError        a message is larger than it may be
├── MessageError              malformed: the JSON is none, or not of the shape that its type asks for
│   └── UnknownMessageError   of a type that there is not, or not on such a stream
└── SequenceError             premature: a well-formed message that is not allowed now
    └── ReplayedError         what may be said once came again
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "FramingError",
    "MessageError",
    "OversizedError",
    "ReplayedError",
    "SequenceError",
    "UnknownMessageError",
    "WireError",
]


class WireError(Exception):
    """The peer broke the protocol; the stream it came on cannot be used any more.

    `code` is what a closing QUIC stream or connection says to the peer, `name` what it is counted as.
    """

    code: ClassVar[int] = 0x100
    name: ClassVar[str] = "wire"


class FramingError(WireError):
    """A length or a struct is not of the format."""

    code: ClassVar[int] = 0x101
    name: ClassVar[str] = "framing"


class MessageError(WireError):
    """Metadata is not JSON, or not of the shape that its `type` asks for."""

    code: ClassVar[int] = 0x102
    name: ClassVar[str] = "message"


class SequenceError(WireError):
    """A well-formed message came when it is not allowed."""

    code: ClassVar[int] = 0x103
    name: ClassVar[str] = "sequence"


class UnknownMessageError(MessageError):
    """A type byte, or a `type` of metadata, that there is not, or not on such a stream."""

    code: ClassVar[int] = 0x104
    name: ClassVar[str] = "unknown"


class OversizedError(FramingError):
    """A message is larger than its type may be, or more waits than may."""

    code: ClassVar[int] = 0x105
    name: ClassVar[str] = "oversized"


class ReplayedError(SequenceError):
    """A message that may come once came again."""

    code: ClassVar[int] = 0x106
    name: ClassVar[str] = "replayed"
