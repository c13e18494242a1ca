"""What is to be delivered to webhooks, for those who deliver it: claimed, loaded, settled.

Messages of one conference to one webhook make a lane, and go one after the other. A lane is claimed for a
while; the claim of a process that died runs out, and whoever takes it over sends the same message again.
Which lanes may be claimed is decided under a lock on their webhook, so that all processes together keep its
limit. All functions work inside the caller's transaction.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, exists, func, literal_column, null, select, text, update

from control.delivery.attempts import Endpoint, judge, outcome_of
from control.registry import audit
from control.registry.tables import replicas, webhooks
from control.registry.tables import webhook_deliveries as deliveries
from control.registry.tables import webhook_lanes as lanes

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from control.delivery.attempts import Attempt, Verdict
    from control.webhook_settings import WebhookSettings

__all__ = [
    "CHANNEL",
    "Held",
    "Message",
    "Settled",
    "claim",
    "give_back",
    "load",
    "release",
    "release_all",
    "settle",
]

CHANNEL: Final = "causeway_webhook"
"""NOTIFY channel: something was queued."""

_NOW: Final = func.clock_timestamp()
_UNCLAIMED: Final = {"claimed_by": null(), "claimed_until": null(), "replica": null()}
_FRESH: Final = timedelta(minutes=1)
"""How old `last_success_at` may be; so not every message rewrites the webhook's row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lane, claimed."""

    webhook: str
    conference: str
    claim: uuid.UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be sent: an event, or something that is none and belongs to no conference."""

    id: uuid.UUID
    conference: str | None
    sequence: int | None
    kind: str
    at: datetime
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was written down after a try."""

    verdict: Verdict
    more: bool
    """The lane is still ours, and has another message that may go at once."""


# --- claiming ---------------------------------------------------------------------------------

# A lane may be claimed when it is due and nobody holds it. statement_timestamp(), because an index can be
# asked for it; clock_timestamp() is another one for every row.
_FREE: Final = (
    "l.due_at <= statement_timestamp() "
    "AND (l.claimed_until IS NULL OR l.claimed_until <= statement_timestamp())"
)
_LOCK: Final = text(
    f"""
    SELECT w.id FROM webhooks AS w
    WHERE w.enabled AND (w.paused_until IS NULL OR w.paused_until <= statement_timestamp())
        AND EXISTS (SELECT FROM webhook_lanes AS l WHERE l.webhook = w.id AND {_FREE})
    ORDER BY random() LIMIT :most
    FOR NO KEY UPDATE SKIP LOCKED
    """  # noqa: S608 - a text of our own
)
# A circuit that is half-open lets one message try.
_CLAIM: Final = text(
    f"""
    WITH room AS (
        SELECT w.id, CASE WHEN w.paused_until IS NULL THEN :per_webhook ELSE 1 END - (
            SELECT count(*) FROM webhook_lanes AS held
            WHERE held.webhook = w.id AND held.claimed_until > statement_timestamp()
        ) AS free
        FROM webhooks AS w WHERE w.id = ANY (:locked)
    ), due AS (
        SELECT lane.webhook, lane.conference FROM room, LATERAL (
            SELECT l.webhook, l.conference FROM webhook_lanes AS l
            WHERE l.webhook = room.id AND {_FREE}
            ORDER BY l.due_at LIMIT greatest(room.free, 0) FOR UPDATE SKIP LOCKED
        ) AS lane
        LIMIT :most
    )
    UPDATE webhook_lanes AS l
    SET claimed_by = :claim, claimed_until = statement_timestamp() + :ttl, replica = :replica
    FROM due WHERE l.webhook = due.webhook AND l.conference = due.conference
    RETURNING l.webhook, l.conference
    """  # noqa: S608 - a text of our own
)


async def claim(
    connection: AsyncConnection, *, limit: int, per_webhook: int, ttl: float, replica: uuid.UUID | None = None
) -> list[Held]:
    """Claim up to `limit` due lanes, up to `per_webhook` of each webhook by all processes together.

    The claims hold for `ttl` seconds, or until `replica`, who makes them, is found to be gone.
    """
    if limit < 1:
        return []
    locked = (await connection.scalars(_LOCK, {"most": limit})).all()
    if not locked:
        return []
    # In a statement of its own: only now is everything seen that others claimed before we had the lock.
    mine = uuid.uuid4()
    rows = await connection.execute(
        _CLAIM,
        {
            "locked": list(locked),
            "per_webhook": per_webhook,
            "most": limit,
            "claim": mine,
            "replica": replica,
            "ttl": timedelta(seconds=ttl),
        },
    )
    return [Held(webhook=row.webhook, conference=row.conference, claim=mine) for row in rows]


