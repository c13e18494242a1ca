"""RTP packets (RFC 3550, section 5.1). Pure; what the payload is, is known by edge.rtp.formats.

Header extensions, contributing sources and padding are passed over when a packet is read, and not written.
"""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

from edge.rtp.errors import RtpError

__all__ = ["HEADER_BYTES", "MAX_PACKET_BYTES", "RtpPacket", "decode", "encode", "is_rtcp"]

HEADER_BYTES: Final = 12
MAX_PACKET_BYTES: Final = 65_507
"""The largest datagram that UDP over IPv4 carries."""
_HEADER: Final = struct.Struct("!BBHII")
_VERSION: Final = 2
_RTCP_TYPES: Final = range(192, 224)


class RtpPacket(Struct, frozen=True, kw_only=True, gc=False):
    """One packet: `sequence` has 16 bits, `timestamp` 32, in units of the payload's clock."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool = False
    payload: bytes = b""


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram of a port that carries both is RTCP (RFC 5761, section 4)."""
    return len(data) > 1 and data[1] in _RTCP_TYPES


def decode(data: bytes) -> RtpPacket:
    """Return the packet that `data` is. Raises RtpError."""
    if len(data) < HEADER_BYTES:
        raise RtpError(f"an RTP packet of {len(data)} bytes is shorter than its header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != _VERSION:
        raise RtpError(f"RTP version {first >> 6}")
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            raise RtpError("the header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data)
    if first & 0x20:
        end -= data[-1]
        if data[-1] == 0 or end < start:
            raise RtpError(f"padding of {data[-1]} bytes")
    if start > end:
        raise RtpError("the header is longer than the packet")
    return RtpPacket(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        marker=second & 0x80 != 0,
        payload=data[start:end],
    )


def encode(packet: RtpPacket) -> bytes:
    """Return the packet as a datagram."""
    second = packet.payload_type | (0x80 if packet.marker else 0)
    header = _HEADER.pack(_VERSION << 6, second, packet.sequence, packet.timestamp, packet.ssrc)
    return header + packet.payload
