"""Inputs and outputs in a real cluster: streams come and go with their packets, and with each other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, cast

import pytest

from bridges.internal.listener import InternalListener
from bridges.wire.frame import Feedback
from causeway.api import JoinAnswer
from causeway.errors import ApiError, ConfigError, UnavailableError
from edge.places import Places, Who
from edge.rtp import sdp
from edge.rtp.egress import RtpEgress
from edge.rtp.endpoint import RtpEndpoint
from edge.rtp.ingress import RtpIngress
from edge.rtp.inputs import Input, described
from edge.rtp.outputs import Output
from edge.rtp.rtcp import Remb
from edge.rtp.service import running_rtp_edge
from edge.rtp.settings import RtpSettings
from edge.rtp.track import Codec, RtpTrack
from edge.settings import EdgeSettings, InputTrack, RtpInput, RtpOutput, Settings
from lab.room_options import RoomOptions
from lab.settings import LabSettings
from lab.tokens import Admission
from tests.edge.ffmpeg import free_pairs
from tests.edge.rtp_path import OPUS, VP8, number_of, picture, sound
from tests.lab.cluster_kit import lab_cluster, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from bridges.wire.frame import MediaFrame
    from bridges.wire.objects import Stream
    from causeway.client import ControlClient
    from edge.rtp.rtcp import Rtcp
    from lab.cluster import Cluster

ROOM = "standup"
QUICK = RtpSettings(report_interval=0.05, key_frame_interval=0.05, source_timeout=0.05)


class ControlStub:
    """Gives places in one cluster, as control does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.troubles: list[Exception | str] = []
        """What happens to the next joins: an error, or the name of another cluster."""
        self.joins = 0

    async def join(self, conference: str, request: Any) -> JoinAnswer:
        trouble = self.troubles.pop(0) if self.troubles else self._cluster.settings.cluster
        if isinstance(trouble, Exception):
            raise trouble
        self.joins += 1
        self._cluster.rooms.create(conference, RoomOptions(id=conference))
        admission = Admission(room=conference, user=request.user, role=request.role)
        return JoinAnswer(
            conference=conference,
            cluster=trouble,
            region=request.region,
            placed="region",
            ip="127.0.0.1",
            port=self._cluster.port,
            secure=False,
            room=conference,
            token=self._cluster.tokens.make(admission, host="here"),
        )


class World:
    """A cluster with places in it, and what runs there."""

    def __init__(self, cluster: Cluster, places: Places, control: ControlStub) -> None:
        self.cluster = cluster
        self.places = places
        self.control = control

    @property
    def streams(self) -> list[Stream]:
        running = self.cluster.rooms.get_running(ROOM)
        return [] if running is None else running.room.streams

    def people(self) -> list[str]:
        running = self.cluster.rooms.get_running(ROOM)
        return [] if running is None else [one.user for one in running.room.participants]

    def dismiss(self, user: str) -> None:
        """Send somebody away."""
        running = self.cluster.rooms.get_running(ROOM)
        assert running is not None
        (id_,) = [one.id for one in running.room.participants if one.user == user]
        self.cluster.rooms.act(ROOM, lambda room: room.leave(id_))


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with lab_cluster() as cluster:
        listener = await InternalListener.start()
        try:
            control = ControlStub(cluster)
            places = Places(cluster, listener, cast("ControlClient", control), retry_cap=0.05)
            yield World(cluster, places, control)
        finally:
            await listener.close()


