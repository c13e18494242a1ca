"""What one QUIC datagram carries: a fragment of a frame, parity over fragments, or a few fragments at once.

The names follow Media over QUIC (track alias, dependencies between objects) and RTP over QUIC (the flow's
number comes first); the layout is ours, as docs/wire.md has it. Numbers are big-endian; a `varint` is
that of RFC 9000, section 16, in its one- and two-byte forms.
"""

from __future__ import annotations

import enum
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "LINGER_UNIT",
    "MAX_ALIAS",
    "MAX_BUNDLE",
    "MAX_FRAGMENTS",
    "MAX_FRAME_ID",
    "MAX_LINGER",
    "MAX_NEED",
    "MAX_NEEDS",
    "MAX_ROWS",
    "MAX_SOURCES",
    "MAX_SPAN",
    "PARITY_BYTES",
    "VERSION",
    "Bundle",
    "Fragment",
    "FrameHead",
    "Parity",
    "decode",
    "encode_bundle",
    "encode_fragment",
    "encode_frame",
    "encode_parity",
    "is_parity",
    "newest_fragment",
]

VERSION: Final = 1
MAX_ALIAS: Final = 16_383
MAX_FRAME_ID: Final = 2**32 - 1
MAX_FRAGMENTS: Final = 4_096
MAX_NEEDS: Final = 3
MAX_NEED: Final = 255
LINGER_UNIT: Final = 0.004
"""Seconds."""
MAX_LINGER: Final = 255 * LINGER_UNIT
MAX_SPAN: Final = 8
"""Frames that one parity is over."""
MAX_SOURCES: Final = 224
"""Fragments that one parity is over."""
MAX_ROWS: Final = 32
"""Parities over the same fragments."""
MAX_BUNDLE: Final = 4
"""Fragments in one bundle."""
PARITY_BYTES: Final = 2 + 11 + 2 * MAX_SPAN
"""By so much a parity is larger, at most, than the largest datagram that it is over."""

_TWO_BYTES: Final = 0x40
_ONE_BYTE_MAX: Final = 0x3F
_MAX_VARINT: Final = 0x3FFF
_MAX_TIME: Final = 2**32 - 1
_MAX_LAYER: Final = 7
_MAX_LENGTH: Final = 0xFFFF
_FRAME_ID: Final = struct.Struct("!I")
_FRAME: Final = struct.Struct("!IIB")  # id, captured, linger
_FIXED_HEAD: Final = 1 + 1 + 4 + 4 + 1
"""Bytes of a fragment before `needs`, if its alias has one."""
_DISCARDABLE: Final = 0x2
_LAYERED: Final = 0x1
_MIN_SYMBOL: Final = 3


class _Kind(enum.IntEnum):
    FRAGMENT = 0
    PARITY = 1
    BUNDLE = 2


_BEGINS_FRAGMENT: Final = VERSION << 2 | _Kind.FRAGMENT
"""The upper half of its first byte."""


class FrameHead(NamedTuple):
    """What every fragment says of its frame."""

    alias: int
    """The track, by the number that its puller gave it: 0 to 16,383."""
    frame: int
    """Counts the frames of the track, from 0; never comes round."""
    captured: int
    """Microseconds of the sender's clock, modulo 2^32."""
    linger: int = 0
    """For how long after this datagram something may be sent again of what came before: units of 4 ms."""
    needs: tuple[int, ...] = ()
    """How many frames before this one those are that it cannot be decoded without: 1 to 255 each, at most
    three, ascending. None: decoding can start here."""
    discardable: bool = False
    """Whether no other frame needs this one."""
    temporal: int = 0
    spatial: int = 0
    """Layers, 0 (base) to 7."""


class Fragment(NamedTuple):
    """A part of a frame."""

    head: FrameHead
    part: int
    """Which one: 0 and on."""
    parts: int
    raw: bytes
    """The datagram, or its part of a bundle: what parity is over."""
    begin: int
    """Where in `raw` the payload begins."""

    @property
    def payload(self) -> bytes:
        """The bytes of the frame."""
        return self.raw[self.begin :]


class Parity(NamedTuple):
    """One row of parity over fragments: those of one frame from `start` on, or of several whole frames."""

    alias: int
    frame: int
    """The first one."""
    start: int
    row: int
    counts: tuple[int, ...]
    """Fragments of each frame, beginning with `frame`."""
    symbol: bytes


class Bundle(NamedTuple):
    """Several fragments in one datagram: new sound, and before it what was sent already."""

    fragments: tuple[Fragment, ...]


Datagram: TypeAlias = Fragment | Parity | Bundle


