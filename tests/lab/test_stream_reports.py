"""Streams as the laboratory's cluster tells control of them."""

from __future__ import annotations

from bridges.wire.objects import Stream, StreamInfo, StreamMedia, Track
from lab import stream_reports
from lab.report_queue import ReportQueue, Resource
from tests.lab.cluster_kit import bridge, member
from tests.lab.test_node import initialize
from tests.lab.test_portal import AUDIO, SOURCE, VIDEO
from tests.lab.test_registrar import Control, drain, listening, reporting

STREAM = Resource("stream", "r", "s1")


def test_a_report_is_what_the_cluster_knows_and_nothing_too_long() -> None:
    stream = Stream(
        id="s1",
        media=StreamMedia(
            tracks=[
                Track(id="s1-v", type="video", source="x" * 300, format={"codec": "vp8", "profile": "0"}),
                Track(id="s1-a", type="audio", status="inactive"),
            ]
        ),
        info=StreamInfo(owner="p1", attributes={"secret": "of theirs"}),
    )
    text = stream_reports.text_of(stream)
    assert "secret" not in text
    report = stream_reports.read(text)
    assert report.participant == "p1"
    assert [(each.kind, each.id, each.codec, each.muted) for each in report.tracks] == [
        ("video", "s1-v", "vp8", False),
        ("audio", "s1-a", None, True),
    ]
    assert report.tracks[0].source == "x" * 64


def test_streams_are_told_after_their_publishers_and_taken_back_early() -> None:
    queue = ReportQueue(limit=10)
    queue.put(STREAM, "{}")
    queue.put(Resource("participant", "r", "p"), "u", "r")
    queue.put(Resource("room", "r"), "t")
    assert drain(queue) == [("room", True), ("participant", True), ("stream", True)]
    queue.remove(STREAM)
    queue.put(Resource("participant", "r", "q"), "u", "r")
    assert drain(queue) == [("stream", False), ("participant", True)]
    queue.put(STREAM, "{}")
    queue.close_room("r")
    assert drain(queue) == [("room", False)]


async def test_local_streams_are_told_with_what_becomes_of_them() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "")
        async with member(cluster, user="alice") as alice, bridge(cluster) as event:
            node = await event.node()
            await event.call(node, "handleCascadingEvents", event.worker, "c2", initialize(streams=("far",)))
            published = await alice.portal.publish([VIDEO, AUDIO], SOURCE)
            path = f"/rooms/room/streams/{published.stream}"
            (report,) = await control.was_told("PUT", path)
            assert report["participant"] == alice.id
            assert [track["kind"] for track in report["tracks"]] == ["video", "audio"]
            assert not any("muted" in track for track in report["tracks"])
            room = cluster.rooms.running[0]
            muted = {"stream": published.stream, "track": "audio", "muted": True}
            await alice.portal._call("mute", muted, dict)
            again = (await control.was_told("PUT", path, 2))[1]
            assert [track.get("muted") for track in again["tracks"]] == [None, True]
            await alice.portal.unpublish(published.stream)
            await control.was_told("DELETE", path)
            assert room.room.local_streams == []
            assert not [where for _, where, _ in control.told if where.endswith("/streams/far")]
