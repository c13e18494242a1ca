"""The event log of conferences: what happened in them, by number, in the order in which it was committed.

Triggers write it (migration 0008), in the transaction in which something happens; `write` is for what no row
tells. Events get their numbers, and can be read, when the transaction commits: there are no gaps, and whoever
has read number n has missed nothing before it. All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, DateTime, Text, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from causeway.api import ConferenceEvent
from control.registry.tables import conference_events as log
from control.registry.tables import conference_heads as heads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["CHANNEL", "Cursor", "head", "heads_of", "page", "tails", "write"]

CHANNEL: Final = "causeway_event"
"""NOTIFY channel; the payload is the id of a conference that has new events."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far somebody has read. `at`: when that event happened, if known; spares a look at older days."""

    seq: int
    at: datetime | None = None


async def write(connection: AsyncConnection, conference: str, kind: str, body: Mapping[str, Any]) -> None:
    """Add an event. `kind` is one of causeway.api.EVENT_KINDS; no secrets in the body."""
    await connection.execute(_WRITE, {"conference": conference, "kind": kind, "body": dict(body)})


async def head(connection: AsyncConnection, conference: str) -> Cursor | None:
    """Return the last event's place; None: nothing has ever happened under this id, or nobody remembers."""
    return (await heads_of(connection, [conference])).get(conference)


async def heads_of(connection: AsyncConnection, conferences: Sequence[str]) -> dict[str, Cursor]:
    """Return the last event's place of each of these conferences that has one."""
    rows = await connection.execute(select(heads).where(heads.c.conference == any_(_texts(conferences))))
    return {row.conference: Cursor(row.seq, row.at) for row in rows.all()}


async def page(
    connection: AsyncConnection,
    conference: str,
    after: Cursor,
    *,
    limit: int,
    until: datetime | None = None,
) -> list[ConferenceEvent]:
    """Return up to `limit` events after a place, in order; with `until` none that happened later.

    The first one's number tells whether those directly after the place are still kept.
    """
    query = select(*_COLUMNS).where(log.c.conference == conference, log.c.seq > after.seq)
    if after.at is not None:
        query = query.where(log.c.at >= after.at)
    if until is not None:
        query = query.where(log.c.at <= until)
    rows = await connection.execute(query.order_by(log.c.seq).limit(limit))
    return [_event(row) for row in rows.all()]


async def tails(
    connection: AsyncConnection, places: Mapping[str, Cursor], *, limit: int
) -> list[ConferenceEvent]:
    """Return up to `limit` events after its place of each conference, in each one's order."""
    rows = await connection.execute(
        _TAILS,
        {
            "conferences": list(places),
            "seqs": [place.seq for place in places.values()],
            "ats": [place.at or _LONG_AGO for place in places.values()],
            "most": limit,
        },
    )
    return [_event(row) for row in rows.all()]


def _event(row: Any) -> ConferenceEvent:
    return ConferenceEvent(
        id=str(row.id), conference=row.conference, seq=row.seq, at=row.at, kind=row.kind, body=row.body
    )


def _texts(values: Sequence[str]) -> Any:
    return bindparam(None, list(values), type_=ARRAY(Text))


_COLUMNS: Final = (log.c.id, log.c.conference, log.c.seq, log.c.at, log.c.kind, log.c.body)
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WRITE: Final = text("SELECT causeway_event(:conference, :kind, :body)").bindparams(
    bindparam("conference", type_=Text), bindparam("kind", type_=Text), bindparam("body", type_=JSONB)
)
_TAILS: Final = (
    text(
        """
        SELECT found.id, found.conference, found.seq, found.at, found.kind, found.body
        FROM unnest(:conferences, :seqs, :ats) AS place (conference, seq, at)
        CROSS JOIN LATERAL (
            SELECT * FROM conference_events
            WHERE conference_events.conference = place.conference AND conference_events.seq > place.seq
                AND conference_events.at >= place.at
            ORDER BY conference_events.seq LIMIT :most
        ) AS found
        """
    )
    .bindparams(
        bindparam("conferences", type_=ARRAY(Text)),
        bindparam("seqs", type_=ARRAY(BigInteger)),
        bindparam("ats", type_=ARRAY(DateTime(timezone=True))),
    )
    .columns(id=log.c.id.type, body=JSONB)
)
