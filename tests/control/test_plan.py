from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from control.cascade.plan import (
    BRIDGES_FRESH,
    LINK_UP_DEADLINE,
    REDIAL_GRACE,
    next_look,
    plan,
)
from control.cascade.view import (
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    LinkFacts,
    LinkState,
    MoveClients,
    PlacementState,
    RemoveRoom,
    StartCascade,
    StopCascade,
)
from tests.control.planning import NOW, SECOND, agent, linked, placed, seen

A, B = placed("a", 1), placed("b", 2)


# --- rooms ------------------------------------------------------------------------------------


def test_nothing_is_missing_in_nothing() -> None:
    assert plan(seen(), NOW) == ()
    assert next_look(seen(), NOW) is None


def test_wanted_placement_gets_a_room() -> None:
    view = seen(placed("a", 1, "wanted", token=False, participants=0))
    assert plan(view, NOW) == (CreateRoom("a"),)


def test_room_waits_for_its_retry() -> None:
    later = NOW + 3 * SECOND
    view = seen(placed("a", 1, "wanted", token=False, participants=0, retry_at=later))
    assert plan(view, NOW) == ()
    assert next_look(view, NOW) == later
    assert plan(view, later) == (CreateRoom("a"),)


@pytest.mark.parametrize("state", ["ready", "lost"])
def test_other_placements_get_none(state: PlacementState) -> None:
    assert plan(seen(placed("a", 1, state)), NOW) == ()


def test_offline_cluster_is_asked_nothing_and_an_unknown_one_neither() -> None:
    wanted = placed("a", 1, "wanted", token=False, participants=0)
    assert plan(seen(wanted, offline="a"), NOW) == ()
    assert plan(replace(seen(wanted), clusters={}), NOW) == ()


# --- rooms that nobody needs --------------------------------------------------------------------


def test_room_is_removed_when_nobody_was_there_for_the_grace() -> None:
    soon = seen(placed("a", 1, participants=0, empty=29))
    assert (plan(soon, NOW), next_look(soon, NOW)) == ((), NOW + SECOND)
    assert plan(soon, NOW + SECOND) == (RemoveRoom("a"),)


def test_grace_is_the_views() -> None:
    view = replace(seen(placed("a", 1, participants=0, empty=2)), idle_grace=timedelta(seconds=3))
    assert (plan(view, NOW), next_look(view, NOW)) == ((), NOW + SECOND)


def test_room_stands_while_somebody_is_on_the_way() -> None:
    assert plan(seen(placed("a", 1, participants=0)), NOW) == ()
    # The last reservation runs out in ten seconds; the grace begins then.
    view = seen(placed("a", 1, participants=0, empty=-10))
    assert (plan(view, NOW), next_look(view, NOW)) == ((), NOW + 40 * SECOND)


def test_room_stands_where_nobody_knows_who_is_there() -> None:
    view = seen(placed("a", 1, participants=0, empty=9999))
    knowing = view.clusters["a"]
    view = replace(view, clusters={"a": replace(knowing, knows_participants=False)})
    assert (plan(view, NOW), next_look(view, NOW)) == ((), None)
    closed = placed("a", 1, token=False, participants=0, empty=60)
    assert plan(replace(view, placements=(closed,)), NOW) == (RemoveRoom("a"),)


def test_room_that_was_wanted_is_not_made_for_nobody() -> None:
    wanted = placed("a", 1, "wanted", token=False, participants=0, empty=29)
    assert plan(seen(wanted), NOW) == (CreateRoom("a"),)
    assert next_look(seen(wanted), NOW) == NOW + SECOND
    # An answer may have been lost: it is removed rather than forgotten.
    assert plan(seen(wanted), NOW + SECOND) == (RemoveRoom("a"),)


def test_removal_waits_for_its_retry_and_for_the_cluster() -> None:
    later = NOW + SECOND
    empty = placed("a", 1, participants=0, empty=60, retry_at=later)
    assert (plan(seen(empty), NOW), next_look(seen(empty), NOW)) == ((), later)
    assert (plan(seen(empty, offline="a"), later), next_look(seen(empty, offline="a"), later)) == ((), None)


