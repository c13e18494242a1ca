"""RTP, RTCP and SDP, fuzzed: what a peer sends to a port, and what a description may say.

Inputs of `rtp_tracks` are records behind a first byte, which names the codec: a byte with the time that
passes before, in units of 10 ms; two bytes of length; the datagram.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edge.rtp import packet as rtp
from edge.rtp import rtcp, sdp
from edge.rtp.errors import RtpError
from edge.rtp.incoming import Incoming
from edge.rtp.outgoing import Outgoing
from edge.rtp.rtcp import Nack, Rtcp
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec, RtpTrack
from tests.fuzz.media_targets import media_records

if TYPE_CHECKING:
    from bridges.wire.frame import MediaFrame

__all__ = ["CODECS", "rtp_control", "rtp_description", "rtp_tracks"]

CODECS: Final = tuple(Codec)
_FRAME_BYTES: Final = 4096
_SETTINGS: Final = RtpSettings(max_frame_bytes=_FRAME_BYTES, max_waiting_packets=16, max_packet_bytes=300)
_STABLE: Final = frozenset({Codec.VP8, Codec.AV1, Codec.OPUS})


def rtp_control(data: bytes) -> None:
    """Any bytes are RTCP or refused; what was understood is the same when it was written again."""
    with suppress(RtpError):
        packets = rtcp.decode(data)
        assert [*map(_shown, rtcp.decode(rtcp.encode(packets)))] == [*map(_shown, packets)]


def _shown(packet: Rtcp) -> object:
    """Return what counts: the order of missing packets does not."""
    return (packet.sender, packet.media, set(packet.sequences)) if isinstance(packet, Nack) else packet


def rtp_description(data: bytes) -> None:
    """Any text describes tracks or is refused; what was understood is the same when it was written again."""
    with suppress(RtpError):
        tracks = sdp.read(data.decode(errors="replace"))
        again = sdp.read(sdp.write(tracks, host="192.0.2.1"))
        assert [(one.track.codec, one.track.payload_type, one.port, one.mux) for one in again] == [
            (one.track.codec, one.track.payload_type, one.port, one.mux) for one in tracks
        ]


def rtp_tracks(data: bytes) -> None:
    """Any datagrams give whole frames of bounded size, pictures from a key frame on, or are passed over.

    What waits is bounded, what is told to the sender is RTCP, and every frame can be sent on: key frames and
    sound come out as they went in.
    """
    if not data:
        return
    track = RtpTrack(codec=CODECS[data[0] % len(CODECS)], payload_type=96)
    receiver, now = Incoming(track, ssrc=1, settings=_SETTINGS), 1.0
    frames: list[MediaFrame] = []
    for pause, datagram in media_records(data[1:]):
        now += pause
        due = receiver.due()
        if due is not None and due <= now:
            late, told = receiver.tick(now)
            frames += late
            assert rtcp.decode(rtcp.encode(told)) == told
        with suppress(RtpError):
            if rtp.is_rtcp(datagram):
                for report in rtcp.decode(datagram):
                    receiver.hear(now, report)
                continue
            packet = rtp.decode(datagram)
            if receiver.accepts(now, packet):
                frames += receiver.receive(now, packet)
    if frames:
        assert frames[0].key_frame
    for frame in frames:
        # AV1's units get their sizes, H264's pictures their parameter sets.
        assert len(frame.payload) <= 4 * _FRAME_BYTES
        _send_on(track, frame)


def _send_on(track: RtpTrack, frame: MediaFrame) -> None:
    sender = Outgoing(track, ssrc=2, cname="c", settings=_SETTINGS)
    receiver = Incoming(track, ssrc=3, settings=_SETTINGS)
    again: list[MediaFrame] = []
    for datagram in sender.send(1.0, frame):
        assert len(datagram) <= _SETTINGS.max_packet_bytes
        packet = rtp.decode(datagram)
        assert receiver.accepts(1.0, packet)
        again += receiver.receive(1.0, packet)
    if track.codec in _STABLE and frame.key_frame and sender.packets and not sender.malformed:
        assert [one.payload for one in again] == [frame.payload]
