from __future__ import annotations

from dataclasses import replace

from control.cascade.plan import plan, topology_of
from control.cascade.topology import TopologyWish
from control.cascade.view import AssignAgent, CreateRoom, FetchBridges, StopCascade, UnassignAgent
from tests.control.planning import NOW, agent, linked, placed, seen

A, B = placed("a", 1), placed("b", 2)


# --- agents -------------------------------------------------------------------------------------


def test_agents_are_found_as_soon_as_there_are_two_placements() -> None:
    agents = [agent("x", "a", "event"), agent("y", "a", "media"), agent("z", "b")]
    wanted = placed("b", 2, "wanted", token=False, participants=0)
    assert plan(seen(A, agents=agents), NOW) == ()
    assert set(plan(seen(A, wanted, agents=agents), NOW)) == {
        AssignAgent("a", "event", "x"),
        AssignAgent("a", "media", "y"),
        AssignAgent("b", "event", "z"),
        AssignAgent("b", "media", "z"),
        CreateRoom("b"),
    }


def test_the_agent_with_most_room_is_taken_and_stays() -> None:
    agents = [agent("x", "b", room=3), agent("y", "b", room=5), agent("z", "b", room=5, draining=True)]
    assert set(plan(seen(A, B, agents=agents), NOW)) == {
        AssignAgent("b", "event", "y"),
        AssignAgent("b", "media", "y"),
    }
    settled = seen(A, replace(B, agents=(("event", "x"), ("media", "x"))), agents=agents)
    assert plan(settled, NOW) == (FetchBridges("b", "a"),)
    full = [agent("x", "b", room=0)]
    assert plan(replace(settled, agents=tuple(full)), NOW) == (FetchBridges("b", "a"),)


def test_full_agents_are_waited_for() -> None:
    assert plan(seen(A, B, agents=[agent("x", "b", room=0)]), NOW) == ()


def test_links_can_do_without_media_while_nobody_has_room_for_it() -> None:
    agents = [agent("x", "b", "event"), agent("y", "b", "media", room=0)]
    assert plan(seen(A, replace(B, agents=(("event", "x"),)), agents=agents), NOW) == (
        FetchBridges("b", "a"),
    )


def test_dead_agent_is_relieved_and_replaced() -> None:
    had = replace(B, agents=(("event", "x"), ("media", "y")))
    agents = [agent("x", "b", live=False), agent("y", "b")]
    view = seen(A, had, links=[linked("up", via="agent")], agents=agents)
    assert plan(view, NOW) == (UnassignAgent("b", "event", "x"),)
    assert plan(replace(view, agents=(agent("y", "b"),)), NOW) == (UnassignAgent("b", "event", "x"),)
    without = replace(B, agents=(("media", "y"),))
    assert plan(seen(A, without, agents=agents), NOW) == (AssignAgent("b", "event", "y"),)


def test_without_live_agents_the_cluster_itself_is_asked() -> None:
    had = replace(B, agents=(("event", "x"),))
    dead = [agent("x", "b", live=False)]
    assert set(plan(seen(A, had, agents=dead), NOW)) >= {UnassignAgent("b", "event", "x")}
    assert plan(seen(A, B, agents=dead), NOW) == (FetchBridges("b", "a"),)
    assert plan(seen(A, B, agents=[agent("x", "b", "media")]), NOW) == (FetchBridges("b", "a"),)


def test_agents_take_over_what_the_cluster_was_told_to_do() -> None:
    view = seen(A, B, links=[linked("up", orders=1)], agents=[agent("x", "b")])
    assert {type(action) for action in plan(view, NOW)} == {AssignAgent}
    staffed = replace(B, agents=(("event", "x"), ("media", "x")))
    assert plan(replace(view, placements=(A, staffed)), NOW) == (StopCascade("b", "a"),)
    assert plan(replace(view, placements=(A, staffed), links=()), NOW) == (FetchBridges("b", "a"),)
    assert (
        plan(replace(view, placements=(A, staffed), links=(linked("up", via="agent", orders=2),)), NOW) == ()
    )


def test_draining_agent_serves_until_another_one_can() -> None:
    had = replace(B, agents=(("event", "x"), ("media", "x")))
    draining = agent("x", "b", draining=True)
    assert plan(seen(A, had, agents=[draining]), NOW) == (FetchBridges("b", "a"),)
    assert plan(seen(A, had, agents=[draining, agent("y", "b", room=0)]), NOW) == (FetchBridges("b", "a"),)
    assert set(plan(seen(A, had, agents=[draining, agent("y", "b")]), NOW)) == {
        UnassignAgent("b", "event", "x"),
        UnassignAgent("b", "media", "x"),
    }


def test_draining_agent_is_taken_where_there_is_no_other() -> None:
    draining = agent("x", "b", draining=True)
    assert set(plan(seen(A, B, agents=[draining, agent("y", "b", live=False)]), NOW)) == {
        AssignAgent("b", "event", "x"),
        AssignAgent("b", "media", "x"),
    }


def test_agents_are_relieved_of_what_needs_them_no_more() -> None:
    had = replace(B, agents=(("event", "x"),))
    assert plan(seen(had, agents=[agent("x", "b")]), NOW) == (UnassignAgent("b", "event", "x"),)
    lost = replace(had, state="lost")
    assert plan(seen(A, lost, placed("c", 3), agents=[agent("x", "b")]), NOW) == (
        UnassignAgent("b", "event", "x"),
        FetchBridges("c", "a"),
    )


def test_recorders_are_no_concern_of_links() -> None:
    had = replace(B, agents=(("recorder", "r"),))
    assert plan(seen(had, agents=[agent("x", "b", "recorder")]), NOW) == ()


# --- topology -----------------------------------------------------------------------------------


def test_a_tree_is_a_mesh_where_nothing_relays() -> None:
    view = replace(seen(A, B, placed("c", 3)), topology=TopologyWish(kind="tree"))
    assert topology_of(view, NOW).used == "mesh"
    assert len(plan(view, NOW)) == 3


def test_a_star_has_its_hub() -> None:
    names = "abcd"
    view = seen(
        *(placed(n, k + 1, agents=(("event", n), ("media", n))) for k, n in enumerate(names)),
        agents=[agent(n, n) for n in names],
    )
    view = replace(view, topology=TopologyWish(kind="star", hubs=("c",)), relaying=True)
    assert set(plan(view, NOW)) == {FetchBridges("c", "a"), FetchBridges("c", "b"), FetchBridges("d", "c")}


def test_nothing_new_is_relayed_while_something_old_is() -> None:
    names = "abcd"
    view = seen(
        *(placed(n, k + 1, agents=(("event", n), ("media", n))) for k, n in enumerate(names)),
        agents=[agent(n, n) for n in names],
        links=[linked("up", dialer="d", listener="a", via="agent")],
    )
    view = replace(view, topology=TopologyWish(kind="star", hubs=("c",)), relaying=True)
    assert plan(view, NOW) == (StopCascade("d", "a"),)
