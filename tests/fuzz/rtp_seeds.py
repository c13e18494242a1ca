"""Where fuzzing of RTP begins: packets of every codec, reports, descriptions of others."""

from __future__ import annotations

from typing import Final

from edge.rtp import rtcp, sdp
from edge.rtp.formats import packetizer
from edge.rtp.packet import RtpPacket, encode
from edge.rtp.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLoss,
    ReceiverReport,
    Remb,
    ReportBlock,
    SenderReport,
    SourceDescription,
)
from edge.rtp.sdp import SdpTrack
from edge.rtp.track import Codec, RtpTrack
from tests.fuzz.rtp_targets import CODECS

__all__ = ["rtp_seeds"]

_SIZE: Final = (64).to_bytes(2, "little") + (48).to_bytes(2, "little")
_FRAMES: Final[dict[Codec, tuple[bytes, bytes]]] = {
    Codec.VP8: (b"\x10\0\0\x9d\x01\x2a" + _SIZE + bytes(300), b"\x11" + bytes(20)),
    Codec.VP9: (b"\x82\x49\x83\x42\x00\x03\xf0\x02\xf8" + bytes(300), b"\x86" + bytes(20)),
    Codec.H264: (
        bytes.fromhex("0000016742c015da11e840000003004000000f23c58ba800000168ce3c8000000165b8")
        + b"\x11" * 400,
        b"\0\0\1\x41\x9a" + b"\x22" * 30,
    ),
    Codec.AV1: (
        b"\x0a\x0b\0\0\0\x02\xaf\xff\x8a\x5f\xf2\x30\x08\x32\xac\x02" + b"\x10" * 300,
        b"\x32\x05\x30abcd",
    ),
    Codec.OPUS: (b"\xfcsound", b"\xff\x03" + bytes(30)),
}
_REPORTS: Final[list[rtcp.Rtcp]] = [
    SenderReport(ssrc=5, ntp=1 << 40, timestamp=9, packets=3, octets=400),
    SourceDescription(ssrc=5, cname="somebody"),
    ReceiverReport(ssrc=6, blocks=(ReportBlock(ssrc=5, fraction_lost=9, lost=-1, highest=70_000, jitter=3),)),
    Nack(sender=6, media=5, sequences=(1, 3, 17, 40)),
    PictureLoss(sender=6, media=5),
    FullIntraRequest(sender=6, media=(5, 7)),
    Remb(sender=6, bitrate=700_000, media=(5,)),
    Bye(ssrcs=(5,)),
]
_DESCRIPTION: Final = """v=0\r
m=video 5004 RTP/AVP 96 97\r
a=rtpmap:97 VP8/90000\r
a=fmtp:97 sprop-parameter-sets=Z0I=,aM4=\r
a=rtcp-mux\r
m=audio 5006/2 RTP/SAVP 0\r
"""


def rtp_seeds() -> dict[str, list[bytes]]:
    """Return the beginnings of every target."""
    tracks = [
        SdpTrack(track=RtpTrack(codec=codec, payload_type=96 + number), port=5000 + number, mux=number == 1)
        for number, codec in enumerate(CODECS)
    ]
    return {
        "rtp_control": [rtcp.encode(_REPORTS), *(rtcp.encode([one]) for one in _REPORTS), b"\x80\xc9"],
        "rtp_description": [
            sdp.write(tracks, host="192.0.2.1").encode(),
            _DESCRIPTION.encode(),
            _DESCRIPTION.replace("Z0I=", "\N{REPLACEMENT CHARACTER}").encode(),
        ],
        "rtp_tracks": [
            bytes((number,)) + story for number, codec in enumerate(CODECS) for story in _stories(codec)
        ],
    }


def _stories(codec: Codec) -> list[bytes]:
    key, delta = _FRAMES[codec]
    takes_apart = packetizer(RtpTrack(codec=codec, payload_type=96))
    datagrams: list[bytes] = []
    for number, frame in enumerate((key, delta, key)):
        parts = takes_apart.split(frame, key_frame=frame is key, max_bytes=200)
        for part in parts:
            packet = RtpPacket(
                payload_type=96,
                sequence=65_535 + len(datagrams) & 0xFFFF,
                timestamp=3000 * number,
                ssrc=5,
                marker=part is parts[-1],
                payload=part,
            )
            datagrams.append(encode(packet))
    lossy = [*datagrams[:2], datagrams[-1], *datagrams[3:-1]]
    return [_recorded([*datagrams, rtcp.encode(_REPORTS)]), _recorded(lossy, pause=40)]


def _recorded(datagrams: list[bytes], *, pause: int = 1) -> bytes:
    return b"".join(bytes((pause,)) + len(one).to_bytes(2, "big") + one for one in datagrams)
