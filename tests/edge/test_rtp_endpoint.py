"""Tracks over real UDP sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from edge.rtp import packet as rtp
from edge.rtp import rtcp
from edge.rtp.egress import RtpEgress
from edge.rtp.endpoint import PortsTakenError, RtpEndpoint
from edge.rtp.ingress import RtpIngress
from edge.rtp.rtcp import PictureLoss, Remb
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec, RtpTrack
from tests.edge.rtp_path import OPUS, VP8, number_of, picture, sound
from tests.lab.cluster_kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from bridges.wire.frame import MediaFrame

QUICK = RtpSettings(report_interval=0.05, key_frame_interval=0.05, source_timeout=0.05)


@contextlib.asynccontextmanager
async def endpoint(**options: Any) -> AsyncIterator[RtpEndpoint]:
    opened = await RtpEndpoint.open(**{"settings": QUICK, **options})
    try:
        yield opened
    finally:
        opened.close()
        await asyncio.sleep(0)


def leaving(source: RtpEndpoint, sink: RtpEndpoint, track: RtpTrack = VP8, **more: Any) -> RtpEgress:
    return RtpEgress(source, track, destination=("127.0.0.1", sink.port), cname="us", **more)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("mux", [False, True])
def test_tracks_of_one_endpoint_are_told_apart_and_wishes_come_back(
    run: Callable[[Coroutine[Any, Any, None]], None], *, mux: bool
) -> None:
    run(_tracks_and_wishes(mux=mux))


async def _tracks_and_wishes(*, mux: bool) -> None:
    async with endpoint(mux=mux) as here, endpoint(mux=mux) as there:
        pictures: list[MediaFrame] = []
        sounds: list[MediaFrame] = []
        wishes: list[None] = []
        video = RtpIngress(there, VP8, on_frame=pictures.append)
        RtpIngress(there, OPUS, on_frame=sounds.append)
        leaves = leaving(here, there, on_key_frame_wanted=lambda: wishes.append(None))
        other = leaving(here, there, OPUS)
        for number in range(5):
            leaves.write(picture(number, key=number == 0))
            other.write(sound(number))
        await until(lambda: len(pictures) == 5 and len(sounds) == 5)
        assert [number_of(frame) for frame in pictures] == list(range(5))
        await until(lambda: leaves._core.heard is not None and other._core.heard is not None)
        video.request_key_frame()
        await until(lambda: wishes)
        assert here.mux is mux
        assert (here.rtcp_port == here.port) is mux
        assert (there.unclaimed, there.malformed, there.foreign, there.dropped) == (0, 0, 0, 0)


async def test_packets_that_the_network_loses_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint(settings=RtpSettings()) as here, endpoint(settings=RtpSettings()) as there:
        rng = random.Random(4)
        send = here.send_rtp
        monkeypatch.setattr(here, "send_rtp", lambda data, to: rng.random() < 0.1 or send(data, to))
        taken: list[MediaFrame] = []
        track = RtpIngress(there, VP8, on_frame=taken.append)
        leaves = leaving(here, there)
        for number in range(20):
            leaves.write(picture(number, key=number == 0))
            await asyncio.sleep(0.01)
        leaves.write(picture(20))
        await until(lambda: len(taken) >= 20)
        assert [number_of(frame) for frame in taken[:20]] == list(range(20))
        assert leaves.repeated > 0
        assert track.lost_packets == 0


async def test_a_sender_that_is_told_of_a_limit_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint() as here, endpoint() as there:
        heard: list[rtcp.Rtcp] = []
        leaves = leaving(here, there)
        monkeypatch.setattr(leaves, "hear", lambda _now, packets: heard.extend(packets))
        comes = RtpIngress(there, VP8, on_frame=lambda _frame: None)
        comes.limit_bitrate(400_000)
        leaves.write(picture(0, key=True))
        await until(lambda: any(isinstance(packet, Remb) for packet in heard))


async def test_who_is_not_the_peer_and_what_is_no_rtp_is_passed_over() -> None:
    async with endpoint(peer="127.0.0.2") as strict, endpoint() as open_:
        taken: list[MediaFrame] = []
        RtpIngress(strict, VP8, on_frame=taken.append)
        RtpIngress(open_, VP8, on_frame=taken.append)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            (data, *_) = leaving(strict, strict)._core.send(1.0, picture(0, key=True, size=400))
            stranger.sendto(data, ("127.0.0.1", strict.port))
            await until(lambda: strict.foreign)
            stranger.sendto(b"no packet", ("127.0.0.1", open_.port))
            stranger.sendto(b"no report", ("127.0.0.1", open_.rtcp_port))
            await until(lambda: open_.malformed == 2)
            unknown = rtp.encode(rtp.RtpPacket(payload_type=1, sequence=1, timestamp=1, ssrc=1))
            stranger.sendto(unknown, ("127.0.0.1", open_.port))
            await until(lambda: open_.unclaimed)
            stranger.sendto(rtcp.encode([PictureLoss(sender=1, media=2)]), ("127.0.0.1", open_.rtcp_port))
            await until(lambda: open_.rtcp_peer == stranger.getsockname())
        assert taken == []


async def test_a_track_that_is_closed_calls_back_no_more_and_says_goodbye() -> None:
    async with endpoint() as here, endpoint() as there:
        first: list[MediaFrame] = []
        second: list[MediaFrame] = []
        comes = RtpIngress(there, VP8, on_frame=first.append)
        leaves = leaving(here, there)
        leaves.write(picture(0, key=True))
        await until(lambda: first)
        comes.close()
        comes.request_key_frame()
        leaves.write(picture(1))
        await until(lambda: there.unclaimed)
        again = RtpIngress(there, VP8, on_frame=second.append)
        leaves.write(picture(2, key=True))
        await until(lambda: second)
        leaves.close()
        leaves.close()
        leaves.write(picture(3))
        await until(lambda: again._core.due() is None)
        assert (len(first), len(second)) == (1, 1)


async def test_the_owner_may_close_a_track_from_within_a_frame() -> None:
    async with endpoint() as here, endpoint() as there:
        taken: list[MediaFrame] = []

        def take(frame: MediaFrame) -> None:
            taken.append(frame)
            comes.close()

        comes = RtpIngress(there, VP8, on_frame=take)
        leaves = leaving(here, there)
        for number in range(3):
            leaves.write(picture(number, key=True))
        await until(lambda: there.unclaimed)
        assert len(taken) == 1


async def test_ports_that_are_taken_are_said_and_both_are_given_back() -> None:
    async with endpoint() as first:
        with pytest.raises(PortsTakenError, match=str(first.port)):
            await RtpEndpoint.open(port=first.port)
        port = first.port
    async with endpoint(port=port) as again:
        assert (again.port, again.rtcp_port) == (port, port + 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
        neighbour.bind(("127.0.0.1", port + 1))
        with pytest.raises(PortsTakenError):
            await RtpEndpoint.open(port=port)
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn
        async with endpoint(port=port, mux=True) as alone:
            assert alone.rtcp_port == port


async def test_nobody_at_the_other_end_is_no_fault_of_ours() -> None:
    async with endpoint() as here, endpoint() as there:
        leaves = leaving(here, there)
        port = there.port
        there.close()
        await asyncio.sleep(0)
        leaves.write(picture(0, key=True))
        async with endpoint(port=port) as back:
            taken: list[MediaFrame] = []
            RtpIngress(back, VP8, on_frame=taken.append)
            leaves.write(picture(1, key=True))
            await until(lambda: taken)


async def test_over_ipv6() -> None:
    async with endpoint(host="::1") as here, endpoint(host="::1", peer="::1") as there:
        taken: list[MediaFrame] = []
        RtpIngress(there, RtpTrack(codec=Codec.VP8, payload_type=96, ssrc=5), on_frame=taken.append)
        leaves = RtpEgress(
            here,
            RtpTrack(codec=Codec.VP8, payload_type=96, ssrc=5),
            destination=("::1", there.port),
            cname="six",
        )
        leaves.write(picture(1, key=True))
        await until(lambda: taken)
        assert leaves.ssrc == 5
        await until(lambda: leaves._core.heard is not None)
