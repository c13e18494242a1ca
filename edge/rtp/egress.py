"""A track that leaves: frames, as clusters have them inside, become RTP towards an address.

An asyncio shell over edge.rtp.outgoing; it must not know where the frames come from. Every call belongs on
the loop's thread.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

from edge.rtp.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.wire.frame import MediaFrame
    from edge.rtp.endpoint import Address, RtpEndpoint
    from edge.rtp.packet import RtpPacket
    from edge.rtp.rtcp import Rtcp
    from edge.rtp.track import RtpTrack

__all__ = ["RtpEgress"]


class RtpEgress:
    """Sends `track` from `endpoint` to `destination` until `close`.

    `rtcp_destination` is the port after `destination`'s unless told otherwise, or the same with one port for
    both. Tracks that are played together have the same `cname`. `on_key_frame_wanted` is called when the
    receiver wants a key frame, at most once in `key_frame_interval`. What the receiver misses is sent again
    from here.
    """

    def __init__(
        self,
        endpoint: RtpEndpoint,
        track: RtpTrack,
        *,
        destination: Address,
        rtcp_destination: Address | None = None,
        cname: str,
        on_key_frame_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        self.track = track
        self.closed = False
        self._endpoint = endpoint
        self._destination = destination
        after = destination if endpoint.mux else (destination[0], destination[1] + 1)
        self._rtcp_destination = rtcp_destination or after
        self._on_key_frame_wanted = on_key_frame_wanted
        self._core = Outgoing(
            track,
            ssrc=track.ssrc if track.ssrc is not None else secrets.randbits(32),
            cname=cname,
            settings=endpoint.settings,
            sequence=secrets.randbits(16),
            timestamp=secrets.randbits(32),
        )
        self._timer: asyncio.TimerHandle | None = None
        endpoint.add(self)

    @property
    def ssrc(self) -> int:
        """By which the receiver knows the track."""
        return self._core.ssrc

    @property
    def packets(self) -> int:
        """Packets sent, without repeats."""
        return self._core.packets

    @property
    def repeated(self) -> int:
        """Packets sent again."""
        return self._core.repeated

    @property
    def malformed(self) -> int:
        """Frames that could not be sent: not of the track's codec, or broken."""
        return self._core.malformed

    def write(self, frame: MediaFrame) -> None:
        """Send a frame. Never blocks; nothing after `close`, and no picture before the first key frame."""
        if self.closed:
            return
        for data in self._core.send(asyncio.get_running_loop().time(), frame):
            self._endpoint.send_rtp(data, self._destination)
        if self._timer is None:
            self._report()

    def restart(self) -> None:
        """Say that the next frame is another source's: the receiver sees one that goes on."""
        self._core.restart()

    def close(self) -> None:
        """Say goodbye to the receiver and send no more; nothing is called back any more."""
        if self.closed:
            return
        self.closed = True
        self._endpoint.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._core.packets:
            self._endpoint.send_rtcp(self._core.goodbye(), self._rtcp_destination)

    # What an endpoint tells its tenants.

    def accepts(self, now: float, packet: RtpPacket) -> bool:
        """Take no packets: this one sends."""
        del now, packet
        return False

    def receive(self, now: float, packet: RtpPacket, sender: Address) -> None:
        """Take no packets."""

    def hear(self, now: float, packets: list[Rtcp]) -> None:
        """Take RTCP."""
        for packet in packets:
            again, key_frame_wanted = self._core.hear(now, packet)
            for data in again:
                self._endpoint.send_rtp(data, self._destination)
            if key_frame_wanted and not self.closed:
                self._on_key_frame_wanted()

    # Time.

    def _report(self) -> None:
        loop = asyncio.get_running_loop()
        if packets := self._core.report(loop.time(), time.time()):
            self._endpoint.send_rtcp(packets, self._rtcp_destination)
        self._timer = loop.call_later(self._endpoint.settings.report_interval, self._report)
