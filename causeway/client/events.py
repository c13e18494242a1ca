"""What happens in conferences: followed as it happens, read page by page, or asked for by time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpx2
import msgspec

from causeway.api import (
    SNAPSHOT,
    ConferenceEvent,
    ConferenceState,
    EventPage,
    EventQuery,
    HistoryQuery,
)
from causeway.backoff import Backoff
from causeway.client.connection import Connection, path_of, query_of, refusal_of
from causeway.client.sse import EventParser, Message
from causeway.errors import ApiError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

__all__ = ["EventCalls"]

_ENDED: Final = "conference.ended"
_WAIT: Final = frozenset({408, 425, 429})
"""Refusals that are worth another try."""
_EVENT: Final = msgspec.json.Decoder(ConferenceEvent)
_STATE: Final = msgspec.json.Decoder(ConferenceState)


class EventCalls(Connection):
    """Calls for application keys."""

    async def list_events(self, conference: str, *, after: int | None = None, limit: int = 100) -> EventPage:
        """Return a page of a conference's events, from the oldest that is kept, or after a number."""
        path = path_of("conferences", conference, "events")
        return await self._ask("GET", path + query_of(EventQuery(after=after, limit=limit)), EventPage)

    async def get_history(self, conference: str, at: datetime | None = None) -> ConferenceState:
        """Return who was where in a conference at that time (with its offset from UTC), or is now."""
        path = path_of("conferences", conference, "history")
        return await self._ask("GET", path + query_of(HistoryQuery(at=at)), ConferenceState)

    async def follow_events(
        self, conference: str, *, after: int | None = None, silence: float = 60.0
    ) -> AsyncIterator[ConferenceEvent | ConferenceState]:
        """Go through a conference's events as they happen, until the conference has ended.

        Without `after` the conference as it is comes first; it also comes in between when events were missed
        that are no longer kept: what was known before is void then. A connection that breaks, or says nothing
        for `silence` seconds, is made anew, without end, and nothing is missed or told twice by that. Raises
        ApiError for a refusal.
        """
        backoff = Backoff()
        while True:
            try:
                async for told in self._stream(conference, after, silence):
                    backoff.reset()
                    after = told.seq
                    yield told
                    if isinstance(told, ConferenceEvent) and told.kind == _ENDED:
                        return
            except _OverError:
                return
            except ApiError as error:
                if error.status < HTTPStatus.INTERNAL_SERVER_ERROR and error.status not in _WAIT:
                    raise
            except UnavailableError:
                pass
            await asyncio.sleep(backoff.next_delay())

    async def _stream(
        self, conference: str, after: int | None, silence: float
    ) -> AsyncIterator[ConferenceEvent | ConferenceState]:
        """Read one stream to its end. Raises ApiError, UnavailableError, and _OverError for 204."""
        path = path_of("conferences", conference, "events")
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        request = self._http.build_request("GET", path, headers=headers)
        try:
            async with asyncio.timeout(silence):
                answer = await self._http.send(request, stream=True)
            try:
                if answer.status_code == HTTPStatus.NO_CONTENT:
                    raise _OverError
                if not answer.is_success:
                    raise refusal_of(answer.status_code, await self._read(answer))
                parser, chunks = EventParser(), aiter(answer.aiter_bytes())
                while True:
                    async with asyncio.timeout(silence):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    for message in parser.feed(chunk):
                        yield _decoded(message)
            finally:
                await answer.aclose()
        except TimeoutError as error:
            raise UnavailableError(f"GET /v1/{path}: control said nothing for {silence:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise UnavailableError(
                f"GET /v1/{path}: control cannot be reached ({type(error).__name__})"
            ) from error


class _OverError(Exception):
    """There is nothing more to come."""


def _decoded(message: Message) -> ConferenceEvent | ConferenceState:
    try:
        return (_STATE if message.name == SNAPSHOT else _EVENT).decode(message.data)
    except msgspec.DecodeError:
        raise UnavailableError("an event is not control's") from None
