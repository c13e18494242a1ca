"""RTP and RTCP packets, and descriptions: what is written is read again, and anything else is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rtp import packet as rtp
from edge.rtp import rtcp, sdp
from edge.rtp.errors import RtpError
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

WORD = st.integers(0, 2**32 - 1)
BLOCKS = st.lists(
    st.builds(
        ReportBlock,
        ssrc=WORD,
        fraction_lost=st.integers(0, 255),
        lost=st.integers(-(2**23), 2**23 - 1),
        highest=WORD,
        jitter=WORD,
        last_report=WORD,
        since_last_report=WORD,
    ),
    max_size=31,
).map(tuple)
SSRCS = st.lists(WORD, max_size=31).map(tuple)
REPORTS = st.one_of(
    st.builds(
        SenderReport,
        ssrc=WORD,
        ntp=st.integers(0, 2**64 - 1),
        timestamp=WORD,
        packets=WORD,
        octets=WORD,
        blocks=BLOCKS,
    ),
    st.builds(ReceiverReport, ssrc=WORD, blocks=BLOCKS),
    st.builds(SourceDescription, ssrc=WORD, cname=st.text(max_size=60)),
    st.builds(Bye, ssrcs=SSRCS),
    st.builds(PictureLoss, sender=WORD, media=WORD),
    st.builds(FullIntraRequest, sender=WORD, media=SSRCS),
    st.builds(Remb, sender=WORD, bitrate=st.integers(0, 2**18 - 1), media=SSRCS),
    st.builds(
        Nack,
        sender=WORD,
        media=WORD,
        sequences=st.sets(st.integers(0, 40_000), max_size=60).map(sorted).map(tuple),
    ),
)


@given(
    st.builds(
        rtp.RtpPacket,
        payload_type=st.integers(0, 127),
        sequence=st.integers(0, 65_535),
        timestamp=WORD,
        ssrc=WORD,
        marker=st.booleans(),
        payload=st.binary(max_size=50),
    )
)
def test_packets_are_read_as_they_were_written(packet: rtp.RtpPacket) -> None:
    assert rtp.decode(rtp.encode(packet)) == packet


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("80e0000100000002000000036162", b"ab"),
        ("a0e00001000000020000000361620002", b"ab"),  # padding
        ("91e0000100000002000000030000000a0badcafe0001deadbeef6162", None),  # the extension is too long
        ("91e0000100000002000000030badcafebede0001deadbeef6162", b"ab"),  # a source, and an extension
        ("a0e000010000000200000003616200ff", None),
        ("a0e00001000000020000000361620000", None),
        ("40e0000100000002000000036162", None),
        ("8fe0000100000002000000036162", None),
        ("80e00001000000020000", None),
        ("", None),
    ],
)
def test_packets_of_others_are_read_or_refused(data: str, payload: bytes | None) -> None:
    if payload is None:
        with pytest.raises(RtpError):
            rtp.decode(bytes.fromhex(data))
        return
    packet = rtp.decode(bytes.fromhex(data))
    assert packet.payload == payload
    assert (packet.payload_type, packet.marker, packet.sequence) == (96, True, 1)


@given(st.lists(REPORTS, min_size=1, max_size=6))
def test_rtcp_is_read_as_it_was_written(packets: list[rtcp.Rtcp]) -> None:
    data = rtcp.encode(packets)
    assert len(data) % 4 == 0
    assert rtp.is_rtcp(data)
    assert rtcp.decode(data) == packets


def test_a_bit_rate_of_more_than_eighteen_bits_is_rounded_down() -> None:
    (read,) = rtcp.decode(rtcp.encode([Remb(sender=1, bitrate=1_234_567, media=(2,))]))
    assert isinstance(read, Remb)
    assert 1_234_567 - 8 < read.bitrate <= 1_234_567


@pytest.mark.parametrize(
    "data",
    [
        "80c9",
        "00c9000100000001",
        "80c9000200000001",
        "81c9000100000001",
        "a0c9000100000009",
        "81c8000100000001",
        "81ca0002000000010140ffff",
        "82cb000100000001",
        "81ce000100000001",
        "8fce000300000001000000005245",
    ],
)
def test_rtcp_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(RtpError):
        rtcp.decode(bytes.fromhex(data))


def test_kinds_of_rtcp_that_are_not_known_are_passed_over() -> None:
    known = rtcp.encode([PictureLoss(sender=1, media=2)])
    assert rtcp.decode(bytes.fromhex("80cc000161626364") + known) == [PictureLoss(sender=1, media=2)]


@given(st.binary(max_size=200))
def test_any_bytes_are_rtp_and_rtcp_or_refused(data: bytes) -> None:
    for decode in (rtp.decode, rtcp.decode):
        with contextlib.suppress(RtpError):
            decode(data)


TRACKS = st.builds(
    SdpTrack,
    track=st.builds(RtpTrack, codec=st.sampled_from(Codec), payload_type=st.integers(96, 127)),
    port=st.integers(1, 65_535),
    mux=st.booleans(),
)


@given(st.lists(TRACKS, min_size=1, max_size=4), st.sampled_from(["192.0.2.7", "2001:db8::7"]), st.text())
def test_descriptions_are_read_as_they_were_written(tracks: list[SdpTrack], host: str, name: str) -> None:
    assert sdp.read(sdp.write(tracks, host=host, name=name)) == tracks


FFMPEG = """\
SDP:
v=0
o=- 0 0 IN IP4 127.0.0.1
s=No Name
t=0 0
a=tool:libavformat 59.27.100
m=video 5004 RTP/AVP 96
c=IN IP4 127.0.0.1
b=AS:800
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LAHtkDxWhAAAADAEA=,aMuMsg==; profile-level-id=42C0
m=audio 5006 RTP/AVP 97
c=IN IP4 127.0.0.1
b=AS:48
a=rtpmap:97 opus/48000/2
m=application 5008 UDP/BFCP *
m=audio 5010 RTP/AVP 0 101 109
a=rtpmap:101 telephone-event/8000
a=rtpmap:109 OPUS/48000/2
a=rtcp-mux
"""


def test_descriptions_of_ffmpeg_and_others_are_read() -> None:
    video, audio, other = sdp.read(FFMPEG)
    assert (video.track.codec, video.track.payload_type, video.port) == (Codec.H264, 96, 5004)
    assert [unit[0] & 0x1F for unit in video.track.parameters] == [7, 8]
    assert (audio.track.codec, audio.port, audio.mux) == (Codec.OPUS, 5006, False)
    assert (other.track.payload_type, other.port, other.mux) == (109, 5010, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m=video 5004 RTP/AVP 96",
        "m=video 99999 RTP/AVP 96\na=rtpmap:96 VP8/90000",
        "m=video 5004 UDP/TLS/RTP/SAVPF 96\na=rtpmap:96 VP8/90000",
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 sprop-parameter-sets=?",
        "a" * 70_000,
    ],
)
def test_descriptions_without_a_track_are_refused(text: str) -> None:
    with pytest.raises(RtpError):
        sdp.read(text)
