"""Messages to webhooks, for those who look after them: listed, replayed, and forgotten when they are old.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, func, literal, literal_column, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import DeliveryList, DeliveryView
from control.errors import DeliveryUnknownError, InvalidRequestError
from control.registry import audit, webhook_queue
from control.registry.paging import Place
from control.registry.tables import former_conferences, webhooks
from control.registry.tables import webhook_deliveries as deliveries
from control.registry.tables import webhook_lanes as lanes
from control.registry.webhooks import show as show_webhook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import DeliveryState, ReplayRequest
    from control.webhook_settings import WebhookSettings

__all__ = ["BATCH", "forget", "list_some", "message_id", "replay", "replay_all", "show"]

_PREFIX: Final = "msg_"
_NOW: Final = func.statement_timestamp()
"""Of one statement's whole run, so that indexes can be asked for it."""
BATCH: Final = 5000
"""Rows that one look of the upkeep changes at most, of each kind."""
_AGAIN: Final[dict[str, Any]] = {
    "state": "pending",
    "tries": 0,
    "queued_at": _NOW,
    "due_at": None,
    "done_at": None,
    "status": None,
    "error": None,
}
"""A message as if it had just been queued."""


def message_id(message: uuid.UUID) -> str:
    """Return a message's id as receivers and operators see it."""
    return f"{_PREFIX}{message.hex}"


# --- looking ----------------------------------------------------------------------------------


async def list_some(
    connection: AsyncConnection,
    webhook: str,
    *,
    state: DeliveryState | None,
    conference: str | None,
    after: Place | None,
    limit: int,
) -> DeliveryList:
    """Return a page of up to `limit` messages, newest events first. Raises WebhookUnknownError."""
    await show_webhook(connection, webhook)
    query = (
        select(deliveries)
        .where(deliveries.c.webhook == webhook)
        .order_by(deliveries.c.at.desc(), deliveries.c.message.desc())
        .limit(limit + 1)
    )
    if state is not None:
        # Not a parameter: a partial index serves it only if the planner sees the value.
        query = query.where(deliveries.c.state == literal_column(f"'{state}'"))
    if conference is not None:
        query = query.where(deliveries.c.conference == conference)
    if after is not None:
        place = tuple_(deliveries.c.at, deliveries.c.message)
        query = query.where(place < tuple_(literal(after.created_at), literal(_uuid(after.id))))
    rows = (await connection.execute(query)).all()
    page = rows[:limit]
    more = len(rows) > limit
    return DeliveryList(
        deliveries=[_view(row) for row in page],
        next=Place(page[-1].at, page[-1].message.hex).cursor() if more else None,
    )


async def show(connection: AsyncConnection, webhook: str, message: str) -> DeliveryView:
    """Return one message; raises WebhookUnknownError and DeliveryUnknownError."""
    row = (await connection.execute(select(deliveries).where(_is(webhook, message)))).one_or_none()
    if row is None:
        await show_webhook(connection, webhook)
        raise _unknown(message)
    return _view(row)


# --- again ------------------------------------------------------------------------------------


async def replay(connection: AsyncConnection, webhook: str, message: str, *, by: str) -> DeliveryView:
    """Have one message delivered again; one that waits anyway is due at once.

    Raises WebhookUnknownError and DeliveryUnknownError.
    """
    again = await connection.execute(
        update(deliveries).where(_is(webhook, message), deliveries.c.state != "pending").values(**_AGAIN)
    )
    view = await show(connection, webhook, message)
    await _wake(connection, webhook, [view.conference], at_once=True)
    if again.rowcount:
        await _note(connection, webhook, by, {"message": message})
    return view


