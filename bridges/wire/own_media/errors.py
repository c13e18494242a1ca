"""What a datagram of media can be guilty of."""

from __future__ import annotations

from typing import ClassVar

from bridges.wire.errors import WireError

__all__ = ["MediaDatagramError"]


class MediaDatagramError(WireError):
    """A datagram, or the frame put together from several, is not of the format. It is passed over.

    The code is for a peer that sends nothing else.
    """

    code: ClassVar[int] = 0x220
    name: ClassVar[str] = "media_datagram"