async def give_back(connection: AsyncConnection, replica: uuid.UUID, *, limit: int) -> int:
    """Let go of up to `limit` lanes that this replica has claimed, if its lease ran out; return how many."""
    gone = exists().where(replicas.c.id == replica, replicas.c.lease_expires_at <= _NOW)
    held = (
        select(lanes.c.webhook, lanes.c.conference)
        .where(lanes.c.replica == replica, gone)
        .limit(limit)
        .with_for_update(skip_locked=True, of=lanes)
        .cte("held")
    )
    freed = await connection.execute(
        update(lanes)
        .where(lanes.c.webhook == held.c.webhook, lanes.c.conference == held.c.conference)
        .values(**_UNCLAIMED)
    )
    if freed.rowcount:
        await connection.execute(select(func.pg_notify(CHANNEL, "")))
    return freed.rowcount


# --- sending ----------------------------------------------------------------------------------


async def load(connection: AsyncConnection, held: Held) -> Message | None:
    """Return the lane's next message. None: the claim is gone, or nothing waits, and the lane is ended."""
    # The version first: what is queued after this was read changes it.
    version = await _version(connection, held)
    if version is None:
        return None
    row = (
        await connection.execute(select(deliveries).where(_waiting(held)).order_by(deliveries.c.seq).limit(1))
    ).one_or_none()
    if row is not None:
        return Message(
            id=row.message,
            conference=row.conference,
            sequence=row.seq,
            kind=row.kind,
            at=row.at,
            body=row.body,
        )
    if not await _end(connection, held, version):
        await _give_back(connection, held, due_at=None)
    return None


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
    version = await _version(connection, held)
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
        await _give_back(connection, held, due_at=None)  # the message was given up, or the webhook deleted
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
        await _give_back(connection, held, due_at=verdict.due_at)
        return Settled(verdict=verdict, more=False)
    if await _more(connection, held):
        if go_on and before.enabled and verdict.endpoint.paused_until is None:
            await _renew(connection, held, ttl=settings.claim_ttl)
            return Settled(verdict=verdict, more=True)
        await _give_back(connection, held, due_at=None)
    elif not await _end(connection, held, version):
        await _give_back(connection, held, due_at=None)
    return Settled(verdict=verdict, more=False)


async def release(connection: AsyncConnection, webhook: str) -> int:
    """Make due at once what waits because of failures before the webhook's recovery; return how many lanes.

    Lanes that somebody works on are passed over: `release_all` finds them later.
    """
    late = (
        select(lanes.c.webhook, lanes.c.conference)
        .join(webhooks, webhooks.c.id == lanes.c.webhook)
        .where(lanes.c.webhook == webhook, lanes.c.due_at > _NOW, lanes.c.failed_at < webhooks.c.recovered_at)
        .with_for_update(skip_locked=True, of=lanes)
        .cte("late")
    )
    released = await connection.execute(
        update(lanes)
        .where(lanes.c.webhook == late.c.webhook, lanes.c.conference == late.c.conference)
        .values(due_at=_NOW)
    )
    return released.rowcount


async def release_all(connection: AsyncConnection) -> int:
    """Do what `release` does, for every webhook; return how many lanes."""
    found = await connection.scalars(
        select(webhooks.c.id).where(webhooks.c.enabled, webhooks.c.recovered_at.is_not(None))
    )
    return sum([await release(connection, webhook) for webhook in found.all()])


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


# --- lanes ------------------------------------------------------------------------------------


def _waiting(held: Held) -> ColumnElement[bool]:
    return and_(
        deliveries.c.webhook == held.webhook,
        deliveries.c.conference == held.conference,
        deliveries.c.state == literal_column("'pending'"),
    )


def _is(held: Held) -> ColumnElement[bool]:
    return and_(
        lanes.c.webhook == held.webhook,
        lanes.c.conference == held.conference,
        lanes.c.claimed_by == held.claim,
    )


async def _version(connection: AsyncConnection, held: Held) -> int | None:
    """Return the lane's version, None if it is not ours any more."""
    return (await connection.scalars(select(lanes.c.version).where(_is(held)))).one_or_none()


async def _more(connection: AsyncConnection, held: Held) -> bool:
    found = await connection.scalars(select(deliveries.c.seq).where(_waiting(held)).limit(1))
    return found.one_or_none() is not None


async def _renew(connection: AsyncConnection, held: Held, *, ttl: float) -> None:
    await connection.execute(
        update(lanes).where(_is(held)).values(claimed_until=_NOW + timedelta(seconds=ttl))
    )


async def _give_back(connection: AsyncConnection, held: Held, *, due_at: datetime | None) -> None:
    """Let go of the lane; None: it is due at once, else a failure puts it off."""
    values: dict[str, Any] = dict(_UNCLAIMED)
    if due_at is not None:
        values |= {"due_at": due_at, "failed_at": _NOW}
    await connection.execute(update(lanes).where(_is(held)).values(**values))


async def _end(connection: AsyncConnection, held: Held, version: int) -> bool:
    """End the lane unless something was queued since it had this version; return whether it is ended."""
    ended = await connection.scalars(
        delete(lanes).where(_is(held), lanes.c.version == version).returning(lanes.c.version)
    )
    return ended.one_or_none() is not None
