"""What the executor of plans reads and writes: the view, links from wish to order, placements given up."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select, text, update

from causeway.api import ClusterRegistration, Location
from causeway.api.agents import AgentAddress, AgentAddresses, AgentCapacity, AgentRegistration, ProtocolRange
from control.registry import (
    agent_leases,
    agents,
    cascade_view,
    clusters,
    conferences,
    displaced,
    links,
    placements,
    reports,
)
from control.registry.store import Store
from control.registry.tables import clusters as cluster_rows
from control.registry.tables import displaced as displaced_rows
from control.registry.tables import links as link_rows
from control.registry.tables import reservations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from control.cascade.view import LinkFacts, View
    from control.registry.cascade_view import Snapshot

BRIDGES = {"event": {"host": "192.0.2.1", "port": 7000, "fingerprint": "a" * 64}, "media": None}
PAIR = {"dialer": "us-1", "listener": "eu-1"}


@pytest.fixture
async def store(engine: AsyncEngine) -> Store:
    """A conference `c` with eu-1 and us-1, both registered."""
    made = Store(engine)
    await made.write(conferences.create, "c")
    for cluster in ("eu-1", "us-1"):
        await register(made, cluster)
        await made.write(placements.ensure, "c", cluster)
    return made


async def register(store: Store, cluster: str, *, incarnation: str = "i1", **changes: Any) -> None:
    request = ClusterRegistration(
        region=cluster[:2],
        rest_url="http://127.0.0.1:9",
        service_id="s",
        service_key="k",
        instance="d1",
        incarnation=incarnation,
        location=Location(lat=50, lon=8),
        **changes,
    )
    await store.write(clusters.register, cluster, request, sealed_key=b"k", ttl=60)


async def agent(store: Store, name: str, cluster: str) -> None:
    request = AgentRegistration(
        cluster=cluster,
        region="eu",
        kinds=["event"],
        addresses=AgentAddresses(event=AgentAddress(host="192.0.2.9", port=7100, fingerprint="b" * 64)),
        capacity=AgentCapacity(conferences=3),
        version="1",
        protocol=ProtocolRange(min=1, max=1),
        instance="s1",
    )
    await store.write(agent_leases.register, name, request, protocol=1, ttl=60)


async def enter(store: Store, cluster: str, participant: str, *, user: str = "ada") -> None:
    await store.write(reports.participant_joined, "c", cluster, participant, user=user, role="presenter")


async def look(store: Store) -> Snapshot:
    found = await store.read(cascade_view.load, "c", idle_grace=30)
    assert found is not None
    return found


async def view(store: Store) -> View:
    return (await look(store)).view


async def link(store: Store) -> LinkFacts:
    [found] = (await view(store)).links
    return found


async def reserve(store: Store, cluster: str, *, seconds: float) -> None:
    async def write(connection: AsyncConnection) -> None:
        await connection.execute(
            insert(reservations).values(
                conference="c",
                cluster=cluster,
                user_name="grace",
                id=1,
                expires_at=func.clock_timestamp() + timedelta(seconds=seconds),
            )
        )

    await store.write(write)


# --- the view ---------------------------------------------------------------------------------


async def test_no_view_of_nothing(engine: AsyncEngine) -> None:
    assert await Store(engine).read(cascade_view.load, "c", idle_grace=30) is None


async def test_the_view_shows_everything_of_one_moment(store: Store) -> None:
    await store.write(reports.room_opened, "c", "eu-1", sealed_token=b"t")
    await enter(store, "eu-1", "p1")
    await agent(store, "a1", "us-1")
    assert await store.write(agents.assign, "c", cluster="us-1", kind="event", agent="a1")
    seen = await look(store)
    assert seen.starts == {"eu-1": "i1", "us-1": "i1"}
    eu, us = seen.view.placements
    assert (eu.cluster, eu.ordinal, eu.state, eu.has_token, eu.participants) == ("eu-1", 1, "ready", True, 1)
    assert (us.cluster, us.ordinal, us.state, us.has_token, us.participants) == (
        "us-1",
        2,
        "wanted",
        False,
        0,
    )
    assert eu.empty_since is None
    assert us.empty_since is not None
    assert us.empty_since <= seen.now
    assert (eu.agents, us.agents) == ((), (("event", "a1"),))
    assert [(a.id, a.cluster, a.live, a.room) for a in seen.view.agents] == [("a1", "us-1", True, 2)]
    facts = seen.view.clusters["eu-1"]
    assert (facts.online, facts.region, facts.location, facts.gone) == (True, "eu", (50, 8), False)
    assert (seen.view.topology.kind, seen.view.idle_grace) == ("mesh", timedelta(seconds=30))


async def test_a_template_s_wish_for_a_topology_is_shown(store: Store) -> None:
    async def write(connection: AsyncConnection) -> None:
        await connection.execute(
            text("""UPDATE templates SET body = body || '{"topology": {"kind": "star", "hubs": ["eu"]}}'""")
        )

    await store.write(write)
    wish = (await view(store)).topology
    assert (wish.kind, wish.hubs, wish.degree_limit) == ("star", ("eu",), 4)


async def test_a_seat_holds_a_placement_until_it_runs_out(store: Store) -> None:
    await reserve(store, "eu-1", seconds=600)
    await reserve(store, "us-1", seconds=-1)
    seen = await look(store)
    eu, us = seen.view.placements
    assert eu.empty_since is not None
    assert us.empty_since is not None
    assert eu.empty_since > seen.now + timedelta(seconds=500)
    assert us.empty_since < seen.now


async def test_a_placement_knows_since_when_nobody_is_there(store: Store) -> None:
    await enter(store, "eu-1", "p1")
    await enter(store, "eu-1", "p2")
    await store.write(reports.participant_left, "c", "eu-1", "p1")
    assert (await view(store)).placements[0].empty_since is None
    before = (await look(store)).now
    await store.write(reports.participant_left, "c", "eu-1", "p2")
    since = (await view(store)).placements[0].empty_since
    assert since is not None
    assert since > before


async def test_a_cluster_that_left_is_gone(store: Store) -> None:
    await store.write(clusters.unregister, "us-1", epoch=None)
    facts = (await view(store)).clusters["us-1"]
    assert (facts.online, facts.gone) == (False, True)


# --- links ------------------------------------------------------------------------------------


async def test_a_link_from_addresses_to_order_to_up(store: Store) -> None:
    asked = await store.write(links.begin_fetch, "c", **PAIR)
    assert asked is not None
    assert await store.write(links.begin_order, "c", **PAIR) is None  # nothing is known yet
    assert await store.write(links.fetched, "c", asked, **PAIR, bridges=BRIDGES)
    fresh = await link(store)
    assert (fresh.state, fresh.bridges_at is not None, fresh.via) == ("wanted", True, "driver")
    order = await store.write(links.begin_order, "c", **PAIR)
    assert order is not None
    assert order.bridges == BRIDGES
    assert await store.write(links.begin_order, "c", **PAIR) is None  # the addresses are used up
    await store.write(links.order_taken, "c", order.id, **PAIR)
    assert (await link(store)).state == "requested"
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up")
    assert (await link(store)).state == "up"
    assert await store.write(links.begin_fetch, "c", **PAIR) is None
    assert await store.read(links.how, "c", **PAIR) == ("driver", 1)


async def test_what_changes_meanwhile_makes_the_outcome_void(store: Store) -> None:
    asked = await store.write(links.begin_fetch, "c", **PAIR)
    assert asked is not None
    await store.write(links.want, "eu-1")
    assert not await store.write(links.fetched, "c", asked, **PAIR, bridges=BRIDGES)
    again = await store.write(links.begin_fetch, "c", **PAIR)
    assert again is not None
    await store.write(links.order_failed, "c", asked, **PAIR, error="late", delay=5)
    assert (await link(store)).attempts == 0
    await store.write(links.order_failed, "c", again, **PAIR, error="no", delay=5)
    failed = await link(store)
    assert (failed.attempts, failed.retry_at is not None, failed.bridges_at) == (1, True, None)
    third = await store.write(links.begin_fetch, "c", **PAIR)
    assert third is not None
    await store.write(links.fetched, "c", third, **PAIR, bridges=BRIDGES)
    await store.write(links.want, "us-1", conference="c")
    assert await store.write(links.begin_order, "c", **PAIR) is None


async def test_an_agent_is_told_by_the_row_and_only_its_word_counts(
    store: Store, engine: AsyncEngine
) -> None:
    asked = await store.write(links.begin_fetch, "c", **PAIR)
    assert asked is not None
    await store.write(links.fetched, "c", asked, **PAIR, bridges=BRIDGES)
    assert await store.write(links.order_by_agent, "c", **PAIR)
    assert not await store.write(links.order_by_agent, "c", **PAIR)
    ordered = await link(store)
    assert (ordered.state, ordered.via, ordered.bridges_at) == ("requested", "agent", None)
    async with engine.connect() as connection:
        row = (await connection.execute(select(link_rows.c.bridges, link_rows.c.orders))).one()
    assert (row.bridges, row.orders) == (BRIDGES, 1)
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up")
    assert (await link(store)).state == "requested"
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up", via="agent")
    assert (await link(store)).state == "up"
    await store.write(links.report, "c", cluster="eu-1", peer="us-1", state="down", via="agent")
    assert (await link(store)).state == "up"
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="down", via="agent", error="lost")
    down = await link(store)
    assert down.state == "down"
    # A redial: what it was told stays until there is something newer.
    asked = await store.write(links.begin_fetch, "c", **PAIR)
    assert asked is not None
    async with engine.connect() as connection:
        assert (await connection.scalar(select(link_rows.c.bridges))) == BRIDGES
    await store.write(links.fetched, "c", asked, **PAIR, bridges=BRIDGES)
    await store.write(links.order_by_agent, "c", **PAIR)
    assert await store.read(links.how, "c", **PAIR) == ("agent", 2)


async def test_no_link_is_made_of_reports_where_an_agent_serves(store: Store) -> None:
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up", via="agent")
    assert (await view(store)).links == ()
    await agent(store, "a1", "us-1")
    await store.write(agents.assign, "c", cluster="us-1", kind="event", agent="a1")
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up")
    assert (await view(store)).links == ()
    await store.write(agents.unassign, "c", cluster="us-1", kind="event", agent="a1")
    await store.write(links.report, "c", cluster="us-1", peer="eu-1", state="up")
    assert (await link(store)).state == "up"


async def test_an_end_that_failed_is_put_off(store: Store) -> None:
    await store.write(links.begin_fetch, "c", **PAIR)
    await store.write(links.stop_failed, "c", **PAIR, error="no", delay=60)
    seen = await look(store)
    [found] = seen.view.links
    assert found.retry_at is not None
    assert found.retry_at > seen.now
    await store.write(links.forget, "c", **PAIR)
    await store.write(links.forget, "c", **PAIR)
    assert await store.read(links.how, "c", **PAIR) is None


# --- placements given up ----------------------------------------------------------------------


async def test_a_deserted_room_is_wanted_no_longer_unless_somebody_comes(store: Store) -> None:
    await store.write(placements.ensure, "c", "eu-1", room="c")
    assert await store.write(placements.vacate, "c", "eu-1")
    before = await store.read(placements.placed, "c", "eu-1")
    assert before is not None
    assert await store.write(placements.renew, "c", "eu-1") == before.epoch
    renewed = await store.read(placements.placed, "c", "eu-1")
    assert renewed is not None
    assert renewed.epoch > before.epoch
    await reserve(store, "eu-1", seconds=60)
    assert await store.write(placements.renew, "c", "eu-1") is None
    assert await store.read(placements.placed, "c", "eu-1") == renewed
    assert not await store.write(placements.vacated, "c", "eu-1")
    placed = await store.read(placements.placed, "c", "eu-1")
    assert placed is not None
    assert (placed.state, placed.room) == ("wanted", None)
    await enter(store, "us-1", "p1")
    assert not await store.write(placements.vacate, "c", "us-1")
    await store.write(reports.participant_left, "c", "us-1", "p1")
    assert await store.write(placements.vacate, "c", "us-1")
    assert await store.write(placements.vacated, "c", "us-1")
    assert await store.read(placements.placed, "c", "us-1") is None
    assert not await store.write(placements.vacate, "c", "us-1")


async def test_only_a_lost_placement_is_forgotten_without_a_word(store: Store) -> None:
    await store.write(placements.forget, "c", "us-1")
    assert await store.read(placements.placed, "c", "us-1") is not None
    await store.write(clusters.unregister, "us-1", epoch=None)
    await store.write(placements.forget, "c", "us-1")
    assert await store.read(placements.placed, "c", "us-1") is None


# --- the displaced ----------------------------------------------------------------------------


async def test_the_displaced_of_a_lost_cluster_return_with_it(store: Store, engine: AsyncEngine) -> None:
    await enter(store, "eu-1", "p1")
    await enter(store, "eu-1", "p2", user="grace")

    async def expire(connection: AsyncConnection) -> None:
        await connection.execute(update(cluster_rows).values(lease_expires_at=func.now()))

    await store.write(expire)
    while await store.write(clusters.sweep) is not None:
        pass
    eu, us = (await view(store)).placements
    assert (eu.state, eu.displaced, eu.participants, us.displaced) == ("lost", 2, 0, 0)
    waiting = await store.read(displaced.waiting, "c", "eu-1", limit=10)
    assert [(w.participant, w.user, w.role, w.region) for w in waiting] == [
        ("p1", "ada", "presenter", "eu"),
        ("p2", "grace", "presenter", "eu"),
    ]
    assert await store.write(displaced.dropped, "c", "eu-1", waiting[0])
    assert not await store.write(displaced.dropped, "c", "eu-1", waiting[0])
    await register(store, "eu-1")
    assert await store.read(displaced.waiting, "c", "eu-1", limit=10) == []
    await enter(store, "eu-1", "p2", user="grace")
    await register(store, "eu-1", incarnation="i2")
    async with engine.connect() as connection:
        assert (await connection.scalar(select(func.count()).select_from(displaced_rows))) == 1


async def test_whoever_comes_back_is_one_less(store: Store) -> None:
    for participant in ("p1", "p2"):
        await enter(store, "eu-1", participant)
    await store.write(clusters.unregister, "eu-1", epoch=None)
    assert (await view(store)).placements[0].displaced == 2
    await enter(store, "us-1", "p7")
    assert (await view(store)).placements[0].displaced == 1
    await enter(store, "us-1", "p7")  # reported once more
    assert (await view(store)).placements[0].displaced == 1
    await enter(store, "us-1", "p8", user="somebody else")
    assert (await view(store)).placements[0].displaced == 1


async def test_where_rooms_are_looked_into_by_lot_nobody_s_absence_is_known(store: Store) -> None:
    assert (await view(store)).clusters["eu-1"].knows_participants

    async def probe(connection: AsyncConnection) -> None:
        await connection.execute(update(cluster_rows).values(probe_due_at=func.now()))

    await store.write(probe)
    assert not (await view(store)).clusters["eu-1"].knows_participants
