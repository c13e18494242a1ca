"""Datagrams that the kernel cuts and joins: which may go out in one call, and what came in one. Pure.

With UDP_SEGMENT (generic segmentation offload) one call hands the kernel many datagrams of the same size, of
which the last may be shorter; with UDP_GRO one call takes as many (udp(7)). Sockets are not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_RUN", "MAX_RUN_BYTES", "runs", "split"]

MAX_RUN: Final = 64
"""Datagrams of one call: what every kernel that has UDP_SEGMENT takes."""
MAX_RUN_BYTES: Final = 65_000
"""Bytes of one call: together they pass the stack as one datagram."""


def runs(
    datagrams: Sequence[bytes], *, most: int = MAX_RUN, most_bytes: int = MAX_RUN_BYTES
) -> Iterator[list[bytes]]:
    """Yield the datagrams in order, in runs: all of a run have the size of its first, the last at most."""
    run: list[bytes] = []
    size = total = 0
    for datagram in datagrams:
        fits = len(run) < most and len(datagram) <= size and total + len(datagram) <= most_bytes
        if run and not (fits and len(run[-1]) == size):
            yield run
            run = []
        if not run:
            size, total = len(datagram), 0
        run.append(datagram)
        total += len(datagram)
    if run:
        yield run


def split(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the datagrams of `size` bytes, the last may be shorter, that came as one; with 0, it is one."""
    if not size or len(data) <= size:
        yield data
        return
    for start in range(0, len(data), size):
        yield data[start : start + size]
