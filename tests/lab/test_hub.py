from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.internal.settings import InternalSettings
from bridges.wire.frame import Feedback, FeedbackCommand
from lab.hub import Hub, Origin, RoutedTrack
from lab.portal_client import Address, TrackOffer
from lab.room_outputs import TrackKey
from tests.lab.cluster_kit import bridge, lab_cluster, member, picture, sound, until
from tests.lab.test_node import initialize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.internal.listener import Source
    from bridges.wire.frame import MediaFrame

VIDEO = RoutedTrack("room", TrackKey("c1", "s", "video"))
SETTINGS = InternalSettings()


class Camera:
    """A publishing client's listener with one track."""

    def __init__(self, listener: InternalListener, source_id: str = "camera") -> None:
        self.listener = listener
        self.asked = 0
        self.rates: list[int] = []
        self.source: Source = listener.add_source(source_id, on_feedback=self._feedback)
        self.origin = Origin("127.0.0.1", listener.port, source_id)

    def _feedback(self, feedback: Feedback) -> None:
        self.asked += feedback.command is FeedbackCommand.REQUEST_KEY_FRAME
        if feedback.command is FeedbackCommand.SET_BITRATE:
            self.rates.append(feedback.kbps)


class Screen:
    """A subscriber: what it received."""

    def __init__(self) -> None:
        self.frames: list[MediaFrame] = []
        self.lost: list[str] = []
        self.receiver: InternalReceiver | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, hub: Hub, sink: str) -> AsyncIterator[Screen]:
        screen = cls()
        screen.receiver = await InternalReceiver.connect(
            "127.0.0.1", hub.port, sink, on_frame=screen.frames.append, on_lost=screen.lost.append
        )
        try:
            yield screen
        finally:
            screen.receiver.close()
            await screen.receiver.wait_closed()


@contextlib.asynccontextmanager
async def hub_and_camera(**options: Any) -> AsyncIterator[tuple[Hub, Camera]]:
    listener, cameras = await InternalListener.start(), await InternalListener.start()
    try:
        async with Hub(listener, settings=SETTINGS, **options) as hub:
            yield hub, Camera(cameras)
    finally:
        await cameras.close()
        await listener.close()


async def test_nothing_is_pulled_until_somebody_wants_it_and_once_for_all() -> None:
    async with hub_and_camera() as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        assert camera.listener.connections == 0
        one, two = hub.attach(VIDEO), hub.attach(VIDEO)
        async with Screen.on(hub, one) as first, Screen.on(hub, two) as second:
            await until(lambda: hub.counters[0].subscribers == 2 and camera.source.subscribers == 1)
            camera.source.write(picture(1))
            await until(lambda: first.frames and second.frames)
            assert first.frames == second.frames == [picture(1)]
            [counters] = hub.counters
            assert (counters.frames, counters.bytes, counters.sinks) == (1, len(picture(1).raw), 2)
            assert counters.pulling
            hub.detach(one)
            await until(lambda: first.lost)
            camera.source.write(picture(2))
            await until(lambda: len(second.frames) == 2)
            hub.detach(two)
            hub.detach("unknown")
            await until(lambda: camera.source.subscribers == 0)
            assert hub.counters == []


async def test_a_sink_may_be_named_before_the_origin_is_known() -> None:
    async with hub_and_camera() as (hub, camera), Screen.on(hub, hub.attach(VIDEO)) as screen:
        hub.set_origin(VIDEO, camera.origin)
        await until(lambda: camera.source.subscribers)
        camera.source.write(picture(1))
        await until(lambda: screen.frames)


async def test_an_unknown_sink_gets_nothing() -> None:
    async with hub_and_camera() as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        hub.attach(VIDEO)
        async with Screen.on(hub, "guess") as screen:
            await until(lambda: screen.lost)