@pytest.mark.parametrize("state", ["wanted", "requested", "up", "down"])
def test_links_of_an_empty_room_are_ended_before_it_is_removed(state: LinkState) -> None:
    empty = placed("b", 2, participants=0, empty=60)
    assert plan(seen(A, empty, links=[linked(state)]), NOW) == (StopCascade("b", "a"),)
    failed = linked(state, retry_at=NOW + SECOND)  # the room does not wait for the order to be taken
    assert plan(seen(A, empty, links=[failed]), NOW) == (RemoveRoom("b"),)
    assert plan(seen(A, empty), NOW) == (RemoveRoom("b"),)


def test_empty_listener_goes_though_the_dialer_is_offline() -> None:
    empty = placed("a", 1, participants=0, empty=60)
    assert plan(seen(empty, B, links=[linked("up")], offline="b"), NOW) == (RemoveRoom("a"),)


def test_placement_of_a_cluster_that_left_is_forgotten() -> None:
    view = seen(placed("a", 1, "lost", token=False, participants=0), offline="a")
    assert plan(view, NOW) == ()
    gone = {"a": replace(view.clusters["a"], gone=True)}
    assert plan(replace(view, clusters=gone), NOW) == (ForgetPlacement("a"),)
    left = placed("a", 1, "lost", token=False, participants=0, displaced=1)
    assert plan(replace(view, placements=(left,), clusters=gone), NOW) == (MoveClients("a"),)


# --- clients of lost clusters -------------------------------------------------------------------


@pytest.mark.parametrize("state", ["wanted", "ready", "lost"])
def test_displaced_clients_are_moved(state: PlacementState) -> None:
    view = seen(placed("a", 1, state, displaced=3))
    assert MoveClients("a") in plan(view, NOW)
    assert MoveClients("a") in plan(seen(*view.placements, offline="a"), NOW)
    assert MoveClients("a") not in plan(seen(*view.placements, state="ending"), NOW)


def test_moving_waits_for_its_retry() -> None:
    view = seen(placed("a", 1, "lost", displaced=3, retry_at=NOW + SECOND))
    assert (plan(view, NOW), next_look(view, NOW)) == ((), NOW + SECOND)


def test_nobody_is_forgotten_who_was_not_told() -> None:
    assert RemoveRoom("a") not in plan(seen(placed("a", 1, participants=0, empty=60, displaced=1)), NOW)


# --- links ------------------------------------------------------------------------------------


def test_later_dials_earlier() -> None:
    assert plan(seen(A, B), NOW) == (FetchBridges("b", "a"),)
    assert plan(seen(B, A), NOW) == (FetchBridges("b", "a"),)


def test_addresses_are_used_while_they_are_fresh() -> None:
    fresh = seen(A, B, links=[linked("wanted", fetched=9.9)])
    assert plan(fresh, NOW) == (StartCascade("b", "a"),)
    assert plan(fresh, NOW + SECOND) == (FetchBridges("b", "a"),)
    assert plan(seen(A, B, links=[linked("wanted", fetched=10)]), NOW) == (FetchBridges("b", "a"),)


def test_addresses_that_will_be_old_by_then_do_not_count() -> None:
    row = linked("wanted", fetched=0, retry_at=NOW + 11 * SECOND)
    view = seen(A, B, links=[row])
    assert (plan(view, NOW), next_look(view, NOW)) == ((), row.retry_at)
    assert plan(view, NOW + 11 * SECOND) == (FetchBridges("b", "a"),)


def test_three_make_a_mesh() -> None:
    assert set(plan(seen(A, B, placed("c", 7)), NOW)) == {
        FetchBridges("b", "a"),
        FetchBridges("c", "a"),
        FetchBridges("c", "b"),
    }


def test_nobody_has_joined_the_later_one() -> None:
    assert plan(seen(A, placed("b", 2, participants=0)), NOW) == ()


def test_a_token_shows_life_where_nobody_knows_who_is_there() -> None:
    view = seen(A, placed("b", 2, participants=0))
    dark = replace(view.clusters["b"], knows_participants=False)
    view = replace(view, clusters={**view.clusters, "b": dark})
    assert plan(view, NOW) == (FetchBridges("b", "a"),)


