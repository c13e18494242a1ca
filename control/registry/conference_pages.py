"""The list of conferences, filtered, page by page in the order of creation."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import ColumnElement, exists, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by

from causeway.api import ConferenceList, ConferenceSummary
from control.registry.conferences import head_columns
from control.registry.paging import Place
from control.registry.tables import clusters, conferences, participants, placements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import ConferenceQuery

__all__ = ["page"]

_SCALAR: Final = msgspec.json.Decoder(int | float | bool | None)


async def page(connection: AsyncConnection, query: ConferenceQuery) -> ConferenceList:
    """Return a page; raises InvalidRequestError for a cursor that is none."""
    placed = (
        select(func.array_agg(aggregate_order_by(placements.c.cluster, placements.c.ordinal)))
        .where(placements.c.conference == conferences.c.id)
        .scalar_subquery()
    )
    people = (
        select(func.count())
        .select_from(participants)
        .where(participants.c.conference == conferences.c.id)
        .scalar_subquery()
    )
    rows = (
        await connection.execute(
            select(*head_columns(), placed.label("clusters"), people.label("participants"))
            .where(*_conditions(query))
            .order_by(conferences.c.created_at, conferences.c.id)
            .limit(query.limit + 1)  # one more tells whether there is a next page
        )
    ).all()
    shown = [
        ConferenceSummary(**(row._asdict() | {"clusters": row.clusters or []})) for row in rows[: query.limit]
    ]
    last = shown[-1] if len(rows) > query.limit else None
    return ConferenceList(
        conferences=shown, next=None if last is None else Place(last.created_at, last.id).cursor()
    )


def _conditions(query: ConferenceQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.cursor is not None:
        place = Place.read(query.cursor)
        after = tuple_(literal(place.created_at, conferences.c.created_at.type), literal(place.id))
        conditions.append(tuple_(conferences.c.created_at, conferences.c.id) > after)
    if query.state is not None:
        conditions.append(conferences.c.state == query.state)
    if query.type is not None:
        conditions.append(conferences.c.template == query.type)
    if query.cluster is not None:
        here = exists().where(
            placements.c.conference == conferences.c.id, placements.c.cluster == query.cluster
        )
        conditions.append(here)
    if query.region is not None:
        there = exists().where(
            placements.c.conference == conferences.c.id,
            placements.c.cluster == clusters.c.id,
            clusters.c.region == query.region,
        )
        conditions.append(there)
    conditions += [_has(key, value) for key, value in query.metadata.items()]
    return conditions


def _has(key: str, text: str) -> ColumnElement[bool]:
    """Return the condition that the metadata have this under the key, as a text or as what it reads as."""
    values: list[Any] = [text]
    with suppress(msgspec.DecodeError, UnicodeError):  # only a text, then
        values.append(_SCALAR.decode(text))
    return or_(*(conferences.c.metadata.contains({key: value}) for value in values))
