"""Reads bits, the most significant first, and the codes of variable length that video headers use. Pure."""

from __future__ import annotations

from edge.rtp.errors import RtpError

__all__ = ["Bits", "leb128", "read_leb128"]

_MAX_LEB128_BYTES = 8


class Bits:
    """Bits of `data`. Reading beyond the end raises RtpError."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        if count > self._left:
            raise RtpError("a header is cut off")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """Return an Exp-Golomb code, ue(v) of H.264, section 9.1; AV1 calls it uvlc()."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise RtpError("a code of more than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """Return a signed Exp-Golomb code, se(v) of H.264, section 9.1.1."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def leb128(number: int) -> bytes:
    """Return a number as leb128 (AV1, section 4.10.5): seven bits a byte, the lowest first."""
    written = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        written.append(low | (0x80 if number else 0))
        if not number:
            return bytes(written)


def read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at `position`, and the position behind it. Raises RtpError."""
    number = 0
    for place, byte in enumerate(data[position : position + _MAX_LEB128_BYTES]):
        number |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return number, position + place + 1
    raise RtpError("a length has no end")
