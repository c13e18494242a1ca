"""Partitions of the event log: made ahead, dropped with a checkpoint left behind, and nothing lost by it."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from control.delivery.keeping import look_after
from control.delivery.rebuilding import at_time
from control.errors import ConferenceUnknownError, EventsGoneError
from control.event_settings import EventSettings
from control.registry import event_days, events, histories
from control.registry.events import Cursor
from tests.control.events_kit import LATER, log, make, prepared, sql, timeless

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from control.registry.store import Store

TODAY = datetime.now(UTC).date()
ENTER = """INSERT INTO participants (conference, cluster, id, user_name, role)
VALUES (:conference, 'a', :id, :id, 'r')"""


@pytest.fixture
async def store(engine: AsyncEngine) -> Store:
    return await prepared(engine)


async def shift(store: Store, days: int) -> None:
    """Have everything in the log happen so many days earlier, each event in its day's partition."""
    for statement in (
        f"""SELECT causeway_event_partition((now() AT TIME ZONE 'UTC')::date - n)
        FROM generate_series(1, {days + 1}) AS n""",
        """WITH moved AS (DELETE FROM conference_events RETURNING *)
        INSERT INTO conference_events
        SELECT conference, seq, at - make_interval(days => :days), kind, body, id FROM moved""",
        "UPDATE conference_heads SET at = at - make_interval(days => :days)",
        """UPDATE conference_checkpoints SET at = at - make_interval(days => :days), body = jsonb_set(
            body, '{at}', to_jsonb((body->>'at')::timestamptz - make_interval(days => :days)))""",
    ):
        values = {"days": days} if ":days" in statement else {}
        await store.write(sql, statement, **values)


async def days(store: Store) -> list[int]:
    return [(day - TODAY).days for day in await store.read(event_days.partitions)]


async def test_days_are_made_ahead(store: Store) -> None:
    assert await days(store) == list(range(15))
    assert await store.write(event_days.make, ahead=16) == [TODAY + timedelta(days=n) for n in (15, 16)]
    assert await store.write(event_days.make, ahead=16) == []


async def test_a_day_that_began_without_a_partition_stays_in_the_default(store: Store) -> None:
    await store.write(event_days.drop, TODAY)
    await make(store)
    assert await store.write(event_days.make, ahead=0) == []
    assert [each.kind for each in await log(store, "c1")] == ["conference.created", "placement.ready"]
    found = await store.read(sql, "SELECT FROM conference_events_default")
    assert found == 2
    midnight = datetime.combine(TODAY + timedelta(days=1), time(), tzinfo=UTC)
    await store.write(event_days.prune, midnight)
    assert await log(store, "c1") == []


async def test_what_is_older_than_its_time_is_dropped_and_the_rest_still_makes_sense(store: Store) -> None:
    settings = EventSettings(retention_days=3, days_ahead=1)
    await make(store, "lives", "a", "b")
    await make(store, "ended")
    await store.write(sql, "DELETE FROM conferences WHERE id = 'ended'")
    await store.write(sql, ENTER, conference="lives", id="old")
    await shift(store, 4)
    await store.write(sql, ENTER, conference="lives", id="middle")
    await shift(store, 2)
    await store.write(sql, ENTER, conference="lives", id="new")
    before = await log(store, "lives")
    assert [each.seq for each in before] == [1, 2, 3, 4, 5, 6]

    for _ in range(2):
        await look_after(store, settings)
        assert await days(store) == list(range(-3, 15))
        kept = await log(store, "lives")
        assert [each.seq for each in kept] == [5, 6]
        now = await store.snapshot(at_time, "lives", LATER)
        assert timeless(now) == timeless(await store.snapshot(histories.standing, "lives"))
        then = await store.snapshot(at_time, "lives", kept[0].at)
        assert [each.id for each in then.participants] == ["old", "middle"]
        edge = await store.snapshot(at_time, "lives", kept[0].at - timedelta(hours=1))
        assert [each.id for each in edge.participants] == ["old"]
        assert len(edge.placements) == 2
        with pytest.raises(EventsGoneError):
            await store.snapshot(at_time, "lives", before[0].at)
        with pytest.raises(ConferenceUnknownError):
            await store.snapshot(at_time, "ended", LATER)
        assert await store.read(events.heads_of, ["lives", "ended"]) == {"lives": Cursor(6, kept[-1].at)}

    # Later these go, too, with the conference; its number does not go back while somebody may remember it.
    await store.write(sql, "DELETE FROM conferences WHERE id = 'lives'")
    await look_after(store, settings)
    assert (await store.snapshot(at_time, "lives", LATER)).state == "ended"
    await shift(store, 9)
    await look_after(store, settings)
    assert await store.read(sql, "SELECT FROM conference_checkpoints") == 0
    assert await store.read(events.head, "lives") is None


async def test_a_day_that_is_being_read_is_dropped_another_time(store: Store, engine: AsyncEngine) -> None:
    await make(store)
    await shift(store, 9)
    settings = EventSettings(retention_days=3)
    async with engine.begin() as reader:
        await reader.execute(text("SELECT FROM conference_events"))
        await look_after(store, settings)
        assert -9 in await days(store)
    await look_after(store, settings)
    assert min(await days(store)) == -3
    assert (await store.snapshot(at_time, "c1", LATER)).state == "active"
