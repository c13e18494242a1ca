"""Opus in RTP packets (RFC 7587): each is one frame; RFC 6716 says what its head means. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.rtp.errors import RtpError
from edge.rtp.formats.port import Encoded

if TYPE_CHECKING:
    from edge.rtp.packet import RtpPacket
    from edge.rtp.track import RtpTrack

__all__ = ["OpusPackets", "OpusSound", "samples"]

_MAX_SAMPLES: Final = 5760  # 120 ms
_SILK: Final = (480, 960, 1920, 2880)
_HYBRID: Final = (480, 960)
_CELT: Final = (120, 240, 480, 960)


def samples(packet: bytes) -> int:
    """Return the samples of each channel in an Opus packet, at 48 kHz (RFC 6716, section 3.1 and 3.2).

    Raises RtpError for an empty packet, or one that says more than 120 ms.
    """
    if not packet:
        raise RtpError("an Opus packet is empty")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        each = _SILK[config & 3]
    elif config < 16:
        each = _HYBRID[config & 1]
    else:
        each = _CELT[config & 3]
    if code == 3 and len(packet) < 2:
        raise RtpError("an Opus packet is cut off")
    count = packet[1] & 0x3F if code == 3 else 1 if code == 0 else 2
    if not 0 < each * count <= _MAX_SAMPLES:
        raise RtpError("an Opus packet of more than 120 ms, or of nothing")
    return each * count


class OpusSound:
    """Packets to pieces of sound. Nothing depends on what was lost."""

    wants_key_frame: bool = False

    def __init__(self, track: RtpTrack, max_frame_bytes: int) -> None:
        del track
        self._max_bytes = max_frame_bytes

    def push(self, packet: RtpPacket) -> Encoded | None:
        """Take the next packet; returns its sound. Raises RtpError."""
        if not packet.payload:
            return None
        if len(packet.payload) > self._max_bytes:
            raise RtpError(f"a piece of sound of more than {self._max_bytes} bytes")
        stereo = packet.payload[0] & 0x04
        return Encoded(
            payload=packet.payload,
            timestamp=packet.timestamp,
            samples=samples(packet.payload),
            channels=2 if stereo else 1,
        )

    def lose(self) -> None:
        """Do nothing."""


class OpusPackets:
    """Pieces of sound to packets."""

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the one payload. Raises RtpError for more than a packet's worth."""
        del key_frame
        if len(frame) > max_bytes:
            raise RtpError(f"a piece of sound of {len(frame)} bytes does not fit into a packet")
        return [frame] if frame else []
