"""What an encoded picture says of itself, as far as a bridge may care: its temporal layer, and who needs it.

Nothing is decoded: a few bits at the beginning are read, and what they do not tell for certain is taken for
the base layer, which is never left out. Pure; any bytes give an answer.

Sources: RFC 6386, section 19.2 (VP8); VP9 Bitstream and Decoding Process Specification 0.6, section 6.2;
ITU-T H.264, section 7.3.1; ITU-T H.265, section 7.3.1.2; AV1 Bitstream and Decoding Process Specification,
section 5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.wire.frame import FrameFormat

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BASE", "Layer", "layer_of"]


class Layer(NamedTuple):
    """Where a picture stands."""

    temporal: int
    """0 is the base: no picture of it needs one of a higher layer."""
    discardable: bool
    """Whether no other picture at all needs it."""


BASE: Final = Layer(0, discardable=False)
_SPARE: Final = Layer(1, discardable=True)
_READ: Final = 64
"""Bytes that are looked at where the beginning tells."""


def layer_of(format_: int, payload: bytes) -> Layer:
    """Return the layer of a picture that is no key frame; `format_` is a FrameFormat's number."""
    read = _READERS.get(format_)
    if read is None:
        return BASE
    try:
        return read(payload)
    except IndexError:  # it is too short for what it should be
        return BASE


# --- VP8 ------------------------------------------------------------------------------------------


class _Bools:
    """VP8's boolean decoder (RFC 6386, section 7.3) where every probability is one half."""

    __slots__ = ("_data", "_place", "_range", "_shifted", "_value")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._value = data[0] << 8 | data[1]
        self._place = 2
        self._range = 255
        self._shifted = 0

    def bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while not self._range & 0x80:
            self._range <<= 1
            self._value <<= 1
            self._shifted += 1
            if not self._shifted & 7:
                self._value |= self._data[self._place]
                self._place += 1
        return bit

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit()
        return value

    def pass_optional(self, count: int, bits: int) -> None:
        """Pass over numbers that each have a flag before them."""
        for _ in range(count):
            if self.bit():
                self.number(bits)


_VP8_TAG: Final = 3


def _vp8(payload: bytes) -> Layer:
    if not payload[0] & 1:
        return BASE
    bools = _Bools(payload[_VP8_TAG : _VP8_TAG + _READ])
    if bools.bit():  # segmentation
        new_map, new_data = bools.bit(), bools.bit()
        if new_data:
            bools.bit()
            bools.pass_optional(4, 7 + 1)
            bools.pass_optional(4, 6 + 1)
        if new_map:
            bools.pass_optional(3, 8)
    bools.number(1 + 6 + 3)  # the loop filter: type, level, sharpness
    if bools.bit() and bools.bit():
        bools.pass_optional(4 + 4, 6 + 1)
    bools.number(2 + 7)  # partitions, the base quantizer
    bools.pass_optional(5, 4 + 1)
    golden, alternate = bools.bit(), bools.bit()
    copied = (0 if golden else bools.number(2)) or (0 if alternate else bools.number(2))
    bools.number(2)  # sign biases
    probabilities, last = bools.bit(), bools.bit()
    return BASE if golden or alternate or copied or probabilities or last else _SPARE


# --- VP9 ------------------------------------------------------------------------------------------


class _Bits:
    """Plain bits, the highest first."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self._data[self._place >> 3] >> (7 - (self._place & 7)) & 1
            self._place += 1
        return value


_VP9_MARKER: Final = 0b10
_VP9_INDEX: Final = 0b110
"""A superframe, which has several pictures, ends with an index that begins and ends so."""


def _vp9(payload: bytes) -> Layer:
    if payload[-1] >> 5 == _VP9_INDEX:
        return BASE
    bits = _Bits(payload[:_READ])
    if bits.number(2) != _VP9_MARKER:
        return BASE
    low, high = bits.number(1), bits.number(1)
    if (low and high and bits.number(1)) or bits.number(1):  # reserved; a picture that is there is shown
        return BASE
    key, shown, resilient = not bits.number(1), bits.number(1), bits.number(1)
    intra = 0 if shown else bits.number(1)
    reset = 0 if resilient else bits.number(2)
    if key or intra or reset:
        return BASE
    stored = bits.number(8)
    bits.number(3 * (3 + 1))  # what it refers to
    if not any(bits.number(1) for _ in range(3)):  # its size is that of none of these
        bits.number(16 + 16)
    if bits.number(1):  # it is rendered at another size
        bits.number(16 + 16)
    bits.number(1)
    if not bits.number(1):  # one interpolation filter for all
        bits.number(2)
    adapts = 0 if resilient else bits.number(1)
    return BASE if stored or adapts else _SPARE


# --- H.264, H.265: NAL units, each behind a start code --------------------------------------------

_START: Final = b"\x00\x00\x01"
_H264_SLICES: Final = frozenset({1, 2, 3, 4, 5})
_H265_SLICES: Final = 32
"""NAL units of types below this one are slices;"""
_H265_RANDOM_ACCESS: Final = 16
"""from this one on, those where decoding can start."""


def _h264(payload: bytes) -> Layer:
    place = payload.find(_START)
    while place >= 0:
        header = payload[place + 3]
        if header & 0x1F in _H264_SLICES:
            return BASE if header & 0x60 else _SPARE  # nal_ref_idc
        place = payload.find(_START, place + 3)
    return BASE


def _h265(payload: bytes) -> Layer:
    place = payload.find(_START)
    while place >= 0:
        type_, temporal = payload[place + 3] >> 1 & 0x3F, (payload[place + 4] & 7) - 1
        if type_ < _H265_RANDOM_ACCESS:
            return Layer(max(temporal, 0), discardable=False)
        if type_ < _H265_SLICES:
            return BASE
        place = payload.find(_START, place + 3)
    return BASE


# --- AV1 ------------------------------------------------------------------------------------------

_AV1_PICTURES: Final = frozenset({3, 6})
"""Frame header, and frame."""


def _av1(payload: bytes) -> Layer:
    place = 0
    while True:
        header = payload[place]
        extended, sized = header & 4, header & 2
        place += 1
        temporal = payload[place] >> 5 if extended else 0
        if header >> 3 & 0xF in _AV1_PICTURES:
            return Layer(temporal, discardable=False)
        if not sized:
            return BASE
        size, place = _leb128(payload, place + bool(extended))
        place += size


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift in range(0, 56, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return value, place


_READERS: Final[dict[int, Callable[[bytes], Layer]]] = {
    FrameFormat.VP8: _vp8,
    FrameFormat.VP9: _vp9,
    FrameFormat.H264: _h264,
    FrameFormat.H265: _h265,
    FrameFormat.AV1: _av1,
}
