"""One track to RTP: frames in, packets and reports out. Pure: time is an argument, in seconds.

A receiver sees one source for as long as the track lives: its sequence numbers go on, and so do its
timestamps when those of the frames jump because somebody else sends now. What a receiver misses is sent again
from a bounded history; that it wants a key frame is told to whoever asks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridges.internal.gate import Throttle
from edge.rtp import packet as rtp
from edge.rtp.budget import Budget
from edge.rtp.clock import ArrivalClock
from edge.rtp.errors import RtpError
from edge.rtp.formats import packetizer
from edge.rtp.packet import RtpPacket
from edge.rtp.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLoss,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
)

if TYPE_CHECKING:
    from bridges.wire.frame import MediaFrame
    from edge.rtp.rtcp import Rtcp
    from edge.rtp.settings import RtpSettings
    from edge.rtp.track import RtpTrack

__all__ = ["Outgoing"]

_REPEAT_INTERVAL: Final = 0.02  # seconds in which a packet is sent again once at most
_JUMP: Final = 2.0  # seconds by which timestamps may go faster or slower than time before it is a jump
_NTP_EPOCH: Final = 2_208_988_800  # seconds from 1900, the epoch of NTP, to 1970
_WRAP: Final = 1 << 32


@dataclass(slots=True)
class _Sent:
    data: bytes
    at: float
    repeated: float


class Outgoing:
    """One track. `cname` is the same for all tracks that are played together."""

    def __init__(
        self,
        track: RtpTrack,
        *,
        ssrc: int,
        cname: str,
        settings: RtpSettings,
        sequence: int = 0,
        timestamp: int = 0,
    ) -> None:
        """`sequence` and `timestamp` are those of the first packet: random ones, says RFC 3550."""
        self._track = track
        self._clock_rate = track.codec.clock_rate
        self._packets = packetizer(track)
        self._cname = cname
        self._settings = settings
        self._sequence = sequence & 0xFFFF
        self._first = timestamp
        self._last: tuple[int, int, float] | None = None  # the last frame's timestamp, ours for it, when
        self._history: OrderedDict[int, _Sent] = OrderedDict()
        self._repeats = Budget(settings.max_repeats_per_second)
        self._wishes = Throttle(settings.key_frame_interval)
        self._reports = Throttle(settings.report_interval)
        self._clock = ArrivalClock(self._clock_rate)
        self._started = not track.codec.is_video
        self._octets = 0
        self.ssrc = ssrc
        self.packets = 0
        """Packets sent, without repeats."""
        self.repeated = 0
        """Packets sent again."""
        self.malformed = 0
        """Frames that were not of the format, and not sent."""
        self.heard: ReportBlock | None = None
        """What the receiver said last."""

    def send(self, now: float, frame: MediaFrame) -> list[bytes]:
        """Return the packets of a frame; none before the first key frame, or of another codec's frame."""
        if frame.format != self._track.codec.frame_format:
            self.malformed += 1
            return []
        if not (self._started or frame.key_frame):
            return []
        try:
            payload = frame.payload
            if not frame.is_video and frame.audio.is_rtp_packet:
                payload = rtp.decode(payload).payload
            room = self._settings.max_packet_bytes - rtp.HEADER_BYTES
            payloads = self._packets.split(payload, key_frame=frame.key_frame, max_bytes=room)
        except RtpError:
            self.malformed += 1
            return []
        if not payloads:
            return []
        self._started = True
        timestamp = self._timestamp(now, frame.timestamp)
        last = len(payloads) - 1
        return [
            self._packet(now, timestamp, part, marker=frame.is_video and number == last)
            for number, part in enumerate(payloads)
        ]

    def restart(self) -> None:
        """Take note that another source follows: its timestamps go on from the time that has passed."""
        self._clock = ArrivalClock(self._clock_rate)
        if self._last is not None:
            self._last = (-1, self._last[1], self._last[2])

    def hear(self, now: float, packet: Rtcp) -> tuple[list[bytes], bool]:
        """Take RTCP of a receiver; returns the packets to send again, and whether to ask for a key frame."""
        match packet:
            case Nack(media=self.ssrc, sequences=sequences):
                return self._again(now, sequences), False
            case PictureLoss(media=media) if media in {self.ssrc, 0}:
                return [], self._wish(now)
            case FullIntraRequest(media=media_ssrcs) if self.ssrc in media_ssrcs:
                return [], self._wish(now)
            case ReceiverReport(blocks=blocks) | SenderReport(blocks=blocks):
                for block in blocks:
                    if block.ssrc == self.ssrc:
                        self.heard = block
            case _:
                pass
        return [], False

    def report(self, now: float, wall: float) -> list[Rtcp]:
        """Return a sender report, if one is due and anything was sent; `wall` is Unix time in seconds."""
        if self._last is None or not self._reports.ready(now):
            return []
        seconds, fraction = divmod(wall + _NTP_EPOCH, 1)
        return [
            SenderReport(
                ssrc=self.ssrc,
                ntp=int(seconds) << 32 | int(fraction * _WRAP),
                timestamp=self._clock.at(now) % _WRAP,
                packets=self.packets % _WRAP,
                octets=self._octets % _WRAP,
            ),
            SourceDescription(ssrc=self.ssrc, cname=self._cname),
        ]

    def goodbye(self) -> list[Rtcp]:
        """Return what ends the track."""
        return [ReceiverReport(ssrc=self.ssrc), Bye(ssrcs=(self.ssrc,))]

    def _packet(self, now: float, timestamp: int, payload: bytes, *, marker: bool) -> bytes:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        data = rtp.encode(
            RtpPacket(
                payload_type=self._track.payload_type,
                sequence=sequence,
                timestamp=timestamp % _WRAP,
                ssrc=self.ssrc,
                marker=marker,
                payload=payload,
            )
        )
        self.packets += 1
        self._octets += len(payload)
        self._history[sequence] = _Sent(data, now, now)
        while len(self._history) > self._settings.history_packets:
            self._history.popitem(last=False)
        return data

    def _timestamp(self, now: float, timestamp: int) -> int:
        """Return ours for a frame's: unbounded, and continuous over jumps of the frames' timestamps."""
        ours = self._first
        if self._last is not None:
            before, ours, at = self._last
            step = (timestamp - before + _WRAP // 2) % _WRAP - _WRAP // 2
            passed = (now - at) * self._clock_rate
            if before < 0 or abs(step - passed) > _JUMP * self._clock_rate:
                step = max(1, round(passed))
                self._clock = ArrivalClock(self._clock_rate)
            ours += step
        self._last = (timestamp, ours, now)
        self._clock.note(now, ours)
        return ours

    def _again(self, now: float, sequences: tuple[int, ...]) -> list[bytes]:
        packets = []
        for sequence in sequences:
            sent = self._history.get(sequence)
            if sent is None or now - sent.at > self._settings.history:
                continue
            if now - sent.repeated < _REPEAT_INTERVAL:
                continue
            if not self._repeats.take(now):
                break
            sent.repeated = now
            packets.append(sent.data)
        self.repeated += len(packets)
        return packets

    def _wish(self, now: float) -> bool:
        return self._track.codec.is_video and self._wishes.ready(now)