def encode_fragment(head: FrameHead, index: int, count: int, payload: bytes) -> bytes:
    """Return a datagram. Raises ValueError for what the format has no room for."""
    if not 0 <= index < count <= MAX_FRAGMENTS or not payload:
        raise ValueError(f"fragment {index} of {count}, {len(payload)} bytes")
    return _head_bytes(head) + _varint(index) + _varint(count) + payload


def encode_frame(head: FrameHead, payloads: Sequence[bytes]) -> list[bytes]:
    """Return the datagrams of all fragments of a frame. Raises ValueError, as encode_fragment does."""
    count = len(payloads)
    if not 1 <= count <= MAX_FRAGMENTS or not all(payloads):
        raise ValueError(f"a frame of {count} fragments")
    beginning, end = _head_bytes(head), _varint(count)
    return [beginning + _varint(index) + end + payload for index, payload in enumerate(payloads)]


def _head_bytes(head: FrameHead) -> bytes:
    """Return what the fragments of a frame have in common: their first bytes. Raises ValueError."""
    needs = head.needs
    _check_head(head)
    layered = bool(head.temporal or head.spatial)
    first = VERSION << 6 | len(needs) << 2 | head.discardable * _DISCARDABLE | layered * _LAYERED
    return b"".join(
        (
            first.to_bytes(1, "big"),
            _varint(head.alias),
            _FRAME.pack(head.frame, head.captured, head.linger),
            bytes(needs),
            (head.temporal << 4 | head.spatial).to_bytes(1, "big") if layered else b"",
        )
    )


def encode_parity(parity: Parity) -> bytes:
    """Return a datagram. Raises ValueError for what the format has no room for."""
    try:
        _check_parity(parity)
    except MediaDatagramError as error:
        raise ValueError(str(error)) from None
    if not 0 <= parity.alias <= MAX_ALIAS or parity.frame < 0 or parity.start < 0 or parity.row < 0:
        raise ValueError("a number out of range")
    return b"".join(
        (
            (VERSION << 6 | _Kind.PARITY << 4).to_bytes(1, "big"),
            _varint(parity.alias),
            _FRAME_ID.pack(parity.frame),
            _varint(parity.start),
            bytes((parity.row, len(parity.counts))),
            *map(_varint, parity.counts),
            parity.symbol,
        )
    )


def encode_bundle(datagrams: tuple[bytes, ...]) -> bytes:
    """Return a datagram that carries those of a few fragments. Raises ValueError for too many or too long."""
    if not 1 <= len(datagrams) <= MAX_BUNDLE or max(map(len, datagrams)) > _MAX_VARINT:
        raise ValueError(f"{len(datagrams)} datagrams in a bundle")
    parts = (part for each in datagrams for part in (_varint(len(each)), each))
    return b"".join(((VERSION << 6 | _Kind.BUNDLE << 4).to_bytes(1, "big"), *parts))


def decode(data: bytes) -> Datagram:
    """Read a datagram. Raises MediaDatagramError for what is none, or of a version that is not known."""
    try:
        return _read_fragment(data) if data[0] >> 4 == _BEGINS_FRAGMENT else _read_other(data)
    except (IndexError, struct.error):
        raise MediaDatagramError(f"a datagram that ends in its header, after {len(data)} bytes") from None


def newest_fragment(datagram: bytes) -> bytes:
    """Return the first of a bundle that was encoded here; what is no bundle, itself."""
    if datagram[0] >> 4 & 3 != _Kind.BUNDLE:
        return datagram
    length, begin = _read_varint(datagram, 1)
    return datagram[begin : begin + length]


def is_parity(datagram: bytes) -> bool:
    """Return whether a datagram that was encoded here is parity."""
    return datagram[0] >> 4 & 3 == _Kind.PARITY


def _read_other(data: bytes) -> Datagram:
    first = data[0]
    if first >> 6 != VERSION:
        raise MediaDatagramError(f"a datagram of version {first >> 6}; this is {VERSION}")
    kind = first >> 4 & 3
    if first & 0xF:
        raise MediaDatagramError("bits that are not used are set")
    if kind == _Kind.PARITY:
        return _read_parity(data)
    if kind == _Kind.BUNDLE:
        return _read_bundle(data)
    raise MediaDatagramError(f"a datagram of kind {kind}")


def _read_fragment(data: bytes) -> Fragment:
    first = data[0]
    length = _FIXED_HEAD + (data[1] > _ONE_BYTE_MAX) + (first >> 2 & 3) + (first & _LAYERED)
    head = _read_head(data[:length])
    index, count, at = data[length], data[length + 1], length + 2
    if index | count > _ONE_BYTE_MAX:
        index, at = _read_varint(data, length)
        count, at = _read_varint(data, at)
    if not index < count <= MAX_FRAGMENTS:
        raise MediaDatagramError(f"fragment {index} of {count}")
    if at >= len(data):
        raise MediaDatagramError("a fragment of nothing")
    return Fragment(head, index, count, data, at)


