"""VP8 in RTP packets (RFC 7741), and what of its own header is needed (RFC 6386, section 9.1). Pure."""

from __future__ import annotations

from typing import Final

from edge.rtp.errors import RtpError
from edge.rtp.formats.chunks import even_chunks
from edge.rtp.formats.pictures import Picture, Pictures

__all__ = ["Vp8Packets", "Vp8Pictures"]

_START_CODE: Final = b"\x9d\x01\x2a"
_DESCRIPTOR_BYTES: Final = 4


class Vp8Pictures(Pictures):
    """Packets to pictures."""

    _parts: list[bytes]
    _temporal: int

    def _begins_key_frame(self, payload: bytes) -> bool:
        start, first, _temporal = _descriptor(payload)
        return first and start < len(payload) and payload[start] & 1 == 0

    def _forget(self) -> None:
        self._parts = []
        self._temporal = 0

    def _add(self, payload: bytes) -> None:
        start, first, temporal = _descriptor(payload)
        if first != (not self._parts):
            raise RtpError("a VP8 picture begins in its middle, or twice")
        self._parts.append(payload[start:])
        self._temporal = temporal

    def _finish(self) -> Picture:
        frame = b"".join(self._parts)
        if not frame or frame[0] & 1:
            return Picture(frame, key_frame=False, temporal=self._temporal)
        if frame[3:6] != _START_CODE or len(frame) < 10:
            raise RtpError("a VP8 key frame without its start code")
        width, height = (int.from_bytes(frame[place : place + 2], "little") & 0x3FFF for place in (6, 8))
        return Picture(frame, key_frame=True, width=width, height=height, temporal=self._temporal)


def _descriptor(payload: bytes) -> tuple[int, bool, int]:
    """Return the descriptor's length, whether a picture begins behind it, and its temporal layer."""
    first = payload[0]
    begins = first & 0x17 == 0x10  # start of a partition, the first one
    position, temporal = 1, 0
    if first & 0x80:
        extended = payload[1]
        position = 2
        if extended & 0x80:  # picture id, of 7 or 15 bits
            position += 2 if payload[position] & 0x80 else 1
        if extended & 0x40:  # TL0PICIDX
            position += 1
        if extended & 0x30:  # TID, Y, KEYIDX
            temporal = payload[position] >> 6 if extended & 0x20 else 0
            position += 1
    if position > len(payload):
        raise RtpError("a VP8 payload descriptor is cut off")
    return position, begins, temporal


class Vp8Packets:
    """Pictures to packets: a descriptor with a picture id of 15 bits, which counts."""

    def __init__(self) -> None:
        self._picture = 0

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the payloads."""
        del key_frame  # the frame's first bit says it
        picture = (0x8000 | self._picture).to_bytes(2, "big")
        self._picture = (self._picture + 1) & 0x7FFF
        return [
            bytes((0x80 if number else 0x90, 0x80)) + picture + chunk
            for number, chunk in enumerate(even_chunks(frame, max_bytes - _DESCRIPTOR_BYTES))
        ]