@contextlib.asynccontextmanager
async def going_on(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def entering(
    world: World, user: str, codecs: tuple[RtpTrack, ...] = (VP8, OPUS), *, idle_timeout: float = 5.0
) -> AsyncIterator[list[RtpEgress]]:
    """An input, and somebody who sends to it."""
    ports = free_pairs(len(codecs))
    tracks = tuple(
        InputTrack(codec=one.codec, port=port, payload_type=one.payload_type)
        for one, port in zip(codecs, ports, strict=True)
    )
    settings = RtpInput(conference=ROOM, user=user, tracks=tracks)
    one = Input(settings, described(settings), idle_timeout=idle_timeout)
    await one.open("127.0.0.1", settings=QUICK)
    sender = await RtpEndpoint.open(settings=QUICK)
    try:
        async with going_on(one.run(world.places)):
            yield [
                RtpEgress(sender, track, destination=("127.0.0.1", port), cname=user)
                for track, port in zip(codecs, ports, strict=True)
            ]
    finally:
        sender.close()
        one.close()


async def flow(world: World, egress: RtpEgress, user: str) -> None:
    """Send until the stream is there."""

    def flowing() -> bool:
        egress.write(picture(0, key=True))
        return user in world.people() and bool(world.streams)

    await until(flowing)


async def test_a_stream_is_there_while_its_packets_come() -> None:
    async with world() as here, entering(here, "camera", idle_timeout=0.3) as (video, audio):
        assert here.streams == []
        await flow(here, video, "camera")
        (stream,) = here.streams
        assert {(track.type, (track.format or {})["codec"]) for track in stream.media.tracks} == {
            ("video", "vp8"),
            ("audio", "opus"),
        }
        await until(lambda: not here.streams and not here.people())
        audio.write(sound(0))
        await until(lambda: here.streams)
        here.dismiss("camera")
        assert not here.streams
        await flow(here, video, "camera")
        assert here.control.joins == 3


async def test_whatever_keeps_an_input_out_passes() -> None:
    async with world() as here, entering(here, "camera", (VP8,)) as (video,):
        unknown = ApiError(404, "conference-unknown", "there is no such conference")
        here.control.troubles = [UnavailableError("control is away"), unknown, "another-cluster"]
        await flow(here, video, "camera")


async def test_a_wrong_key_ends_it() -> None:
    async with world() as here:
        here.control.troubles = [ApiError(401, "unauthorized", "the key is not known")]
        output = Output(RtpOutput(conference=ROOM, user="screen", video_port=9))
        with pytest.raises(ApiError):
            await output.run(here.places)


class Screen:
    """What an output sends to."""

    def __init__(self, endpoint: RtpEndpoint) -> None:
        self.endpoint = endpoint
        self.frames: list[MediaFrame] = []
        self.ingress = RtpIngress(endpoint, VP8, on_frame=self.frames.append)


@contextlib.asynccontextmanager
async def leaving(world: World, folder: Path, **options: Any) -> AsyncIterator[Screen]:
    endpoint = await RtpEndpoint.open(settings=QUICK)
    settings = RtpOutput(
        conference=ROOM, user="screen", video_port=endpoint.port, sdp=str(folder / "screen.sdp"), **options
    )
    output = Output(settings)
    await output.open(settings=QUICK)
    try:
        async with going_on(output.run(world.places)):
            yield Screen(endpoint)
    finally:
        output.close()
        endpoint.close()


async def keep_on(egress: RtpEgress, first: int) -> None:
    """Send key frames that count from `first`, for ever."""
    number = first
    while True:
        egress.write(picture(number, key=True, timestamp=number * 3000))
        number += 1
        await asyncio.sleep(0.01)  # the pace of a camera


async def test_one_stream_follows_the_other_and_the_receiver_sees_one(tmp_path: Path) -> None:
    async with (
        world() as here,
        leaving(here, tmp_path) as screen,
        entering(here, "first", (VP8,), idle_timeout=0.2) as (first,),
        entering(here, "second", (VP8,)) as (second,),
    ):
        async with going_on(keep_on(first, 1000)):
            await until(lambda: any(number_of(frame) >= 1000 for frame in screen.frames))
            source = screen.ingress._core.ssrc
            description = (tmp_path / "screen.sdp").read_text()
            assert sdp.read(description)[0].port == screen.endpoint.port
            async with going_on(keep_on(second, 500_000)):
                await until(lambda: len(here.streams) == 2)
                assert all(number_of(frame) < 500_000 for frame in screen.frames)
                here.dismiss("first")
                await until(lambda: any(number_of(frame) >= 500_000 for frame in screen.frames))
                assert screen.ingress._core.ssrc == source
        stamps = [frame.timestamp for frame in screen.frames]
        steps = [(after - before) % 2**32 for before, after in itertools.pairwise(stamps)]
        assert max(steps) < 5 * 90_000, "the second one's timestamps go on from the first one's"


async def test_an_output_waits_for_whom_it_is_to_show(tmp_path: Path) -> None:
    async with (
        world() as here,
        entering(here, "other", (VP8,)) as (other,),
        entering(here, "wanted", (VP8,)) as (wanted,),
        leaving(here, tmp_path, of="wanted") as screen,
        going_on(keep_on(other, 0)),
    ):
        await until(lambda: here.streams and "screen" in here.people())
        assert not (tmp_path / "screen.sdp").exists()
        async with going_on(keep_on(wanted, 700_000)):
            await until(lambda: screen.frames)
            assert min(number_of(frame) for frame in screen.frames) >= 700_000
            here.dismiss("screen")
            count = len(screen.frames)
            await until(lambda: "screen" in here.people() and len(screen.frames) > count + 5)


async def test_a_wish_of_the_receiver_reaches_the_sender(tmp_path: Path) -> None:
    async with (
        world() as here,
        entering(here, "camera", (VP8,)) as (video,),
        leaving(here, tmp_path) as screen,
    ):
        wishes: list[None] = []
        video._on_key_frame_wanted = lambda: wishes.append(None)

        async def obey() -> None:
            fulfilled = -1
            for number in itertools.count():
                video.write(picture(number, key=fulfilled < len(wishes)))
                fulfilled = len(wishes)
                await asyncio.sleep(0.01)  # the pace of a camera

        async with going_on(obey()):
            await until(lambda: screen.frames)
            await until(lambda: not screen.frames[-1].key_frame)
            before = len(wishes)
            screen.ingress.request_key_frame()
            await until(lambda: len(wishes) > before)
            await until(lambda: any(frame.key_frame for frame in screen.frames[-3:]))


async def test_key_frames_are_asked_for_on_behalf_of_those_who_cannot(tmp_path: Path) -> None:
    async with (
        world() as here,
        entering(here, "camera", (VP8,)) as (video,),
        leaving(here, tmp_path, key_frame_every=0.1) as screen,
    ):
        wishes: list[None] = []
        video._on_key_frame_wanted = lambda: wishes.append(None)
        async with going_on(keep_on(video, 0)):
            await until(lambda: screen.frames)
            await until(lambda: len(wishes) >= 3)
            here.dismiss("camera")
            await until(lambda: len(wishes) >= 6)


async def test_a_wish_for_less_reaches_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as here, entering(here, "camera", (VP8,)) as (video,):
        told: list[Rtcp] = []
        monkeypatch.setattr(video, "hear", lambda _now, packets: told.extend(packets))
        async with going_on(keep_on(video, 0)):
            await until(lambda: here.streams)
            guest = await here.places.join(Who(ROOM, "narrow", "viewer"))
            frames: list[MediaFrame] = []
            taken = guest.subscribe(here.streams[0].id, ["video"], lambda _kind, frame: frames.append(frame))
            async with going_on(taken.run()):
                await until(lambda: frames)
                taken._receivers["video"].send(Feedback.set_bitrate(300))
                await until(lambda: any(isinstance(one, Remb) and one.bitrate == 300_000 for one in told))
                guest.leave()
                await until(lambda: not taken.alive)


async def test_another_codec_is_another_track_with_another_description(tmp_path: Path) -> None:
    h264 = RtpTrack(codec=Codec.H264, payload_type=97)
    async with (
        world() as here,
        leaving(here, tmp_path) as screen,
        entering(here, "first", (VP8,), idle_timeout=0.2) as (first,),
    ):
        async with going_on(keep_on(first, 0)):
            await until(lambda: screen.frames)
        await until(lambda: not here.streams)
        async with entering(here, "second", (h264,)):
            guest = await here.places.join(Who(ROOM, "third", "presenter"))
            guest.publish({"video": Codec.H264})
            await until(lambda: " H264/90000" in (tmp_path / "screen.sdp").read_text())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RtpInput(conference="c", user="u"), "one or two tracks are needed"),
        (RtpInput(conference="c", user="u", sdp="/nowhere/x.sdp"), "No such file"),
        (
            RtpInput(
                conference="c",
                user="u",
                tracks=(
                    InputTrack(codec=Codec.VP8, port=5, payload_type=96),
                    InputTrack(codec=Codec.VP9, port=7, payload_type=98),
                ),
            ),
            "one of each kind",
        ),
    ],
)
def test_inputs_that_cannot_be_are_refused(settings: RtpInput, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        described(settings)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (EdgeSettings(), "there is nothing to do"),
        (EdgeSettings(outputs=(RtpOutput(conference="c", user="u"),)), "video_port or audio_port"),
        (
            EdgeSettings(outputs=(RtpOutput(conference="c", user="u", audio_port=9),)),
            "control_url is not set",
        ),
    ],
)
async def test_settings_that_do_not_fit_are_refused(edge: EdgeSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with running_rtp_edge(Settings(lab=LabSettings(), edge=edge)):
            pass
