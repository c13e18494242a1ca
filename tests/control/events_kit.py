"""What the tests of the event log share: rows changed by hand, and what the log says of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import structs
from sqlalchemy import text

from control.registry import events
from control.registry.events import Cursor
from control.registry.store import Store

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from causeway.api import ConferenceEvent, ConferenceState

CLUSTERS = ("a", "b", "d")
BEGINNING = Cursor(0)
LATER = datetime(2999, 1, 1, tzinfo=UTC)


async def sql(connection: AsyncConnection, statement: str, /, **values: Any) -> int:
    return int((await connection.execute(text(statement), values)).rowcount)


async def prepared(engine: AsyncEngine) -> Store:
    """Return the registry of a database with three clusters in it."""
    store = Store(engine)
    for cluster in CLUSTERS:
        await store.write(
            sql,
            """INSERT INTO clusters (id, region, driver, rest_url, service_id, service_key, instance, state,
                epoch, lease_expires_at, last_seen_at)
            VALUES (:id, 'r-' || :id, 'owt', '', '', '', 'i', 'online', 1, now(), now())""",
            id=cluster,
        )
    return store


async def log(store: Store, conference: str, **options: Any) -> list[ConferenceEvent]:
    return await store.read(events.page, conference, BEGINNING, limit=100_000, **options)


async def make(store: Store, conference: str = "c1", *clusters: str) -> None:
    await store.write(sql, "INSERT INTO conferences (id) VALUES (:id)", id=conference)
    for ordinal, cluster in enumerate(clusters or ("a",), 1):
        await store.write(
            sql,
            """INSERT INTO placements (conference, cluster, ordinal, state, room, token)
            VALUES (:conference, :cluster, :ordinal, 'ready', 'r', 't')""",
            conference=conference,
            cluster=cluster,
            ordinal=ordinal,
        )


def told(found: list[ConferenceEvent]) -> list[str]:
    return [each.kind for each in found]


def timeless(state: ConferenceState) -> Any:
    """What is the same in the log and in the tables, which have times of their own."""
    return structs.asdict(
        structs.replace(
            state,
            at=LATER,
            placements=[structs.replace(each, since=LATER) for each in state.placements],
            links=[structs.replace(each, since=LATER) for each in state.links],
            participants=sorted(
                (structs.replace(each, joined_at=LATER) for each in state.participants),
                key=lambda each: (each.cluster, each.id),
            ),
            streams=[structs.replace(each, published_at=LATER) for each in state.streams],
        )
    )
