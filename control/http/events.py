"""Routes of what happens in a conference: events as a stream or in pages, and what it was at some time."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import structs

from causeway.api import (
    SNAPSHOT,
    ConferenceEvent,
    ConferenceState,
    EventPage,
    EventQuery,
    HistoryQuery,
)
from causeway.jws import TokenRefusedError
from control.delivery import rebuilding
from control.errors import (
    ConferenceUnknownError,
    EventsGoneError,
    ForbiddenError,
    InvalidRequestError,
    UnauthenticatedError,
)
from control.http.edge import caller_of, json, no_content, part, query_of
from control.http.entry import APPLICATIONS, LAST_EVENT_ID, Entry
from control.http.event_stream import BEGINNING, HEARTBEAT, MEDIA_TYPE, EventStream, message
from control.registry import events, histories
from control.registry.events import Cursor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response

    from causeway.keys import KeyKind, Scope
    from control.delivery.feeds import Feeds, Reader
    from control.event_settings import EventSettings
    from control.registry.store import Store
    from control.security.events_token import EventTokens

__all__ = ["EventRoutes", "Guest"]

_RANDOM: Final = random.SystemRandom()
_MAX_DIGITS: Final = 18
_BASES_KEPT: Final = 256
_PRIVATE: Final = "metadata"
"""The application's own; whoever comes with a token of events does not see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Whoever comes with a token of a conference's events."""

    id: str
    until: float
    """Seconds since 1970."""
    kind: KeyKind = "application"
    scopes: frozenset[Scope] = frozenset({"conferences:read"})


class EventRoutes:
    """Handlers under /v1/conferences/{conference}; `url_of` makes what a join answers as `events`."""

    def __init__(self, store: Store, feeds: Feeds, tokens: EventTokens, settings: EventSettings) -> None:
        self._store = store
        self._feeds = feeds
        self._tokens = tokens
        self._settings = settings
        self._bases: dict[tuple[object, ...], str] = {}
        origin = settings.allow_origin
        self._headers = {"Access-Control-Allow-Origin": origin} if origin else {}

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        conference = "/v1/conferences/{conference}"
        return [
            Entry(
                "GET",
                f"{conference}/events",
                APPLICATIONS,
                self.events,
                guest=self.guest,
                scope="conferences:read",
                tag="events",
                summary="Follow what happens in a conference, or read a page of it.",
                query=EventQuery,
                headers=(LAST_EVENT_ID,),
                answers={200: EventPage, 204: None},
                stream=True,
                problems=("conference-unknown", "events-gone"),
            ),
            Entry(
                "GET",
                f"{conference}/history",
                APPLICATIONS,
                self.history,
                scope="conferences:read",
                tag="events",
                summary="Say who was where in a conference at some time, and what served it.",
                query=HistoryQuery,
                answers={200: ConferenceState},
                problems=("conference-unknown", "events-gone"),
            ),
        ]

    # --- who may ------------------------------------------------------------------------------

    def url_of(self, request: Request, conference: str) -> str:
        """Return where a client reads the events of its conference; the token is in it."""
        base = self._settings.public_url.rstrip("/") or self._base_of(request)
        return f"{base}/v1/conferences/{conference}/events?token={self._tokens.token(conference)}"

    def _base_of(self, request: Request) -> str:
        """Return the base of the URL that the request came to; worked out once for each host and scheme."""
        scope = request.scope
        key = (scope["scheme"], request.headers.get("host"), scope.get("server"), scope.get("root_path"))
        known = self._bases.get(key)
        if known is None:
            if len(self._bases) >= _BASES_KEPT:
                self._bases.clear()
            known = self._bases[key] = str(request.base_url).rstrip("/")
        return known

    def guest(self, request: HTTPConnection) -> Guest | None:
        """Return who comes with a token of events, in the query or the header; None: nobody."""
        token = request.query_params.get("token")
        if token is None:
            scheme, _, text = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or text.startswith("cw_"):
                return None
            token = text.strip()
        try:
            claims = self._tokens.check(token)
        except TokenRefusedError:
            raise UnauthenticatedError("this token of events is not valid") from None
        if claims.conference != request.path_params["conference"]:
            raise ForbiddenError("this token is for the events of another conference")
        return Guest(id=f"events:{claims.conference}", until=claims.exp)

    # --- reading ------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """GET /v1/conferences/{conference}/events."""
        if request.method == "HEAD" or _wants_json(request):
            return await self._page(request)
        return await self._stream(request)

    async def history(self, request: Request) -> Response:
        """GET /v1/conferences/{conference}/history."""
        at = query_of(request, HistoryQuery).at or datetime.now(UTC)
        if at.tzinfo is None:
            raise InvalidRequestError("at: needs its offset from UTC")
        return json(await self._store.snapshot(rebuilding.at_time, part(request, "conference"), at))

    async def _page(self, request: Request) -> Response:
        conference, asked = part(request, "conference"), query_of(request, EventQuery)
        after = asked.after or 0
        found = await self._store.read(events.page, conference, Cursor(after), limit=asked.limit + 1)
        if not found:
            head = await self._store.read(events.head, conference)
            if head is None:
                raise ConferenceUnknownError(f"no conference {conference}")
            if asked.after is not None and head.seq != after:
                raise _gone(conference, after)
        elif asked.after is not None and found[0].seq != after + 1:
            raise _gone(conference, after)
        page = found[: asked.limit]
        answer = EventPage(
            events=[_shown(request, event) for event in page],
            next=page[-1].seq if page else after,
            more=len(found) > len(page),
        )
        response = json(answer)
        response.headers.update({"Cache-Control": "no-store", **self._headers})
        return response

    async def _stream(self, request: Request) -> Response:
        conference, after = part(request, "conference"), _place(request)
        first: ConferenceState | None = None
        if after is not None:
            head = await self._store.read(events.head, conference)
            if head is None:
                raise ConferenceUnknownError(f"no conference {conference}")
            if head.seq == after and not await self._is_there(conference):
                return no_content()  # which tells a browser not to come again
            if head.seq < after:
                after = None
        if after is None:
            first = await self._store.snapshot(histories.standing, conference)
        place = Cursor(after or 0) if first is None else Cursor(first.seq, first.at)
        with ExitStack() as stack:
            reader = stack.enter_context(self._feeds.reading(conference, place))
            return EventStream(
                self._parts(request, reader, conference, first),
                held=stack.pop_all(),
                life=self._life(request),
                send_timeout=self._settings.send_timeout,
                headers=self._headers,
            )

    async def _parts(
        self, request: Request, reader: Reader, conference: str, first: ConferenceState | None
    ) -> AsyncGenerator[bytes]:
        yield BEGINNING
        if first is not None:
            yield _snapshot(request, first)
        while True:
            before = reader.after
            found = await reader.next(patience=self._settings.heartbeat)
            if found is None:
                return
            if not found:
                yield HEARTBEAT
                continue
            if found[0].seq > before.seq + 1:  # what was to come next is no longer kept
                try:
                    state = await self._store.snapshot(histories.standing, conference)
                except ConferenceUnknownError:
                    return
                reader.move(Cursor(state.seq, state.at))
                yield _snapshot(request, state)
                continue
            for event in found:
                yield message(event.kind, event.seq, _shown(request, event))
                if event.kind == "conference.ended":
                    return

    async def _is_there(self, conference: str) -> bool:
        try:
            await self._store.snapshot(histories.standing, conference)
        except ConferenceUnknownError:
            return False
        return True

    def _life(self, request: Request) -> float:
        """Return for how long the stream may go on: streams that began together do not end together."""
        life = self._settings.stream_life * _RANDOM.uniform(0.9, 1.0)
        caller = caller_of(request)
        return max(1.0, min(life, caller.until - time.time())) if isinstance(caller, Guest) else life


def _wants_json(request: Request) -> bool:
    """Say whether pages are asked for: JSON is named, and streams are not."""
    accepted = ",".join(request.headers.getlist("accept")).lower()
    return "application/json" in accepted and MEDIA_TYPE not in accepted


def _place(request: Request) -> int | None:
    """Return the number of the last event that the reader has; what it says itself comes before the URL."""
    told = request.headers.get("last-event-id")
    if told is None or not told.strip():
        return query_of(request, EventQuery).after
    if not (told.isascii() and told.isdecimal() and len(told) <= _MAX_DIGITS):
        raise InvalidRequestError("Last-Event-ID: must be the number of an event")
    return int(told)


def _shown(request: Request, event: ConferenceEvent) -> ConferenceEvent:
    if _PRIVATE in event.body and isinstance(caller_of(request), Guest):
        body = {name: value for name, value in event.body.items() if name != _PRIVATE}
        return structs.replace(event, body=body)
    return event


def _snapshot(request: Request, state: ConferenceState) -> bytes:
    if isinstance(caller_of(request), Guest):
        state = structs.replace(state, metadata={})
    return message(SNAPSHOT, state.seq, state)


def _gone(conference: str, after: int) -> EventsGoneError:
    return EventsGoneError(f"what came after event {after} of conference {conference} is no longer kept")
