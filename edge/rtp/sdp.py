"""Tracks as SDP (RFC 8866): written for who receives them, read from who sends them. Pure.

What is written, ffmpeg and GStreamer take as it is. What is read is passed over where it says nothing about
RTP of a known codec.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from edge.rtp.errors import RtpError
from edge.rtp.track import Codec, RtpTrack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_SDP_BYTES", "SdpTrack", "read", "write"]

MAX_SDP_BYTES: Final = 64 * 1024
_MAX_PARAMETER_SETS: Final = 16
_MAX_DIGITS: Final = 5
_PORTS: Final = range(1, 65_536)
_PAYLOAD_TYPES: Final = range(128)
_CODECS: Final = {codec.encoding_name.upper(): codec for codec in Codec}


class SdpTrack(Struct, frozen=True, kw_only=True):
    """A track, and the port that it comes or goes to."""

    track: RtpTrack
    port: int
    mux: bool = False
    """Whether RTCP has the same port; otherwise the next one."""


def write(tracks: Iterable[SdpTrack], *, host: str, name: str = "Causeway") -> str:
    """Return the description of tracks that are sent to `host`, an IP address."""
    family = "IP6" if ":" in host else "IP4"
    lines = [
        "v=0",
        f"o=- 0 0 IN {family} {host}",
        f"s={' '.join(name.split()) or '-'}",
        f"c=IN {family} {host}",
        "t=0 0",
    ]
    for one in tracks:
        codec, number = one.track.codec, one.track.payload_type
        kind = "video" if codec.is_video else "audio"
        channels = "" if codec.is_video else "/2"
        lines += [
            f"m={kind} {one.port} RTP/AVPF {number}",
            f"a=rtpmap:{number} {codec.encoding_name}/{codec.clock_rate}{channels}",
        ]
        if codec is Codec.H264:
            lines.append(f"a=fmtp:{number} packetization-mode=1")
        if one.mux:
            lines.append("a=rtcp-mux")
        if one.track.ssrc is not None:
            lines.append(f"a=ssrc:{one.track.ssrc} cname:causeway")
        feedback = ("nack", "nack pli", "ccm fir") if codec.is_video else ("nack",)
        lines += [f"a=rtcp-fb:{number} {kind}" for kind in feedback]
        lines.append("a=recvonly")
    return "\r\n".join(lines) + "\r\n"


class _Section(NamedTuple):
    """One m= line, with the attributes below it."""

    port: int
    payload_types: list[int]
    attributes: list[tuple[str, str]]


def read(text: str) -> list[SdpTrack]:
    """Return the tracks that are described: of each m= line the first format of a known codec.

    Raises RtpError for what is no SDP, or has no such track.
    """
    if len(text) > MAX_SDP_BYTES:
        raise RtpError(f"a description of more than {MAX_SDP_BYTES} characters")
    tracks = [track for section in _sections(text) if (track := _track(section)) is not None]
    if not tracks:
        raise RtpError(f"no track of {', '.join(codec.encoding_name for codec in Codec)} is described")
    return tracks


def _sections(text: str) -> Iterator[_Section]:
    section: _Section | None = None
    for line in text.splitlines():
        kind, equals, value = line.strip().partition("=")
        if not equals:
            continue
        if kind == "m":
            if section is not None:
                yield section
            section = _media(value)
        elif kind == "a" and section is not None:
            name, _, argument = value.partition(":")
            section.attributes.append((name.strip(), argument.strip()))
    if section is not None:
        yield section


def _media(value: str) -> _Section | None:
    """Return the section that an m= line begins; None for what is not RTP over UDP."""
    match value.split():
        case [("audio" | "video"), port, protocol, *formats] if protocol.startswith("RTP/AVP"):
            number = _number(port.partition("/")[0], _PORTS)
            types = [type_ for each in formats if (type_ := _number(each, _PAYLOAD_TYPES)) is not None]
            return None if number is None else _Section(number, types, [])
        case _:
            return None


def _track(section: _Section) -> SdpTrack | None:
    names = dict(_of_formats(section, "rtpmap"))
    parameters = dict(_of_formats(section, "fmtp"))
    for type_ in section.payload_types:
        codec = _CODECS.get(names.get(type_, "").partition("/")[0].upper())
        if codec is not None:
            track = RtpTrack(
                codec=codec, payload_type=type_, parameters=_parameter_sets(parameters.get(type_, ""))
            )
            return SdpTrack(
                track=track,
                port=section.port,
                mux=any(name == "rtcp-mux" for name, _ in section.attributes),
            )
    return None


def _of_formats(section: _Section, wanted: str) -> Iterator[tuple[int, str]]:
    """Yield what an attribute says, by payload type."""
    for name, argument in section.attributes:
        if name == wanted:
            type_, _, value = argument.partition(" ")
            if (number := _number(type_, _PAYLOAD_TYPES)) is not None:
                yield number, value.strip()


def _parameter_sets(parameters: str) -> tuple[bytes, ...]:
    """Return the units of `sprop-parameter-sets` (RFC 6184, section 8.1)."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "sprop-parameter-sets":
            try:
                units = [base64.b64decode(each, validate=True) for each in value.split(",")]
            except ValueError as error:  # binascii.Error is one, and so is text that is not ASCII
                raise RtpError(f"sprop-parameter-sets: {error}") from None
            return tuple(unit for unit in units[:_MAX_PARAMETER_SETS] if unit)
    return ()


def _number(text: str, allowed: range) -> int | None:
    digits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if digits and int(text) in allowed else None
