"""Two laboratory clusters, joined by real media bridges on either wire: what flows while who wants what."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest

from bridges.internal.listener import InternalListener
from bridges.media.bridge import MediaBridge
from bridges.node.cascading import CascadingOptions
from bridges.node.websocket import NodeSettings, WebSocketNode
from bridges.quic import Certificate, QuicSettings
from bridges.settings import BridgeSettings
from lab.portal_client import Address, TrackOffer
from tests.bridges.media_side import QUICK, picture
from tests.bridges.test_media_peer import OWT_WIRE
from tests.lab.cluster_kit import SECRET, bridge, lab_cluster, member, until
from tests.lab.test_hub import Camera, Screen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lab.cluster import Cluster
    from tests.lab.cluster_kit import Member

WIRES = pytest.mark.parametrize("quic", [QuicSettings(), OWT_WIRE], ids=["ours", "owt"])
A_SECOND = 2.0
"""Allowed for what takes one at most, and hardly any, on a machine that does other things, too."""


@asynccontextmanager
async def media_bridge(cluster: Cluster, name: str, quic: QuicSettings) -> AsyncIterator[MediaBridge]:
    settings = BridgeSettings(cluster=name, media=QUICK, quic=quic)
    node = WebSocketNode(
        f"ws://127.0.0.1:{cluster.port}/node",
        secret=SECRET,
        purpose="mediabridge",
        host="127.0.0.1",
        settings=NodeSettings(retry_base=0.05, retry_cap=0.2),
    )
    media = MediaBridge(node, settings, Certificate.self_signed(name))
    await media.start()
    tasks = [
        asyncio.create_task(media.run()),
        asyncio.create_task(node.run(media, info={"port": media.port})),
    ]
    try:
        yield media
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Linked:
    """A camera of somebody in the first cluster, and the second one, which shows the stream."""

    def __init__(self, camera: Camera, alice: Member, stream: str) -> None:
        self.camera = camera
        self.alice = alice
        self.stream = stream
        self.near: MediaBridge
        self.far: Cluster
        self._numbers = count()

    @property
    def pushed(self) -> int:
        """Tracks that cross the link."""
        return sum(link.tracks_out for link in self.near.figures().links)

    async def shows(self, screen: Screen) -> None:
        """Let the camera run until a picture comes out."""
        have = len(screen.frames)
        async with asyncio.timeout(10):
            while len(screen.frames) == have:
                number = next(self._numbers)
                self.camera.source.write(picture(number, key=number % 3 == 0))
                await asyncio.sleep(0.01)  # as a camera would


@asynccontextmanager
async def linked(quic: QuicSettings) -> AsyncIterator[Linked]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        cameras = await InternalListener.start()
        stack.push_async_callback(cameras.close)
        near, far = await enter(lab_cluster(cluster="c1")), await enter(lab_cluster(cluster="c2"))
        alice, keeper = await enter(member(near)), await enter(member(far))
        offer = TrackOffer(id="v-1", type="video", format={"codec": "vp8"})
        published = await alice.portal.publish([offer], Address("127.0.0.1", cameras.port))
        link = Linked(Camera(cameras, "v-1"), alice, published.stream)
        link.far = far
        link.near = await enter(media_bridge(near, "c1", quic))
        away = await enter(media_bridge(far, "c2", quic))
        await until(lambda: near.workers.newest("mediabridge") and far.workers.newest("mediabridge"))
        events = await enter(bridge(far))
        [room] = near.rooms.running
        told = {"type": "initialize", "data": msgspec.to_builtins(room.room.snapshot())}
        assert (
            await events.call(await events.node(), "handleCascadingEvents", events.worker, "c1", told) == "ok"
        )
        await keeper.event("streamAdded")
        away.start_cascading(
            CascadingOptions(
                room="room",
                token=room.room.token,
                self_cluster="c2",
                target_cluster="c1",
                media_ip="127.0.0.1",
                media_port=link.near.port,
                media_fingerprint=link.near.fingerprint,
            )
        )
        await until(lambda: [each.state for each in link.near.figures().links] == ["up"])
        yield link


@asynccontextmanager
async def subscriber(link: Linked) -> AsyncIterator[tuple[Member, str, Screen]]:
    async with member(link.far) as one:
        subscribed = await one.portal.subscribe(link.stream, ["video"])
        [track] = subscribed.tracks
        async with Screen.on(link.far.hub, track.id) as screen:
            yield one, subscribed.subscription, screen


@WIRES
async def test_a_track_crosses_once_for_all_and_the_last_who_leaves_stops_it_at_the_source(
    quic: QuicSettings,
) -> None:
    async with linked(quic) as link, subscriber(link) as (one, first, seen):
        await link.shows(seen)
        async with subscriber(link) as (other, second, also_seen):
            await link.shows(also_seen)
            await link.shows(seen)
            assert link.pushed == 1
            assert link.camera.source.subscribers == 1
            await other.portal.unsubscribe(second)
            await link.shows(seen)
        await one.portal.unsubscribe(first)
        await until(lambda: not link.camera.source.subscribers, timeout=A_SECOND)
        await until(lambda: not link.pushed, timeout=A_SECOND)


@WIRES
async def test_mute_stops_the_bytes_at_the_source_and_what_comes_after_is_decodable(
    quic: QuicSettings,
) -> None:
    async with linked(quic) as link, subscriber(link) as (_, _, seen):
        await link.shows(seen)
        await link.alice.portal.mute(link.stream, "video", muted=True)
        await until(lambda: not link.camera.source.subscribers, timeout=A_SECOND)
        assert link.pushed == 1, "the subscription stays"
        await link.alice.portal.mute(link.stream, "av", muted=False)
        await until(lambda: link.camera.source.subscribers)
        await link.shows(seen)
        assert not seen.lost


@WIRES
async def test_a_track_is_pulled_while_one_subscriber_does_not_pause(quic: QuicSettings) -> None:
    async with (
        linked(quic) as link,
        subscriber(link) as (one, first, seen),
        subscriber(link) as (other, second, also_seen),
    ):
        await link.shows(seen)
        await one.portal.pause(first, "video", paused=True)
        await link.shows(also_seen)
        await other.portal.pause(second, "video", paused=True)
        await until(lambda: not link.camera.source.subscribers, timeout=A_SECOND)
        assert link.pushed == 0
        await one.portal.pause(first, "video", paused=False)
        await until(lambda: link.camera.source.subscribers)
        had = len(also_seen.frames)
        await link.shows(seen)
        assert len(also_seen.frames) == had


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with linked(QuicSettings()) as link, subscriber(link) as (_, _, seen):
        await link.shows(seen)
    assert asyncio.all_tasks() == before
