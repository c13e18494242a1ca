"""VP9 in RTP packets (RFC 9628), and what of its own header is needed (VP9 specification, section 6.2). Pure.

A picture of several spatial layers is their frames one after the other, as decoders take them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from edge.rtp.errors import RtpError
from edge.rtp.formats.bits import Bits
from edge.rtp.formats.chunks import even_chunks
from edge.rtp.formats.pictures import Picture, Pictures

__all__ = ["Vp9Packets", "Vp9Pictures"]

_DESCRIPTOR_BYTES: Final = 3
_SYNC_CODE: Final = 0x498342
_FRAME_MARKER: Final = 2
_HEADER_BYTES: Final = 16  # in which the size of a key frame is said
_RGB: Final = 7


class _Descriptor(NamedTuple):
    length: int
    predicted: bool  # the picture needs others
    begins: bool  # a frame begins here
    spatial: int
    temporal: int
    width: int = 0
    height: int = 0


class Vp9Pictures(Pictures):
    """Packets to pictures."""

    _parts: list[bytes]
    _first: _Descriptor | None

    def _begins_key_frame(self, payload: bytes) -> bool:
        descriptor = _descriptor(payload)
        return descriptor.begins and not descriptor.predicted and descriptor.spatial == 0

    def _forget(self) -> None:
        self._parts = []
        self._first = None

    def _add(self, payload: bytes) -> None:
        descriptor = _descriptor(payload)
        if self._first is None:
            if not descriptor.begins:
                raise RtpError("a VP9 picture begins in its middle")
            self._first = descriptor
        self._parts.append(payload[descriptor.length :])

    def _finish(self) -> Picture:
        assert self._first is not None
        frame = b"".join(self._parts)
        if self._first.predicted:
            return Picture(frame, key_frame=False, temporal=self._first.temporal)
        width, height = self._first.width, self._first.height
        if not width:
            width, height = _size(frame)
        return Picture(frame, key_frame=True, width=width, height=height, temporal=self._first.temporal)


def _descriptor(payload: bytes) -> _Descriptor:
    first = payload[0]
    flexible = first & 0x10
    position, spatial, temporal, width, height = 1, 0, 0, 0, 0
    if first & 0x80:  # picture id, of 7 or 15 bits
        position += 2 if payload[position] & 0x80 else 1
    if first & 0x20:  # layer indices, and TL0PICIDX
        temporal, spatial = payload[position] >> 5, payload[position] >> 1 & 7
        position += 1 if flexible else 2
    if flexible and first & 0x40:  # up to three pictures that it needs
        for _ in range(3):
            position += 1
            if not payload[position - 1] & 1:
                break
    if first & 0x02:  # scalability structure
        position, width, height = _structure(payload, position)
    if position > len(payload):
        raise RtpError("a VP9 payload descriptor is cut off")
    return _Descriptor(position, first & 0x40 != 0, first & 0x08 != 0, spatial, temporal, width, height)


def _structure(payload: bytes, position: int) -> tuple[int, int, int]:
    """Return the position behind the structure, and the size of the highest spatial layer."""
    head = payload[position]
    position += 1
    width = height = 0
    if head & 0x10:
        for _ in range((head >> 5) + 1):
            width = int.from_bytes(payload[position : position + 2], "big")
            height = int.from_bytes(payload[position + 2 : position + 4], "big")
            position += 4
    if head & 0x08:
        pictures = payload[position]
        position += 1
        for _ in range(pictures):
            position += 1 + (payload[position] >> 2 & 3)
    return position, width, height


def _size(frame: bytes) -> tuple[int, int]:
    """Return width and height of a key frame."""
    bits = Bits(frame[:_HEADER_BYTES])
    if bits.read(2) != _FRAME_MARKER:
        raise RtpError("no VP9 frame")
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(1) or bits.read(1):  # an older one is shown; no key frame
        return 0, 0
    bits.read(2)
    if bits.read(24) != _SYNC_CODE:
        raise RtpError("a VP9 key frame without its sync code")
    if profile >= 2:
        bits.read(1)
    if bits.read(3) != _RGB:
        bits.read(3 + 1 if profile in {1, 3} else 1)
    elif profile in {1, 3}:
        bits.read(1)
    return bits.read(16) + 1, bits.read(16) + 1


class Vp9Packets:
    """Pictures to packets: a descriptor with a picture id of 15 bits, which counts."""

    def __init__(self) -> None:
        self._picture = 0

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the payloads."""
        picture = (0x8000 | self._picture).to_bytes(2, "big")
        self._picture = (self._picture + 1) & 0x7FFF
        chunks = even_chunks(frame, max_bytes - _DESCRIPTOR_BYTES)
        common = 0x80 if key_frame else 0xC0
        last = len(chunks) - 1
        return [
            bytes((common | (0x08 if number == 0 else 0) | (0x04 if number == last else 0),))
            + picture
            + chunk
            for number, chunk in enumerate(chunks)
        ]
