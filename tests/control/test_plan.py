from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.cascade.plan import LINK_UP_DEADLINE, REDIAL_GRACE, next_look, plan
from control.cascade.view import (
    Action,
    ClusterFacts,
    CreateRoom,
    ForgetConference,
    ForgetLink,
    LinkFacts,
    LinkState,
    PlacementFacts,
    PlacementState,
    RemoveRoom,
    StartCascade,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def placed(
    cluster: str,
    ordinal: int,
    state: PlacementState = "ready",
    *,
    token: bool = True,
    participants: int = 1,
    retry_at: datetime | None = None,
) -> PlacementFacts:
    return PlacementFacts(
        cluster=cluster,
        ordinal=ordinal,
        state=state,
        has_token=token,
        participants=participants,
        retry_at=retry_at,
    )


def linked(
    state: LinkState,
    *,
    ago: float = 0.0,
    dialer: str = "b",
    listener: str = "a",
    retry_at: datetime | None = None,
) -> LinkFacts:
    return LinkFacts(
        dialer=dialer, listener=listener, state=state, since=NOW - ago * SECOND, retry_at=retry_at
    )


def seen(
    *placements: PlacementFacts,
    links: Iterable[LinkFacts] = (),
    offline: Iterable[str] = (),
    silent: Iterable[str] = (),
    state: Literal["active", "ending"] = "active",
) -> View:
    clusters = {
        p.cluster: ClusterFacts(
            id=p.cluster, online=p.cluster not in set(offline), reports_links=p.cluster not in set(silent)
        )
        for p in placements
    }
    return View(conference="c", state=state, placements=placements, links=tuple(links), clusters=clusters)


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


# --- links ------------------------------------------------------------------------------------


def test_later_dials_earlier() -> None:
    assert plan(seen(A, B), NOW) == (StartCascade("b", "a"),)
    assert plan(seen(B, A), NOW) == (StartCascade("b", "a"),)


def test_three_make_a_mesh() -> None:
    assert set(plan(seen(A, B, placed("c", 7)), NOW)) == {
        StartCascade("b", "a"),
        StartCascade("c", "a"),
        StartCascade("c", "b"),
    }


def test_nobody_has_joined_the_later_one() -> None:
    assert plan(seen(A, placed("b", 2, participants=0)), NOW) == ()


def test_the_earlier_ones_client_comes_second() -> None:
    before = seen(placed("a", 1, token=False, participants=0), B)
    assert plan(before, NOW) == ()
    assert plan(seen(A, B), NOW) == (StartCascade("b", "a"),)


def test_the_later_ones_token_is_not_needed() -> None:
    assert plan(seen(A, placed("b", 2, token=False)), NOW) == (StartCascade("b", "a"),)


@pytest.mark.parametrize("state", ["wanted", "lost"])
@pytest.mark.parametrize("which", [0, 1])
def test_both_rooms_must_stand(state: PlacementState, which: int) -> None:
    pair = [A, B]
    pair[which] = replace(pair[which], state=state)
    assert not any(isinstance(action, StartCascade) for action in plan(seen(*pair), NOW))


@pytest.mark.parametrize("offline", ["a", "b"])
@pytest.mark.parametrize("links", [[], [linked("wanted")], [linked("down", ago=99)]])
def test_both_clusters_must_be_online(offline: str, links: list[LinkFacts]) -> None:
    assert plan(seen(A, B, links=links, offline=offline), NOW) == ()


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
    assert plan(view, due) == (StartCascade("b", "a"),)


def test_deadlines_are_what_the_table_says() -> None:
    assert timedelta(seconds=10) == LINK_UP_DEADLINE
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
    assert plan(seen(A, placed("b", 2, participants=0), links=[linked(state, ago=60)]), NOW) == ()


def test_link_that_points_the_wrong_way_is_forgotten_and_then_replaced() -> None:
    # The cluster a was lost and placed again, as the third.
    again = placed("a", 3)
    assert plan(seen(again, B, links=[linked("up")]), NOW) == (ForgetLink("b", "a"),)
    assert plan(seen(again, B), NOW) == (StartCascade("a", "b"),)


def test_link_to_itself_is_forgotten() -> None:
    loop = linked("wanted", dialer="a", listener="a")
    assert plan(seen(A, links=[loop]), NOW) == (ForgetLink("a", "a"),)


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


# --- properties of any view -------------------------------------------------------------------

NAMES = "abcd"
moments = st.integers(-30, 30).map(lambda seconds: NOW + seconds * SECOND)


@st.composite
def views(draw: st.DrawFn) -> View:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    ordinals = draw(st.permutations(range(1, len(names) + 1)))
    placements = tuple(
        PlacementFacts(
            cluster=name,
            ordinal=ordinal,
            state=draw(st.sampled_from(["wanted", "ready", "ready", "lost"])),
            has_token=draw(st.booleans()),
            participants=draw(st.integers(0, 2)),
            attempts=draw(st.integers(0, 3)),
            retry_at=draw(st.none() | moments),
        )
        for name, ordinal in zip(names, ordinals, strict=True)
    )
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), unique=True, max_size=6))
    links = tuple(
        LinkFacts(
            dialer=dialer,
            listener=listener,
            state=draw(st.sampled_from(["wanted", "requested", "up", "down"])),
            since=draw(moments),
            retry_at=draw(st.none() | moments),
        )
        for dialer, listener in pairs
    )
    known = draw(st.lists(st.sampled_from(NAMES), unique=True))
    clusters = {
        name: ClusterFacts(id=name, online=draw(st.booleans()), reports_links=draw(st.booleans()))
        for name in {*known, *names}
        if name in known or draw(st.booleans())
    }
    return View(
        conference="c",
        state=draw(st.sampled_from(["active", "active", "ending"])),
        placements=placements,
        links=links,
        clusters=clusters,
    )


