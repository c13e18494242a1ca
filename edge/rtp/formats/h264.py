"""H.264 in RTP packets (RFC 6184, packetization modes 0 and 1), and the size that a parameter set says. Pure.

Frames are the NAL units of a picture, each behind a start code (H.264, annex B). Parameter sets that came
before, or were told beside the packets, in SDP, are put before key frames that come without.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edge.rtp.errors import RtpError
from edge.rtp.formats.bits import Bits
from edge.rtp.formats.chunks import even_chunks
from edge.rtp.formats.pictures import Picture, Pictures

if TYPE_CHECKING:
    from edge.rtp.track import RtpTrack

__all__ = ["H264Packets", "H264Pictures", "nal_units"]

_START_CODE: Final = b"\0\0\0\1"
_IDR, _SPS, _DELIMITER, _FILLER = 5, 7, 9, 12
_PARAMETERS: Final = frozenset({_SPS, 8, 13, 15})  # with the picture's, the extension's and the subset's
_STAP_A: Final = 24
_FU_A: Final = 28
_SINGLE: Final = range(1, 24)
_WITH_CHROMA: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_MAX_CROPPING: Final = 1 << 15


class H264Pictures(Pictures):
    """Packets to pictures."""

    _units: list[bytearray]
    _open: bool  # whether the last unit goes on in the next packet

    def __init__(self, track: RtpTrack, max_frame_bytes: int) -> None:
        super().__init__(track, max_frame_bytes)
        self._parameters: list[bytes] = []  # the sets that came last

    def _begins_key_frame(self, payload: bytes) -> bool:
        kind = payload[0] & 0x1F
        if kind == _STAP_A:
            return any(_begins(unit) for unit in _aggregated(payload))
        if kind == _FU_A:
            start = payload[1] & 0x80 != 0
            return start and payload[1] & 0x1F == _IDR and payload[2] & 0x80 != 0
        return _begins(payload)

    def _forget(self) -> None:
        self._units = []
        self._open = False

    def _add(self, payload: bytes) -> None:
        kind = payload[0] & 0x1F
        if kind == _FU_A:
            self._add_part(payload)
            return
        if self._open:
            raise RtpError("an H264 unit has no end")
        if kind == _STAP_A:
            self._units += map(bytearray, _aggregated(payload))
        elif kind in _SINGLE:
            self._units.append(bytearray(payload))
        else:
            raise RtpError(f"H264 packets of type {kind} are not taken")

    def _add_part(self, payload: bytes) -> None:
        head = payload[1]
        if bool(head & 0x80) == self._open:
            raise RtpError("an H264 unit begins in its middle, or twice")
        if head & 0x80:
            self._units.append(bytearray(((payload[0] & 0xE0) | (head & 0x1F),)))
        self._units[-1] += payload[2:]
        self._open = not head & 0x40

    def _finish(self) -> Picture:
        if self._open:
            raise RtpError("an H264 unit has no end")
        units: list[bytes | bytearray] = list(self._units)
        kinds = {unit[0] & 0x1F for unit in units}
        key_frame = _IDR in kinds
        if _SPS in kinds:
            self._parameters = [bytes(unit) for unit in units if unit[0] & 0x1F in _PARAMETERS]
        elif key_frame:
            units[:0] = self._parameters or self._track.parameters
            if len(units) == len(self._units):
                raise RtpError("an H264 key frame without parameter sets")
        width = height = 0
        for unit in units:
            if unit[0] & 0x1F == _SPS:
                width, height = _size(bytes(unit))
        frame = b"".join(_START_CODE + unit for unit in units)
        return Picture(frame, key_frame=key_frame, width=width, height=height)


def _begins(unit: bytes) -> bool:
    """Whether a unit begins a key frame: a parameter set, or the first slice of one."""
    kind = unit[0] & 0x1F
    # The first bit of a slice says that it begins with the picture's first macroblock: ue(v) of 0.
    return kind == _SPS or (kind == _IDR and unit[1] & 0x80 != 0)


def _aggregated(payload: bytes) -> list[bytes]:
    units = []
    position = 1
    while position < len(payload):
        length = int.from_bytes(payload[position : position + 2], "big")
        unit = payload[position + 2 : position + 2 + length]
        if length == 0 or len(unit) != length:
            raise RtpError("an H264 packet of several units is cut off")
        units.append(unit)
        position += 2 + length
    return units


def _size(unit: bytes) -> tuple[int, int]:
    """Return width and height that a sequence parameter set says (H.264, section 7.3.2.1.1)."""
    bits = Bits(unit[1:].replace(b"\0\0\3", b"\0\0"))
    profile = bits.read(8)
    bits.read(16)
    bits.unsigned()
    chroma = 1
    if profile in _WITH_CHROMA:
        chroma = bits.unsigned()
        _skip_depths(bits, chroma)
    bits.unsigned()
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.read(1)
        for _ in range(2):
            bits.signed()
        for _ in range(min(bits.unsigned(), 256)):
            bits.signed()
    bits.unsigned()
    bits.read(1)
    width = 16 * (bits.unsigned() + 1)
    rows = bits.unsigned() + 1
    whole = bits.read(1)
    height = 16 * rows * (2 - whole)
    if not whole:
        bits.read(1)
    bits.read(1)
    if bits.read(1):
        left, right, top, bottom = (min(bits.unsigned(), _MAX_CROPPING) for _ in range(4))
        width -= (left + right) * (2 if chroma in {1, 2} else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1) * (2 - whole)
    return _u16(width), _u16(height)


def _skip_depths(bits: Bits, chroma: int) -> None:
    if chroma == 3:
        bits.read(1)
    bits.unsigned()
    bits.unsigned()
    bits.read(1)
    if bits.read(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.read(1):
                _skip_scaling(bits, 16 if number < 6 else 64)


def _skip_scaling(bits: Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.signed()) % 256
            last = following or last


def _u16(number: int) -> int:
    """Return the number if a frame's header can say it, else 0: not known."""
    return number if 0 < number < 1 << 16 else 0


def nal_units(frame: bytes) -> list[bytes]:
    """Return the units of a byte stream (H.264, annex B); none for what has no start code."""
    return [unit for part in re.split(b"\0\0\1", frame)[1:] if (unit := part.rstrip(b"\0"))]


class H264Packets:
    """Pictures to packets: small units together, large ones in parts; delimiters and filling are left out."""

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the payloads. Raises RtpError for what is no byte stream of units."""
        del key_frame  # the units say it
        units = nal_units(frame)
        if frame and not units:
            raise RtpError("an H264 frame without a start code")
        payloads: list[bytes] = []
        small: list[bytes] = []
        for unit in units:
            if unit[0] & 0x1F in {_DELIMITER, _FILLER}:
                continue
            if len(unit) + 3 + sum(len(other) + 2 for other in small) > max_bytes:
                payloads += _together(small)
                small = []
            if len(unit) > max_bytes:
                payloads += _in_parts(unit, max_bytes)
            else:
                small.append(unit)
        return payloads + _together(small)


def _together(units: list[bytes]) -> list[bytes]:
    if len(units) <= 1:
        return units
    importance = max(unit[0] & 0x60 for unit in units)
    return [bytes((importance | _STAP_A,)) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)]


def _in_parts(unit: bytes, max_bytes: int) -> list[bytes]:
    indicator, kind = (unit[0] & 0xE0) | _FU_A, unit[0] & 0x1F
    chunks = even_chunks(unit[1:], max_bytes - 2)
    last = len(chunks) - 1
    return [
        bytes((indicator, kind | (0x80 if number == 0 else 0) | (0x40 if number == last else 0))) + chunk
        for number, chunk in enumerate(chunks)
    ]
