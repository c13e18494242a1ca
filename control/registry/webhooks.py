"""Webhooks as the registry keeps them: made, changed, given a new secret, deleted. Secrets are sealed.

All functions work inside the caller's transaction. Who changed what is in the audit, without any secret.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, structs
from sqlalchemy import delete, func, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import WebhookView
from control.delivery.attempts import Endpoint, circuit_of
from control.errors import WebhookLimitError, WebhookUnknownError
from control.registry import audit, webhook_queue, webhook_tries
from control.registry.tables import webhook_deliveries as deliveries
from control.registry.tables import webhook_lanes as lanes
from control.registry.tables import webhooks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import WebhookCreate, WebhookPatch

__all__ = [
    "SEALED_FOR",
    "create",
    "find_all",
    "patch",
    "remove",
    "rotate",
    "settings",
    "show",
    "target",
]

SEALED_FOR: Final = "webhooks.secret"
"""With the webhook's id: what both its secrets are sealed for."""

_NOW: Final = func.clock_timestamp()
_SETTINGS: Final = ("url", "events", "types", "metadata", "description", "enabled")


async def create(
    connection: AsyncConnection,
    webhook: str,
    wish: WebhookCreate,
    *,
    sealed: bytes,
    by: str,
    limit: int,
) -> WebhookView:
    """Store a new webhook; `by`: id of the operator key. Raises WebhookLimitError for one too many."""
    await connection.execute(text("LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE"))
    if (await connection.scalars(select(func.count()).select_from(webhooks))).one() >= limit:
        raise WebhookLimitError(
            f"there are {limit} webhooks, as many as control.webhooks.max_webhooks allows"
        )
    values = structs.asdict(wish)
    await connection.execute(
        insert(webhooks).values(id=webhook, secret=sealed, created_by=by, **(values | _switch(wish.enabled)))
    )
    await audit.note(
        connection, actor=_actor(by), subject=f"webhook:{webhook}", action="created", after=values
    )
    return await show(connection, webhook)


async def show(connection: AsyncConnection, webhook: str) -> WebhookView:
    """Return the webhook; raises WebhookUnknownError."""
    found = await _read(connection, webhook)
    if not found:
        raise _unknown(webhook)
    return found[0]


async def find_all(connection: AsyncConnection) -> list[WebhookView]:
    """Return every webhook, oldest first."""
    return await _read(connection, None)


def settings(view: WebhookView) -> dict[str, Any]:
    """Return the part of a view that `patch` can change: what an entity tag is made of."""
    return {name: getattr(view, name) for name in _SETTINGS}


async def patch(
    connection: AsyncConnection,
    webhook: str,
    request: WebhookPatch,
    *,
    check: Callable[[object | None], None],
    by: str,
) -> WebhookView:
    """Set what the request names, if `check` accepts what there is. Raises WebhookUnknownError.

    A webhook that is enabled, be it anew, starts without failures, and what waits for it is due.
    """
    row = (
        await connection.execute(
            select(webhooks).where(webhooks.c.id == webhook).with_for_update(key_share=True)
        )
    ).one_or_none()
    check(None if row is None else {name: getattr(row, name) for name in _SETTINGS})
    if row is None:
        raise _unknown(webhook)
    wanted = {name: value for name, value in structs.asdict(request).items() if value is not UNSET}
    values = dict(wanted)
    if "enabled" in wanted and (wanted["enabled"] or row.enabled):
        values |= _switch(wanted["enabled"])
    if wanted.get("enabled"):
        values |= asdict(Endpoint()) | {"last_error": None, "recovered_at": _NOW}
    if values:
        await connection.execute(update(webhooks).where(webhooks.c.id == webhook).values(**values))
    if wanted.get("enabled"):
        await webhook_queue.release(connection, webhook)
    changed = audit.changes({name: getattr(row, name) for name in wanted}, wanted)
    if changed is not None:
        before, after = changed
        await audit.note(
            connection,
            actor=_actor(by),
            subject=f"webhook:{webhook}",
            action="changed",
            before=before,
            after=after,
        )
    return await show(connection, webhook)


