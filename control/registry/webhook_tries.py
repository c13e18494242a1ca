"""What comes of trying to deliver a message: loaded, written down, and the lane passed on or ended.

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import and_, func, literal_column, select, text, update

from control.delivery.attempts import Endpoint, judge, outcome_of
from control.registry import audit
from control.registry.tables import webhook_deliveries as deliveries
from control.registry.tables import webhooks
from control.registry.webhook_queue import end, let_go, release, renew, version_of

if TYPE_CHECKING:
    import uuid
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.delivery.attempts import Attempt, Verdict
    from control.registry.webhook_queue import Held
    from control.webhook_settings import WebhookSettings

__all__ = ["Loaded", "Message", "Settled", "Target", "finish", "load", "settle", "taken", "target_of"]

_NOW: Final = func.clock_timestamp()
_FRESH: Final = timedelta(minutes=1)
"""How old `last_success_at` may be; so not every message rewrites the webhook's row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be sent: an event, or something that is none and belongs to no conference."""

    id: uuid.UUID
    conference: str | None
    seq: int | None
    kind: str
    at: datetime
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where messages go, and the sealed secrets that they are signed with, newest first."""

    webhook: str
    url: str = field(repr=False)
    sealed: tuple[bytes, ...] = field(repr=False)
    now: datetime
    """The database's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What is to be sent next on a lane, and where to."""

    message: Message
    target: Target
    version: int
    """Of the lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was written down after a try."""

    verdict: Verdict
    more: bool
    """The lane is still ours, and has another message that may go at once."""


# --- sending ----------------------------------------------------------------------------------


_LOAD: Final = text(
    """
    SELECT l.version, w.url, w.secret, w.previous_secret, w.previous_until, statement_timestamp() AS now,
        d.message, d.seq, d.kind, d.at, d.body
    FROM webhook_lanes AS l
        JOIN webhooks AS w ON w.id = l.webhook
        LEFT JOIN LATERAL (
            SELECT * FROM webhook_deliveries AS d
            WHERE d.webhook = l.webhook AND d.conference = l.conference AND d.state = 'pending'
            ORDER BY d.seq LIMIT 1
        ) AS d ON true
    WHERE l.webhook = :webhook AND l.conference = :conference AND l.claimed_by = :claim
    """
)


async def load(connection: AsyncConnection, held: Held) -> Loaded | int | None:
    """Return the lane's next message; its version if nothing waits; None if the claim is gone.

    One statement.
    """
    row = (await connection.execute(_LOAD, asdict(held))).one_or_none()
    if row is None:
        return None
    if row.message is None:
        return int(row.version)
    return Loaded(
        message=Message(
            id=row.message,
            conference=held.conference,
            seq=row.seq,
            kind=row.kind,
            at=row.at,
            body=row.body,
        ),
        target=target_of(held.webhook, row),
        version=row.version,
    )


def target_of(webhook: str, row: Any) -> Target:
    """Return where to send, from a row of `webhooks` with the time (`now`)."""
    sealed = [row.secret]
    if row.previous_secret is not None and row.previous_until is not None and row.now < row.previous_until:
        sealed.append(row.previous_secret)
    return Target(webhook=webhook, url=row.url, sealed=tuple(sealed), now=row.now)


async def finish(connection: AsyncConnection, held: Held, version: int) -> None:
    """End a lane on which nothing waited at this version; if something does now, let go of it."""
    if not await end(connection, held, version):
        await let_go(connection, held)


# What becomes of most messages, in one statement. The lane is kept if another message waits, and ended if
# none does: what is queued meanwhile changes its version, and then neither happens.
# The lane is locked before the message, as everywhere.
_TAKEN: Final = text(
    """
    WITH held AS MATERIALIZED (
        SELECT l.webhook FROM webhook_lanes AS l
        WHERE l.webhook = :webhook AND l.conference = :conference AND l.claimed_by = :claim
        FOR UPDATE
    ), done AS (
        UPDATE webhook_deliveries AS d
        SET state = 'delivered', tries = d.tries + 1, tried_at = statement_timestamp(), due_at = NULL,
            done_at = statement_timestamp(), status = :status, error = NULL
        FROM held AS l JOIN webhooks AS w ON w.id = l.webhook
        WHERE d.webhook = :webhook AND d.message = :message AND d.state = 'pending'
            AND w.enabled AND w.failures = 0 AND w.paused_until IS NULL
            AND w.last_success_at > statement_timestamp() - CAST(:fresh AS interval)
        RETURNING d.message
    ), others AS (
        SELECT FROM webhook_deliveries AS d
        WHERE d.webhook = :webhook AND d.conference = :conference AND d.state = 'pending'
            AND d.message <> :message
        LIMIT 1
    ), kept AS (
        UPDATE webhook_lanes AS l SET claimed_until = statement_timestamp() + CAST(:ttl AS interval)
        WHERE l.webhook = :webhook AND l.conference = :conference AND l.claimed_by = :claim
            AND EXISTS (SELECT FROM done) AND EXISTS (SELECT FROM others)
    ), ended AS (
        DELETE FROM webhook_lanes AS l
        WHERE l.webhook = :webhook AND l.conference = :conference AND l.claimed_by = :claim
            AND l.version = :version AND EXISTS (SELECT FROM done) AND NOT EXISTS (SELECT FROM others)
        RETURNING l.version
    )
    SELECT EXISTS (SELECT FROM done) AS done, EXISTS (SELECT FROM ended) AS ended
    """
)


async def taken(
    connection: AsyncConnection, held: Held, loaded: Loaded, status: int, *, ttl: float
) -> Literal["settled", "ended"] | None:
    """Write down that a message was taken, if there is nothing more to it: the webhook works as it did.

    Return None if nothing was written: `settle` knows the rest. `ended`: nothing waits on the lane, it is
    given back; else it is held for `ttl` seconds more. One statement.
    """
    row = (
        await connection.execute(
            _TAKEN,
            asdict(held)
            | {
                "message": loaded.message.id,
                "version": loaded.version,
                "status": status,
                "fresh": _FRESH,
                "ttl": timedelta(seconds=ttl),
            },
        )
    ).one()
    if not row.done:
        return None
    return "ended" if row.ended else "settled"


async def settle(
    connection: AsyncConnection,
    held: Held,
    message: uuid.UUID,
    attempt: Attempt,
    settings: WebhookSettings,
    *,
    go_on: bool,
) -> Settled | None:
    """Write down what came of a try; with `go_on`, keep the lane if it has more that may go at once.

    None: the claim is gone, and somebody else sends the message, too; nothing is written.
    """
    version = await version_of(connection, held)
    if version is None:
        return None
    row = (
        await connection.execute(
            select(deliveries.c.tries, deliveries.c.queued_at, _NOW.label("now"))
            .where(deliveries.c.webhook == held.webhook, deliveries.c.message == message)
            .where(deliveries.c.state == "pending")
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    failed = outcome_of(attempt) != "taken"
    before = None if row is None else await _webhook(connection, held.webhook, failed=failed)
    if row is None or before is None:
        await let_go(connection, held)  # the message was given up, or the webhook deleted
        return None
    verdict = judge(
        attempt,
        endpoint=before.endpoint,
        tries=row.tries,
        queued_at=row.queued_at,
        now=row.now,
        settings=settings,
    )
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook == held.webhook, deliveries.c.message == message)
        .values(
            state=verdict.message,
            tries=deliveries.c.tries + 1,
            tried_at=row.now,
            due_at=verdict.due_at,
            done_at=None if verdict.message == "pending" else row.now,
            status=attempt.status,
            error=attempt.error or None,
        )
    )
    await _note(connection, held.webhook, attempt, verdict, before=before, now=row.now)
    if verdict.recovered:
        await release(connection, held.webhook)
    if verdict.message == "pending":
        await let_go(connection, held, due_at=verdict.due_at)
        return Settled(verdict=verdict, more=False)
    if await _more(connection, held):
        if go_on and before.enabled and verdict.endpoint.paused_until is None:
            await renew(connection, held, ttl=settings.claim_ttl)
            return Settled(verdict=verdict, more=True)
        await let_go(connection, held)
    elif not await end(connection, held, version):
        await let_go(connection, held)
    return Settled(verdict=verdict, more=False)


# --- what a try changes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Webhook:
    endpoint: Endpoint
    enabled: bool
    last_success_at: datetime | None


async def _webhook(connection: AsyncConnection, webhook: str, *, failed: bool) -> _Webhook | None:
    """Return what is remembered of the webhook, locked if the try will change it."""
    query = select(
        webhooks.c.enabled,
        webhooks.c.failures,
        webhooks.c.failing_since,
        webhooks.c.paused_until,
        webhooks.c.last_success_at,
    ).where(webhooks.c.id == webhook)
    row = None
    if not failed:
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
    if row is None or row.failures > 0 or row.paused_until is not None:
        row = (await connection.execute(query.with_for_update(key_share=True))).one_or_none()
        if row is None:
            return None
    return _Webhook(
        endpoint=Endpoint(
            failures=row.failures, failing_since=row.failing_since, paused_until=row.paused_until
        ),
        enabled=row.enabled,
        last_success_at=row.last_success_at,
    )


async def _note(
    connection: AsyncConnection,
    webhook: str,
    attempt: Attempt,
    verdict: Verdict,
    *,
    before: _Webhook,
    now: datetime,
) -> None:
    """Write down what the try says about the webhook, if that is anything new."""
    values: dict[str, Any] = {}
    if verdict.endpoint != before.endpoint:
        values |= asdict(verdict.endpoint)
    if verdict.recovered:
        values["recovered_at"] = now
    if outcome_of(attempt) != "taken":
        values |= {"last_failure_at": now, "last_error": attempt.error or None}
    elif before.last_success_at is None or now - before.last_success_at > _FRESH:
        values["last_success_at"] = now
    if verdict.disable is not None and before.enabled:
        values |= {"enabled": False, "disabled_at": now, "disabled_reason": verdict.disable}
        await audit.note(
            connection,
            actor=audit.CONTROL,
            subject=f"webhook:{webhook}",
            action="disabled",
            after={"reason": verdict.disable},
        )
    if values:
        await connection.execute(update(webhooks).where(webhooks.c.id == webhook).values(**values))


def _waiting(held: Held) -> ColumnElement[bool]:
    return and_(
        deliveries.c.webhook == held.webhook,
        deliveries.c.conference == held.conference,
        deliveries.c.state == literal_column("'pending'"),
    )


async def _more(connection: AsyncConnection, held: Held) -> bool:
    found = await connection.scalars(select(deliveries.c.seq).where(_waiting(held)).limit(1))
    return found.one_or_none() is not None
