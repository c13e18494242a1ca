"""One track from a sender to a receiver over a bad path, in virtual time: the two cores and nothing else."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from edge.rtp import packet as rtp
from edge.rtp import rtcp
from edge.rtp.incoming import Incoming
from edge.rtp.outgoing import Outgoing
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec, RtpTrack

if TYPE_CHECKING:
    from collections.abc import Callable

VP8 = RtpTrack(codec=Codec.VP8, payload_type=96)
OPUS = RtpTrack(codec=Codec.OPUS, payload_type=111)
_HEAD = b"\x9d\x01\x2a" + (640).to_bytes(2, "little") + (360).to_bytes(2, "little")


def picture(number: int, *, key: bool = False, size: int = 3000, timestamp: int | None = None) -> MediaFrame:
    """Return what looks like VP8; its number is in it."""
    body = number.to_bytes(4, "big") * (size // 4)
    payload = b"\x10\0\0" + _HEAD + body if key else b"\x11\0\0" + body
    info = VideoInfo(width=640, height=360, key_frame=key)
    stamp = number * 3000 if timestamp is None else timestamp
    return MediaFrame.build(FrameFormat.VP8, timestamp=stamp, info=info, payload=payload)


def number_of(frame: MediaFrame) -> int:
    return int.from_bytes(frame.payload[-4:], "big")


def sound(number: int, *, as_packet: bool = False) -> MediaFrame:
    payload = b"\xfc" + number.to_bytes(4, "big")
    if as_packet:
        inner = rtp.RtpPacket(payload_type=9, sequence=1, timestamp=5, ssrc=6, payload=payload)
        payload = rtp.encode(inner)
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2, is_rtp_packet=as_packet)
    return MediaFrame.build(FrameFormat.OPUS, timestamp=number * 960, info=info, payload=payload)


class Path:
    """`lose(data)` says whether a datagram is lost, `delay()` how long it takes; `run` lets time pass."""

    def __init__(
        self,
        track: RtpTrack = VP8,
        *,
        lose: Callable[[bytes], bool] = lambda _data: False,
        delay: Callable[[], float] = lambda: 0.02,
        **settings: Any,
    ) -> None:
        limits = RtpSettings(**settings)
        self.now = 100.0
        self.sender = Outgoing(
            track, ssrc=7, cname="c", settings=limits, sequence=65_500, timestamp=2**32 - 9
        )
        self.receiver = Incoming(track, ssrc=8, settings=limits)
        self.frames: list[MediaFrame] = []
        self.told: list[rtcp.Rtcp] = []
        """RTCP that the receiver has sent."""
        self.wishes = 0
        """Key frames that the sender was asked for."""
        self._lose = lose
        self._delay = delay
        self._order = itertools.count()
        self._flying: list[tuple[float, int, bool, bytes]] = []

    def send(self, frame: MediaFrame) -> None:
        for data in self.sender.send(self.now, frame):
            self._launch(data, to_receiver=True)
        if reports := self.sender.report(self.now, 1_700_000_000 + self.now):
            self._launch(rtcp.encode(reports), to_receiver=True)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = self.receiver.due()
            flying = self._flying[0][0] if self._flying else float("inf")
            at = min(flying, float("inf") if due is None else due)
            if at > end:
                break
            self.now = max(self.now, at)
            if flying <= self.now:
                _, _, to_receiver, data = heapq.heappop(self._flying)
                self._land(data, to_receiver=to_receiver)
            else:
                self._tick()
        self.now = end

    def story(self, count: int, *, key_every: int = 1000) -> None:
        """Send pictures at 30 a second; a wish is fulfilled by the next picture."""
        wishes = 0
        for number in range(count):
            key = number % key_every == 0 or self.wishes > wishes
            wishes = self.wishes
            self.send(picture(number, key=key))
            self.run(1 / 30)
        self.run(2.0)

    def _tick(self) -> None:
        frames, packets = self.receiver.tick(self.now)
        self.frames += frames
        self.told += packets
        if packets:
            self._launch(rtcp.encode(packets), to_receiver=False)

    def _launch(self, data: bytes, *, to_receiver: bool) -> None:
        if not self._lose(data):
            entry = (self.now + self._delay(), next(self._order), to_receiver, data)
            heapq.heappush(self._flying, entry)

    def _land(self, data: bytes, *, to_receiver: bool) -> None:
        if rtp.is_rtcp(data):
            for report in rtcp.decode(data):
                if to_receiver:
                    self.receiver.hear(self.now, report)
                else:
                    again, wish = self.sender.hear(self.now, report)
                    self.wishes += wish
                    for each in again:
                        self._launch(each, to_receiver=True)
            return
        packet = rtp.decode(data)
        assert self.receiver.accepts(self.now, packet)
        self.frames += self.receiver.receive(self.now, packet)
