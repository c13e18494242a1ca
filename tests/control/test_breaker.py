from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.backoff import Backoff
from control.cascade.breaker import NEXT, Breaker, Breakers, State
from control.cascade_settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, rest_base=1.0, rest_cap=8.0, probes=1)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def steady() -> Breaker:
    """A breaker whose rests are 2, 4, 8, 8 … seconds."""
    return Breaker(SETTINGS, Backoff(base=2.0, cap=8.0, floor=1.0, uniform=lambda _low, high: high))


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.end(breaker.begin(now), now, error="no answer")


def test_it_opens_at_the_last_straw_and_closes_after_a_try_that_succeeds() -> None:
    breaker = steady()
    fail(breaker, 0, 2)
    assert breaker.state(0) == "closed"
    fail(breaker, 0)
    assert (breaker.state(0), breaker.retry_at, breaker.error) == ("open", 2.0, "no answer")
    assert not breaker.admits(1.9)
    assert breaker.admits(2.0)
    assert breaker.state(2.0) == "half-open"
    life = breaker.begin(2.0)
    assert not breaker.admits(2.0)
    breaker.end(life, 2.5, error=None)
    assert (breaker.state(2.5), breaker.failures, breaker.error) == ("closed", 0, None)


def test_every_try_in_vain_makes_the_rest_longer() -> None:
    breaker, now = steady(), 0.0
    fail(breaker, now, 3)
    rests = []
    for _ in range(4):
        rests.append(breaker.retry_at - now)
        now = breaker.retry_at
        fail(breaker, now)
    assert rests == [2.0, 4.0, 8.0, 8.0]


def test_a_success_in_between_is_a_new_beginning() -> None:
    breaker = steady()
    for _ in range(10):
        fail(breaker, 0, 2)
        breaker.end(breaker.begin(0), 0, error=None)
    assert breaker.state(0) == "closed"


def test_what_began_before_the_change_says_nothing_any_more() -> None:
    breaker = steady()
    late = [breaker.begin(0) for _ in range(5)]
    fail(breaker, 0, 3)
    breaker.end(late[0], 1, error=None)
    assert breaker.state(1) == "open"
    assert breaker.admits(2)
    breaker.end(late[1], 2, error="late")
    assert breaker.state(2) == "half-open"
    breaker.drop(late[2])
    breaker.begin(2)
    breaker.drop(late[3])
    assert not breaker.admits(2)


@pytest.mark.parametrize("error", ["no answer", None])
def test_what_begins_when_it_has_just_opened_does_not_count(error: str | None) -> None:
    breaker = steady()
    fail(breaker, 0, 3)
    late = breaker.begin(0.5)
    breaker.end(late, 1.0, error=error)
    breaker.drop(late)
    assert (breaker.state(1.0), breaker.retry_at, breaker.failures) == ("open", 2.0, 3)


def test_a_dropped_try_makes_room_for_another() -> None:
    breaker = steady()
    fail(breaker, 0, 3)
    life = breaker.begin(2)
    assert not breaker.admits(2)
    breaker.drop(life)
    assert breaker.admits(2)


@pytest.mark.parametrize(("state", "event"), NEXT)
def test_the_table_leads_to_states_that_there_are(state: State, event: str) -> None:
    assert NEXT[state, event] in get_args(State)  # type: ignore[index] # the keys are the table's own
    assert [after for (before, _), after in NEXT.items() if before == "open"] == ["half-open"]


@given(st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "drop"]), st.floats(0, 10)), max_size=60))
def test_whatever_happens_it_is_never_open_for_longer_than_the_cap(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(SETTINGS), 0.0
    lives: list[int] = []
    for what, passed in steps:
        now += passed
        if what == "begin":
            if breaker.admits(now):
                lives.append(breaker.begin(now))
        elif lives:
            life = lives.pop(0)
            if what == "drop":
                breaker.drop(life)
            else:
                breaker.end(life, now, error=None if what == "good" else "bad")
        assert breaker.state(now) != "open" or now < breaker.retry_at <= now + SETTINGS.rest_cap
    for life in lives:
        breaker.drop(life)
    later = now + SETTINGS.rest_cap + 1
    assert breaker.admits(later)
    breaker.end(breaker.begin(later), later, error=None)
    assert breaker.state(later) == "closed"


def test_one_cluster_s_breaker_says_nothing_of_another_nor_of_its_next_start() -> None:
    clock = Clock()
    breakers = Breakers(SETTINGS, clock=clock)
    for _ in range(3):
        breakers.failed(breakers.begin("eu-1", "i1"), "cluster-unreachable")
    assert not breakers.admits("eu-1", "i1")
    assert breakers.admits("us-1", "i1")
    assert 0 < breakers.rest_of("eu-1", "i1") <= SETTINGS.rest_cap
    shown = breakers.view("eu-1")
    assert shown is not None
    assert (shown.state, shown.failures, shown.error) == ("open", 3, "cluster-unreachable")
    assert shown.retry_at is not None
    late = breakers.begin("eu-1", "i1")
    assert breakers.admits("eu-1", "i2")
    assert breakers.view("eu-1") is None
    breakers.failed(breakers.begin("eu-1", "i2"), "once")
    breakers.failed(late, "of the former start")
    breakers.dropped(late)
    assert not breakers.succeeded(late)
    known = breakers.view("eu-1")
    assert known is not None
    assert known.failures == 1


def test_it_says_when_a_cluster_has_healed_and_then_forgets_it() -> None:
    clock = Clock()
    breakers = Breakers(SETTINGS, clock=clock)
    assert breakers.succeeded(breakers.begin("eu-1", "i1")) is False
    for _ in range(3):
        breakers.failed(breakers.begin("eu-1", "i1"), "cluster-unreachable")
    clock.now += SETTINGS.rest_cap
    tried = breakers.begin("eu-1", "i1")
    assert not breakers.admits("eu-1", "i1")
    assert breakers.rest_of("eu-1", "i1") > 0
    assert breakers.succeeded(tried) is True
    assert breakers.rest_of("eu-1", "i1") == 0
    assert breakers.succeeded(breakers.begin("eu-1", "i1")) is False
    assert breakers.view("eu-1") is None