async def test_a_new_subscriber_has_a_key_frame_asked_for_but_not_too_often() -> None:
    async with hub_and_camera(key_frame_interval=0.3) as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        sinks = [hub.attach(VIDEO) for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(Screen.on(hub, sinks[0]))
            await until(lambda: camera.asked == 1)
            for sink in sinks[1:]:
                await stack.enter_async_context(Screen.on(hub, sink))
            await until(lambda: hub.counters[0].subscribers == 3)
            assert camera.asked == 1
            # The late ones are not forgotten: there is one more request when the interval is over.
            await until(lambda: camera.asked == 2)
            assert hub.counters[0].key_frame_requests == 2


async def test_a_key_frame_that_comes_anyway_is_not_asked_for_again() -> None:
    async with hub_and_camera(key_frame_interval=0.2) as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        async with Screen.on(hub, hub.attach(VIDEO)) as first, Screen.on(hub, hub.attach(VIDEO)) as second:
            await until(lambda: camera.asked == 1 and hub.counters[0].subscribers == 2)
            camera.source.write(picture(1))
            await until(lambda: first.frames and second.frames)
            assert hub._relays[VIDEO]._late_request is None


async def test_feedback_of_subscribers_reaches_the_source() -> None:
    async with hub_and_camera(key_frame_interval=0.01) as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        async with Screen.on(hub, hub.attach(VIDEO)) as screen:
            await until(lambda: camera.asked)
            asked = camera.asked
            assert screen.receiver is not None
            screen.receiver.request_key_frame()
            await until(lambda: camera.asked > asked)


async def test_a_source_that_comes_back_is_pulled_again() -> None:
    async with hub_and_camera() as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        async with Screen.on(hub, hub.attach(VIDEO)) as screen:
            await until(lambda: camera.source.subscribers)
            camera.source.close()
            camera.source = camera.listener.add_source("camera")
            await until(lambda: camera.source.subscribers)
            camera.source.write(picture(1))
            await until(lambda: screen.frames)
            assert not screen.lost


async def test_another_origin_replaces_the_first_at_once() -> None:
    async with hub_and_camera() as (hub, camera):
        other = Camera(camera.listener, "other")
        hub.set_origin(VIDEO, camera.origin)
        hub.attach(VIDEO)
        await until(lambda: camera.source.subscribers == 1)
        hub.set_origin(VIDEO, other.origin)
        await until(lambda: camera.source.subscribers == 0 and other.source.subscribers == 1)
        hub.clear_origin(VIDEO)
        await until(lambda: other.source.subscribers == 0)
        assert not hub.counters[0].pulling


async def test_a_lost_origin_with_an_owner_is_the_owners_business() -> None:
    lost = asyncio.Event()
    async with hub_and_camera() as (hub, camera):
        hub.set_origin(VIDEO, camera.origin, on_lost=lost.set)
        hub.attach(VIDEO)
        await until(lambda: camera.source.subscribers)
        camera.source.close()
        await asyncio.wait_for(lost.wait(), 5)


async def test_an_origin_where_nobody_listens_is_tried_again() -> None:
    async with hub_and_camera() as (hub, camera):
        closed = await InternalListener.start()
        nowhere = Origin("127.0.0.1", closed.port, "x")
        await closed.close()
        hub.set_origin(VIDEO, nowhere)
        hub.attach(VIDEO)
        lost = asyncio.Event()
        hub.set_origin(VIDEO, nowhere, on_lost=lost.set)
        await asyncio.wait_for(lost.wait(), 5)
        hub.set_origin(VIDEO, camera.origin)
        await until(lambda: camera.source.subscribers)


async def test_a_muted_track_is_not_pulled_so_its_source_sends_nothing() -> None:
    async with hub_and_camera(key_frame_interval=0.01) as (hub, camera):
        hub.set_muted(VIDEO, muted=True)
        hub.set_origin(VIDEO, camera.origin)
        async with Screen.on(hub, hub.attach(VIDEO)) as screen:
            hub.set_muted(VIDEO, muted=False)
            await until(lambda: camera.source.subscribers and hub.counters[0].subscribers)
            hub.set_muted(VIDEO, muted=True)
            await until(lambda: not camera.source.subscribers)
            asked = camera.asked
            hub.set_muted(VIDEO, muted=False)
            await until(lambda: camera.source.subscribers and camera.asked > asked)
            camera.source.write(picture(2))
            await until(lambda: screen.frames)
            assert screen.frames == [picture(2)]
            assert not screen.lost


async def test_a_track_is_pulled_while_one_sink_does_not_pause() -> None:
    told: list[bool] = []

    def demand(track: RoutedTrack, *, wanted: bool) -> None:
        assert track == VIDEO
        told.append(wanted)

    async with hub_and_camera(key_frame_interval=0.01, on_demand=demand) as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        first, second = hub.attach(VIDEO), hub.attach(VIDEO)
        async with Screen.on(hub, first) as one, Screen.on(hub, second) as other:
            await until(lambda: camera.source.subscribers and hub.counters[0].subscribers == 2)
            hub.set_paused(first, paused=True)
            camera.source.write(picture(1))
            await until(lambda: other.frames)
            hub.set_paused(second, paused=True)
            await until(lambda: not camera.source.subscribers)
            assert told == [True, False]
            hub.set_paused(first, paused=False)
            await until(lambda: camera.source.subscribers)
            camera.source.write(picture(2))
            await until(lambda: one.frames)
            assert (one.frames, other.frames) == ([picture(2)], [picture(1)])
            assert told == [True, False, True]
        hub.detach(first)
        await until(lambda: not camera.source.subscribers)
        hub.set_paused("unknown", paused=True)
        hub.detach(second)
        assert told == [True, False, True, False]


async def test_of_the_rates_that_subscribers_ask_for_the_source_is_told_the_least() -> None:
    async with hub_and_camera() as (hub, camera):
        hub.set_origin(VIDEO, camera.origin)
        sinks = [hub.attach(VIDEO), hub.attach(VIDEO)]
        async with Screen.on(hub, sinks[0]) as one, Screen.on(hub, sinks[1]) as other:
            await until(lambda: camera.source.subscribers)
            assert one.receiver is not None
            assert other.receiver is not None
            one.receiver.send(Feedback.set_bitrate(300))
            await until(lambda: camera.rates == [300])
            other.receiver.send(Feedback.set_bitrate(200))
            await until(lambda: camera.rates == [300, 200])
            hub.detach(sinks[1])
            await until(lambda: camera.rates == [300, 200, 300])
            camera.source.close()
            camera.source = camera.listener.add_source("camera", on_feedback=camera._feedback)
            await until(lambda: camera.rates == [300, 200, 300, 300])


async def test_demand_is_told_once_each_way() -> None:
    told: list[tuple[RoutedTrack, bool]] = []

    def demand(track: RoutedTrack, *, wanted: bool) -> None:
        told.append((track, wanted))

    async with hub_and_camera(on_demand=demand) as (hub, _):
        sinks = [hub.attach(VIDEO), hub.attach(VIDEO)]
        for sink in sinks:
            hub.detach(sink)
        assert told == [(VIDEO, True), (VIDEO, False)]
        hub.attach(VIDEO)
    assert told[2:] == [(VIDEO, True), (VIDEO, False)]


# --- the whole way: clients, cluster, bridges --------------------------------------------------------


async def test_frames_go_from_client_to_client() -> None:
    cameras = await InternalListener.start()
    video, audio = Camera(cameras, "v-1"), Camera(cameras, "a-1")
    async with lab_cluster() as cluster, member(cluster) as alice, member(cluster) as bob:
        offers = [
            TrackOffer(id="v-1", type="video", format={"codec": "vp8"}),
            TrackOffer(id="a-1", type="audio", format={"codec": "opus"}),
        ]
        published = await alice.portal.publish(offers, Address("127.0.0.1", cameras.port))
        assert cameras.connections == 0
        subscribed = await bob.portal.subscribe(published.stream, ["video", "audio"])
        ids = {track.type: track.id for track in subscribed.tracks}
        async with (
            Screen.on(cluster.hub, ids["video"]) as seen,
            Screen.on(cluster.hub, ids["audio"]) as heard,
        ):
            await until(lambda: video.source.subscribers and audio.source.subscribers)
            await until(lambda: all(one.subscribers for one in cluster.hub.counters))
            video.source.write(picture(1))
            audio.source.write(sound(1))
            await until(lambda: seen.frames and heard.frames)
            assert (seen.frames, heard.frames) == ([picture(1)], [sound(1)])
            await bob.portal.unsubscribe(subscribed.subscription)
            await until(lambda: cameras.connections == 0)
    await cameras.close()


async def test_frames_go_from_a_client_to_the_media_bridge() -> None:
    cameras = await InternalListener.start()
    camera = Camera(cameras, "v-1")
    async with lab_cluster() as cluster, member(cluster) as alice, bridge(cluster, "mediabridge") as fake:
        offer = TrackOffer(id="v-1", type="video", format={"codec": "vp8"})
        published = await alice.portal.publish([offer], Address("127.0.0.1", cameras.port))
        tracks = [{"id": "t", "type": "video", "from": published.stream}]
        assert (
            await fake.call(await fake.node(), "subscribe", "admin", "c", {"media": {"tracks": tracks}})
            == "ok"
        )
        [linkup] = await fake.was_asked("linkup")
        source = linkup.args[1]["video"]
        assert source["port"] == cluster.hub.port
        async with Screen.on(cluster.hub, source["id"]) as screen:
            await until(lambda: camera.source.subscribers and cluster.hub.counters[0].subscribers)
            camera.source.write(picture(1))
            await until(lambda: screen.frames == [picture(1)])
    await cameras.close()


async def test_a_remote_track_is_published_by_the_media_bridge_while_it_is_wanted() -> None:
    served = await InternalListener.start()
    async with (
        lab_cluster() as cluster,
        member(cluster) as alice,
        member(cluster) as bob,
        bridge(cluster) as event,
        bridge(cluster, "mediabridge") as media,
    ):
        media.answers["getInternalAddress"] = {"ip": "127.0.0.1", "port": served.port}
        node = await event.node()
        arrived = initialize(streams=("s",))
        assert await event.call(node, "handleCascadingEvents", event.worker, "c2", arrived) == "ok"
        await alice.event("streamAdded")
        first = await alice.portal.subscribe("s", ["video"])
        second = await bob.portal.subscribe("s", ["video"])
        [publish] = await media.was_asked("publish")
        session, kind, options = publish.args
        assert kind == "mediabridge"
        [track] = options["pubArgs"]
        assert (track["type"], track["from"]) == ("video", "s")
        assert (options["cluster"], options["room"], options["controller"]) == ("c2", "room", node)
        camera = Camera(served, track["id"])
        async with Screen.on(cluster.hub, first.tracks[0].id) as screen:
            await until(lambda: camera.source.subscribers and cluster.hub.counters[0].subscribers)
            camera.source.write(picture(1))
            await until(lambda: screen.frames == [picture(1)])
        await alice.portal.unsubscribe(first.subscription)
        assert camera.source.subscribers == 1
        await bob.portal.unsubscribe(second.subscription)
        [unpublish] = await media.was_asked("unpublish")
        assert unpublish.args == [session]
        await until(lambda: camera.source.subscribers == 0)
        assert len(await media.was_asked("publish")) == 1
    await served.close()


async def test_a_source_lost_at_the_media_bridge_is_published_anew() -> None:
    served = await InternalListener.start()
    async with (
        lab_cluster() as cluster,
        member(cluster) as alice,
        bridge(cluster) as event,
        bridge(cluster, "mediabridge") as media,
    ):
        media.answers["getInternalAddress"] = {"ip": "127.0.0.1", "port": served.port}
        arrived = initialize(streams=("s",))
        await event.call(await event.node(), "handleCascadingEvents", event.worker, "c2", arrived)
        await alice.event("streamAdded")
        await alice.portal.subscribe("s", ["video"])
        [publish] = await media.was_asked("publish")
        camera = Camera(served, publish.args[2]["pubArgs"][0]["id"])
        await until(lambda: camera.source.subscribers)
        camera.source.close()
        [_, again] = await media.was_asked("publish", 2)
        [unpublish] = await media.was_asked("unpublish")
        assert unpublish.args == [publish.args[0]]
        assert again.args[0] != publish.args[0]
    await served.close()


async def test_a_media_bridge_that_comes_later_or_again_is_asked_then() -> None:
    async with lab_cluster() as cluster, member(cluster) as alice, bridge(cluster) as event:
        arrived = initialize(streams=("s",))
        await event.call(await event.node(), "handleCascadingEvents", event.worker, "c2", arrived)
        await alice.event("streamAdded")
        subscription = (await alice.portal.subscribe("s", ["video"])).subscription
        async with bridge(cluster, "mediabridge") as first:
            first.answers["publish"] = RuntimeError("not yet")
            await first.was_asked("publish", 2)  # tried again
            first.answers["publish"] = {"type": "failed", "reason": "never"}
            await first.was_asked("publish", 3)
        async with bridge(cluster, "mediabridge", name=f"mediabridge-{'1' * 20}@127.0.0.1") as second:
            second.answers["getInternalAddress"] = {"ip": "127.0.0.1", "port": 9}
            await second.was_asked("publish")
            # The link drops: the stream is gone, and with it the subscription and the session.
            down = {"type": "onCascadingDisconnected"}
            await event.call(await event.node(), "handleCascadingEvents", event.worker, "c2", down)
            ended = await alice.event("subscriptionEnded")
            assert ended == {"subscription": subscription, "reason": "stream-removed"}
            await second.was_asked("unpublish")


async def test_a_pull_follows_its_room_to_the_bridges_that_peers_are_connected_with() -> None:
    one, other = (f"mediabridge-{digit * 20}@127.0.0.1" for digit in "12")
    async with (
        lab_cluster() as cluster,
        member(cluster) as alice,
        bridge(cluster, name=f"eventbridge-{'1' * 20}@127.0.0.1", process="one") as event,
        bridge(cluster, "mediabridge", name=one, process="one") as media,
        bridge(cluster, name=f"eventbridge-{'2' * 20}@127.0.0.1", process="other") as new_event,
        bridge(cluster, "mediabridge", name=other, process="other") as new_media,
    ):
        for each in (media, new_media):
            each.answers["getInternalAddress"] = {"ip": "127.0.0.1", "port": 9}
        node, arrived = await event.node(), initialize(streams=("s",))
        await event.call(node, "onCascadingConnected", event.worker, "session", "4")
        await event.call(node, "handleCascadingEvents", event.worker, "c2", arrived)
        await alice.event("streamAdded")
        await alice.portal.subscribe("s", ["video"])
        [asked] = await media.was_asked("publish")
        await new_event.call(node, "onCascadingConnected", new_event.worker, "session", "8")
        await new_event.call(node, "handleCascadingEvents", new_event.worker, "c2", arrived)
        await new_media.was_asked("publish")
        [taken_back] = await media.was_asked("unpublish")
        assert taken_back.args == asked.args[:1]


@pytest.mark.parametrize("address", [None, {"ip": "127.0.0.1"}, {"ip": "", "port": 1}])
async def test_a_media_bridge_without_an_address_is_asked_again(address: Any) -> None:
    async with (
        lab_cluster() as cluster,
        member(cluster) as alice,
        bridge(cluster) as event,
        bridge(cluster, "mediabridge") as media,
    ):
        media.answers["getInternalAddress"] = address if address is not None else RuntimeError("no")
        arrived = initialize(streams=("s",))
        await event.call(await event.node(), "handleCascadingEvents", event.worker, "c2", arrived)
        await alice.event("streamAdded")
        await alice.portal.subscribe("s", ["video"])
        await media.was_asked("publish", 2)
        await media.was_asked("unpublish")
