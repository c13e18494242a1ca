"""Which session speaks to the node, in which order, and how much may wait."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.event.table import Announce, Deliver, Feed, SessionTable, Withdraw


def orders(feed: Feed[Any]) -> list[Any]:
    taken = []
    while (order := feed.take()) is not None:
        taken.append(order)
    return taken


def test_one_session_from_begin_to_end() -> None:
    feed: Feed[str] = Feed(max_queued=10)
    assert feed.begin("a") is None
    assert feed.event("a", 1)
    assert feed.event("a", 2)
    assert orders(feed) == [Announce("a"), Deliver("a", 1), Deliver("a", 2)]
    feed.event("a", 3)
    feed.end("a")
    assert orders(feed) == [Withdraw("a")]
    assert feed.current is None


def test_newer_session_supersedes_and_the_node_hears_it_in_order() -> None:
    feed: Feed[str] = Feed(max_queued=10)
    feed.begin("a")
    feed.event("a", 1)
    assert orders(feed) == [Announce("a"), Deliver("a", 1)]
    feed.event("a", 2)
    assert feed.begin("b") == "a"
    assert feed.event("a", 3)  # dropped: it is not current
    feed.event("b", 4)
    feed.end("a")  # of no effect
    assert orders(feed) == [Withdraw("a"), Announce("b"), Deliver("b", 4)]


def test_session_that_the_node_never_heard_of_is_not_withdrawn() -> None:
    feed: Feed[str] = Feed(max_queued=10)
    feed.begin("a")
    feed.begin("b")
    feed.end("b")
    assert orders(feed) == []


def test_withdrawal_that_waits_is_kept_by_whatever_follows() -> None:
    feed: Feed[str] = Feed(max_queued=10)
    feed.begin("a")
    orders(feed)
    feed.end("a")
    feed.begin("b")
    feed.begin("c")
    assert orders(feed) == [Withdraw("a"), Announce("c")]


def test_events_are_bounded_and_the_end_still_fits() -> None:
    feed: Feed[str] = Feed(max_queued=3)
    feed.begin("a")
    assert feed.take() == Announce("a")
    assert [feed.event("a", number) for number in range(5)] == [True, True, True, False, False]
    feed.end("a")
    assert orders(feed) == [Withdraw("a")]


def test_forgetting_drops_everything() -> None:
    feed: Feed[str] = Feed(max_queued=3)
    feed.begin("a")
    feed.take()
    feed.event("a", 1)
    feed.forget()
    feed.end("a")
    assert orders(feed) == []


def test_table_keeps_feeds_only_while_they_are_needed() -> None:
    table: SessionTable[str] = SessionTable(max_queued=5)
    table.feed("west", "r").begin("a")
    table.feed("west", "s").begin("b")
    assert table.current("west", "r") == "a"
    assert table.current("east", "r") is None
    assert sorted(table.sessions()) == ["a", "b"]
    table.tidy("west", "r")
    assert len(table) == 2
    table.feed("west", "r").end("a")
    table.tidy("west", "r")
    assert len(table) == 1
    table.tidy("nobody", "r")
    assert [key for key, _ in table] == [("west", "s")]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("event"), st.integers(0, 5)),
        st.tuples(st.just("take"), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)  # the machine may be busy
@given(ACTIONS)
def test_the_node_never_hears_two_sessions_mixed(actions: list[tuple[str, int]]) -> None:
    """Announce, then events of that session alone, then Withdraw, before the next Announce; all bounded."""
    feed: Feed[int] = Feed(max_queued=4)
    heard: list[Any] = []
    for action, session in actions:
        if action == "begin":
            feed.begin(session)
        elif action == "end":
            feed.end(session)
        elif action == "event":
            feed.event(session, object())
        elif (order := feed.take()) is not None:
            heard.append(order)
        assert len(feed) <= 4
    heard += orders(feed)
    told: int | None = None
    for order in heard:
        match order:
            case Announce(session):
                assert told is None
                told = session
            case Deliver(session, _):
                assert session == told
            case Withdraw(session):
                assert session == told
                told = None
    assert told == feed.current
