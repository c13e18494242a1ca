from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from control.cascade.plan import next_look, plan
from control.cascade.topology import TopologyWish
from control.cascade.view import (
    Action,
    AgentFacts,
    AgentKind,
    AssignAgent,
    ClusterFacts,
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    LinkFacts,
    MoveClients,
    PlacementFacts,
    RemoveRoom,
    StartCascade,
    StopCascade,
    UnassignAgent,
    View,
)
from tests.control.planning import NOW, SECOND, asked, done, served, subject

NAMES = "abcd"
KINDS: tuple[AgentKind, ...] = ("event", "media")
AGENTS = ("a1", "a2", "b1", "c1")
"""Each of the cluster that its name begins with."""

moments = st.integers(-60, 60).map(lambda seconds: NOW + seconds * SECOND)


@st.composite
def views(draw: st.DrawFn) -> View:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    ordinals = draw(st.permutations(range(1, len(names) + 1)))
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), unique=True, max_size=6))
    links = tuple(
        LinkFacts(
            dialer=dialer,
            listener=listener,
            state=draw(st.sampled_from(["wanted", "requested", "up", "down"])),
            since=draw(moments),
            via=draw(st.sampled_from(["driver", "agent"])),
            bridges_at=draw(st.none() | moments),
            orders=draw(st.integers(0, 1)),
            retry_at=draw(st.none() | moments),
        )
        for dialer, listener in pairs
    )
    known = draw(st.lists(st.sampled_from(NAMES), unique=True))
    clusters = {name: draw(cluster(name)) for name in sorted({*known, *names})}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=1)):
        clusters.pop(name, None)
    return View(
        conference="c",
        state=draw(st.sampled_from(["active", "active", "active", "ending"])),
        topology=TopologyWish(
            kind=draw(st.sampled_from(["mesh", "tree", "star"])), hubs=draw(st.sampled_from([(), ("b",)]))
        ),
        placements=tuple(draw(placement(name, n)) for name, n in zip(names, ordinals, strict=True)),
        links=links,
        clusters=clusters,
        agents=tuple(draw(agent(name)) for name in draw(st.sets(st.sampled_from(AGENTS)))),
        relaying=draw(st.booleans()),
    )


@st.composite
def cluster(draw: st.DrawFn, name: str) -> ClusterFacts:
    return ClusterFacts(
        id=name,
        online=draw(st.sampled_from([True, True, True, False])),
        reports_links=draw(st.booleans()),
        can_cascade=draw(st.sampled_from([True, True, True, False])),
        knows_participants=draw(st.sampled_from([True, True, True, False])),
        gone=draw(st.booleans()),
        breaker_open=draw(st.sampled_from([False, False, True])),
        breaker_until=draw(st.none() | moments),
    )


@st.composite
def placement(draw: st.DrawFn, name: str, ordinal: int) -> PlacementFacts:
    return PlacementFacts(
        cluster=name,
        ordinal=ordinal,
        state=draw(st.sampled_from(["wanted", "ready", "ready", "lost"])),
        has_token=draw(st.booleans()),
        participants=draw(st.integers(0, 2)),
        empty_since=draw(st.none() | moments),
        displaced=draw(st.sampled_from([0, 0, 0, 2])),
        agents=tuple(
            (kind, draw(st.sampled_from(AGENTS))) for kind in sorted(draw(st.sets(st.sampled_from(KINDS))))
        ),
        attempts=draw(st.integers(0, 3)),
        retry_at=draw(st.none() | moments),
    )


@st.composite
def agent(draw: st.DrawFn, name: str) -> AgentFacts:
    return AgentFacts(
        id=name,
        cluster=name[0],
        kinds=draw(
            st.sampled_from([frozenset({"event", "media"}), frozenset({"event"}), frozenset({"media"})])
        ),
        live=draw(st.sampled_from([True, True, False])),
        room=draw(st.integers(0, 3)),
        draining=draw(st.booleans()),
    )


