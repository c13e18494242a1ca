"""The life of a worker as a pure state machine: told stories, and any order of news."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridges.node.amqp.membership import Call, Cast, Entered, Heard, Left, Membership, Order, State

ID = "eventbridge-0@h"
INFO = {"ip": "192.0.2.1"}
JOIN = Call("join", ["eventbridge", ID, INFO])
ALIVE = Call("keepAlive", [ID])


def membership() -> Membership:
    return Membership(purpose="eventbridge", worker_id=ID, info=INFO)


def entered(now: float = 0.0) -> Membership:
    worker = membership()
    worker.hear(Heard.CONNECTED, now)
    worker.hear(Heard.TAKEN_IN, now)
    worker.tick(now, lambda: 0.1)
    return worker


def test_it_joins_lives_and_reports_its_load_when_it_changes() -> None:
    worker = membership()
    assert worker.tick(5.0, lambda: 0.1) == []
    assert worker.hear(Heard.CONNECTED, 10.0) == [JOIN]
    assert worker.tick(10.5, lambda: 0.1) == []
    assert worker.tick(10.8, lambda: 0.1) == [JOIN]  # the manager did not answer
    assert worker.hear(Heard.TAKEN_IN, 11.0) == [Entered()]
    assert worker.next_at == 11.0
    assert worker.tick(11.0, lambda: 0.123) == [Cast("reportLoad", [ID, 0.12])]
    assert worker.next_at == 11.8
    assert worker.tick(11.8, lambda: 0.5) == [ALIVE]
    assert worker.tick(12.0, lambda: 0.12) == []
    assert worker.tick(12.7, lambda: 0.5) == [ALIVE]
    assert worker.tick(13.0, lambda: 7.0) == [Cast("reportLoad", [ID, 1.0])]


def test_a_manager_that_forgot_it_is_joined_again_and_told_what_it_does() -> None:
    worker = entered()
    assert worker.take_task("s1") == [Cast("pickUpTasks", [ID, ["s1"]])]
    assert worker.take_task("s1") == []
    assert worker.hear(Heard.UNKNOWN, 5.0) == [JOIN]
    assert worker.hear(Heard.UNKNOWN, 5.1) == []  # a late answer
    assert worker.take_task("s2") == []
    assert worker.hear(Heard.TAKEN_IN, 5.2) == [Cast("pickUpTasks", [ID, ["s1", "s2"]])]
    assert worker.drop_task("s1") == [Cast("layDownTask", [ID, "s1"])]
    assert worker.drop_task("s1") == []


def test_an_announced_removal_ends_what_there_was() -> None:
    worker = entered()
    worker.take_task("s1")
    assert worker.hear(Heard.REMOVED, 5.0) == [Left(), JOIN]
    assert worker.hear(Heard.REMOVED, 5.0) == []
    assert worker.hear(Heard.TAKEN_IN, 5.2) == [Entered()]
    assert not worker.tasks
    for number in range(10_000):
        worker.take_task(str(number))
    assert worker.take_task("more") == [
        Cast("pickUpTasks", [ID, ["more"]]),
        Cast("layDownTask", [ID, "0"]),
    ]


def test_a_broker_that_was_away_changes_nothing() -> None:
    worker = entered()
    assert worker.hear(Heard.DISCONNECTED, 5.0) == []
    assert worker.quit() == []
    assert worker.hear(Heard.CONNECTED, 65.0) == [ALIVE]
    assert worker.hear(Heard.KNOWN, 65.1) == []
    assert worker.state is State.MEMBER
    assert worker.quit() == [Cast("quit", [ID])]


def test_forgotten_while_the_broker_was_away_it_joins_and_keeps_what_runs() -> None:
    worker = entered()
    worker.hear(Heard.DISCONNECTED, 5.0)
    worker.hear(Heard.CONNECTED, 65.0)
    assert worker.hear(Heard.UNKNOWN, 65.1) == [JOIN]
    assert worker.hear(Heard.TAKEN_IN, 65.2) == []


def test_removal_heard_of_after_the_broker_was_back() -> None:
    worker = entered()
    worker.hear(Heard.DISCONNECTED, 5.0)
    assert worker.hear(Heard.REMOVED, 6.0) == [Left()]
    assert worker.hear(Heard.CONNECTED, 65.0) == [ALIVE]
    assert worker.hear(Heard.UNKNOWN, 65.1) == [JOIN]
    assert worker.hear(Heard.TAKEN_IN, 65.2) == [Entered()]


@given(
    st.lists(
        st.tuples(st.sampled_from([*Heard, "tick", "task", "done", "quit"]), st.floats(0, 2)), max_size=60
    )
)
def test_whatever_is_heard_in_whatever_order(news: list[tuple[Any, float]]) -> None:
    """Entered and Left alternate; nothing is said without a broker; there is always something to wait for."""
    worker, now, inside, connected = membership(), 0.0, False, False
    for what, passed in news:
        now += passed
        orders: list[Order]
        match what:
            case "tick":
                orders = worker.tick(now, lambda passed=passed: passed)  # type: ignore[misc] # bound now
            case "task":
                orders = worker.take_task("t")
            case "done":
                orders = worker.drop_task("t")
            case "quit":
                orders = worker.quit()
            case _:
                orders = worker.hear(what, now)
        connected = {Heard.CONNECTED: True, Heard.DISCONNECTED: False}.get(what, connected)
        for order in orders:
            if isinstance(order, Entered | Left):
                assert isinstance(order, Entered) is not inside
                inside = not inside
            else:
                assert connected
        assert worker.entered is inside
        assert (worker.next_at is not None) is connected
        if worker.next_at is not None:
            assert worker.next_at <= now + 1.0
    # Whatever happened: a broker and a manager that answer make it a member.
    worker.hear(Heard.CONNECTED, now)
    worker.hear(Heard.UNKNOWN, now)
    worker.hear(Heard.TAKEN_IN, now)
    if worker.state is not State.MEMBER:  # it had heard of its removal while it was checking
        worker.hear(Heard.TAKEN_IN, now)
    assert worker.state is State.MEMBER
