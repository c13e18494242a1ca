"""The audit: who changed what, from what to what. Written in the transaction of the change itself.

Secrets never get in: callers pass what operators may see.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, select

from causeway.api import AuditEntry, AuditList
from control.registry.tables import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["CONTROL", "changes", "entries", "note", "prune"]

CONTROL: Final = "control"
"""The actor of what the service does by itself."""


async def note(
    connection: AsyncConnection,
    *,
    actor: str,
    subject: str,
    action: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry."""
    await connection.execute(
        insert(audit).values(actor=actor, subject=subject, action=action, before=before, after=after)
    )


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return what differs, as it was and as it is; None when nothing does."""
    differing = [name for name in after if before.get(name) != after[name]]
    if not differing:
        return None
    return {name: before.get(name) for name in differing}, {name: after[name] for name in differing}


async def entries(
    connection: AsyncConnection, *, subject: str | None, before: int | None, limit: int
) -> AuditList:
    """Return up to `limit` entries, newest first, older than entry `before`."""
    query = (
        select(
            audit.c.id,
            audit.c.at,
            audit.c.actor,
            audit.c.subject,
            audit.c.action,
            audit.c.before,
            audit.c.after,
        )
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    if before is not None:
        query = query.where(audit.c.id < before)
    rows = (await connection.execute(query)).all()
    return AuditList(
        entries=[
            AuditEntry(
                id=row.id,
                at=row.at,
                actor=row.actor,
                subject=row.subject,
                action=row.action,
                before=row.before,
                after=row.after,
            )
            for row in rows
        ],
        next=rows[-1].id if len(rows) == limit else None,
    )


async def prune(connection: AsyncConnection, *, keep_days: float) -> int:
    """Delete entries older than `keep_days`; return how many."""
    gone = await connection.execute(
        delete(audit).where(audit.c.at < func.clock_timestamp() - timedelta(days=keep_days))
    )
    return gone.rowcount