@given(views())
@settings(max_examples=50)
def test_every_plan_is_sound(view: View) -> None:
    actions = plan(view, NOW)
    assert max(Counter(subject(action) for action in actions).values(), default=0) <= 1
    for action in actions:
        for name in asked(view, action):
            facts = view.clusters[name]
            assert facts.online
            assert not facts.breaker_open or (facts.breaker_until or NOW) <= NOW
        match action:
            case FetchBridges(dialer, listener) | StartCascade(dialer, listener):
                assert_startable(view, dialer, listener)
                assert not {ForgetLink(dialer, listener), StopCascade(dialer, listener)} & set(actions)
            case StopCascade(dialer, listener) | ForgetLink(dialer, listener):
                assert (dialer, listener) in {(link.dialer, link.listener) for link in view.links}
            case AssignAgent() | UnassignAgent():
                assert_staffing(view, action)
            case ForgetConference():
                assert actions == (ForgetConference(),)
            case _:
                assert_room(view, action)
    if view.state == "ending":
        assert all(isinstance(action, RemoveRoom | ForgetConference) for action in actions)
    else:
        assert ForgetConference() not in actions


def assert_startable(view: View, dialer: str, listener: str) -> None:
    placements = {p.cluster: p for p in view.placements}
    assert placements[dialer].ordinal > placements[listener].ordinal
    assert placements[listener].has_token
    assert placements[dialer].participants or placements[dialer].has_token
    rows = {(link.dialer, link.listener): link for link in view.links}
    row = rows.get((dialer, listener))
    assert row is None or (row.retry_at or NOW) <= NOW
    for end in (dialer, listener):
        assert not served(view, end) or "event" in dict(placements[end].agents)


def assert_staffing(view: View, action: AssignAgent | UnassignAgent) -> None:
    has = {p.cluster: p.agents for p in view.placements}[action.cluster]
    if isinstance(action, AssignAgent):
        facts = next(facts for facts in view.agents if facts.id == action.agent)
        assert facts.live
        others = [a for a in view.agents if a.cluster == facts.cluster and action.kind in a.kinds and a.live]
        assert not facts.draining or not any(a.room for a in others if not a.draining)
        assert action.kind not in dict(has)
    else:
        assert (action.kind, action.agent) in has


def assert_room(view: View, action: Action) -> None:
    assert isinstance(action, CreateRoom | RemoveRoom | MoveClients | ForgetPlacement)
    facts = next(p for p in view.placements if p.cluster == action.cluster)
    if isinstance(action, MoveClients):
        assert facts.displaced
    elif isinstance(action, ForgetPlacement):
        assert facts.state == "lost"
        assert view.clusters[facts.cluster].gone
    else:
        assert (facts.retry_at or NOW) <= NOW
        assert facts.state != "lost"
        if isinstance(action, RemoveRoom) and view.state == "active":
            assert_deserted(view, facts)


def assert_deserted(view: View, facts: PlacementFacts) -> None:
    assert not facts.participants
    assert not facts.displaced
    assert facts.empty_since is not None
    assert facts.empty_since + view.idle_grace <= NOW
    assert view.clusters[facts.cluster].knows_participants or not facts.has_token


@given(views())
@settings(max_examples=50)
def test_no_wake_up_is_lost(view: View) -> None:
    # Whatever is planned at any time is planned at the look before it, and there is something at every look.
    looks, now = [NOW], NOW
    while (look := next_look(view, now)) is not None:
        assert look > now
        assert plan(view, look) or look in {
            p.empty_since + view.idle_grace for p in view.placements if p.empty_since is not None
        }
        looks.append(look)
        now = look
    for before, after in pairwise([*looks, NOW + timedelta(days=365)]):
        between = plan(view, after - timedelta(microseconds=1))
        assert {*map(subject, between)} == {*map(subject, plan(view, before))}


@given(views())
@settings(max_examples=50)
def test_doing_what_the_plan_says_comes_to_rest(view: View) -> None:
    current: View | None = view
    for _ in range(8):
        if current is None:
            return
        actions = plan(current, NOW)
        for action in actions:
            current = done(current, action, NOW) if current is not None else None
    assert current is None or plan(current, NOW) == ()
