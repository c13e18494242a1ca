from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.launcher.activity import Activity


def event_bridge(events_in: int, events_out: int, peer: str = "us-east-1") -> dict[str, Any]:
    link = {"peer": peer, "room": "r", "role": "dialer", "state": "up", "connects": 1}
    return {"links": [{**link, "events_in": events_in, "events_out": events_out}]}


def media_bridge(frames: int, dropped: int = 0, track: str = "t1") -> dict[str, Any]:
    counters = {"frames": frames, "bytes": 100 * frames, "dropped_frames": dropped, "key_frame_requests": 1}
    place = {"id": track, "room": "r", "peer": "us-east-1", "direction": "out", "kind": "video"}
    return {"links": [], "tracks": [{**place, **counters}]}


def answer(**bridges: Any) -> dict[str, Any]:
    people = [
        {"id": "p1", "cascading": False},
        {"id": "p2", "cascading": True},
        {"id": "p3", "cascading": True},
    ]
    return {
        "cluster": "eu-west-1",
        "rooms": [{"room": "r", "participants": people}],
        "bridges": [{"id": name, "purpose": "x", "stats": stats} for name, stats in bridges.items()],
    }


def test_people_are_local_or_remote() -> None:
    activity = Activity()
    activity.follow(answer())
    assert (activity.local, activity.remote) == (1, 2)


def test_events_and_frames_of_all_bridges_add_up() -> None:
    activity = Activity()
    activity.follow(answer(event=event_bridge(3, 4), media=media_bridge(10, 2)))
    assert (activity.events, activity.frames, activity.bytes, activity.dropped) == (7, 10, 1000, 2)
    activity.follow(answer(event=event_bridge(3, 5), media=media_bridge(15, 2)))
    assert (activity.events, activity.frames, activity.bytes, activity.dropped) == (8, 15, 1500, 2)


def test_a_restarted_bridge_begins_at_zero_and_the_total_does_not() -> None:
    activity = Activity()
    activity.follow(answer(first=media_bridge(10)))
    activity.follow(answer())
    activity.follow(answer(second=media_bridge(4)))
    activity.follow(answer(second=media_bridge(1)))
    assert activity.frames == 15


def test_what_is_no_statistic_is_left_out() -> None:
    activity = Activity()
    for odd in (None, {"bridges": "many"}, answer(a={"tracks": [{"frames": "x"}]}), answer(a=None, b={})):
        activity.follow(odd)
    assert (activity.events, activity.frames) == (0, 0)


@given(st.lists(st.integers(0, 100)))
def test_totals_never_fall(counts: list[int]) -> None:
    activity = Activity()
    before = 0
    for count in counts:
        activity.follow(answer(bridge=media_bridge(count)))
        assert activity.frames >= before
        before = activity.frames
