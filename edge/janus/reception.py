"""What a Janus server sends of one of its publishers: RTP that comes to ports of its own, and becomes frames.

An asyncio shell over edge.rtp. It must not know who takes the frames, nor how the server was asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from edge.janus.layers import LAYERS, LayerChoice
from edge.rtp.endpoint import PortsTakenError, RtpEndpoint
from edge.rtp.ingress import RtpIngress
from edge.rtp.track import RtpTrack

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.wire.frame import MediaFrame
    from edge.janus.plan import Track
    from edge.rtp.endpoint import Address
    from edge.rtp.packet import RtpPacket
    from edge.rtp.rtcp import Rtcp
    from edge.rtp.settings import RtpSettings

__all__ = ["Reception", "open_endpoint", "ssrc_of"]

_BASE_SSRC: Final = 1000
_SSRC_STEP: Final = 10


def ssrc_of(mindex: int, layer: int = 0) -> int:
    """Return how servers mark a track's packets for each other (Janus 1.1, remote publishers)."""
    return _BASE_SSRC + _SSRC_STEP * mindex + layer


async def open_endpoint(
    host: str, ports: tuple[int, int], *, peer: str | None, settings: RtpSettings
) -> RtpEndpoint:
    """Return an endpoint at a free pair of `ports`, first and last; (0, 0): any. Raises PortsTakenError."""
    first, last = ports
    if first == 0:
        return await RtpEndpoint.open(host, peer=peer, settings=settings)
    for port in range(first, last, 2):
        try:
            return await RtpEndpoint.open(host, port, peer=peer, settings=settings)
        except PortsTakenError:
            continue
    raise PortsTakenError(f"no two UDP ports are free at {host} from {first} to {last}")


class Reception:
    """The tracks of one publisher. `await Reception.open(…)`, later `close()`."""

    def __init__(self, endpoint: RtpEndpoint) -> None:
        self.endpoint = endpoint
        self._tracks: list[_Received] = []

    @classmethod
    async def open(
        cls,
        tracks: tuple[Track, ...],
        *,
        host: str,
        ports: tuple[int, int],
        peer: str | None,
        settings: RtpSettings,
        on_frame: Callable[[Track, MediaFrame], None],
    ) -> Self:
        """Listen at `host` for what `peer`, an IP address, sends. Raises PortsTakenError."""
        reception = cls(await open_endpoint(host, ports, peer=peer, settings=settings))
        reception._tracks = [_Received(reception.endpoint, track, on_frame) for track in tracks]
        return reception

    def request_key_frames(self) -> None:
        """Ask for key frames of the pictures."""
        for track in self._tracks:
            track.request_key_frame()

    def close(self) -> None:
        """Take no more."""
        self.endpoint.close()


class _Received:
    """One track, with all of its layers."""

    def __init__(
        self, endpoint: RtpEndpoint, track: Track, on_frame: Callable[[Track, MediaFrame], None]
    ) -> None:
        self._track = track
        self._on_frame = on_frame
        self._choice = LayerChoice()
        self._layers = [
            _Layer(endpoint, track, layer, self._take) for layer in range(LAYERS if track.simulcast else 1)
        ]

    def request_key_frame(self) -> None:
        for layer in self._layers:
            layer.request_key_frame()

    def _take(self, layer: int, frame: MediaFrame) -> None:
        now = asyncio.get_running_loop().time()
        if self._choice.take(now, layer, key_frame=frame.key_frame):
            self._on_frame(self._track, frame)
        if self._choice.wanted is not None:
            self._layers[self._choice.wanted].request_key_frame()


class _Layer:
    """A tenant of the endpoint that waits for the first packet: only that says which payload type it has."""

    def __init__(
        self,
        endpoint: RtpEndpoint,
        track: Track,
        layer: int,
        take: Callable[[int, MediaFrame], None],
    ) -> None:
        self._endpoint = endpoint
        self._codec = track.codec
        self._ssrc = ssrc_of(track.mindex, layer)
        self._layer = layer
        self._take = take
        self._ingress: RtpIngress | None = None
        endpoint.add(self)

    def request_key_frame(self) -> None:
        if self._ingress is not None:  # otherwise it begins with a request
            self._ingress.request_key_frame()

    def accepts(self, now: float, packet: RtpPacket) -> bool:
        del now
        return packet.ssrc == self._ssrc

    def receive(self, now: float, packet: RtpPacket, sender: Address) -> None:
        if self._ingress is None or self._ingress.track.payload_type != packet.payload_type:
            if self._ingress is not None:
                self._ingress.close()
            track = RtpTrack(codec=self._codec, payload_type=packet.payload_type, ssrc=self._ssrc)
            self._ingress = RtpIngress(
                self._endpoint, track, on_frame=lambda frame: self._take(self._layer, frame)
            )
        self._ingress.receive(now, packet, sender)

    def hear(self, now: float, packets: list[Rtcp]) -> None:
        """Leave it to the ingress, which is a tenant itself."""

    def close(self) -> None:
        self._endpoint.remove(self)
