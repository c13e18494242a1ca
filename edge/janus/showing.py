"""A stream of another cluster, shown in a room of the Janus server: fetched from the hub, sent as RTP.

An asyncio shell over edge.guest and edge.rtp. It must not know how the server was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.guest import watch
from edge.janus.messages import Offered
from edge.janus.reception import open_endpoint, ssrc_of
from edge.rtp.egress import RtpEgress
from edge.rtp.rtcp import ReceiverReport
from edge.rtp.track import Codec, RtpTrack

if TYPE_CHECKING:
    import asyncio

    from bridges.wire.frame import MediaFrame
    from bridges.wire.objects import TrackKind
    from edge.guest import Subscription
    from edge.janus.messages import RoomId
    from edge.janus.plan import FarStream
    from edge.rtp.endpoint import Address, RtpEndpoint
    from edge.rtp.settings import RtpSettings
    from lab.cluster import Cluster
    from lab.tasks import Tasks

__all__ = ["PART", "Showing", "offer"]

PART: Final = "janus"
"""As what the connector subscribes."""
_PAYLOAD_TYPES: Final[dict[TrackKind, int]] = {"video": 96, "audio": 111}


def offer(stream: FarStream) -> list[Offered]:
    """Return the tracks as the server is told of them.

    Of sound it says to decoders what may come (RFC 7587, section 6.1): they may ignore both.
    """
    return [
        Offered(
            type=kind,
            mindex=mindex,
            mid=str(mindex),
            codec=codec.value,
            stereo=codec is Codec.OPUS,
            fec=codec is Codec.OPUS,
        )
        for mindex, (kind, codec) in enumerate(stream.tracks)
    ]


class Showing:
    """One stream, as the remote publisher `feed`. `await Showing.open(…)`, later `close()`."""

    def __init__(
        self,
        endpoint: RtpEndpoint,
        *,
        feed: RoomId,
        stream: FarStream,
        destination: Address,
        rtcp_destination: Address,
    ) -> None:
        self.feed = feed
        self._endpoint = endpoint
        self._subscription: Subscription | None = None
        self._running: asyncio.Task[None] | None = None
        self._tracks: dict[TrackKind, RtpEgress] = {
            kind: RtpEgress(
                endpoint,
                RtpTrack(codec=codec, payload_type=_PAYLOAD_TYPES[kind], ssrc=ssrc_of(mindex)),
                destination=destination,
                rtcp_destination=rtcp_destination,
                cname=str(feed),
                on_key_frame_wanted=self._ask_key_frame,
            )
            for mindex, (kind, codec) in enumerate(stream.tracks)
        }
        # The server asks for key frames where RTCP has come from: it must know before anybody watches.
        endpoint.send_rtcp([ReceiverReport(ssrc=ssrc_of(0))], rtcp_destination)

    @classmethod
    async def open(
        cls,
        stream: FarStream,
        *,
        feed: RoomId,
        host: str,
        ports: tuple[int, int],
        peer: str,
        port: int,
        rtcp_port: int,
        settings: RtpSettings,
    ) -> Showing:
        """Send from `host` to `peer`, at which the server listens on these ports. Raises PortsTakenError."""
        endpoint = await open_endpoint(host, ports, peer=peer, settings=settings)
        return cls(
            endpoint,
            feed=feed,
            stream=stream,
            destination=(peer, port),
            rtcp_destination=(peer, rtcp_port),
        )

    def begin(self, cluster: Cluster, tasks: Tasks, *, room: str, stream: str) -> None:
        """Fetch the stream and send it on, in a task of `tasks`. Raises RoomError."""
        self._subscription = watch(
            cluster, PART, room=room, stream=stream, kinds=self._tracks, on_frame=self._send
        )
        self._running = tasks.create_task(self._subscription.run(), name=f"show-{stream}")

    def close(self) -> None:
        """End it here; the server is to be told, too."""
        if self._subscription is not None:
            self._subscription.end()
        if self._running is not None:
            self._running.cancel()
        self._endpoint.close()

    def _send(self, kind: TrackKind, frame: MediaFrame) -> None:
        self._tracks[kind].write(frame)

    def _ask_key_frame(self) -> None:
        if self._subscription is not None:
            self._subscription.request_key_frame()
