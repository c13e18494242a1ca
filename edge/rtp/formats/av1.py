"""AV1 in RTP packets (Alliance for Open Media, "RTP Payload Format For AV1"), and its pictures' size. Pure.

Frames are a temporal unit's OBUs, each with its size (AV1 specification, section 5.2, the low-overhead
format), without the temporal delimiter, which no packet carries.
"""

from __future__ import annotations

from typing import Final

from edge.rtp.errors import RtpError
from edge.rtp.formats.bits import Bits, leb128, read_leb128
from edge.rtp.formats.pictures import Picture, Pictures

__all__ = ["Av1Packets", "Av1Pictures"]

_SEQUENCE_HEADER: Final = 1
_TEMPORAL_DELIMITER: Final = 2
_TILE_LIST: Final = 8
_PADDING: Final = 15
_NOT_SENT: Final = frozenset({_TEMPORAL_DELIMITER, _TILE_LIST, _PADDING})
_CONTINUES, _GOES_ON, _NEW_SEQUENCE = 0x80, 0x40, 0x08
_EXTENDED, _SIZED = 0x04, 0x02


class Av1Pictures(Pictures):
    """Packets to temporal units."""

    _units: list[bytearray]
    _open: bool  # whether the last unit goes on in the next packet
    _new_sequence: bool

    def _begins_key_frame(self, payload: bytes) -> bool:
        return payload[0] & (_NEW_SEQUENCE | _CONTINUES) == _NEW_SEQUENCE

    def _forget(self) -> None:
        self._units = []
        self._open = False
        self._new_sequence = False

    def _add(self, payload: bytes) -> None:
        head = payload[0]
        if bool(head & _CONTINUES) != self._open:
            raise RtpError("an AV1 unit begins in its middle, or twice")
        if not self._units:
            self._new_sequence = head & _NEW_SEQUENCE != 0
        for element in _elements(payload):
            if self._open:
                self._units[-1] += element
                self._open = False
            else:
                self._units.append(bytearray(element))
        self._open = head & _GOES_ON != 0

    def _finish(self) -> Picture:
        if self._open or not all(self._units):
            raise RtpError("an AV1 unit has no end")
        units = [unit for unit in self._units if _kind(unit) not in _NOT_SENT]
        width = height = temporal = 0
        for unit in units:
            if _kind(unit) == _SEQUENCE_HEADER:
                width, height = _size(_without_size(bytes(unit))[1])
            elif unit[0] & _EXTENDED:
                temporal = max(temporal, unit[1] >> 5)
        frame = b"".join(_sized(bytes(unit)) for unit in units)
        return Picture(frame, key_frame=self._new_sequence, width=width, height=height, temporal=temporal)


def _elements(payload: bytes) -> list[bytes]:
    """Return the OBUs, or parts of them, in a packet."""
    count = payload[0] >> 4 & 3
    elements: list[bytes] = []
    position = 1
    while position < len(payload):
        if count and len(elements) == count - 1:
            length = len(payload) - position
        else:
            length, position = read_leb128(payload, position)
        if position + length > len(payload):
            raise RtpError("an AV1 packet is cut off")
        elements.append(payload[position : position + length])
        position += length
    if not elements or (count and len(elements) != count):
        raise RtpError("an AV1 packet has fewer units than it says")
    return elements


def _kind(unit: bytes | bytearray) -> int:
    return unit[0] >> 3 & 0x0F


def _without_size(unit: bytes) -> tuple[bytes, bytes]:
    """Return the header of an OBU without its size field, and its payload."""
    start = 2 if unit[0] & _EXTENDED else 1
    if len(unit) < start:
        raise RtpError("an AV1 unit is cut off")
    head = bytes((unit[0] & ~_SIZED,)) + unit[1:start]
    if not unit[0] & _SIZED:
        return head, unit[start:]
    length, start = read_leb128(unit, start)
    if start + length > len(unit):
        raise RtpError("an AV1 unit is cut off")
    return head, unit[start : start + length]


def _sized(unit: bytes) -> bytes:
    head, body = _without_size(unit)
    return bytes((head[0] | _SIZED,)) + head[1:] + leb128(len(body)) + body


def _size(header: bytes) -> tuple[int, int]:
    """Return width and height that a sequence header says (AV1 specification, section 5.5)."""
    bits = Bits(header)
    bits.read(3 + 1)
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    return (width, height) if max(width, height) < 1 << 16 else (0, 0)


def _skip_operating_points(bits: Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):
            bits.unsigned()
        if bits.read(1):  # decoder_model_info_present_flag
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if display_delay and bits.read(1):
            bits.read(4)


class Av1Packets:
    """Temporal units to packets: every OBU, or part of one, with its length before it."""

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the payloads. Raises RtpError for what is no row of OBUs with their sizes."""
        payloads: list[bytearray] = []
        for unit in _units(frame):
            rest = unit
            while rest:
                if not payloads or len(payloads[-1]) + _LENGTH_BYTES >= max_bytes:
                    payloads.append(bytearray(1))
                packet = payloads[-1]
                part = rest[: max_bytes - len(packet) - _LENGTH_BYTES]
                if len(rest) < len(unit):
                    # The packet before ends within this unit, and this one begins there.
                    payloads[-2][0] |= _GOES_ON
                    packet[0] |= _CONTINUES
                packet += leb128(len(part)) + part
                rest = rest[len(part) :]
        if payloads and key_frame:
            payloads[0][0] |= _NEW_SEQUENCE
        return [bytes(payload) for payload in payloads]


_LENGTH_BYTES: Final = 2  # of a leb128 up to 16,383, more than a packet has


def _units(frame: bytes) -> list[bytes]:
    """Return the OBUs to be sent, without their size fields."""
    units = []
    position = 0
    while position < len(frame):
        start = position + (2 if frame[position] & _EXTENDED else 1)
        if not frame[position] & _SIZED:
            raise RtpError("an AV1 unit without its size")
        length, behind = read_leb128(frame, start)
        if behind + length > len(frame):
            raise RtpError("an AV1 unit is cut off")
        if _kind(frame[position:start]) not in _NOT_SENT:
            head = bytes((frame[position] & ~_SIZED,)) + frame[position + 1 : start]
            units.append(head + frame[behind : behind + length])
        position = behind + length
    return units
