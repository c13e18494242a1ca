"""What a peer can be guilty of on our own wire, and the numbers by which it is told.

The codes are QUIC application error codes where a connection is closed, and stand in a `close` message where
only one conference is. docs/wire.md lists them.
"""

from __future__ import annotations

from enum import IntEnum

from bridges.wire.errors import WireError

__all__ = ["OwnCode", "OwnWireError"]


class OwnCode(IntEnum):
    """Why a connection, or a conference on it, was given up."""

    DONE = 0x200
    """Nothing is wrong: the end was wished for."""
    FRAMING = 0x201
    """A length that is none, or beyond the limit."""
    MESSAGE = 0x202
    """Not msgpack, or not of the shape that its type asks for."""
    SEQUENCE = 0x203
    """A well-formed message that is not allowed now: premature, repeated, of no known conference."""
    VERSION = 0x204
    """The two ends have no version in common."""
    IDENTITY = 0x205
    """The peer is not the cluster that was dialled, or poses as this very one."""
    LIMIT = 0x206
    """More of something than the hello allows: conferences, lanes, origins, entries, credit."""
    GAP = 0x207
    """Events are missing in between, or came twice."""
    PATH = 0x208
    """The way that something is said to have come cannot be."""
    TOKEN_REFUSED = 0x210
    """The token is not the room's, or there is no such room."""
    SUPERSEDED = 0x211
    """A newer connection of the same cluster carries the conference."""
    NODE_LOST = 0x213
    """The bridge has lost its conference node; come again."""
    NOT_WANTED = 0x214
    """The room is gone, or the link was called off."""
    TIMED_OUT = 0x215
    """Nothing was said in time."""
    BUSY = 0x216
    """Too much at once; come again."""


class OwnWireError(WireError):
    """The peer broke the protocol of our own wire; `reason` says with which code it is told."""

    def __init__(self, reason: OwnCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason
