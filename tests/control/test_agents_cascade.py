from __future__ import annotations

import base64
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select, update

from causeway.api.agents import AgentLoad
from causeway.channel import (
    Desired,
    Goodbye,
    Heartbeat,
    LeaseRenewed,
    LinkState,
    Refusal,
    Refuse,
    Report,
    Resync,
    RoundTrip,
)
from control.agent_settings import AgentSettings
from control.registry.tables import agents, assignments, placements, round_trips
from tests.control.agents import Agent, listening
from tests.control.service import running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from causeway.channel import Assignment, DesiredLink
    from tests.control.service import Cluster, Service

QUICK = AgentSettings(ttl=30.0, sweep_interval=0.05, waiting_interval=0.1, poll_interval=30.0)
MASTER_KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class World:
    """Two clusters that share the conference `standup`, with people in both; `us-1` came later, and dials."""

    service: Service
    at: str
    eu: Cluster
    us: Cluster

    def agent(self, name: str, cluster: str, **fields: Any) -> Agent:
        return Agent(id=name, cluster=cluster, at=self.at, key=self.service.keys["enrolment"], **fields)

    async def links(self) -> dict[tuple[str, str], str]:
        seen = await self.service.conference("standup")
        return {(each["dialer"], each["listener"]): each["state"] for each in seen["links"]}

    async def link(self, state: str) -> None:
        await until(self.links, lambda links: links == {("us-1", "eu-1"): state})

    async def shown(self, name: str) -> dict[str, Any]:
        answer = await self.service.operator.get(f"/v1/agents/{name}")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def staff(self) -> dict[tuple[str, str], str]:
        async with self.service.engine.connect() as connection:
            rows = await connection.execute(select(assignments))
            return {(row.cluster, row.kind): row.agent for row in rows.all()}

    async def staffed(self, **expected: str) -> None:
        """Wait until agents serve events as said, by the clusters' regions."""
        wanted = {(f"{region}-1", "event"): name for region, name in expected.items()}
        await until(self.staff, lambda staff: {k: v for k, v in staff.items() if k[1] == "event"} == wanted)


@asynccontextmanager
async def world(database_url: str, *, quick: AgentSettings = QUICK) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(database_url, agents=quick, master_key=MASTER_KEY))
        at = await stack.enter_async_context(listening(service))
        eu = await stack.enter_async_context(service.cluster("eu-1", region="eu"))
        us = await stack.enter_async_context(service.cluster("us-1", region="us"))
        await service.create("standup")
        await eu.register()
        await us.register()
        yield World(service=service, at=at, eu=eu, us=us)


def dials(state: dict[str, Assignment]) -> list[DesiredLink]:
    return [link for each in state.values() for link in each.links if link.role == "dial"]


def told(count: int) -> Callable[[dict[str, Assignment]], bool]:
    return lambda state: len(dials(state)) == count


async def meet(here: World) -> None:
    for cluster in (here.eu, here.us):
        cluster.stub.rooms.setdefault("standup", {"id": "standup"})
    await here.eu.enter("standup", "p1")
    await here.us.enter("standup", "p2")


def up(peer: str = "eu-1") -> Report:
    return Report(links=[LinkState(conference="standup", peer=peer, state="up")])


async def test_agents_are_assigned_told_and_believed(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1", port=7100).connected() as eu,
        here.agent("us-a", "us-1", port=7200).connected() as us,
    ):
        assert (await eu.hear(Desired)).conferences == []
        await meet(here)
        state = await us.until(told(1))
        assert state["standup"].kinds == ["event", "media"]
        (link,) = dials(state)
        assert (link.peer, link.token, link.attempt) == ("eu-1", "room-token-of-eu-1", 1)
        assert link.event is not None
        assert (link.event.port, link.event.fingerprint) == (7100, "a" * 64)
        assert link.media is not None
        assert link.media.port == 7101
        assert "room-token" not in repr(link)
        await here.link("requested")
        assert here.eu.stub.made("bridges") == here.us.stub.made("cascading") == []
        await eu.until(lambda state: [x.role for each in state.values() for x in each.links] == ["listen"])
        # What the clusters see of it does not count, what the agent sees does.
        await here.us.link("standup", "eu-1", "up")
        await here.link("requested")
        await us.say(up())
        await here.link("up")
        await here.us.link("standup", "eu-1", "down")
        await here.link("up")
        view = await until(
            lambda: here.shown("us-a"), lambda view: view["acked_version"] == view["desired_version"]
        )
        assert (view["connected"], view["conferences"], view["refused"]) == (True, 1, [])


async def test_a_link_that_is_down_is_dialled_anew_with_fresh_addresses(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1", port=7100).connected(),
        here.agent("us-a", "us-1").connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        await us.say(up())
        await here.link("up")
        # The listener starts anew, elsewhere: its registration alone is enough.
        await here.agent("eu-a", "eu-1", port=7500, instance="i2").register()
        state = await us.until(lambda state: [each.attempt for each in dials(state)] == [2])
        (link,) = dials(state)
        assert link.event is not None
        assert link.event.port == 7500
        await us.say(up())
        await here.link("up")


async def test_what_an_agent_refuses_is_shown_and_tried_again(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        problem = Refusal(conference="standup", peer="eu-1", reason="no route")
        assert us.version is not None
        await us.say(Refuse(version=us.version, problems=[problem]))
        await here.link("down")
        assert (await here.shown("us-a"))["refused"] == [
            {"conference": "standup", "peer": "eu-1", "reason": "no route"}
        ]
        seen = await here.service.conference("standup")
        assert [each["error"] for each in seen["links"]] == ["no route"]


async def test_an_agent_that_returns_is_told_everything_and_says_everything(database_url: str) -> None:
    async with world(database_url) as here, here.agent("eu-a", "eu-1").connected():
        us = here.agent("us-a", "us-1")
        async with us.connected() as channel:
            await meet(here)
            await channel.until(told(1))
            await channel.say(up())
            await here.link("up")
        async with us.connected() as channel:
            first = await channel.hear(Desired)
            assert [each.conference for each in first.conferences] == ["standup"]
            # It does not have the link any more.
            await channel.say(Report(links=[], full=True))
            await here.link("down")
            await channel.say(Resync())
            again = await channel.hear(Desired)
            assert again.version > first.version
            assert again.conferences == first.conferences


async def test_what_is_over_is_taken_from_the_agents(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected() as eu,
        here.agent("us-a", "us-1").connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        await us.say(up())
        await here.service.application.delete("/v1/conferences/standup")
        assert await us.until(lambda state: not state) == {}
        assert await eu.until(lambda state: not state) == {}
        assert await here.staff() == {}


async def test_a_silent_agent_is_replaced(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as first,
    ):
        await meet(here)
        await first.until(told(1))
        await first.say(up())
        await here.link("up")
        async with here.agent("us-b", "us-1").connected() as second:
            await here.staffed(eu="eu-a", us="us-a")  # who has it keeps it
            await expire(here, "us-a")
            assert await first.end() == Goodbye(reason="register")
            await here.staffed(eu="eu-a", us="us-b")
            await second.until(told(1))
            await second.say(up())
            await here.link("up")
            assert (await here.shown("us-a"))["state"] == "lost"


async def expire(here: World, agent: str) -> None:
    async with here.service.engine.begin() as connection:
        await connection.execute(
            update(agents).where(agents.c.id == agent).values(lease_expires_at=func.now())
        )


async def test_a_drained_agent_hands_over(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as first,
    ):
        await meet(here)
        await first.until(told(1))
        drained = await here.service.operator.put("/v1/agents/us-a/drain")
        assert (drained.status_code, drained.json()["state"]) == (200, "draining")
        await here.staffed(eu="eu-a", us="us-a")  # better than none
        async with here.agent("us-b", "us-1").connected() as second:
            await here.staffed(eu="eu-a", us="us-b")
            await first.until(lambda state: not state)
            await second.until(told(1))
            assert (await here.service.operator.delete("/v1/agents/us-a/drain")).status_code == 204
            assert (await here.shown("us-a"))["state"] == "online"


async def test_conferences_wait_for_an_agent_with_room(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1", conferences=1).connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        await here.service.create("review")
        await here.eu.enter("review", "p3")
        await here.us.enter("review", "p4")
        await until(here.staff, lambda staff: len(staff) >= 3)
        assert set(await us.until(told(1))) == {"standup"}
        await here.service.application.delete("/v1/conferences/standup")
        await us.until(lambda state: set(state) == {"review"} and len(dials(state)) == 1)


async def test_load_and_round_trips_are_kept(database_url: str) -> None:
    async with world(database_url) as here, here.agent("us-a", "us-1").connected() as us:
        measured = [RoundTrip(cluster="eu-1", ms=80.0, jitter_ms=2.0), RoundTrip(cluster="us-1", ms=0.1)]
        busy = AgentLoad(links=3, cpu=0.5, bandwidth_in=2_000_000, bandwidth_out=48_000_000)
        await us.say(Heartbeat(load=busy, round_trips=measured))
        assert (await us.hear(LeaseRenewed)).ttl == 30.0
        shown = (await here.service.operator.get("/v1/agents/us-a")).json()
        assert msgspec.convert(shown["load"], AgentLoad) == busy
        # Hardly different: not worth a row's change. Then a new route.
        await us.say(Heartbeat(round_trips=[RoundTrip(cluster="eu-1", ms=80.5)]))
        await us.hear(LeaseRenewed)
        assert await times(here) == {("us-1", "eu-1"): 80.0}
        await us.say(Heartbeat(round_trips=[RoundTrip(cluster="eu-1", ms=120.0)]))
        await us.hear(LeaseRenewed)
        assert await times(here) == {("us-1", "eu-1"): 120.0}


async def times(here: World) -> dict[tuple[str, str], float]:
    async with here.service.engine.connect() as connection:
        rows = await connection.execute(select(round_trips))
        return {(row.from_cluster, row.to_cluster): row.ms for row in rows.all()}


async def test_a_missed_notice_heals(database_url: str) -> None:
    polling = AgentSettings(ttl=30.0, sweep_interval=0.05, poll_interval=0.2)
    async with (
        world(database_url, quick=polling) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as us,
    ):
        await us.hear(Desired)
        async with here.service.engine.begin() as connection:  # whatever wakes channels is out of order
            for trigger in ("agents_links_made", "agents_links_changed", "agents_links_ended"):
                await connection.exec_driver_sql(f"ALTER TABLE links DISABLE TRIGGER {trigger}")
        await meet(here)
        await us.until(told(1))


async def test_a_token_that_changed_reaches_the_dialer(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        await us.say(up())
        await here.link("up")
        await here.eu.report("PUT", "/rooms/standup", {"token": "another"})
        await us.until(lambda state: [each.token for each in dials(state)] == ["another"])


async def test_any_replica_serves_any_agent(database_url: str) -> None:
    async with (
        world(database_url) as here,
        running(database_url, agents=QUICK, master_key=MASTER_KEY) as other,
    ):
        key = here.service.keys["enrolment"]
        async with listening(other) as at, here.agent("eu-a", "eu-1").connected():
            elsewhere = Agent(id="us-a", cluster="us-1", at=at, key=key)
            async with here.agent("us-a", "us-1").connected() as first:
                await first.hear(Desired)
                await meet(here)
                await first.until(told(1))
                async with elsewhere.connected() as second:
                    assert await first.end() == Goodbye(reason="replaced")
                    await second.until(told(1))
                    await second.say(up())
                    await here.link("up")


async def test_a_revoked_key_closes_the_channel(database_url: str) -> None:
    polling = AgentSettings(ttl=30.0, poll_interval=0.1)
    async with world(database_url, quick=polling) as here:
        made = await here.service.operator.post("/v1/keys", json={"kind": "enrolment", "name": "bridge"})
        us = here.agent("us-a", "us-1")
        us.key = made.json()["key"]
        async with us.connected() as channel:
            await channel.hear(Desired)
            await here.service.operator.delete(f"/v1/keys/{made.json()['id']}")
            assert await channel.end() == Goodbye(reason="register")


async def test_placements_that_go_take_their_assignments_along(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-a", "us-1").connected() as us,
    ):
        await meet(here)
        await us.until(told(1))
        async with here.service.engine.begin() as connection:
            await connection.execute(placements.delete().where(placements.c.cluster == "us-1"))
        await us.until(lambda state: not state)


async def test_an_agent_dials_a_cluster_without_agents(database_url: str) -> None:
    async with world(database_url) as here, here.agent("us-a", "us-1").connected() as us:
        await meet(here)
        (link,) = dials(await us.until(told(1)))
        bridges = here.eu.stub.bridges
        assert link.event is not None
        assert link.event.port == bridges["eventbridgeport"]
        assert here.us.stub.made("cascading") == []
        await us.say(up())
        await here.link("up")


async def test_a_cluster_without_agents_dials_an_agent(database_url: str) -> None:
    async with world(database_url) as here, here.agent("eu-a", "eu-1", port=7100).connected() as eu:
        await meet(here)
        await here.us.stub.wait_for(lambda: bool(here.us.stub.made("cascading")))
        options = here.us.stub.made("cascading")[0].body["options"]
        assert (options["evPort"], options["mediaPort"]) == (7100, 7101)
        assert here.eu.stub.made("bridges") == []
        await eu.until(lambda state: [x.role for each in state.values() for x in each.links] == ["listen"])
        await here.us.link("standup", "eu-1", "up")
        await here.link("up")


async def test_two_agents_share_a_conference(database_url: str) -> None:
    async with (
        world(database_url) as here,
        here.agent("eu-a", "eu-1").connected(),
        here.agent("us-e", "us-1", kinds=("event",)).connected() as events,
        here.agent("us-m", "us-1", kinds=("media",)).connected() as media,
    ):
        await meet(here)
        (link,) = dials(await events.until(told(1)))
        assert (link.event is not None, link.media) == (True, None)
        (link,) = dials(await media.until(told(1)))
        assert (link.event, link.media is not None) == (None, True)
        await here.link("requested")
        await media.say(up())
        await media.say(Heartbeat())
        await media.hear(LeaseRenewed)
        await here.link("requested")  # events flow, or it is not up
        await events.say(up())
        await here.link("up")
