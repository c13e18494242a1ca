"""Which of two reports of a cluster is the newer one, whichever replica carries it out first.

A cluster numbers what it tells: each request, also a repeated one, has a larger number than all before it
(of its registration's epoch). A replica that was frozen may carry out a request long after its sender has
given it up and told something newer elsewhere. Here is remembered what was carried out last of each thing,
and which number said last that it is gone; what is older than that is refused, and changes nothing.

Things are independent of each other, with one exception: a room that closes, and a participant who leaves,
take along what was theirs. Rows outlive their things, for as long as an old request might turn up (`prune`).

All functions work inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from control.errors import ReportSupersededError
from control.registry.tables import report_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["REGISTRATION", "ROOM", "Said", "prune", "take", "take_registration"]

_NOW: Final = func.clock_timestamp()
ROOM: Final = ""
"""The room itself, among the things of a room."""
REGISTRATION: Final = "registration"


@dataclass(frozen=True, slots=True)
class Said:
    """Who says something, under which registration, and how late in it; without a number nobody knows."""

    cluster: str
    epoch: int
    number: int | None = None


async def take(
    connection: AsyncConnection,
    said: Said,
    room: str,
    thing: str,
    *,
    gone: bool = False,
    of: Sequence[str] = (),
) -> None:
    """Note that this is being carried out, unless something newer was; raises ReportSupersededError.

    `gone`: it says that the thing is no more. `of`: what the thing is a part of; what is gone with that since
    then is not believed any more. What stands in a statement without a number is always believed.
    """
    if said.number is None:
        return
    for whole in of:
        await _require_whole(connection, said, room, whole)
    row = insert(report_order).values(
        cluster=said.cluster,
        room=room,
        thing=thing,
        epoch=said.epoch,
        number=said.number,
        gone=said.number if gone else 0,
    )
    told = row.excluded
    # What was gone in an epoch that is over has no meaning in this one.
    kept = case((report_order.c.epoch == told.epoch, report_order.c.gone), else_=0)
    taken = await connection.scalars(
        row.on_conflict_do_update(
            index_elements=[report_order.c.cluster, report_order.c.room, report_order.c.thing],
            set_={
                "epoch": told.epoch,
                "number": told.number,
                "gone": told.number if gone else kept,
                "told_at": _NOW,
            },
            where=tuple_(report_order.c.epoch, report_order.c.number) < tuple_(told.epoch, told.number),
        ).returning(report_order.c.number)
    )
    if taken.one_or_none() is None:
        raise ReportSupersededError(f"the cluster has told something newer than {said.number}")


async def take_registration(
    connection: AsyncConnection, cluster: str, *, epoch: int, number: int | None, same_start: bool
) -> None:
    """Note a registration; of the same start of the cluster only one with a larger number than before.

    Raises ReportSupersededError.
    """
    if number is None:
        return
    known = await connection.scalar(
        select(report_order.c.number)
        .where(
            report_order.c.cluster == cluster, report_order.c.room == "", report_order.c.thing == REGISTRATION
        )
        .with_for_update(key_share=True)
    )
    if same_start and known is not None and known >= number:
        raise ReportSupersededError(f"the cluster has registered anew since {number}")
    told = {"epoch": epoch, "number": number, "told_at": _NOW}
    row = insert(report_order).values(cluster=cluster, room="", thing=REGISTRATION, **told)
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[report_order.c.cluster, report_order.c.room, report_order.c.thing], set_=told
        )
    )


_PRUNE: Final = text(
    """
    DELETE FROM report_order WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM report_order
        WHERE told_at < clock_timestamp() - make_interval(secs => :after) LIMIT :limit
    ))
    """
)


async def prune(connection: AsyncConnection, *, after: float, limit: int = 50_000) -> int:
    """Forget, of at most `limit` things, what was told more than `after` seconds ago; return how many."""
    return int((await connection.execute(_PRUNE, {"after": after, "limit": limit})).rowcount)


async def _require_whole(connection: AsyncConnection, said: Said, room: str, whole: str) -> None:
    """Make sure that the whole is not known to be gone since, until this transaction ends."""
    known = (
        select(report_order.c.epoch, report_order.c.gone)
        .where(
            report_order.c.cluster == said.cluster,
            report_order.c.room == room,
            report_order.c.thing == whole,
        )
        .with_for_update(read=True)
    )
    row = (await connection.execute(known)).one_or_none()
    if row is None:
        # A row to be held, so that the whole's end waits for us, or we have waited for it.
        first = insert(report_order).values(
            cluster=said.cluster, room=room, thing=whole, epoch=said.epoch, number=0
        )
        await connection.execute(first.on_conflict_do_nothing())
        row = (await connection.execute(known)).one()
    assert said.number is not None
    if row.epoch == said.epoch and row.gone > said.number:
        raise ReportSupersededError(f"the cluster has told since {said.number} that this is over")
