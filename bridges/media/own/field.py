"""Arithmetic in GF(256), on whole datagrams: the field of RAID-6, polynomial 0x11D.

Adding is XOR. A multiplication by a constant is one table look-up for each byte, done by bytes.translate;
sums are kept as integers, whose XOR the interpreter does at once.
"""

from __future__ import annotations

from functools import cache
from typing import Final

__all__ = ["divide", "multiply", "scaled"]

_POLYNOMIAL: Final = 0x11D
_ORDER: Final = 255


def _powers() -> tuple[list[int], list[int]]:
    powers, logarithms = [0] * (2 * _ORDER), [0] * (_ORDER + 1)
    value = 1
    for exponent in range(_ORDER):
        powers[exponent] = powers[exponent + _ORDER] = value
        logarithms[value] = exponent
        value <<= 1
        if value > _ORDER:
            value ^= _POLYNOMIAL
    return powers, logarithms


_POWERS, _LOGARITHMS = _powers()


def multiply(a: int, b: int) -> int:
    """Return the product of two elements."""
    return _POWERS[_LOGARITHMS[a] + _LOGARITHMS[b]] if a and b else 0


def divide(a: int, b: int) -> int:
    """Return a quotient; raises ZeroDivisionError."""
    if not b:
        raise ZeroDivisionError
    return _POWERS[_LOGARITHMS[a] - _LOGARITHMS[b] + _ORDER] if a else 0


def scaled(data: bytes, factor: int) -> bytes:
    """Return every byte of `data` times `factor`."""
    return data if factor == 1 else data.translate(_table(factor))


@cache  # 256 of them at most, 64 KiB
def _table(factor: int) -> bytes:
    return bytes(multiply(factor, value) for value in range(_ORDER + 1))
