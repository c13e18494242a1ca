from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import lifecycle
from control.lifecycle import NEXT, Facts, drain_progress, shown

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "state": "online",
        "since": at(-100),
        "reason": "registered",
        "last_seen_at": at(0),
        "lease_expires_at": at(6),
        "probed": False,
        "probe_failures": 0,
        "probe_error": None,
        "drain_since": None,
        "drain_reason": None,
    }
    return Facts(**values | changes)


@pytest.mark.parametrize(
    ("seconds", "state", "since"),
    [(0, "online", -100), (2.9, "online", -100), (3.1, "suspect", 3), (5.9, "suspect", 3), (6, "lost", 6)],
)
def test_time_alone_makes_a_silent_cluster_suspect_then_lost(
    seconds: float, state: str, since: float
) -> None:
    seen = shown(facts(), at(seconds))
    assert (seen.state, seen.since) == (state, at(since))
    assert seen.reason


def test_a_probed_cluster_is_suspect_after_a_failure_not_by_time() -> None:
    assert shown(facts(probed=True), at(5)).state == "online"
    seen = shown(facts(probed=True, probe_failures=2, probe_error="cluster-timeout"), at(1))
    assert (seen.state, seen.reason) == ("suspect", "2 failed probes in a row: cluster-timeout")
    assert shown(facts(probed=True), at(7)).reason == "it was not probed in time"


def test_draining_is_shown_while_it_is_there_at_all() -> None:
    drained = {"drain_since": at(-10), "drain_reason": "new kernel"}
    seen = shown(facts(**drained), at(5))
    assert (seen.state, seen.since, seen.reason) == ("draining", at(-10), "new kernel")
    assert shown(facts(**drained), at(7)).state == "lost"
    assert shown(facts(**drained, state="unregistered"), at(1)).state == "unregistered"


def test_a_drain_is_done_when_nothing_is_left_whenever_that_is() -> None:
    for deadline in (None, at(-1), at(1)):
        assert drain_progress(participants=0, conferences=0, deadline=deadline, now=NOW) == "done"
    assert drain_progress(participants=1, conferences=0, deadline=None, now=NOW) == "running"
    assert drain_progress(participants=0, conferences=1, deadline=at(1), now=NOW) == "running"
    assert drain_progress(participants=0, conferences=1, deadline=at(0), now=NOW) == "overdue"


def test_the_table_of_states_is_closed_and_documented() -> None:
    states = {"online", "lost", "unregistered"}
    assert set(NEXT.values()) <= states
    assert {before for before, _ in NEXT} <= states | {None}
    doc = lifecycle.__doc__ or ""
    assert all(f"{event}" in doc for _, event in NEXT)


@given(
    st.builds(
        facts,
        state=st.sampled_from(["online", "lost", "unregistered"]),
        last_seen_at=st.floats(-50, 50).map(at),
        lease_expires_at=st.floats(50, 90).map(at),
        probed=st.booleans(),
        probe_failures=st.integers(0, 5),
        drain_since=st.none() | st.floats(-50, 0).map(at),
    ),
    st.floats(50, 100),
)
def test_every_shown_state_has_a_past_and_a_reason(known: Facts, seconds: float) -> None:
    now = at(seconds)
    seen = shown(known, now)
    assert seen.since <= now
    assert seen.reason
    assert (seen.state in {"online", "suspect", "draining"}) == (
        known.state == "online" and known.lease_expires_at > now
    )
