from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control.cascade.explain import explain
from control.cascade.view import AgentFacts, ClusterFacts, LinkFacts, PlacementFacts, View

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=20)


def cluster(name: str, **changes: Any) -> ClusterFacts:
    facts: dict[str, Any] = {"id": name, "online": True, "reports_links": True, "region": name[:2]}
    return ClusterFacts(**facts | changes)


def placement(name: str, ordinal: int, **changes: Any) -> PlacementFacts:
    facts: dict[str, Any] = {
        "cluster": name,
        "ordinal": ordinal,
        "state": "ready",
        "has_token": True,
        "participants": 1,
    }
    return PlacementFacts(**facts | changes)


def link(state: Any, **changes: Any) -> LinkFacts:
    facts: dict[str, Any] = {"dialer": "us-1", "listener": "eu-1", "state": state, "since": NOW}
    return LinkFacts(**facts | changes)


def told(**changes: Any) -> list[tuple[str, str]]:
    """Return what waits and why, in a conference on eu-1 and us-1 with the given facts changed."""
    facts: dict[str, Any] = {
        "conference": "c",
        "state": "active",
        "placements": (placement("eu-1", 1), placement("us-1", 2)),
        "links": (),
        "clusters": {name: cluster(name) for name in ("eu-1", "us-1")},
    }
    plan = explain(View(**facts | changes), NOW, breakers={}, next_look_at=None)
    assert all(each.until is None or each.until > NOW for each in plan.waiting)
    return [(each.action, each.why) for each in plan.waiting]


def test_nothing_waits_where_nothing_is_missing() -> None:
    assert told(links=(link("up"),)) == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            link("requested"),
            "the dialing side has the order, and is given time to report that the link is up",
        ),
        (link("down"), "the bridge dials again by itself, and is given time to"),
        (link("wanted", attempts=3, retry_at=SOON), "it has failed 3 times"),
    ],
)
def test_a_link_that_is_given_time_says_for_what(row: LinkFacts, why: str) -> None:
    assert told(links=(row,)) == [("fetch-bridges", why)]


def test_a_cluster_that_is_left_alone_is_why() -> None:
    shunned = {
        "eu-1": cluster("eu-1", breaker_open=True, breaker_until=SOON),
        "us-1": cluster("us-1"),
    }
    why = "eu-1 has failed so often that it is left alone"
    assert told(clusters=shunned) == [("fetch-bridges", why)]
    wanted = (placement("eu-1", 1, state="wanted", has_token=False, participants=0),)
    assert told(clusters=shunned, placements=wanted) == [("create-room", why)]


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        (
            {"clusters": {"eu-1": cluster("eu-1", online=False), "us-1": cluster("us-1")}},
            ("fetch-bridges", "eu-1 is offline"),
        ),
        (
            {"placements": (placement("eu-1", 1, has_token=False), placement("us-1", 2))},
            ("fetch-bridges", "the room on eu-1 has reported no token yet"),
        ),
        (
            {"placements": (placement("eu-1", 1), placement("us-1", 2, participants=0))},
            ("fetch-bridges", "nobody has joined on us-1 yet"),
        ),
        (
            {"agents": (AgentFacts(id="a", cluster="us-1", kinds=frozenset({"event"}), live=True, room=0),)},
            ("fetch-bridges", "no agent of us-1 has room for the conference"),
        ),
        (
            {
                "placements": (
                    placement("eu-1", 1),
                    placement(
                        "us-1", 2, state="wanted", has_token=False, participants=0, attempts=2, retry_at=SOON
                    ),
                )
            },
            ("create-room", "it has failed 2 times"),
        ),
        (
            {
                "placements": (placement("eu-1", 1), placement("us-1", 2, state="wanted", participants=0)),
                "clusters": {"eu-1": cluster("eu-1"), "us-1": cluster("us-1", online=False)},
            },
            ("create-room", "us-1 is offline"),
        ),
        (
            {"placements": (placement("eu-1", 1, participants=0, empty_since=NOW),)},
            ("remove-room", "nobody is there; somebody may still come"),
        ),
    ],
)
def test_what_waits_for_a_fact_says_for_which(changes: dict[str, Any], step: tuple[str, str]) -> None:
    assert step in told(**changes)


def test_a_conference_that_ends_waits_for_its_rooms_only() -> None:
    left = (placement("eu-1", 1, attempts=1, retry_at=SOON), placement("us-1", 2))
    plan = explain(
        View(
            conference="c",
            state="ending",
            placements=left,
            links=(),
            clusters={name: cluster(name) for name in ("eu-1", "us-1")},
        ),
        NOW,
        breakers={},
        next_look_at=SOON,
    )
    assert [(step.action, step.on) for step in plan.due] == [("remove-room", {"cluster": "us-1"})]
    assert [(w.action, w.until, w.why) for w in plan.waiting] == [("remove-room", SOON, "it has failed once")]
    assert plan.next_look_at == SOON