@lru_cache(maxsize=256)  # of one frame they are all the same, and of a few frames at a time they come
def _read_head(data: bytes) -> FrameHead:
    first = data[0]
    alias, at = _read_varint(data, 1)
    frame, captured, linger = _FRAME.unpack_from(data, at)
    at += _FRAME.size
    needs = tuple(data[at : at + (first >> 2 & 3)])
    temporal = spatial = 0
    if first & _LAYERED:
        temporal, spatial = data[-1] >> 4, data[-1] & 0xF
    head = FrameHead(alias, frame, captured, linger, needs, bool(first & _DISCARDABLE), temporal, spatial)
    if len(needs) != first >> 2 & 3:
        raise IndexError
    if needs or first & _LAYERED:
        _check_relations(head)
    return head


def _read_parity(data: bytes) -> Parity:
    alias, at = _read_varint(data, 1)
    (frame,) = _FRAME_ID.unpack_from(data, at)
    start, at = _read_varint(data, at + 4)
    row, span = data[at], data[at + 1]
    at += 2
    if not 1 <= span <= MAX_SPAN:
        raise MediaDatagramError(f"parity over {span} frames")
    counts = []
    for _ in range(span):
        count, at = _read_varint(data, at)
        counts.append(count)
    parity = Parity(alias, frame, start, row, tuple(counts), data[at:])
    _check_parity(parity)
    return parity


def _read_bundle(data: bytes) -> Bundle:
    fragments: list[Fragment] = []
    at = 1
    while at < len(data):
        length, at = _read_varint(data, at)
        part = data[at : at + length]
        at += length
        if len(part) != length or len(fragments) == MAX_BUNDLE:
            raise MediaDatagramError("a bundle of too much")
        if not part or part[0] >> 4 != _BEGINS_FRAGMENT:
            raise MediaDatagramError("a bundle of something else than fragments")
        fragments.append(_read_fragment(part))
    if not fragments:
        raise MediaDatagramError("a bundle of nothing")
    return Bundle(tuple(fragments))


def _check_head(head: FrameHead) -> None:
    if not 0 <= head.alias <= MAX_ALIAS or not 0 <= head.frame <= MAX_FRAME_ID:
        raise ValueError(f"frame {head.frame} of track {head.alias}")
    if not 0 <= head.captured <= _MAX_TIME or not 0 <= head.linger <= MAX_NEED:
        raise ValueError(f"captured {head.captured}, linger {head.linger}")
    if len(head.needs) > MAX_NEEDS or min(head.temporal, head.spatial) < 0:
        raise ValueError(f"needs {head.needs}, layers {head.temporal}, {head.spatial}")
    try:
        _check_relations(head)
    except MediaDatagramError as error:
        raise ValueError(str(error)) from None


def _check_relations(head: FrameHead) -> None:
    if max(head.temporal, head.spatial) > _MAX_LAYER:
        raise MediaDatagramError(f"layers {head.temporal}, {head.spatial}")
    last = 0
    for need in head.needs:
        if not last < need <= min(head.frame, MAX_NEED):
            raise MediaDatagramError(f"frame {head.frame} needs those {head.needs} before it")
        last = need


def _check_parity(parity: Parity) -> None:
    counts = parity.counts
    if not 1 <= len(counts) <= MAX_SPAN or min(counts) < 1 or sum(counts) > MAX_SOURCES:
        raise MediaDatagramError(f"parity over {counts} fragments")
    if parity.start and (len(counts) > 1 or parity.start + counts[0] > MAX_FRAGMENTS):
        raise MediaDatagramError(f"parity that begins with fragment {parity.start}")
    if parity.row >= MAX_ROWS or parity.frame + len(counts) - 1 > MAX_FRAME_ID:
        raise MediaDatagramError(f"parity row {parity.row} over frame {parity.frame} and on")
    if not _MIN_SYMBOL <= len(parity.symbol) <= _MAX_LENGTH:
        raise MediaDatagramError(f"parity of {len(parity.symbol)} bytes")


@lru_cache(maxsize=1024)  # fragments, and tracks, are counted from 0 again and again
def _varint(value: int) -> bytes:
    if 0 <= value <= _ONE_BYTE_MAX:
        return value.to_bytes(1, "big")
    if 0 <= value <= _MAX_VARINT:
        return (value | _TWO_BYTES << 8).to_bytes(2, "big")
    raise ValueError(f"{value} is not between 0 and {_MAX_VARINT}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, and where it ends. Raises IndexError at the end of the data."""
    first = data[at]
    if first <= _ONE_BYTE_MAX:
        return first, at + 1
    if first & 0xC0 != _TWO_BYTES:
        raise MediaDatagramError("a number of four or eight bytes")
    return (first & _ONE_BYTE_MAX) << 8 | data[at + 1], at + 2
