from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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


# --- a world with losses ----------------------------------------------------------------------


@dataclass
class Room:
    """A room as it really is on its cluster."""

    participants: int = 0

    @property
    def token(self) -> bool:
        return self.participants > 0


class World(RuleBasedStateMachine):
    """Clusters with rooms and links, a registry of rows, an executor whose calls fail or lose their answers.

    `down` reports always come, some late; `up` reports may get lost.
    """

    @initialize(silent=st.frozensets(st.sampled_from(NAMES), max_size=2))
    def begin(self, silent: frozenset[str]) -> None:
        self.now = NOW
        self.online = dict.fromkeys(NAMES, True)
        self.silent = silent
        self.rooms: dict[str, Room] = {}
        self.real_links: set[tuple[str, str]] = set()
        self.placements: dict[str, PlacementFacts] = {}
        self.links: dict[tuple[str, str], LinkFacts] = {}
        self.ordinal = 0

    # What happens by itself.

    @rule(name=st.sampled_from(NAMES))
    def client_asks_to_join(self, name: str) -> None:
        placement = self.placements.get(name)
        if self.online[name] and (placement is None or placement.state == "lost"):
            self.ordinal += 1
            self.placements[name] = placed(name, self.ordinal, "wanted", token=False, participants=0)

    @rule(name=st.sampled_from(NAMES))
    def client_really_joins(self, name: str) -> None:
        if name in self.rooms and self.online[name]:
            self.rooms[name].participants += 1
            self.report_room(name)

    @rule(name=st.sampled_from(NAMES))
    def client_leaves(self, name: str) -> None:
        room = self.rooms.get(name)
        if room is not None and room.participants and self.online[name]:
            room.participants -= 1
            if not room.participants:
                self.cut(name)
            self.report_room(name)

    @rule(name=st.sampled_from(NAMES))
    def cluster_dies(self, name: str) -> None:
        if self.online[name]:
            self.online[name] = False
            self.rooms.pop(name, None)
            self.cut(name)

    @rule(name=st.sampled_from(NAMES))
    def cluster_is_given_up(self, name: str) -> None:
        placement = self.placements.get(name)
        if not self.online[name] and placement is not None:
            self.placements[name] = replace(
                placement, state="lost", has_token=False, participants=0, retry_at=None
            )

    @rule(name=st.sampled_from(NAMES))
    def cluster_comes_back_empty(self, name: str) -> None:
        if self.online[name]:
            return
        self.online[name] = True
        placement = self.placements.get(name)
        if placement is not None and placement.state != "lost":
            self.placements[name] = replace(placement, state="wanted", has_token=False, participants=0)
        for pair, link in self.links.items():
            if name in pair:
                self.links[pair] = replace(link, state="wanted", since=self.now)

    @rule(data=st.data())
    def link_breaks(self, data: st.DataObject) -> None:
        if self.real_links:
            self.break_link(data.draw(st.sampled_from(sorted(self.real_links))))

    @rule(seconds=st.integers(0, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(
        luck=st.lists(st.sampled_from(["done", "failed", "answer lost", "up lost"]), min_size=1, max_size=4)
    )
    def executor_runs(self, luck: list[str]) -> None:
        for n, action in enumerate(plan(self.view(), self.now)):
            self.execute(action, luck[n % len(luck)])

    # What it means.

    def view(self) -> View:
        return View(
            conference="c",
            state="active",
            placements=tuple(self.placements.values()),
            links=tuple(self.links.values()),
            clusters={
                name: ClusterFacts(id=name, online=self.online[name], reports_links=name not in self.silent)
                for name in NAMES
            },
        )

    def report_room(self, name: str) -> None:
        room = self.rooms[name]
        self.placements[name] = replace(
            self.placements[name], has_token=room.token, participants=room.participants
        )

    def cut(self, name: str) -> None:
        for pair in [pair for pair in self.real_links if name in pair]:
            self.break_link(pair)

    def break_link(self, pair: tuple[str, str]) -> None:
        self.real_links.discard(pair)
        if pair in self.links and any(self.online[end] for end in pair if end not in self.silent):
            self.links[pair] = replace(self.links[pair], state="down", since=self.now)
        elif pair in self.links:
            # Nobody tells; plain clusters are probed, and then it is wanted anew.
            self.links[pair] = replace(self.links[pair], state="wanted", since=self.now)

    def execute(self, action: Action, luck: str) -> None:
        assert all(self.online[name] for name in asked(action))
        retry_at = self.now + 2 * SECOND
        match action:
            case CreateRoom(cluster):
                if luck != "failed":
                    self.rooms.setdefault(cluster, Room())
                facts = self.placements[cluster]
                if luck in {"failed", "answer lost"}:
                    facts = replace(facts, attempts=facts.attempts + 1, retry_at=retry_at)
                else:
                    facts = replace(facts, state="ready", attempts=0, retry_at=None)
                self.placements[cluster] = facts
                if cluster in self.rooms:
                    self.report_room(cluster)
            case StartCascade(dialer, listener):
                self.start(dialer, listener, luck, retry_at)
            case ForgetLink(dialer, listener):
                del self.links[dialer, listener]
            case _:
                pytest.fail(f"unexpected {action}")

    def start(self, dialer: str, listener: str, luck: str, retry_at: datetime) -> None:
        pair = (dialer, listener)
        assert (listener, dialer) not in self.links
        row = self.links.get(pair) or LinkFacts(
            dialer=dialer, listener=listener, state="wanted", since=self.now
        )
        ready = all(name in self.rooms and self.rooms[name].token for name in pair)
        if luck in {"failed", "answer lost"} or not ready:
            row = replace(row, attempts=row.attempts + 1, retry_at=retry_at)
        else:
            row = replace(row, state="requested", since=self.now, attempts=0, retry_at=None)
        if luck != "failed" and ready:
            # The bridge answers a second order for the same peer with ok, and reports again.
            self.real_links.discard((listener, dialer))
            self.real_links.add(pair)
            if luck != "up lost" and dialer not in self.silent:
                row = replace(row, state="up", since=self.now)
        self.links[pair] = row

    # What must hold.

    @invariant()
    def pairs_are_linked_once(self) -> None:
        for one, other in self.links:
            assert one != other
        pairs = Counter(tuple(sorted(pair)) for pair in self.real_links)
        assert max(pairs.values(), default=0) <= 1

    @invariant()
    def after_quiet_everybody_is_connected(self) -> None:
        saved = (
            self.now,
            {name: replace_room(room) for name, room in self.rooms.items()},
            set(self.real_links),
            dict(self.placements),
            dict(self.links),
        )
        self.settle()
        occupied = [
            p
            for p in self.placements.values()
            if self.online[p.cluster] and p.state == "ready" and p.has_token and p.participants
        ]
        for one, other in combinations(sorted(occupied, key=lambda p: p.ordinal), 2):
            assert (other.cluster, one.cluster) in self.real_links
            assert (other.cluster, one.cluster) in self.links
            assert (one.cluster, other.cluster) not in self.links
        self.now, self.rooms, self.real_links, self.placements, self.links = saved

    def settle(self) -> None:
        """Let the executor run without losses, waking only when the plan says so, until nothing waits."""
        for _ in range(60):
            actions = plan(self.view(), self.now)
            for action in actions:
                self.execute(action, "done")
            if not actions:
                look = next_look(self.view(), self.now)
                if look is None:
                    return
                assert look > self.now
                self.now = look
        pytest.fail("the executor does not come to rest")


def replace_room(room: Room) -> Room:
    return Room(participants=room.participants)


World.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase
