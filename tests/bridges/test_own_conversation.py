from __future__ import annotations

from tests.bridges.own_world import ROOM, World, participant, stream


def test_both_ends_have_what_the_other_publishes() -> None:
    world = World()
    a, b = world.bridge("a"), world.bridge("b")
    a.relay.publish("addParticipant", participant("p1"))
    world.connect("b", "a")
    world.settle()
    b.relay.publish("addStream", stream("s1"))
    a.relay.publish("removeParticipant", "p1")
    world.settle()
    world.check()
    assert b.view.log[0][3:] == ("initialize", {"participants": {"p1": participant("p1")}, "streams": {}})
    assert [entry[3] for entry in b.view.log] == ["initialize", "removeParticipant"]
    assert a.view.log[-1][3:] == ("addStream", stream("s1"))
    assert ROOM in a.relays
