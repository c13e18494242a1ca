"""RTCP: reports, descriptions and goodbyes (RFC 3550, section 6), and feedback (RFC 4585, RFC 5104). Pure.

Written are also estimates of the receiver's bit rate (REMB, draft-alvestrand-rmcat-remb-03), the request for
less that media servers understand. Kinds of packets that are not here are passed over when they are read.
"""

from __future__ import annotations

import struct
from typing import Final, assert_never

from msgspec import Struct

from edge.rtp.errors import RtpError

__all__ = [
    "Bye",
    "FullIntraRequest",
    "Nack",
    "PictureLoss",
    "ReceiverReport",
    "Remb",
    "ReportBlock",
    "Rtcp",
    "SenderReport",
    "SourceDescription",
    "decode",
    "encode",
]

_SR, _RR, _SDES, _BYE, _RTPFB, _PSFB = 200, 201, 202, 203, 205, 206
_GENERIC_NACK: Final = 1
_PLI: Final = 1
_FIR: Final = 4
_APPLICATION_LAYER: Final = 15
_CNAME: Final = 1
_VERSION: Final = 2
_HEADER: Final = struct.Struct("!BBH")
_BLOCK: Final = struct.Struct("!IIIIII")
_SENDER: Final = struct.Struct("!IQIII")
_PAIR: Final = struct.Struct("!II")
_NACK: Final = struct.Struct("!HH")
_MAX_BLOCKS: Final = 31
_NACK_BITS: Final = 16
_REMB: Final = b"REMB"
_MANTISSA_BITS: Final = 18


class ReportBlock(Struct, frozen=True, kw_only=True, gc=False):
    """What a receiver says of one source (RFC 3550, section 6.4.1)."""

    ssrc: int
    fraction_lost: int
    """Of 256, since the last report."""
    lost: int
    """Packets in all; 24 bits, signed."""
    highest: int
    """The highest sequence number seen, with the count of its rounds above it: 32 bits."""
    jitter: int
    """In units of the payload's clock."""
    last_report: int = 0
    """Middle 32 bits of the NTP time of the last sender report; 0: none has come."""
    since_last_report: int = 0
    """In 1/65536 s."""


class SenderReport(Struct, frozen=True, kw_only=True, gc=False):
    """What a sender says of itself: `ntp` (64 bits, 32.32) and `timestamp` are the same moment."""

    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()


class ReceiverReport(Struct, frozen=True, kw_only=True, gc=False):
    """The report of one who sends nothing."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


class SourceDescription(Struct, frozen=True, kw_only=True, gc=False):
    """The name by which a receiver knows which sources belong together."""

    ssrc: int
    cname: str


class Bye(Struct, frozen=True, kw_only=True, gc=False):
    """These sources send no more."""

    ssrcs: tuple[int, ...]


class Nack(Struct, frozen=True, kw_only=True, gc=False):
    """These packets of `media` are missing (RFC 4585, section 6.2.1); ascending, modulo 2^16."""

    sender: int
    media: int
    sequences: tuple[int, ...]


class PictureLoss(Struct, frozen=True, kw_only=True, gc=False):
    """A picture of `media` is lost: a key frame is wanted (PLI, RFC 4585, section 6.3.1)."""

    sender: int
    media: int


class FullIntraRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A key frame of each of these is wanted (FIR, RFC 5104, section 4.3.1)."""

    sender: int
    media: tuple[int, ...]


class Remb(Struct, frozen=True, kw_only=True, gc=False):
    """The sum of these shall be at most `bitrate` bits a second; it is written rounded down to 18 bits."""

    sender: int
    bitrate: int
    media: tuple[int, ...]


Rtcp = SenderReport | ReceiverReport | SourceDescription | Bye | Nack | PictureLoss | FullIntraRequest | Remb


