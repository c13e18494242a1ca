"""The time machine: a conference as it was, folded from its events; and checkpoints, before old events go.

Both work inside the caller's transaction; `at_time` reads several tables: give it a repeatable-read
connection. The folding itself is control.delivery.history's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from control.delivery.history import History
from control.errors import ConferenceUnknownError, EventsGoneError
from control.registry import events, histories
from control.registry.events import Cursor

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import ConferenceState

__all__ = ["at_time", "keep"]

_PAGE: Final = 2000
"""Events folded at a time."""
_MOMENT: Final = timedelta(microseconds=1)
"""What the database's clock can tell apart."""


async def at_time(connection: AsyncConnection, conference: str, at: datetime) -> ConferenceState:
    """Return the conference as it was then: after the last event that is not later.

    Raises ConferenceUnknownError if it was not there then, EventsGoneError if that is no longer known.
    """
    state = (await _folded(connection, conference, at)).state()
    if state is not None:
        return state
    heard_of = await events.head(connection, conference) is not None
    if heard_of and await histories.first_kept(connection, conference) != 1:
        raise _gone(conference)
    raise ConferenceUnknownError(f"no conference {conference} was there at {at.isoformat()}")


async def keep(connection: AsyncConnection, before: datetime, *, after: str, limit: int) -> str | None:
    """Leave a checkpoint of up to `limit` conferences that have events before that time and were there then.

    Goes through the conferences by id, from `after` on ('' at first); returns the last one, None when there
    are no more. Idempotent: events before that time change no more.
    """
    concerned = await histories.concerned(connection, before, after=after, limit=limit)
    for conference in concerned:
        history = await _folded(connection, conference, before - _MOMENT, forgiving=True)
        state = None if history.over else history.state()
        await histories.leave(connection, conference, history.seq, state)
    return concerned[-1] if len(concerned) == limit else None


async def _folded(
    connection: AsyncConnection, conference: str, until: datetime, *, forgiving: bool = False
) -> History:
    """Return what the conference's events up to and with that time make.

    Raises EventsGoneError when some are missing, unless `forgiving`.
    """
    history = History(conference, await histories.checkpoint(connection, conference, until))
    while True:
        place = Cursor(history.seq, history.at)
        found = await events.page(connection, conference, place, limit=_PAGE, until=until)
        missing = bool(found) and found[0].seq > history.seq + 1 and found[0].kind != "conference.created"
        if missing and not forgiving:
            raise _gone(conference)
        history.apply_all(found)
        if len(found) < _PAGE:
            return history


def _gone(conference: str) -> EventsGoneError:
    return EventsGoneError(f"what happened in conference {conference} then is no longer kept")
