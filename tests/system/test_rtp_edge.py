"""Two regions whose clusters are made of RTP: ffmpeg publishes in one and decodes in the other, both ways.

Everything is real: control, a cluster and a bridge for each region, the descriptions between ffmpeg and us.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bridges import agent
from bridges.settings import BridgeSettings
from bridges.status.settings import StatusSettings
from edge.rtp.service import running_rtp_edge
from edge.settings import EdgeSettings, RtpInput, RtpOutput, Settings
from lab.settings import KeySettings, LabSettings
from tests.control.service import until
from tests.edge.ffmpeg import PICTURES, free_pairs, publishing, receiving
from tests.lab.cluster_kit import SECRET
from tests.system.test_signed_joins import Network, reachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lab.cluster import Cluster

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

CONFERENCE = "standup"


@asynccontextmanager
async def region(name: str, network: Network, edge: EdgeSettings) -> AsyncIterator[Cluster]:
    """An edge and its bridge."""
    lab = LabSettings(
        cluster=name,
        region=name,
        control_url=network.url,
        enrolment_key=network.service.keys["enrolment"],
        node_secret=SECRET,
        keys=KeySettings(min_interval=0.1),
    )
    stop = asyncio.Event()
    async with running_rtp_edge(Settings(lab=lab, edge=edge)) as cluster:
        settings = BridgeSettings(
            cluster=name,
            node_url=f"ws://127.0.0.1:{cluster.port}/node",
            node_secret=SECRET,
            status=StatusSettings(listen="off"),
        )
        bridge = asyncio.create_task(agent.serve(settings, stop=stop))
        try:
            yield cluster
        finally:
            stop.set()
            await bridge


async def test_ffmpeg_is_seen_and_heard_by_ffmpeg_in_the_other_region(
    database_url: str, tmp_path: Path
) -> None:
    here, there = tmp_path / "eu", tmp_path / "us"
    here.mkdir()
    there.mkdir()
    ports = free_pairs(8)
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(reachable(database_url))
        await network.service.create(CONFERENCE)
        key = network.service.keys["application"]
        published = {
            "eu": await stack.enter_async_context(
                publishing("vp8", here, video_port=ports[0], audio_port=ports[1])
            ),
            "us": await stack.enter_async_context(
                publishing("h264", there, video_port=ports[2], audio_port=ports[3])
            ),
        }
        for name, (peer, video, audio) in {"eu": ("us", 4, 5), "us": ("eu", 6, 7)}.items():
            edge = EdgeSettings(
                application_key=key,
                inputs=(RtpInput(conference=CONFERENCE, user=f"camera-{name}", sdp=str(published[name])),),
                outputs=(
                    RtpOutput(
                        conference=CONFERENCE,
                        user=f"screen-{name}",
                        of=f"camera-{peer}",
                        video_port=ports[video],
                        audio_port=ports[audio],
                        sdp=str(tmp_path / f"{name}.sdp"),
                    ),
                ),
            )
            await stack.enter_async_context(region(name, network, edge))

        async def described() -> list[bool]:
            return [(tmp_path / f"{name}.sdp").exists() for name in ("eu", "us")]

        await until(described, all, timeout=60)
        for name, codec in {"us": "VP8", "eu": "H264"}.items():
            description = tmp_path / f"{name}.sdp"
            assert f" {codec}/90000" in description.read_text()
            async with asyncio.timeout(40), receiving(description, tmp_path) as receiver:
                numbers = await receiver.numbers(25)
                steps = [(after - before) % PICTURES for before, after in itertools.pairwise(numbers)]
                assert max(steps) <= 3, numbers
                while receiver.loudness() < 500:
                    await receiver.numbers(5)