async def rotate(
    connection: AsyncConnection, webhook: str, *, sealed: bytes, keep: float, by: str
) -> datetime | None:
    """Replace the secret; the former one signs, too, for `keep` seconds. Return until when, None for 0.

    Of an earlier former one nothing is left. Raises WebhookUnknownError.
    """
    values: dict[str, Any] = {"secret": sealed, "previous_secret": None, "previous_until": None}
    if keep > 0:
        values |= {"previous_secret": webhooks.c.secret, "previous_until": _NOW + timedelta(seconds=keep)}
    row = (
        await connection.execute(
            update(webhooks)
            .where(webhooks.c.id == webhook)
            .values(**values)
            .returning(webhooks.c.previous_until)
        )
    ).one_or_none()
    if row is None:
        raise _unknown(webhook)
    await audit.note(connection, actor=_actor(by), subject=f"webhook:{webhook}", action="secret replaced")
    until: datetime | None = row.previous_until
    return until


async def remove(connection: AsyncConnection, webhook: str, *, by: str) -> None:
    """Delete the webhook with everything that waits for it. Raises WebhookUnknownError."""
    gone = await connection.scalars(delete(webhooks).where(webhooks.c.id == webhook).returning(webhooks.c.id))
    if gone.one_or_none() is None:
        raise _unknown(webhook)
    await connection.execute(delete(lanes).where(lanes.c.webhook == webhook))
    await connection.execute(delete(deliveries).where(deliveries.c.webhook == webhook))
    await audit.note(connection, actor=_actor(by), subject=f"webhook:{webhook}", action="deleted")


async def target(connection: AsyncConnection, webhook: str) -> webhook_tries.Target:
    """Return where to send and what to sign with; raises WebhookUnknownError."""
    row = (
        await connection.execute(
            select(
                webhooks.c.url,
                webhooks.c.secret,
                webhooks.c.previous_secret,
                webhooks.c.previous_until,
                func.clock_timestamp().label("now"),
            ).where(webhooks.c.id == webhook)
        )
    ).one_or_none()
    if row is None:
        raise _unknown(webhook)
    return webhook_tries.target_of(webhook, row)


async def _read(connection: AsyncConnection, webhook: str | None) -> list[WebhookView]:
    def number(state: str) -> ColumnElement[int]:
        counted = select(func.count()).where(
            deliveries.c.webhook == webhooks.c.id, deliveries.c.state == literal_column(f"'{state}'")
        )
        return counted.correlate(webhooks).scalar_subquery()

    query = select(
        webhooks, number("pending").label("waiting"), number("dead").label("dead"), _NOW.label("now")
    ).order_by(webhooks.c.created_at, webhooks.c.id)
    if webhook is not None:
        query = query.where(webhooks.c.id == webhook)
    return [_view(row) for row in await connection.execute(query)]


def _view(row: Any) -> WebhookView:
    endpoint = Endpoint(failures=row.failures, failing_since=row.failing_since, paused_until=row.paused_until)
    fields = row._asdict()
    rotating = row.previous_until is not None and row.now < row.previous_until
    return WebhookView(
        circuit=circuit_of(endpoint, row.now),
        previous_secret_until=row.previous_until if rotating else None,
        **{name: fields[name] for name in WebhookView.__struct_fields__ if name in fields},
    )


def _switch(enabled: bool) -> dict[str, Any]:  # noqa: FBT001 - the value of the column itself
    return {
        "enabled": enabled,
        "disabled_at": None if enabled else _NOW,
        "disabled_reason": None if enabled else "operator",
    }


def _actor(key: str) -> str:
    return f"operator:{key}"


def _unknown(webhook: str) -> WebhookUnknownError:
    return WebhookUnknownError(f"there is no webhook {webhook}")
