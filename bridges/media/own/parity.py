"""Parity over datagrams: as many rows as you like, and any so many lost ones come back from so many rows.

Row 0 is the XOR of all. The others weigh the datagrams with the elements of a Cauchy matrix, whose columns
are scaled so that row 0 is all ones: every square part of it can be inverted, so no combination of losses is
worse than another. Pure arithmetic; what the datagrams are is known elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.media.own.field import divide, multiply, scaled
from bridges.wire.own_media.datagram import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["protect", "recover"]

_LENGTH_BYTES: Final = 2


def protect(datagrams: Sequence[bytes], rows: int) -> list[bytes]:
    """Return `rows` symbols of parity (at most 32) over at most 224 datagrams.

    Each is two bytes longer than the longest datagram.
    """
    symbols = [_symbol(each) for each in datagrams]
    size = max(map(len, symbols))
    parities = []
    for row in range(rows):
        total = 0
        for column, symbol in enumerate(symbols):
            total ^= int.from_bytes(scaled(symbol, _weight(row, column)), "little")
        parities.append(total.to_bytes(size, "little"))
    return parities


def recover(known: Mapping[int, bytes], missing: Sequence[int], rows: Mapping[int, bytes]) -> list[bytes]:
    """Return the `missing` datagrams, by their places, from the `known` ones and as many rows, by number.

    Raises ValueError if what comes out cannot be datagrams: some of it did not belong together.
    """
    chosen = sorted(rows)[: len(missing)]
    size = max(len(rows[row]) for row in chosen)
    sums = []
    for row in chosen:
        total = int.from_bytes(rows[row], "little")
        for column, datagram in known.items():
            total ^= int.from_bytes(scaled(_symbol(datagram), _weight(row, column)), "little")
        sums.append(total)
    if max(map(int.bit_length, sums)) > 8 * size:
        raise ValueError("a datagram is longer than the parity over it")
    matrix = [[_weight(row, column) for column in missing] for row in chosen]
    return [_datagram(symbol) for symbol in _solve(matrix, [each.to_bytes(size, "little") for each in sums])]


def _solve(matrix: list[list[int]], sums: list[bytes]) -> list[bytes]:
    """Solve by elimination; no pivot can be 0, as every leading part of the matrix can be inverted."""
    unknowns = range(len(matrix))
    for pivot in unknowns:
        inverse = divide(1, matrix[pivot][pivot])
        matrix[pivot] = [multiply(each, inverse) for each in matrix[pivot]]
        sums[pivot] = scaled(sums[pivot], inverse)
        for other in unknowns:
            factor = matrix[other][pivot]
            if other == pivot or not factor:
                continue
            matrix[other] = [
                value ^ multiply(factor, each)
                for value, each in zip(matrix[other], matrix[pivot], strict=True)
            ]
            sums[other] = _sum(sums[other], scaled(sums[pivot], factor))
    return sums


def _weight(row: int, column: int) -> int:
    return divide(MAX_ROWS + column, row ^ (MAX_ROWS + column)) if row else 1


def _symbol(datagram: bytes) -> bytes:
    return len(datagram).to_bytes(_LENGTH_BYTES, "big") + datagram


def _datagram(symbol: bytes) -> bytes:
    length = int.from_bytes(symbol[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + length
    if end > len(symbol) or any(symbol[end:]):
        raise ValueError("what parity gave is no datagram")
    return symbol[_LENGTH_BYTES:end]


def _sum(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")