def test_the_earlier_ones_client_comes_second() -> None:
    before = seen(placed("a", 1, token=False, participants=0), B)
    assert plan(before, NOW) == ()
    assert plan(seen(A, B), NOW) == (FetchBridges("b", "a"),)


def test_the_later_ones_token_is_not_needed() -> None:
    assert plan(seen(A, placed("b", 2, token=False)), NOW) == (FetchBridges("b", "a"),)


@pytest.mark.parametrize("state", ["wanted", "lost"])
@pytest.mark.parametrize("which", [0, 1])
def test_both_rooms_must_stand(state: PlacementState, which: int) -> None:
    pair = [A, B]
    pair[which] = replace(pair[which], state=state)
    assert not any(isinstance(action, FetchBridges | StartCascade) for action in plan(seen(*pair), NOW))


@pytest.mark.parametrize("offline", ["a", "b"])
@pytest.mark.parametrize("links", [[], [linked("wanted")], [linked("down", ago=99)]])
def test_both_clusters_must_be_online(offline: str, links: list[LinkFacts]) -> None:
    assert plan(seen(A, B, links=links, offline=offline), NOW) == ()


def test_clusters_that_cannot_cascade_are_not_linked() -> None:
    view = seen(A, B)
    lonely = replace(view.clusters["a"], can_cascade=False)
    assert plan(replace(view, clusters={**view.clusters, "a": lonely}), NOW) == ()


@pytest.mark.parametrize(
    ("link", "silent", "expected"),
    [
        (linked("wanted"), "", 0.0),
        (linked("wanted", retry_at=NOW + SECOND), "", 1.0),
        (linked("wanted", retry_at=NOW - SECOND), "", 0.0),
        (linked("requested"), "", 10.0),
        (linked("requested", ago=4), "", 6.0),
        (linked("requested", ago=10), "", 0.0),
        (linked("requested", ago=10, retry_at=NOW + 20 * SECOND), "", 20.0),
        (linked("requested", ago=9999), "b", None),
        (linked("requested", ago=10), "a", 0.0),
        (linked("requested", ago=10, via="agent"), "b", 0.0),
        (linked("down"), "", 5.0),
        (linked("down"), "b", 5.0),
        (linked("down", ago=5), "", 0.0),
        (linked("down", ago=5, retry_at=NOW + SECOND), "", 1.0),
        (linked("up", ago=9999), "", None),
        (linked("up", retry_at=NOW - SECOND), "", None),
    ],
)
def test_when_a_link_is_asked_for(link: LinkFacts, silent: str, expected: float | None) -> None:
    view = seen(A, B, links=[link], silent=silent)
    if expected is None:
        assert (plan(view, NOW), next_look(view, NOW)) == ((), None)
        return
    due = NOW + expected * SECOND
    if expected > 0:
        assert (plan(view, NOW), next_look(view, NOW)) == ((), due)
        assert plan(view, due - timedelta(microseconds=1)) == ()
    assert plan(view, due) == (FetchBridges("b", "a"),)


def test_deadlines_are_what_the_table_says() -> None:
    assert timedelta(seconds=10) == LINK_UP_DEADLINE == BRIDGES_FRESH
    assert timedelta(seconds=5) == REDIAL_GRACE


@pytest.mark.parametrize("state", ["wanted", "requested", "up", "down"])
def test_link_is_forgotten_with_its_rooms(state: LinkState) -> None:
    links = [linked(state, ago=60)]
    forget = (ForgetLink("b", "a"),)
    assert plan(seen(A, links=links), NOW) == forget
    assert plan(seen(B, links=links), NOW) == forget
    assert plan(seen(A, replace(B, state="lost"), links=links), NOW) == forget
    assert plan(seen(replace(A, state="lost"), B, links=links), NOW) == forget
    # The earlier room closed with its last client, or the later one did.
    assert plan(seen(placed("a", 1, token=False, participants=0), B, links=links), NOW) == forget
    assert plan(seen(A, placed("b", 2, token=False, participants=0), links=links), NOW) == forget
    # Forgetting asks no cluster.
    assert plan(seen(replace(A, state="lost"), B, links=links, offline="ab"), NOW) == forget


