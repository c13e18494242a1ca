"""What one end's clock shows as it sends this: kind 3 of datagrams, the only one that is not of a track.

Said now and then by who receives media, so that the sender can tell a queue on the way back from one on the
way there.
"""

from __future__ import annotations

import struct
from typing import Final

from bridges.wire.own_media.datagram import VERSION

__all__ = ["encode_clock", "read_clock"]

_KIND: Final = 3
_FIRST: Final = VERSION << 6 | _KIND << 4
_CLOCK: Final = struct.Struct("!BI")


def encode_clock(seconds: float) -> bytes:
    """Return a datagram that says what a clock shows; it goes on from 0 after 2^32 microseconds."""
    return _CLOCK.pack(_FIRST, round(seconds * 1e6) % 2**32)


def read_clock(datagram: bytes) -> int | None:
    """Return the microseconds that a datagram says; None if it is of another kind, or not of the format."""
    if len(datagram) != _CLOCK.size or datagram[0] != _FIRST:
        return None
    stamp: int = _CLOCK.unpack(datagram)[1]
    return stamp