def subject(action: Action) -> Any:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return ("room", cluster)
        case StartCascade(dialer, listener):
            return ("pair", *sorted((dialer, listener)))
        case ForgetLink(dialer, listener):
            return ("row", dialer, listener)
        case ForgetConference():
            return ("conference",)


def asked(action: Action) -> tuple[str, ...]:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return (cluster,)
        case StartCascade(dialer, listener):
            return (dialer, listener)
        case ForgetLink() | ForgetConference():
            return ()


@given(views())
@settings(max_examples=500)
def test_every_plan_is_sound(view: View) -> None:
    actions = plan(view, NOW)
    placements = {p.cluster: p for p in view.placements}
    rows = {(link.dialer, link.listener): link for link in view.links}
    assert max(Counter(subject(action) for action in actions).values(), default=0) <= 1
    for action in actions:
        assert all(view.clusters[name].online for name in asked(action))
        match action:
            case CreateRoom(cluster) | RemoveRoom(cluster):
                assert (placements[cluster].retry_at or NOW) <= NOW
                assert placements[cluster].state != "lost"
            case StartCascade(dialer, listener):
                assert placements[dialer].ordinal > placements[listener].ordinal
                assert placements[listener].has_token
                assert placements[dialer].participants
                row = rows.get((dialer, listener))
                assert row is None or (row.retry_at or NOW) <= NOW
                assert ForgetLink(dialer, listener) not in actions
            case ForgetLink(dialer, listener):
                assert (dialer, listener) in rows
            case ForgetConference():
                assert actions == (ForgetConference(),)
    assert all(isinstance(a, RemoveRoom | ForgetConference) for a in actions) == (
        view.state == "ending" or not actions
    )


@given(views())
@settings(max_examples=500)
def test_no_wake_up_is_lost(view: View) -> None:
    look = next_look(view, NOW)
    # Whatever will ever be due by time alone is due at some look; looking at each of them finds it all.
    found, now = set(plan(view, NOW)), NOW
    while look is not None:
        assert look > now
        at_look = plan(view, look)
        assert at_look
        assert set(at_look) > set(plan(view, now))
        assert plan(view, look - timedelta(microseconds=1)) == plan(view, now)
        found |= set(at_look)
        now, look = look, next_look(view, look)
    assert set(plan(view, NOW + timedelta(days=365))) == found


def done(view: View, action: Action, now: datetime) -> View | None:
    """Return the view after an action that succeeded."""
    match action:
        case CreateRoom(cluster):
            placements = tuple(
                replace(p, state="ready", attempts=0, retry_at=None) if p.cluster == cluster else p
                for p in view.placements
            )
            return replace(view, placements=placements)
        case RemoveRoom(cluster):
            return replace(view, placements=tuple(p for p in view.placements if p.cluster != cluster))
        case StartCascade(dialer, listener):
            row = LinkFacts(dialer=dialer, listener=listener, state="requested", since=now)
            return replace(view, links=(*without(view.links, dialer, listener), row))
        case ForgetLink(dialer, listener):
            return replace(view, links=without(view.links, dialer, listener))
        case ForgetConference():
            return None


def without(links: tuple[LinkFacts, ...], dialer: str, listener: str) -> tuple[LinkFacts, ...]:
    return tuple(link for link in links if (link.dialer, link.listener) != (dialer, listener))


@given(views())
@settings(max_examples=500)
def test_doing_what_the_plan_says_comes_to_rest(view: View) -> None:
    current: View | None = view
    for _ in range(4):
        if current is None:
            return
        actions = plan(current, NOW)
        for action in actions:
            current = done(current, action, NOW) if current is not None else None
    assert current is None or plan(current, NOW) == ()