@pytest.mark.parametrize("state", ["wanted", "requested", "up", "down"])
def test_link_outlives_an_empty_dialer_whose_room_stands(state: LinkState) -> None:
    links = [linked(state, ago=60)]
    view = seen(A, placed("b", 2, participants=0, empty=1), links=links)
    assert (plan(view, NOW), next_look(view, NOW)) == ((), NOW + 29 * SECOND)


def test_link_that_points_the_wrong_way_is_ended_and_then_replaced() -> None:
    # The cluster a was lost and placed again, as the third.
    again = placed("a", 3)
    assert plan(seen(again, B, links=[linked("up")]), NOW) == (StopCascade("b", "a"),)
    assert plan(seen(again, B), NOW) == (FetchBridges("a", "b"),)


def test_link_that_nobody_wants_waits_for_its_dialer() -> None:
    again = placed("a", 3)
    assert plan(seen(again, B, links=[linked("up")], offline="b"), NOW) == ()
    assert plan(seen(again, B, links=[linked("up", via="agent")], offline="b"), NOW) == (
        StopCascade("b", "a"),
    )
    later = NOW + SECOND
    view = seen(again, B, links=[linked("up", retry_at=later)])
    assert (plan(view, NOW), next_look(view, NOW)) == ((), later)


def test_link_to_itself_is_forgotten() -> None:
    loop = linked("wanted", dialer="a", listener="a")
    assert plan(seen(A, links=[loop]), NOW) == (ForgetLink("a", "a"),)


# --- clusters that are left alone ---------------------------------------------------------------


def test_breaker_holds_up_what_calls_the_cluster_and_nothing_else() -> None:
    wanted = placed("d", 4, "wanted", token=False, participants=0)
    view = seen(A, B, placed("c", 3), wanted)
    broken = replace(view.clusters["b"], breaker_open=True)
    view = replace(view, clusters={**view.clusters, "b": broken})
    assert set(plan(view, NOW)) == {CreateRoom("d"), FetchBridges("c", "a")}
    assert next_look(view, NOW) is None
    later = NOW + SECOND
    view = replace(view, clusters={**view.clusters, "b": replace(broken, breaker_until=later)})
    assert set(plan(view, NOW)) == {CreateRoom("d"), FetchBridges("c", "a")}
    assert next_look(view, NOW) == later
    assert set(plan(view, later)) > {FetchBridges("b", "a"), FetchBridges("c", "b")}


def test_breaker_holds_up_rooms() -> None:
    for placement in (
        placed("a", 1, "wanted", token=False, participants=0),
        placed("a", 1, participants=0, empty=60),
    ):
        view = seen(placement)
        broken = replace(view.clusters["a"], breaker_open=True, breaker_until=NOW + SECOND)
        view = replace(view, clusters={"a": broken})
        assert (plan(view, NOW), next_look(view, NOW)) == ((), NOW + SECOND)
        assert plan(view, NOW + SECOND)


def test_breaker_does_not_matter_to_agents() -> None:
    agents = [agent("x", "a"), agent("y", "b")]
    view = seen(
        replace(A, agents=(("event", "x"), ("media", "x"))),
        replace(B, agents=(("event", "y"), ("media", "y"))),
        agents=agents,
    )
    view = replace(view, clusters={n: replace(c, breaker_open=True) for n, c in view.clusters.items()})
    assert plan(view, NOW) == (FetchBridges("b", "a"),)


# --- the end ----------------------------------------------------------------------------------


def test_ending_removes_rooms_and_then_itself() -> None:
    rooms = seen(A, placed("b", 2, "wanted", token=False), links=[linked("down", ago=60)], state="ending")
    assert plan(rooms, NOW) == (RemoveRoom("a"), RemoveRoom("b"))
    assert plan(seen(A, state="ending"), NOW) == (RemoveRoom("a"),)
    assert plan(seen(state="ending"), NOW) == (ForgetConference(),)


def test_ending_is_not_blocked_by_the_dead() -> None:
    view = seen(replace(A, state="lost"), B, offline="b", state="ending")
    assert plan(view, NOW) == (ForgetConference(),)


def test_ending_waits_for_a_room_that_was_not_removed() -> None:
    later = NOW + SECOND
    view = seen(replace(A, retry_at=later), state="ending")
    assert (plan(view, NOW), next_look(view, NOW)) == ((), later)
    assert plan(view, later) == (RemoveRoom("a"),)
