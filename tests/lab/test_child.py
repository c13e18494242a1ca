from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.backoff import Backoff
from lab.launcher.child import TRANSITIONS, ChildLife, Event, ImpossibleEventError, State

HANDED_IN = [event for event in Event if event is not Event.GIVEN_UP]


def life(*, restart: bool = True, delay: float = 1.0) -> ChildLife:
    """A life whose pauses are the backoff's ceiling: delay, 2 · delay, 4 · delay …"""
    return ChildLife(restart=restart, backoff=Backoff(base=delay, cap=100.0, uniform=lambda _low, high: high))


def test_a_life_from_start_to_stop() -> None:
    child = life()
    assert child.state is State.STOPPED
    assert child.handle(Event.START, 0.0) is State.STARTING
    assert child.handle(Event.READY, 1.0) is State.RUNNING
    assert child.handle(Event.STOP, 2.0) is State.STOPPING
    assert child.handle(Event.EXITED, 3.0) is State.STOPPED
    assert (child.starts, child.restarts) == (1, 0)


def test_one_that_dies_starts_again_after_a_growing_pause() -> None:
    child = life()
    child.handle(Event.START, 0.0)
    child.handle(Event.READY, 0.0)
    for pause in (1.0, 2.0, 4.0):
        assert child.handle(Event.EXITED, 10.0) is State.BACKING_OFF
        assert child.due_at == 10.0 + pause
        assert child.handle(Event.DUE, child.due_at) is State.STARTING
    assert child.restarts == 3


def test_failures_are_forgiven_after_a_settled_run() -> None:
    child = life()
    child.handle(Event.START, 0.0)
    child.handle(Event.READY, 0.0)
    child.handle(Event.EXITED, 1.0)
    child.handle(Event.DUE, 2.0)
    child.handle(Event.READY, 3.0)
    child.handle(Event.EXITED, 13.0)
    assert child.due_at == 14.0


def test_one_that_was_never_ready_has_failed() -> None:
    child = life()
    child.handle(Event.START, 0.0)
    assert child.handle(Event.EXITED, 1.0) is State.FAILED
    assert child.handle(Event.STOP, 2.0) is State.FAILED


def test_one_that_may_not_restart_has_failed_when_it_ends() -> None:
    child = life(restart=False)
    child.handle(Event.START, 0.0)
    child.handle(Event.READY, 1.0)
    assert child.handle(Event.EXITED, 2.0) is State.FAILED


def test_stop_while_backing_off_needs_no_exit() -> None:
    child = life()
    for event in (Event.START, Event.READY, Event.EXITED):
        child.handle(event, 0.0)
    assert child.handle(Event.STOP, 0.5) is State.STOPPED


def test_the_impossible_is_refused_and_changes_nothing() -> None:
    child = life()
    with pytest.raises(ImpossibleEventError, match="ready while stopped"):
        child.handle(Event.READY, 0.0)
    assert child.state is State.STOPPED


def test_every_state_can_be_reached_and_stopped() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    for state in set(State) - {State.STOPPING}:
        assert (state, Event.STOP) in TRANSITIONS


@given(st.lists(st.sampled_from(HANDED_IN)), st.booleans())
def test_any_order_of_events_keeps_the_table_and_the_counts(events: list[Event], restart: bool) -> None:
    child = life(restart=restart)
    for now, event in enumerate(events):
        before, starts = child.state, child.starts
        try:
            after = child.handle(event, float(now))
        except ImpossibleEventError:
            assert (child.state, child.starts) == (before, starts)
            continue
        assert after in {to for (state, _), to in TRANSITIONS.items() if state is before}
        assert child.starts - starts == (after is State.STARTING)
        if after is State.BACKING_OFF:
            assert restart
            assert child.due_at > now
