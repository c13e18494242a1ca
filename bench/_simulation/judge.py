"""What must hold once a world has come to rest. Each finding is a sentence."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from bench._simulation.view import moment, view_of
from control.cascade.plan import next_look, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench._simulation.wire import Connection
    from bench._simulation.world import World

__all__ = ["judge"]


def judge(world: World) -> list[str]:
    """Return everything that is wrong."""
    found = [*_people(world), *_rows(world), *_rooms(world), *_work(world)]
    for conference in sorted({person.conference for person in world.people}):
        found += _links(world, conference)
    return found


def _people(world: World) -> Iterator[str]:
    """Whoever wants to be in is in, and known to be; nobody else is known."""
    registry = world.registry
    for person in world.people:
        if person.wants and person.at is None:
            yield f"{person.name} never got into {person.conference}"
        if person.at is not None:
            row = registry.placements.get((person.conference, person.at))
            if row is None:
                yield f"{person.name} is at {person.at}, where {person.conference} is not placed"
            elif world.clusters[person.at].kind != "blind" and person.participant not in row.people:
                yield f"nobody knows that {person.name} is at {person.at}"
    there = {(p.conference, p.at, p.participant) for p in world.people}
    for (conference, cluster), row in registry.placements.items():
        for participant in row.people:
            if (conference, cluster, participant) not in there:
                yield f"{participant} is taken to be in {conference} at {cluster}, and is not"
        if row.displaced and registry.conferences[conference].state == "active":
            yield f"{sorted(row.displaced)} of {conference} at {cluster} were never told where to go"


def _rows(world: World) -> Iterator[str]:
    """Placements are where people are; links are what connections are."""
    registry = world.registry
    for (conference, cluster), row in registry.placements.items():
        known = world.clusters[cluster].kind != "blind"
        if row.state == "ready" and known and not row.people:
            yield f"the placement of {conference} at {cluster} is left over"
        if row.state == "ready" and not registry.online(cluster):
            yield f"{conference} is ready at {cluster}, which is gone"
    real = {(c.conference, frozenset((c.dialer.cluster, c.listener.cluster))) for c in world.wire.connections}
    for (conference, dialer, listener), link in registry.links.items():
        if (conference, frozenset((dialer, listener))) not in real and link.state in {"up", "requested"}:
            yield f"the link {dialer}→{listener} of {conference} is {link.state}, but there is none"


def _rooms(world: World) -> Iterator[str]:
    """No room stands where nobody is."""
    for cluster in world.clusters.values():
        if not cluster.alive or not world.registry.online(cluster.name):
            continue
        for conference, room in cluster.rooms.items():
            if (conference, cluster.name) not in world.registry.placements:
                if not cluster.ours and not room.people:
                    continue  # nothing tells it from rooms of others; the next placement there takes it over
                yield f"the room of {conference} at {cluster.name} is left over"
            elif not room.people and cluster.kind != "blind":
                yield f"the room of {conference} at {cluster.name} stands empty"


def _work(world: World) -> Iterator[str]:
    """Nothing is missing, and nothing waits."""
    registry = world.registry
    for conference in sorted(registry.conferences):
        view = view_of(registry, conference)
        if view is None:
            continue
        # New measurements wake nobody: a better tree is looked for when something else happens.
        view = replace(view, round_trips=registry.planned_with.get(conference, view.round_trips))
        now = moment(world.kernel.now)
        due = plan(view, now)
        if due:
            yield f"{conference} still lacks {', '.join(map(str, due))}"
        elif next_look(view, now) is not None:
            yield f"{conference} is to be looked at again, at {next_look(view, now)}"
    for conference, row in registry.dirty.items():
        yield f"{conference} is marked: {row}"


def _links(world: World, conference: str) -> Iterator[str]:
    """Everybody hears everybody, over connections that are wanted and make no loop."""
    inhabited = sorted(
        {
            cluster.name
            for cluster in world.clusters.values()
            if cluster.alive and (room := cluster.rooms.get(conference)) is not None and room.people
        }
    )
    connections = [each for each in world.wire.connections if each.conference == conference]
    pairs = [frozenset((each.dialer.cluster, each.listener.cluster)) for each in connections]
    for pair in sorted(set(pairs), key=sorted):
        if pairs.count(pair) > 1:
            yield f"{sorted(pair)} have {pairs.count(pair)} connections for {conference}"
        rows = [key for key in world.registry.links if key[0] == conference and pair == set(key[1:])]
        if not rows:
            yield f"the connection of {sorted(pair)} for {conference} is left over"
    relays = {
        name
        for name in inhabited
        if world.relaying and world.topology.kind != "mesh" and world.clusters[name].kind == "served"
    }
    passing = [pair for pair in set(pairs) if pair <= relays]
    for one, other in combinations(inhabited, 2):
        if frozenset((one, other)) in pairs:
            continue
        if not (one in relays and other in relays and _joined(one, other, passing)):
            yield f"{one} and {other} do not hear each other in {conference}"
    if world.topology.kind != "mesh" and len(relays) > 2 and len(passing) >= len(relays):
        yield f"the relaying links of {conference} make a loop: {sorted(map(sorted, passing))}"
    yield from _stale(connections, conference, world)


def _stale(connections: list[Connection], conference: str, world: World) -> Iterator[str]:
    for each in connections:
        for end in (each.dialer, each.listener):
            if world.clusters[end.cluster].token_of(conference) is None:
                yield f"a connection of {conference} ends at {end.cluster}, where the room does not run"


def _joined(one: str, other: str, pairs: list[frozenset[str]]) -> bool:
    reached, left = {one}, [one]
    while left:
        here = left.pop()
        for pair in pairs:
            if here in pair:
                for there in pair - reached:
                    reached.add(there)
                    left.append(there)
    return other in reached
