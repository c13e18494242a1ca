"""What a stream or connection between bridges is closed with; docs/wire.md lists the numbers.

Below 0x110 are the wire's own (bridges.wire.errors); our own wire has its own numbers, from 0x200
(bridges.wire.own.errors) for events and from 0x220 for media (bridges.wire.own_media.errors).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from bridges.wire.errors import (
    FramingError,
    MessageError,
    OversizedError,
    ReplayedError,
    SequenceError,
    UnknownMessageError,
    WireError,
)
from bridges.wire.own_media.errors import MediaDatagramError

__all__ = ["CloseCode", "is_fault", "name_of"]


class CloseCode(IntEnum):
    """Why we gave it up; the peer's log shows the number."""

    DONE = 0x0
    """Nobody wants the track any more."""
    TOKEN_REFUSED = 0x110
    """The token is not the room's, or there is no such room here."""
    SUPERSEDED = 0x111
    """A newer stream or connection of the same cluster and room took its place."""
    TOO_SLOW = 0x112
    """Events wait beyond the limit; a new stream begins with the whole state."""
    NODE_LOST = 0x113
    """The conference node cannot be reached; come again."""
    NOT_WANTED = 0x114
    """The room is gone here, or the link was called off."""
    TIMED_OUT = 0x115
    """Nothing was said in time."""
    BUSY = 0x116
    """Too much at once, or the token is not checked yet; come again."""
    FAULTS = 0x117
    """One fault after another on this connection, and nothing else."""
    IDENTITY = 0x118
    """The peer is not the cluster that it says, or says to be one that is connected already."""


_WIRE_NAMES: Final[dict[int, str]] = {
    error.code: error.name
    for error in (
        WireError,
        FramingError,
        MessageError,
        SequenceError,
        UnknownMessageError,
        OversizedError,
        ReplayedError,
        MediaDatagramError,
    )
}


_NOBODYS_FAULT: Final = frozenset({CloseCode.DONE, CloseCode.NODE_LOST, CloseCode.NOT_WANTED})


def is_fault(code: int) -> bool:
    """Return whether the peer gave reason for this code, by what it did or by how much of it."""
    return code not in _NOBODYS_FAULT


def name_of(code: int) -> str:
    """Return what a code is called in figures and logs; a number that is none of ours stays one."""
    if code in _WIRE_NAMES:
        return _WIRE_NAMES[code]
    try:
        return CloseCode(code).name.lower()
    except ValueError:
        return f"0x{code:x}"