# The partitions' times are the event log's. What a conference was is asked of it as it is, or was at its end.
_QUEUE: Final = text(
    """
    INSERT INTO webhook_deliveries AS d (webhook, message, conference, seq, kind, at, body)
    SELECT w.id, e.id, e.conference, e.seq, e.kind, e.at, e.body
    FROM webhooks AS w
        JOIN conference_events AS e ON webhook_takes(w.events, e.kind)
        LEFT JOIN conferences AS c ON c.id = e.conference
        LEFT JOIN former_conferences AS f ON f.id = e.conference
    WHERE w.id = :webhook AND e.at >= :after AND e.at < :before
        AND (w.types = '{}' OR coalesce(c.template, f.template) = ANY (w.types))
        AND (w.metadata = '{}' OR coalesce(c.metadata, f.metadata) @> w.metadata)
    LIMIT :most
    ON CONFLICT (webhook, message) DO UPDATE
        SET state = 'pending', tries = 0, queued_at = clock_timestamp(), due_at = NULL, done_at = NULL,
            status = NULL, error = NULL
        WHERE d.state <> 'pending'
    RETURNING d.conference
    """
)


async def replay_all(
    connection: AsyncConnection, webhook: str, request: ReplayRequest, *, limit: int, by: str
) -> int:
    """Have delivered (again) what happened in a time; return how many messages were queued.

    Raises WebhookUnknownError, and InvalidRequestError where that would be more than `limit`.
    """
    await show_webhook(connection, webhook)
    if request.dead_only:
        dead = (
            select(deliveries.c.message)
            .where(
                deliveries.c.webhook == webhook,
                deliveries.c.state == literal_column("'dead'"),
                deliveries.c.at >= request.after,
                deliveries.c.at < request.before,
            )
            .limit(limit + 1)
        )
        queued = await connection.scalars(
            update(deliveries)
            .where(deliveries.c.webhook == webhook, deliveries.c.message.in_(dead))
            .values(**_AGAIN)
            .returning(deliveries.c.conference)
        )
    else:
        queued = await connection.scalars(
            _QUEUE,
            {"webhook": webhook, "after": request.after, "before": request.before, "most": limit + 1},
        )
    conferences = queued.all()
    if len(conferences) > limit:
        raise InvalidRequestError(f"more than {limit} messages; ask for a shorter time")
    await _wake(connection, webhook, conferences, at_once=False)
    if conferences:
        after = {"after": request.after.isoformat(), "before": request.before.isoformat()}
        await _note(connection, webhook, by, after | {"messages": len(conferences)})
    return len(conferences)


async def _wake(
    connection: AsyncConnection, webhook: str, conferences: Iterable[str], *, at_once: bool
) -> None:
    """Say that something was queued for these conferences; `at_once`: whatever failed before may go now."""
    rows = [{"webhook": webhook, "conference": each} for each in sorted(set(conferences))]
    if not rows:
        return
    statement = insert(lanes)
    changed: dict[str, Any] = {"version": lanes.c.version + 1}
    if at_once:
        changed["due_at"] = func.least(lanes.c.due_at, _NOW)
    await connection.execute(
        statement.on_conflict_do_update(index_elements=[lanes.c.webhook, lanes.c.conference], set_=changed),
        rows,
    )
    await connection.execute(select(func.pg_notify(webhook_queue.CHANNEL, "")))


# --- upkeep -----------------------------------------------------------------------------------


async def forget(connection: AsyncConnection, settings: WebhookSettings) -> dict[str, int]:
    """Give up what waits too long or is too much, forget what is old or whose webhook is gone; return counts.

    A share of each kind at a time: what is left is for the next look.
    """
    expired, crowded = await _give_up(connection, settings)
    counts = {
        "expired": expired,
        "crowded": crowded,
        "delivered": await _drop(connection, "delivered", settings.delivered_days),
        "dead": await _drop(connection, "dead", settings.dead_days),
        "orphans": await _orphans(connection),
    }
    gone = await connection.execute(
        delete(former_conferences).where(
            former_conferences.c.ended_at < _NOW - timedelta(days=settings.dead_days)
        )
    )
    return counts | {"conferences": gone.rowcount, "released": await webhook_queue.release_all(connection)}


