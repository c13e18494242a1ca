"""One track from RTP: packets and reports in, frames and RTCP out. Pure: time is an argument, in seconds.

It holds a source (SSRC) until that says goodbye or falls silent and another one comes. What is missing is
asked for (NACK), and so is a key frame (PLI) when pictures cannot be decoded or the cluster wants one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.internal.gate import Throttle
from bridges.wire.frame import AudioInfo, MediaFrame, VideoInfo
from edge.rtp.errors import RtpError
from edge.rtp.formats import depacketizer
from edge.rtp.reorder import GAP, Gap, Reorder
from edge.rtp.rtcp import Bye, Nack, PictureLoss, ReceiverReport, Remb, ReportBlock, SenderReport
from edge.rtp.thinning import Thinner

if TYPE_CHECKING:
    from edge.rtp.formats.port import Encoded
    from edge.rtp.packet import RtpPacket
    from edge.rtp.rtcp import Rtcp
    from edge.rtp.settings import RtpSettings
    from edge.rtp.track import RtpTrack

__all__ = ["Incoming"]

_TICK: Final = 0.005  # seconds at least between two ticks
_PATIENCE: Final = 10.0  # seconds of silence after which a sender is told nothing more
_NTP_FRACTION: Final = 1 << 16


class Incoming:
    """One track; `ssrc` is by which its RTCP is known to the sender."""

    def __init__(self, track: RtpTrack, *, ssrc: int, settings: RtpSettings) -> None:
        self._track = track
        self._ssrc = ssrc
        self._settings = settings
        self._source: _Source | None = None
        self._asked = float("-inf")
        self._wants_key_frame = False
        self._reports = Throttle(settings.report_interval)
        self._ticked = float("-inf")
        self._reported = float("-inf")
        self._thinner = Thinner()
        self.frames = 0
        """Frames handed on."""
        self.malformed = 0
        """Payloads that were not of the format."""
        self.given_up_before = 0
        """Packets that did not come in time, of former sources."""

    @property
    def left_out(self) -> int:
        """Pictures left out because less was wanted."""
        return self._thinner.left_out

    @property
    def ssrc(self) -> int | None:
        """The source that is heard now."""
        return None if self._source is None else self._source.ssrc

    @property
    def given_up(self) -> int:
        """Packets that did not come in time."""
        return self.given_up_before + (0 if self._source is None else self._source.order.given_up)

    def accepts(self, now: float, packet: RtpPacket) -> bool:
        """Whether the packet is of this track."""
        if packet.payload_type != self._track.payload_type:
            return False
        if self._track.ssrc is not None:
            return packet.ssrc == self._track.ssrc
        source = self._source
        return source is None or packet.ssrc == source.ssrc or self._may_follow(now, source)

    def receive(self, now: float, packet: RtpPacket) -> list[MediaFrame]:
        """Take a packet that is accepted; returns the frames that are whole and in order now."""
        if self._source is None or packet.ssrc != self._source.ssrc:
            self.given_up_before = self.given_up
            self._source = _Source(packet.ssrc, self._track, self._settings)
        source = self._source
        source.heard(now, packet, self._track.codec.clock_rate)
        return self._frames(now, source, source.order.push(now, packet))

    def hear(self, now: float, report: Rtcp) -> None:
        """Take RTCP of the sender."""
        source = self._source
        if source is None:
            return
        match report:
            case SenderReport(ssrc=ssrc, ntp=ntp) if ssrc == source.ssrc:
                source.last_report = (ntp >> 16 & 0xFFFFFFFF, now)
            case Bye(ssrcs=ssrcs) if source.ssrc in ssrcs:
                source.gone = True
            case _:
                pass

    def want_key_frame(self) -> None:
        """Have a key frame asked for at the next `tick`, unless one has just been."""
        self._wants_key_frame = self._track.codec.is_video

    def limit(self, now: float, bitrate: int) -> None:
        """Have the sender told, for a while, to send at most `bitrate` bits a second.

        As many do not listen, pictures of upper temporal layers are left out until it does.
        """
        self._thinner.limit(now, bitrate)

    def tick(self, now: float) -> tuple[list[MediaFrame], list[Rtcp]]:
        """Return the frames that waited in vain for others, and what to tell the sender."""
        self._ticked = now
        source = self._source
        if source is None:
            return [], []
        frames = self._frames(now, source, source.order.tick(now))
        packets: list[Rtcp] = []
        if self._reports.ready(now):
            self._reported = now
            packets.append(ReceiverReport(ssrc=self._ssrc, blocks=(source.block(now),)))
            if (bitrate := self._thinner.wanted(now)) is not None:
                packets.append(Remb(sender=self._ssrc, bitrate=bitrate, media=(source.ssrc,)))
        if missing := source.order.missing(now):
            packets.append(Nack(sender=self._ssrc, media=source.ssrc, sequences=missing))
        if self._lacks_key_frame(source) and now - self._asked >= self._settings.key_frame_interval:
            self._wants_key_frame = False
            self._asked = now
            packets.append(PictureLoss(sender=self._ssrc, media=source.ssrc))
        if packets and not isinstance(packets[0], ReceiverReport):
            # A compound packet begins with a report (RFC 3550, section 6.1).
            packets.insert(0, ReceiverReport(ssrc=self._ssrc))
        return frames, packets

    def due(self) -> float | None:
        """Return when to call `tick` next; None: not before a packet comes."""
        source = self._source
        if source is None or source.gone or self._ticked - source.last_packet > _PATIENCE:
            return None
        due = max(self._reported, source.last_packet - self._settings.report_interval)
        due += self._settings.report_interval
        if (missing := source.order.due()) is not None:
            due = min(due, missing)
        if self._lacks_key_frame(source):
            due = min(due, self._asked + self._settings.key_frame_interval)
        return max(due, self._ticked + _TICK)

    def _lacks_key_frame(self, source: _Source) -> bool:
        return self._wants_key_frame or source.pictures.wants_key_frame

    def _may_follow(self, now: float, source: _Source) -> bool:
        return source.gone or now - source.last_packet >= self._settings.source_timeout

    def _frames(self, now: float, source: _Source, ordered: list[RtpPacket | Gap]) -> list[MediaFrame]:
        frames = []
        for one in ordered:
            if one is GAP:
                source.pictures.lose()
                continue
            assert not isinstance(one, Gap)
            try:
                encoded = source.pictures.push(one)
            except RtpError:
                self.malformed += 1
                continue
            if encoded is not None and self._thinner.passes(now, encoded):
                frames.append(self._frame(encoded))
        self.frames += len(frames)
        return frames

    def _frame(self, encoded: Encoded) -> MediaFrame:
        codec = self._track.codec
        if not codec.is_video:
            info: AudioInfo | VideoInfo = AudioInfo(
                samples=encoded.samples, sample_rate=codec.clock_rate, channels=encoded.channels
            )
        else:
            if encoded.key_frame:
                self._wants_key_frame = False
            info = VideoInfo(width=encoded.width, height=encoded.height, key_frame=encoded.key_frame)
        return MediaFrame.build(
            codec.frame_format, timestamp=encoded.timestamp, info=info, payload=encoded.payload
        )


class _Source:
    """What is known of one SSRC."""

    def __init__(self, ssrc: int, track: RtpTrack, settings: RtpSettings) -> None:
        self.ssrc = ssrc
        self.order = Reorder(settings)
        self.pictures = depacketizer(track, max_frame_bytes=settings.max_frame_bytes)
        self.gone = False
        self.last_packet = 0.0
        self.last_report: tuple[int, float] | None = None
        """Middle bits of the NTP time of the sender's last report, and when that came."""
        self._jitter = 0.0
        self._transit: float | None = None
        self._told = (0, 0)  # packets expected and received, at the last report

    def heard(self, now: float, packet: RtpPacket, clock_rate: int) -> None:
        """Take the time of a packet; the jitter is that of RFC 3550, section 6.4.1."""
        self.last_packet = now
        self.gone = False
        transit = now * clock_rate - packet.timestamp
        if self._transit is not None:
            change = abs(transit - self._transit)
            if change < clock_rate:  # more is a jump of the timestamps
                self._jitter += (change - self._jitter) / 16
        self._transit = transit

    def block(self, now: float) -> ReportBlock:
        """Return what to report; the shares are those since the last call."""
        expected = self.order.highest - self.order.first + 1
        received = self.order.received
        new_expected, new_received = expected - self._told[0], received - self._told[1]
        self._told = (expected, received)
        lost = max(0, new_expected - new_received)
        last, since = self.last_report or (0, now)
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=min(255, lost * 256 // new_expected) if new_expected > 0 else 0,
            lost=max(-(1 << 23), min((1 << 23) - 1, expected - received)),
            highest=self.order.highest & 0xFFFFFFFF,
            jitter=int(self._jitter) & 0xFFFFFFFF,
            last_report=last,
            since_last_report=min(int((now - since) * _NTP_FRACTION), 0xFFFFFFFF),
        )
