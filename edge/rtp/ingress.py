"""A track that enters: RTP at an endpoint becomes frames, as clusters have them inside.

An asyncio shell over edge.rtp.incoming; it must not know who takes the frames. Every call belongs on the
loop's thread.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from edge.rtp.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.wire.frame import MediaFrame
    from edge.rtp.endpoint import Address, RtpEndpoint
    from edge.rtp.packet import RtpPacket
    from edge.rtp.rtcp import Rtcp
    from edge.rtp.track import RtpTrack

__all__ = ["RtpIngress"]


class RtpIngress:
    """Takes `track` from `endpoint` until `close`; `on_frame` gets every frame, in order, whole.

    Pictures begin with a key frame, and after a loss with another one, which is asked for. The track is known
    by its payload type, and by its SSRC if it has one; otherwise it may change its SSRC when it has said
    goodbye or was silent for `source_timeout`. RTCP goes where the sender's RTCP comes from; before any came,
    to the port after its RTP's (with one port for both: to the same).
    """

    def __init__(
        self, endpoint: RtpEndpoint, track: RtpTrack, *, on_frame: Callable[[MediaFrame], None]
    ) -> None:
        self.track = track
        self.closed = False
        self._endpoint = endpoint
        self._on_frame = on_frame
        self._core = Incoming(track, ssrc=secrets.randbits(32), settings=endpoint.settings)
        self._sender: Address | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        endpoint.add(self)

    @property
    def frames(self) -> int:
        """Frames handed on."""
        return self._core.frames

    @property
    def lost_packets(self) -> int:
        """Packets that did not come in time."""
        return self._core.given_up

    @property
    def malformed(self) -> int:
        """Payloads that were not of the format."""
        return self._core.malformed

    def request_key_frame(self) -> None:
        """Ask the sender for a key frame, at most once in `key_frame_interval`; later if it is too early."""
        self._core.want_key_frame()
        self._schedule()

    @property
    def left_out(self) -> int:
        """Pictures left out because less was wanted."""
        return self._core.left_out

    def limit_bitrate(self, bits_per_second: int) -> None:
        """Ask the sender to send no more than this (REMB), for five seconds unless it is said again.

        What its temporal layers allow is left out meanwhile.
        """
        self._core.limit(asyncio.get_running_loop().time(), bits_per_second)

    def close(self) -> None:
        """Take no more; nothing is called back any more."""
        self.closed = True
        self._endpoint.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What an endpoint tells its tenants.

    def accepts(self, now: float, packet: RtpPacket) -> bool:
        """Whether the packet is of this track."""
        return self._core.accepts(now, packet)

    def receive(self, now: float, packet: RtpPacket, sender: Address) -> None:
        """Take a packet."""
        self._sender = sender
        self._hand_on(self._core.receive(now, packet))
        self._schedule()

    def hear(self, now: float, packets: list[Rtcp]) -> None:
        """Take RTCP."""
        for packet in packets:
            self._core.hear(now, packet)

    # Time.

    def _schedule(self) -> None:
        due = self._core.due()
        if self.closed or due is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        frames, packets = self._core.tick(asyncio.get_running_loop().time())
        if packets and (to := self._control_address()) is not None:
            self._endpoint.send_rtcp(packets, to)
        self._hand_on(frames)
        self._schedule()

    def _control_address(self) -> Address | None:
        if self._sender is None:
            return None
        host, port = self._sender
        if self._endpoint.mux:
            return self._sender
        peer = self._endpoint.rtcp_peer
        return peer if peer is not None and peer[0] == host else (host, port + 1)

    def _hand_on(self, frames: list[MediaFrame]) -> None:
        for frame in frames:
            if not self.closed:  # the owner may close it from within on_frame
                self._on_frame(frame)
