"""The event log on a real database: numbers, order, what triggers write, and what can be rebuilt from it."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import text

from causeway.api import EVENT_KINDS, ConferenceState, StreamReport, Track
from control.delivery.rebuilding import at_time
from control.errors import ConferenceUnknownError, EventsGoneError
from control.registry import events, histories, schema, streams
from control.registry.database import create_engine
from control.registry.events import Cursor
from tests.control.events_kit import BEGINNING, CLUSTERS, LATER, log, make, prepared, sql, timeless, told

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from control.registry.store import Store

CONFERENCES = ("c1", "c2")


@pytest.fixture
async def store(engine: AsyncEngine) -> Store:
    return await prepared(engine)


# --- numbers ----------------------------------------------------------------------------------


async def test_writers_at_once_leave_no_gap_and_no_disorder(store: Store) -> None:
    async def write(connection: AsyncConnection, n: int) -> None:
        for _ in range(n % 3 + 1):
            await events.write(connection, "c1", "participant.moved", {"n": n})
        if n % 4 == 0:
            raise RuntimeError("and back")

    results = await asyncio.gather(*(store.write(write, n) for n in range(40)), return_exceptions=True)
    assert sum(isinstance(result, RuntimeError) for result in results) == 10
    found = await log(store, "c1")
    assert [each.seq for each in found] == list(range(1, len(found) + 1))
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert len({each.id for each in found}) == len(found)
    # What one transaction wrote stands together.
    runs = [
        each.body["n"] for index, each in enumerate(found) if found[index - 1].body["n"] != each.body["n"]
    ]
    assert len(runs) == len(set(runs)) == 30
    assert await store.read(events.head, "c1") == Cursor(found[-1].seq, found[-1].at)


async def test_nobody_sees_a_number_before_a_smaller_one(store: Store, engine: AsyncEngine) -> None:
    async with engine.begin() as first:
        await events.write(first, "c1", "participant.moved", {})
        await first.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # as at its commit
        second = asyncio.create_task(store.write(events.write, "c1", "participant.moved", {}))
        other = asyncio.create_task(store.write(events.write, "c2", "participant.moved", {}))
        await other  # other conferences do not wait
        assert await log(store, "c1") == []
        assert not second.done()
    await second
    assert [each.seq for each in await log(store, "c1")] == [1, 2]


async def test_transactions_do_not_block_each_other_by_what_they_tell(
    store: Store, engine: AsyncEngine
) -> None:
    async with engine.begin() as first, engine.begin() as second:
        for connection, order in ((first, ("c1", "c2")), (second, ("c2", "c1"))):
            for conference in order:
                await events.write(connection, conference, "participant.moved", {"order": order})
        # As both commit, one after the other.
        await second.commit()
    for conference in CONFERENCES:
        found = await log(store, conference)
        assert [each.body["order"] for each in found] == [["c2", "c1"], ["c1", "c2"]]
    assert await store.read(sql, "SELECT FROM pending_events") == 0


async def test_the_next_conference_of_the_same_id_goes_on_counting(store: Store) -> None:
    for _ in range(2):
        await make(store)
        await store.write(sql, "DELETE FROM conferences")
    found = await log(store, "c1")
    assert [each.seq for each in found] == list(range(1, 9))
    life = ["conference.created", "placement.ready", "placement.removed", "conference.ended"]
    assert told(found) == life * 2


async def test_an_announcement_comes_with_the_commit(store: Store, database_url: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    heard: asyncio.Queue[str] = asyncio.Queue()
    try:
        await connection.add_listener(events.CHANNEL, lambda *told: heard.put_nowait(str(told[3])))
        await make(store, "c1")
        assert await asyncio.wait_for(heard.get(), 5) == "c1"
    finally:
        await connection.close()


# --- what is told -----------------------------------------------------------------------------


async def test_what_each_change_leaves(store: Store) -> None:
    await make(store, "c1", "a", "b")
    for statement in (
        "UPDATE conferences SET locked = true",
        "UPDATE conferences SET locked = true",
        """INSERT INTO participants (conference, cluster, id, user_name, role)
        VALUES ('c1', 'a', 'p1', 'ada', 'presenter'), ('c1', 'a', 'p2', 'bob', 'viewer')""",
        """INSERT INTO participants (conference, cluster, id, user_name, role)
        VALUES ('c1', 'a', 'p1', 'ada', 'presenter')
        ON CONFLICT (conference, cluster, id) DO UPDATE SET user_name = 'ada'""",
        "UPDATE participants SET role = 'viewer' WHERE id = 'p1'",
        """INSERT INTO streams (conference, cluster, id, participant, tracks)
        VALUES ('c1', 'a', 's1', 'p1', '[{"kind": "video"}]'), ('c1', 'a', 'mix', NULL, '[]')""",
        "UPDATE streams SET tracks = '[]'",
        "INSERT INTO links (conference, dialer, listener) VALUES ('c1', 'b', 'a')",
        "UPDATE links SET state = 'requested', attempts = 1",
        "UPDATE links SET attempts = 2",
        "UPDATE links SET state = 'up'",
        "DELETE FROM participants WHERE id = 'p1'",
        "UPDATE placements SET token = NULL WHERE cluster = 'a'",
        "UPDATE placements SET state = 'lost' WHERE cluster = 'b'",
        "DELETE FROM placements WHERE cluster = 'b'",
        "UPDATE conferences SET state = 'ending'",
        "DELETE FROM conferences",
    ):
        await store.write(sql, statement)
    found = await log(store, "c1")
    assert told(found) == [
        "conference.created",
        "placement.ready",
        "placement.ready",
        "conference.changed",
        "participant.joined",
        "participant.joined",
        "participant.joined",
        "stream.added",
        "stream.added",
        "stream.changed",
        "link.wanted",
        "link.requested",
        "link.up",
        "participant.left",
        "stream.removed",
        "stream.removed",
        "placement.lost",
        "placement.removed",
        "link.removed",
        "conference.ending",
        "placement.removed",
        "participant.left",
        "conference.ended",
    ]
    assert set(told(found)) <= set(EVENT_KINDS)
    by_kind = {each.kind: each.body for each in found}
    assert by_kind["conference.ending"]["locked"] is True
    assert by_kind["placement.lost"] == {"cluster": "b", "region": "r-b", "ordinal": 2}
    assert by_kind["participant.left"] == {
        "participant": "p2",
        "user": "bob",
        "role": "viewer",
        "cluster": "a",
    }
    assert by_kind["link.up"] == {"dialer": "b", "listener": "a"}
    video = next(each.body for each in found if each.kind == "stream.added" and each.body["stream"] == "s1")
    assert video == {"stream": "s1", "participant": "p1", "cluster": "a", "tracks": [{"kind": "video"}]}


async def test_streams_as_they_are_reported(store: Store) -> None:
    await make(store)
    report = StreamReport(participant="p1", tracks=[Track(kind="audio"), Track(kind="video", codec="h264")])
    for _ in range(2):
        await store.write(streams.added, "c1", "a", "s1", report)
    (shown,) = await store.read(streams.of_conference, "c1")
    assert (shown.id, shown.participant, shown.cluster, shown.tracks) == ("s1", "p1", "a", report.tracks)
    muted = StreamReport(participant="p1", tracks=[Track(kind="audio", muted=True)])
    await store.write(streams.added, "c1", "a", "s1", muted)
    for _ in range(2):
        await store.write(streams.removed, "c1", "a", "s1")
    assert await store.read(streams.of_conference, "c1") == []
    assert told(await log(store, "c1"))[2:] == ["stream.added", "stream.changed", "stream.removed"]
    with pytest.raises(ConferenceUnknownError):
        await store.write(streams.added, "other", "a", "s1", report)


async def test_pages_and_tails(store: Store) -> None:
    for n in range(7):
        await store.write(events.write, "c1", "participant.moved", {"n": n})
    await store.write(events.write, "c2", "participant.moved", {})
    page = await store.read(events.page, "c1", BEGINNING, limit=3)
    assert [each.seq for each in page] == [1, 2, 3]
    rest = await store.read(events.page, "c1", Cursor(page[-1].seq, page[-1].at), limit=100)
    assert [each.seq for each in rest] == [4, 5, 6, 7]
    assert await store.read(events.page, "c1", Cursor(7, rest[-1].at), limit=100) == []
    until = await log(store, "c1", until=page[-1].at)
    assert [each.seq for each in until] == [1, 2, 3]
    places = {"c1": Cursor(4), "c2": BEGINNING, "none": BEGINNING}
    found = await store.read(events.tails, places, limit=2)
    assert sorted((each.conference, each.seq) for each in found) == [("c1", 5), ("c1", 6), ("c2", 1)]
    assert await store.read(events.heads_of, ["c1", "none"]) == {"c1": Cursor(7, rest[-1].at)}


# --- what can be rebuilt ----------------------------------------------------------------------


CHANGES = (
    "INSERT INTO conferences (id) VALUES (:conference) ON CONFLICT DO NOTHING",
    """INSERT INTO placements (conference, cluster, ordinal) SELECT :conference, :cluster, :n
    WHERE EXISTS (SELECT FROM conferences WHERE id = :conference) ON CONFLICT DO NOTHING""",
    "UPDATE placements SET state = 'ready', token = 't' WHERE conference = :conference",
    """INSERT INTO participants (conference, cluster, id, user_name, role)
    SELECT conference, cluster, 'p' || :n, 'u' || :m, 'r' FROM placements WHERE conference = :conference
    ON CONFLICT (conference, cluster, id) DO UPDATE SET user_name = excluded.user_name""",
    """INSERT INTO streams (conference, cluster, id, participant, tracks)
    SELECT conference, cluster, 's' || :n, 'p' || :m, '[{"kind": "audio"}]' FROM placements
    WHERE conference = :conference AND state = 'ready'
    ON CONFLICT (conference, cluster, id) DO UPDATE SET participant = excluded.participant""",
    """INSERT INTO links (conference, dialer, listener)
    SELECT a.conference, a.cluster, b.cluster FROM placements a JOIN placements b USING (conference)
    WHERE a.ordinal > b.ordinal AND conference = :conference ON CONFLICT DO NOTHING""",
    "UPDATE links SET state = (ARRAY['wanted', 'requested', 'up', 'down'])[:n] WHERE dialer = :cluster",
    "DELETE FROM links WHERE listener = :cluster",
    "DELETE FROM streams WHERE conference = :conference AND id = 's' || :n",
    "DELETE FROM participants WHERE id = 'p' || :n",
    "DELETE FROM participants WHERE cluster = :cluster",
    "UPDATE placements SET state = 'lost' WHERE cluster = :cluster",
    "UPDATE placements SET token = NULL WHERE cluster = :cluster",
    "DELETE FROM placements WHERE conference = :conference AND cluster = :cluster",
    "UPDATE conferences SET locked = NOT locked, participant_limit = :n WHERE id = :conference",
    "UPDATE conferences SET state = 'ending' WHERE id = :conference AND :n = 4",
    "DELETE FROM conferences WHERE id = :conference AND (state = 'ending' OR :n = 1 AND :m = 1)",
)
"""How rows change, one by one and by the thousand, in no sensible order."""


@pytest.mark.parametrize("seed", range(5))
async def test_the_log_gives_what_the_tables_have(store: Store, seed: int) -> None:
    draw = random.Random(seed)
    past: list[ConferenceState] = []
    for _ in range(120):
        conference = draw.choice(CONFERENCES)
        statement = draw.choice(CHANGES[: None if draw.random() < 0.6 else 7])
        values = {
            "conference": conference,
            "cluster": draw.choice(CLUSTERS),
            "n": draw.randint(1, 4),
            "m": draw.randint(1, 4),
        }
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        await store.write(_typed, statement, used)
        rebuilt = None
        try:
            shown = await store.snapshot(histories.standing, conference)
        except ConferenceUnknownError:
            try:
                rebuilt = await store.snapshot(at_time, conference, LATER)
            except ConferenceUnknownError:
                continue
            assert rebuilt.state == "ended"
            continue
        rebuilt = await store.snapshot(at_time, conference, LATER)
        assert timeless(rebuilt) == timeless(shown), statement
        past.append(rebuilt)
    for state in past:
        assert await store.snapshot(at_time, state.conference, state.at) == state
    for conference in CONFERENCES:
        found = await log(store, conference)
        assert [each.seq for each in found] == list(range(1, len(found) + 1))
        if found:
            with pytest.raises(ConferenceUnknownError):
                await store.snapshot(at_time, conference, found[0].at - timedelta(seconds=1))


async def _typed(connection: AsyncConnection, statement: str, values: dict[str, Any]) -> None:
    for name, kind in (("n", "int"), ("m", "int"), ("conference", "text"), ("cluster", "text")):
        statement = statement.replace(f":{name}", f"CAST(:{name} AS {kind})")
    await connection.execute(text(statement), values)


async def test_what_was_dropped_is_gone_and_not_unknown(store: Store) -> None:
    await make(store)
    (first, *_) = await log(store, "c1")
    await store.write(sql, "DELETE FROM conference_events")
    with pytest.raises(EventsGoneError):
        await store.snapshot(at_time, "c1", first.at)
    with pytest.raises(ConferenceUnknownError):
        await store.snapshot(at_time, "never", first.at)
    assert (await store.snapshot(histories.standing, "c1")).seq == 2


async def test_history_begins_with_what_was_there_before_the_log(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url)

    def upgrade(connection: Connection, revision: str) -> None:
        command.upgrade(schema._config(connection=connection, on_applied=lambda _: None), revision)

    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade, "0007")
        store = await prepared(engine)
        await make(store, "c1", "a", "b")
        await make(store, "c2")
        for statement in (
            """INSERT INTO participants (conference, cluster, id, user_name, role)
            VALUES ('c1', 'b', 'p1', 'ada', 'viewer')""",
            "INSERT INTO links (conference, dialer, listener, state) VALUES ('c1', 'b', 'a', 'up')",
            "UPDATE conferences SET state = 'ending' WHERE id = 'c2'",
        ):
            await store.write(sql, statement)
        async with engine.connect() as connection:
            await connection.run_sync(upgrade, "head")
        assert [(each.seq, each.kind) for each in await log(store, "c1")] == [
            (1, "conference.created"),
            (2, "placement.ready"),
            (3, "placement.ready"),
            (4, "participant.joined"),
            (5, "link.up"),
        ]
        for conference in ("c1", "c2"):
            shown = await store.snapshot(histories.standing, conference)
            assert timeless(await store.snapshot(at_time, conference, LATER)) == timeless(shown)
    finally:
        await engine.dispose()
