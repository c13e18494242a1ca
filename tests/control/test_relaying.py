"""Conferences whose links relay: who can, what agents are told of it, and what round trips set going."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from causeway.channel import Heartbeat, LeaseRenewed, LinkState, Report, RoundTrip
from control.registry.desired import ways_from
from control.registry.tables import dirty_conferences, replicas, round_trips
from tests.control.agents import Agent, listening
from tests.control.service import running, until
from tests.control.test_agents_cascade import MASTER_KEY, QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.control.agents import Channel
    from tests.control.service import Cluster, Service

OURS = ("causeway/1", "h3")


class World:
    """Three clusters that share `standup`, of a template that wants a star, with people in all of them."""

    def __init__(self, service: Service, at: str, clusters: dict[str, Cluster]) -> None:
        self.service = service
        self.at = at
        self.clusters = clusters

    def agent(self, cluster: str, wires: tuple[str, ...] = OURS) -> Agent:
        key = self.service.keys["enrolment"]
        return Agent(id=f"{cluster}-a", cluster=cluster, at=self.at, key=key, wires=wires)

    async def plan(self) -> dict[str, Any]:
        answer = await self.service.operator.get("/v1/conferences/standup/plan")
        assert answer.status_code == 200, answer.text
        plan: dict[str, Any] = answer.json()
        return plan


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url, agents=QUICK, master_key=MASTER_KEY))
        at = await stack.enter_async_context(listening(service))
        made = await service.operator.put(
            "/v1/templates/starry", json={"topology": {"kind": "star", "hubs": ["a"]}}
        )
        assert made.status_code in {200, 201}, made.text
        created = await service.application.post("/v1/conferences", json={"id": "standup", "type": "starry"})
        assert created.status_code == 201, created.text
        clusters = {}
        for name in "abc":
            clusters[name] = await stack.enter_async_context(service.cluster(name, region=f"r-{name}"))
            await clusters[name].register()
        yield World(service, at, clusters)


async def meet(here: World) -> None:
    for number, cluster in enumerate(here.clusters.values()):
        cluster.stub.rooms.setdefault("standup", {"id": "standup"})
        await cluster.enter("standup", f"p{number}")


def ways(channel: Channel) -> dict[str, tuple[bool, tuple[str, ...]]]:
    state = channel.state.get("standup")
    return {} if state is None else {link.peer: (link.relays, tuple(link.behind)) for link in state.links}


def told(channel: Channel, expected: dict[str, tuple[bool, tuple[str, ...]]]) -> Any:
    return channel.until(lambda _state: ways(channel) == expected)


async def test_a_star_of_agents_that_can_relay_and_what_each_is_told(world: World) -> None:
    async with (
        world.agent("a").connected() as a,
        world.agent("b").connected() as b,
        world.agent("c").connected() as c,
    ):
        await meet(world)
        await told(a, {"b": (True, ()), "c": (True, ())})
        await told(b, {"a": (True, ("c",))})
        await told(c, {"a": (True, ("b",))})
        topology = (await world.plan())["topology"]
        assert (topology["used"], topology["links"]) == ("star", [["b", "a"], ["c", "a"]])
        shown = (await world.service.operator.get("/v1/agents/b-a")).json()
        assert shown["wires"] == list(OURS)


async def test_one_that_cannot_relay_is_linked_with_everybody_and_three_are_needed(world: World) -> None:
    async with (
        world.agent("a").connected() as a,
        world.agent("b").connected() as b,
        world.agent("c", ("h3",)).connected() as c,
    ):
        await meet(world)
        await told(c, {"a": (False, ()), "b": (False, ())})
        await told(a, {"b": (True, ()), "c": (False, ())})
        await told(b, {"a": (True, ()), "c": (False, ())})
        topology = (await world.plan())["topology"]
        assert topology["used"] == "mesh"
        assert "fewer than three of these clusters can relay" in topology["reason"]


async def test_a_much_changed_round_trip_has_conferences_looked_at_and_no_other_does(world: World) -> None:
    async def version() -> int:
        async with world.service.engine.connect() as connection:
            return await connection.scalar(select(dirty_conferences.c.version)) or 0

    async def planned() -> list[tuple[float, float | None]]:
        async with world.service.engine.connect() as connection:
            rows = await connection.execute(select(round_trips.c.ms, round_trips.c.planned_ms))
            return [(row.ms, row.planned_ms) for row in rows.all()]

    async with world.agent("a").connected() as a, world.agent("b").connected() as b:
        await meet(world)
        await told(b, {"a": (True, ()), "c": (False, ())})
        await b.say(Report(links=[LinkState(conference="standup", peer="a", state="up")]))
        for ms, kept in ((100.0, 100.0), (110.0, 100.0)):  # a little more is nothing to plan anew for
            await a.say(Heartbeat(round_trips=[RoundTrip(cluster="b", ms=ms)]))
            await a.hear(LeaseRenewed)
            assert await planned() == [(ms, kept)]
        await until(version, lambda seen: seen == 0)
        async with world.service.engine.begin() as connection:
            await connection.execute(
                round_trips.update().values(planned_at=round_trips.c.planned_at - timedelta(minutes=2))
            )
        await a.say(Heartbeat(round_trips=[RoundTrip(cluster="b", ms=200.0)]))
        await a.hear(LeaseRenewed)
        assert await planned() == [(200.0, 200.0)]


@given(st.integers(min_value=2, max_value=9), st.data())
def test_everybody_is_behind_exactly_one_neighbour(count: int, data: st.DataObject) -> None:
    links = {(f"n{data.draw(st.integers(0, number - 1))}", f"n{number}") for number in range(1, count)}
    for extra in range(data.draw(st.integers(0, 2))):  # while a plan is carried out there may be loops
        links.add((f"n{extra % count}", f"n{data.draw(st.integers(0, count - 1))}"))
    links = {(one, other) for one, other in links if one != other}
    for number in range(count):
        name = f"n{number}"
        found = ways_from(name, sorted(links))
        near = {one if other == name else other for one, other in links if name in (one, other)}
        assert set(found) == near
        reached = [*found, *(each for behind in found.values() for each in behind)]
        assert sorted(reached) == sorted({f"n{each}" for each in range(count)} - {name})


def test_a_chain_is_seen_from_each_of_its_ends() -> None:
    chain = list(pairwise("abcd"))
    assert ways_from("a", chain) == {"b": ("c", "d")}
    assert ways_from("b", chain) == {"a": (), "c": ("d",)}
    assert ways_from("x", chain) == {}


async def test_nothing_relays_while_an_older_replica_is_there(world: World) -> None:
    async with (
        world.agent("a").connected() as a,
        world.agent("b").connected(),
        world.agent("c").connected(),
        world.service.engine.connect() as connection,
    ):
        older = insert(replicas).values(
            id=uuid.uuid4(),
            name="older",
            version="0.1",
            revision="0010",
            duties=[],
            lease_expires_at=func.now() + timedelta(minutes=1),
        )
        await connection.execute(older)
        await connection.commit()
        await meet(world)
        await told(a, {"b": (False, ()), "c": (False, ())})
        assert (await world.plan())["topology"]["used"] == "mesh"
        await connection.execute(replicas.delete().where(replicas.c.name == "older"))
        await connection.commit()
        assert (await world.plan())["topology"]["used"] == "star"