def decode(data: bytes) -> list[Rtcp]:
    """Return the packets of a datagram that are known here. Raises RtpError for what is no RTCP."""
    packets: list[Rtcp] = []
    position = 0
    while position < len(data):
        if len(data) - position < _HEADER.size:
            raise RtpError("an RTCP packet is cut off in its header")
        first, type_, words = _HEADER.unpack_from(data, position)
        end = position + 4 + 4 * words
        if first >> 6 != _VERSION:
            raise RtpError(f"RTCP version {first >> 6}")
        if end > len(data):
            raise RtpError("an RTCP packet is cut off")
        body = data[position + 4 : end]
        if first & 0x20:
            if not body or not 0 < body[-1] <= len(body):
                raise RtpError("padding of RTCP is longer than the packet")
            body = body[: -body[-1]]
        try:
            known = _decode_one(type_, first & 0x1F, body)
        except struct.error:
            raise RtpError(f"an RTCP packet of type {type_} is too short") from None
        packets += known
        position = end
    return packets


def _decode_one(type_: int, count: int, body: bytes) -> list[Rtcp]:
    if type_ == _SR:
        ssrc, ntp, timestamp, packets, octets = _SENDER.unpack_from(body)
        blocks = _blocks(body, _SENDER.size, count)
        return [
            SenderReport(
                ssrc=ssrc, ntp=ntp, timestamp=timestamp, packets=packets, octets=octets, blocks=blocks
            )
        ]
    if type_ == _RR:
        return [ReceiverReport(ssrc=_word(body, 0), blocks=_blocks(body, 4, count))]
    if type_ == _BYE:
        return [Bye(ssrcs=tuple(_word(body, 4 * number) for number in range(count)))]
    if type_ == _SDES:
        return list(_descriptions(body, count))
    return _feedback(type_, count, body) if type_ in {_RTPFB, _PSFB} else []


def _feedback(type_: int, format_: int, body: bytes) -> list[Rtcp]:
    sender, media = _PAIR.unpack_from(body)
    if type_ == _RTPFB:
        known = format_ == _GENERIC_NACK
        return [Nack(sender=sender, media=media, sequences=_missing(body))] if known else []
    if format_ == _PLI:
        return [PictureLoss(sender=sender, media=media)]
    if format_ == _FIR:
        entries = range(8, len(body) - 7, 8)
        return [FullIntraRequest(sender=sender, media=tuple(_word(body, place) for place in entries))]
    if format_ == _APPLICATION_LAYER and body[8:12] == _REMB:
        word = _word(body, 12)
        bitrate = (word & ((1 << _MANTISSA_BITS) - 1)) << (word >> _MANTISSA_BITS & 0x3F)
        count = word >> 24
        return [
            Remb(
                sender=sender,
                bitrate=bitrate,
                media=tuple(_word(body, 16 + 4 * number) for number in range(count)),
            )
        ]
    return []


def _blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for number in range(count):
        ssrc, lost, highest, jitter, last, since = _BLOCK.unpack_from(body, start + number * _BLOCK.size)
        total = lost & 0xFFFFFF
        blocks.append(
            ReportBlock(
                ssrc=ssrc,
                fraction_lost=lost >> 24,
                lost=total - (1 << 24) if total & 0x800000 else total,
                highest=highest,
                jitter=jitter,
                last_report=last,
                since_last_report=since,
            )
        )
    return tuple(blocks)


def _descriptions(body: bytes, count: int) -> list[SourceDescription]:
    found = []
    position = 0
    for _ in range(count):
        ssrc = _word(body, position)
        position += 4
        while position < len(body) and body[position] != 0:
            if position + 2 > len(body) or position + 2 + body[position + 1] > len(body):
                raise RtpError("an item of a source description is cut off")
            kind, length = body[position], body[position + 1]
            if kind == _CNAME:
                text = body[position + 2 : position + 2 + length].decode(errors="surrogateescape")
                found.append(SourceDescription(ssrc=ssrc, cname=text))
            position += 2 + length
        position += 4 - position % 4  # the list ends with at least one zero, up to the next word
    return found


