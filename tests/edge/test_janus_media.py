"""What a Janus server sends of a publisher: packets as its forwarders send them, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from edge.janus.plan import FarStream, Track
from edge.janus.reception import Reception, open_endpoint, ssrc_of
from edge.janus.showing import Showing, offer
from edge.rtp import rtcp
from edge.rtp.egress import RtpEgress
from edge.rtp.endpoint import PortsTakenError, RtpEndpoint
from edge.rtp.rtcp import PictureLoss
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec, RtpTrack
from tests.edge.rtp_path import number_of, picture, sound
from tests.lab.cluster_kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.wire.frame import MediaFrame

LATCH = b"\x80" + bytes(11)
"""With this a forwarder shows where it wants to have RTCP."""
PICTURE, SOUND = Track("video", Codec.VP8, 0), Track("audio", Codec.OPUS, 1)
SETTINGS = RtpSettings(key_frame_interval=0.05)


class Forwarder:
    """Sends layers of tracks to a reception, and hears what it asks for."""

    def __init__(self, endpoint: RtpEndpoint, reception: Reception) -> None:
        self.wishes: list[int] = []
        self._endpoint = endpoint
        self._to = ("127.0.0.1", reception.endpoint.port)
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._control.setblocking(False)
        self._control.sendto(LATCH, ("127.0.0.1", reception.endpoint.rtcp_port))

    def track(self, codec: Codec, ssrc: int, *, payload_type: int = 97) -> RtpEgress:
        track = RtpTrack(codec=codec, payload_type=payload_type, ssrc=ssrc)
        return RtpEgress(self._endpoint, track, destination=self._to, cname="c")

    async def wished(self, ssrc: int) -> None:
        """Wait until a key frame of this source is asked for, at the socket that was shown."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while True:
                for packet in rtcp.decode(await loop.sock_recv(self._control, 2048)):
                    if isinstance(packet, PictureLoss) and packet.media == ssrc:
                        return

    def close(self) -> None:
        self._control.close()


@asynccontextmanager
async def received(
    *tracks: Track,
) -> AsyncIterator[tuple[Reception, list[tuple[Track, MediaFrame]], Forwarder]]:
    taken: list[tuple[Track, MediaFrame]] = []
    reception = await Reception.open(
        tracks,
        host="127.0.0.1",
        ports=(0, 0),
        peer="127.0.0.1",
        settings=SETTINGS,
        on_frame=lambda track, frame: taken.append((track, frame)),
    )
    endpoint = await RtpEndpoint.open(mux=True)  # so that its reports show no other address for RTCP
    forwarder = Forwarder(endpoint, reception)
    try:
        yield reception, taken, forwarder
    finally:
        reception.close()
        endpoint.close()
        forwarder.close()
        await asyncio.sleep(0)  # the sockets are closed by the loop


async def test_tracks_of_one_publisher_whatever_their_payload_types() -> None:
    async with received(PICTURE, SOUND) as (reception, taken, forwarder):
        video = forwarder.track(Codec.VP8, ssrc_of(0), payload_type=98)
        audio = forwarder.track(Codec.OPUS, ssrc_of(1), payload_type=63)
        video.write(picture(0, key=True))
        audio.write(sound(0))
        await until(lambda: len(taken) == 2)
        assert {track for track, _ in taken} == {PICTURE, SOUND}
        reception.request_key_frames()
        await forwarder.wished(ssrc_of(0))
        video.close()
        again = forwarder.track(Codec.VP8, ssrc_of(0), payload_type=96)  # negotiated anew
        again.write(picture(1, key=True))
        await until(lambda: len(taken) == 3)
        assert number_of(taken[2][1]) == 1


async def test_of_simulcast_the_highest_layer_from_its_key_frame_on() -> None:
    track = Track("video", Codec.VP8, 2, simulcast=True)
    async with received(track) as (_reception, taken, forwarder):
        low, high = (forwarder.track(Codec.VP8, ssrc_of(2, layer)) for layer in (0, 2))
        low.write(picture(0, key=True, timestamp=0))
        await until(lambda: len(taken) == 1)
        high.write(picture(100, key=True, timestamp=0))
        await until(lambda: len(taken) == 2)
        low.write(picture(1, key=True, timestamp=3000))
        high.write(picture(101, timestamp=3000))
        await until(lambda: len(taken) == 3)
        assert [number_of(frame) for _, frame in taken] == [0, 100, 101]


async def test_packets_of_strangers_are_passed_over() -> None:
    async with received(PICTURE) as (reception, taken, forwarder):
        forwarder.track(Codec.VP8, ssrc_of(7)).write(picture(0, key=True))
        forwarder.track(Codec.VP8, ssrc_of(0)).write(picture(1, key=True))
        await until(lambda: len(taken) == 1)
        assert number_of(taken[0][1]) == 1
        assert reception.endpoint.unclaimed > 0


async def test_ports_are_taken_of_those_that_are_given() -> None:
    probe = await RtpEndpoint.open()
    first = probe.port
    probe.close()
    await asyncio.sleep(0)
    one = await open_endpoint("127.0.0.1", (first, first + 3), peer=None, settings=SETTINGS)
    assert first <= one.port <= first + 2
    with pytest.raises(PortsTakenError):
        await open_endpoint("127.0.0.1", (one.port, one.port + 1), peer=None, settings=SETTINGS)
    one.close()
    await asyncio.sleep(0)


async def test_a_stream_is_offered_track_by_track_and_shown_where_it_was_answered() -> None:
    stream = FarStream("Bob", (("audio", Codec.OPUS), ("video", Codec.VP8)))
    assert [(one.type, one.mindex, one.codec, one.stereo) for one in offer(stream)] == [
        ("audio", 0, "opus", True),
        ("video", 1, "vp8", False),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind(("127.0.0.1", 0))
        control.setblocking(False)
        showing = await Showing.open(
            stream,
            feed=7,
            host="127.0.0.1",
            ports=(0, 0),
            peer="127.0.0.1",
            port=9,
            rtcp_port=control.getsockname()[1],
            settings=SETTINGS,
        )
        async with asyncio.timeout(5):
            shown = await asyncio.get_running_loop().sock_recv(control, 2048)
        assert rtcp.decode(shown)  # before anything is sent: the server learns where to ask for key frames
        showing.close()
    await asyncio.sleep(0)
