"""What putting pictures together has in common, whatever the codec. Pure.

A picture is the packets of one timestamp; the last one bears the marker. After a loss nothing is given until
a packet begins a key frame: what lies between could not be decoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.rtp.errors import RtpError
from edge.rtp.formats.port import Encoded

if TYPE_CHECKING:
    from edge.rtp.packet import RtpPacket
    from edge.rtp.track import RtpTrack

__all__ = ["Picture", "Pictures"]

_MAX_PACKETS: Final = 16_384


class Picture(NamedTuple):
    """What a codec says of a picture that is whole."""

    payload: bytes
    key_frame: bool
    width: int = 0
    """0: as before."""
    height: int = 0
    temporal: int = 0


class Pictures(ABC):
    """A depacketizer of pictures; each codec says what its packets mean."""

    def __init__(self, track: RtpTrack, max_frame_bytes: int) -> None:
        self._track = track
        self._max_bytes = max_frame_bytes
        self._timestamp: int | None = None
        self._bytes = self._packets = 0
        self._intact = False
        self._awaits_key_frame = False
        self._width = self._height = 0

    @property
    def wants_key_frame(self) -> bool:
        """Whether nothing can be decoded until a key frame comes."""
        return not self._intact

    def lose(self) -> None:
        """Take note that packets are missing before the next one."""
        self._intact = False
        self._begin(None)

    def push(self, packet: RtpPacket) -> Encoded | None:
        """Take the next packet; returns the picture that it completes. Raises RtpError."""
        try:
            return self._push(packet)
        except (RtpError, IndexError) as error:
            self.lose()
            raise RtpError(str(error) if isinstance(error, RtpError) else "a payload is cut off") from None

    def _push(self, packet: RtpPacket) -> Encoded | None:
        if not packet.payload:
            return None  # padding, with which senders probe the path
        if self._timestamp is not None and packet.timestamp != self._timestamp:
            raise RtpError("a picture has no end")
        if not self._intact:
            if not self._begins_key_frame(packet.payload):
                return None
            self._intact = self._awaits_key_frame = True
        if self._timestamp is None:
            self._begin(packet.timestamp)
        self._weigh(packet.payload)
        self._add(packet.payload)
        return self._complete(packet.timestamp) if packet.marker else None

    def _weigh(self, payload: bytes) -> None:
        """Count a packet; raises RtpError when the picture becomes too large."""
        self._bytes += len(payload)
        self._packets += 1
        if self._packets > _MAX_PACKETS:
            raise RtpError(f"a picture of more than {_MAX_PACKETS} packets")
        if self._bytes > self._max_bytes:
            raise RtpError(f"a picture of more than {self._max_bytes} bytes")

    def _complete(self, timestamp: int) -> Encoded:
        picture = self._finish()
        self._begin(None)
        if self._awaits_key_frame and not picture.key_frame:
            raise RtpError("what began like a key frame was none")
        self._awaits_key_frame = False
        if picture.key_frame and picture.width:
            self._width, self._height = picture.width, picture.height
        return Encoded(
            payload=picture.payload,
            timestamp=timestamp,
            key_frame=picture.key_frame,
            width=self._width,
            height=self._height,
            temporal=picture.temporal,
        )

    def _begin(self, timestamp: int | None) -> None:
        self._timestamp = timestamp
        self._bytes = self._packets = 0
        self._forget()

    @abstractmethod
    def _begins_key_frame(self, payload: bytes) -> bool:
        """Return whether this is the first packet of a key frame."""

    @abstractmethod
    def _forget(self) -> None:
        """Begin a new picture."""

    @abstractmethod
    def _add(self, payload: bytes) -> None:
        """Take a packet of the picture."""

    @abstractmethod
    def _finish(self) -> Picture:
        """Return the picture, whose last packet was the last one."""