async def _give_up(connection: AsyncConnection, settings: WebhookSettings) -> tuple[int, int]:
    """Give up messages that are too old, and the oldest ones of those that are too many; return how many."""
    expired = crowded = 0
    for webhook in (await connection.scalars(select(webhooks.c.id))).all():
        waiting = (
            select(deliveries.c.message)
            .where(deliveries.c.webhook == webhook, deliveries.c.state == literal_column("'pending'"))
            .limit(BATCH)
        )
        old = waiting.where(deliveries.c.queued_at < _NOW - timedelta(seconds=settings.give_up)).order_by(
            deliveries.c.queued_at
        )
        expired += await _bury(connection, webhook, old, "not delivered in time")
        beyond = waiting.order_by(deliveries.c.queued_at.desc()).offset(settings.max_waiting)
        crowded += await _bury(connection, webhook, beyond, "too many messages were waiting")
    return expired, crowded


async def _bury(connection: AsyncConnection, webhook: str, messages: Select[uuid.UUID], error: str) -> int:
    buried = await connection.execute(
        update(deliveries)
        .where(
            deliveries.c.webhook == webhook,
            deliveries.c.message.in_(messages),
            deliveries.c.state == "pending",  # still, whatever became of it since it was found
        )
        .values(state="dead", done_at=_NOW, due_at=None, error=func.coalesce(deliveries.c.error, error))
    )
    return buried.rowcount


async def _drop(connection: AsyncConnection, state: DeliveryState, days: float) -> int:
    old = (
        select(deliveries.c.webhook, deliveries.c.message)
        .where(
            deliveries.c.state != literal_column("'pending'"),
            deliveries.c.state == literal_column(f"'{state}'"),
            deliveries.c.done_at < _NOW - timedelta(days=days),
        )
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    dropped = await connection.execute(
        delete(deliveries).where(deliveries.c.webhook == old.c.webhook, deliveries.c.message == old.c.message)
    )
    return dropped.rowcount


async def _orphans(connection: AsyncConnection) -> int:
    """Forget what was queued just while its webhook was being deleted."""
    there = select(webhooks.c.id).where(webhooks.c.id == lanes.c.webhook).exists()
    gone = await connection.scalars(delete(lanes).where(~there).returning(lanes.c.webhook))
    dropped = 0
    for webhook in set(gone.all()):
        dropped += (
            await connection.execute(delete(deliveries).where(deliveries.c.webhook == webhook))
        ).rowcount
    return dropped


# --- rows -------------------------------------------------------------------------------------


async def _note(connection: AsyncConnection, webhook: str, by: str, after: dict[str, Any]) -> None:
    await audit.note(
        connection,
        actor=f"operator:{by}",
        subject=f"webhook:{webhook}",
        action="replayed",
        after=after,
    )


def _is(webhook: str, message: str) -> ColumnElement[bool]:
    return and_(deliveries.c.webhook == webhook, deliveries.c.message == _uuid(message))


def _uuid(text_: str) -> uuid.UUID:
    try:
        return uuid.UUID(text_.removeprefix(_PREFIX))
    except ValueError:
        raise InvalidRequestError("cursor: send `next` of the page before, as it was given") from None


def _unknown(message: str) -> DeliveryUnknownError:
    return DeliveryUnknownError(f"there is no message {message} to this webhook; it may have been forgotten")


def _view(row: Any) -> DeliveryView:
    return DeliveryView(
        id=message_id(row.message),
        conference=row.conference,
        seq=row.seq,
        kind=row.kind,
        at=row.at,
        state=row.state,
        queued_at=row.queued_at,
        tries=row.tries,
        tried_at=row.tried_at,
        due_at=row.due_at,
        done_at=row.done_at,
        status=row.status,
        error=row.error,
    )