def _missing(body: bytes) -> tuple[int, ...]:
    sequences = []
    for place in range(8, len(body) - 3, 4):
        first, more = _NACK.unpack_from(body, place)
        sequences.append(first)
        sequences += [(first + 1 + bit) & 0xFFFF for bit in range(_NACK_BITS) if more >> bit & 1]
    return tuple(sequences)


def _word(body: bytes, place: int) -> int:
    word: int = struct.unpack_from("!I", body, place)[0]
    return word


# --- writing ----------------------------------------------------------------------------------------


def encode(packets: list[Rtcp]) -> bytes:
    """Return the packets as one compound datagram."""
    return b"".join(_encode_one(packet) for packet in packets)


def _encode_one(packet: Rtcp) -> bytes:
    match packet:
        case SenderReport(blocks=blocks):
            head = _SENDER.pack(packet.ssrc, packet.ntp, packet.timestamp, packet.packets, packet.octets)
            type_, count, body = _SR, len(blocks[:_MAX_BLOCKS]), head + _write_blocks(blocks)
        case ReceiverReport(ssrc=ssrc, blocks=blocks):
            type_, count, body = _RR, len(blocks[:_MAX_BLOCKS]), _words(ssrc) + _write_blocks(blocks)
        case SourceDescription(ssrc=ssrc, cname=cname):
            text = cname.encode(errors="surrogateescape")[:255]
            item = bytes((_CNAME, len(text))) + text
            type_, count, body = _SDES, 1, _words(ssrc) + item + bytes(4 - len(item) % 4)
        case Bye(ssrcs=ssrcs):
            type_, count, body = _BYE, len(ssrcs), _words(*ssrcs)
        case Nack(sender=sender, media=media, sequences=sequences):
            type_, count, body = _RTPFB, _GENERIC_NACK, _words(sender, media) + _write_missing(sequences)
        case PictureLoss(sender=sender, media=media):
            type_, count, body = _PSFB, _PLI, _words(sender, media)
        case FullIntraRequest(sender=sender, media=many):
            entries = b"".join(_words(ssrc, 0) for ssrc in many)
            type_, count, body = _PSFB, _FIR, _words(sender, 0) + entries
        case Remb(sender=sender, bitrate=bitrate, media=many):
            exponent = max(0, bitrate.bit_length() - _MANTISSA_BITS)
            rate = len(many) << 24 | exponent << _MANTISSA_BITS | bitrate >> exponent
            type_, count = _PSFB, _APPLICATION_LAYER
            body = _words(sender, 0) + _REMB + _words(rate, *many)
        case _:
            assert_never(packet)
    return _packet(type_, count, body)


def _words(*words: int) -> bytes:
    return struct.pack(f"!{len(words)}I", *words)


def _packet(type_: int, count: int, body: bytes) -> bytes:
    return _HEADER.pack(_VERSION << 6 | count, type_, len(body) // 4) + body


def _write_blocks(blocks: tuple[ReportBlock, ...]) -> bytes:
    return b"".join(
        _BLOCK.pack(
            block.ssrc,
            block.fraction_lost << 24 | block.lost & 0xFFFFFF,
            block.highest,
            block.jitter,
            block.last_report,
            block.since_last_report,
        )
        for block in blocks[:_MAX_BLOCKS]
    )


def _write_missing(sequences: tuple[int, ...]) -> bytes:
    pairs: list[tuple[int, int]] = []
    for sequence in sequences:
        behind = (sequence - pairs[-1][0]) & 0xFFFF if pairs else 0
        if pairs and 0 < behind <= _NACK_BITS:
            first, more = pairs[-1]
            pairs[-1] = (first, more | 1 << (behind - 1))
        else:
            pairs.append((sequence, 0))
    return b"".join(_NACK.pack(*pair) for pair in pairs)
