"""Which bridges have a room, of a cluster that has several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from lab.workers import Worker, Workers

if TYPE_CHECKING:
    from lab.rpc_socket import RpcSocket
    from lab.workers import BridgePurpose


class Socket:
    """A connection that only can be dropped."""

    def drop(self, reason: str) -> None:
        """Take note of nothing."""


def worker(name: str, purpose: BridgePurpose = "eventbridge", process: Any = "") -> Worker:
    return Worker(name, purpose, {"process": process}, cast("RpcSocket", Socket()))


def book(*workers: Worker) -> Workers:
    made = Workers()
    for each in workers:
        made.join(each)
    return made


def test_a_room_stays_with_its_bridge_and_rooms_are_spread() -> None:
    workers = book(worker("a"), worker("b"), worker("c"))
    first = {room: workers.of("eventbridge", room) for room in "123456"}
    counts = [sum(has is each for has in first.values()) for each in workers.all]
    assert counts == [2, 2, 2]
    workers.join(worker("d"))
    assert {room: workers.of("eventbridge", room) for room in "123456"} == first
    new = workers.of("eventbridge", "7")
    assert new is not None
    assert new.id == "d", "it has the fewest"


def test_without_bridges_nobody_has_a_room() -> None:
    workers = book(worker("a"))
    assert workers.of("mediabridge", "1") is None


def test_the_bridges_of_a_process_go_together() -> None:
    workers = book(
        worker("e1", process="p"),
        worker("e2", process="q"),
        worker("m1", "mediabridge", "p"),
        worker("m2", "mediabridge", "q"),
    )
    for room in "1234":
        event, media = workers.of("eventbridge", room), workers.of("mediabridge", room)
        assert event is not None
        assert media is not None
        assert event.process == media.process


def test_a_lost_bridges_rooms_go_to_others_and_the_others_keep_theirs() -> None:
    a, b = worker("a"), worker("b")
    workers = book(a, b)
    had = {room: workers.of("eventbridge", room) for room in "1234"}
    workers.lose(a)
    assert all(workers.of("eventbridge", room) is b for room in had)
    workers.join(worker("a2"))
    assert all(workers.of("eventbridge", room) is b for room in had), "nothing moves without need"


def test_whoever_has_peers_for_a_room_has_it() -> None:
    e1, m1 = worker("e1", process="p"), worker("m1", "mediabridge", "p")
    e2, m2 = worker("e2", process="q"), worker("m2", "mediabridge", "q")
    workers = book(e1, m1, e2, m2)
    moved: list[tuple[str, str]] = []
    workers.on_moved.append(lambda room, former: moved.append((room, former.id)))
    chosen = workers.of("mediabridge", "1")
    shows, has, former = (e1, m1, m2) if chosen is m2 else (e2, m2, m1)
    workers.shown(shows, "1")
    assert workers.of("mediabridge", "1") is has
    assert workers.of("eventbridge", "1") is shows
    assert moved == [("1", former.id)]
    workers.shown(shows, "1")
    assert len(moved) == 1


def test_a_room_that_is_gone_counts_no_more() -> None:
    workers = book(worker("a"), worker("b"))
    for room in "1234":
        workers.of("eventbridge", room)
    for room in "1234":
        workers.forget_room(room)
    assert workers.of("eventbridge", "5") is workers.of("eventbridge", "5")
    workers.forget_room("never there")


@pytest.mark.parametrize("process", [None, 7, ["p"], ""])
def test_a_process_that_is_no_name_is_not_known(process: Any) -> None:
    assert worker("a", process=process).process == ""
