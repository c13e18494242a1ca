"""Routes for joining: by conference, by id alone, and why a client went where it went."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from starlette.responses import Response

from causeway.api import (
    ConferenceCreate,
    DecisionList,
    ExplainQuery,
    JoinAnswer,
    JoinByIdRequest,
    JoinRequest,
)
from control.errors import ConferenceUnknownError, InvalidRequestError
from control.http.edge import Body, caller_of, json, part, query_of
from control.http.entry import APPLICATIONS, IDEMPOTENCY_KEY, Entry
from control.idempotency import fingerprint_of
from control.joining import Visit
from control.registry import conferences

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from control.http.hints import Hints
    from control.idempotency import KeptAnswers
    from control.joining import Joining
    from control.registry.store import Store

__all__ = ["JoinRoutes"]

_JOIN: Final = Body(JoinRequest)
_JOIN_BY_ID: Final = Body(JoinByIdRequest)
_ENCODER: Final = msgspec.json.Encoder()
_KEY: Final = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,255}$(?!\n)")]
_DECISIONS: Final = 100
_PROBLEMS: Final = (
    "role-not-allowed",
    "conference-ending",
    "conference-locked",
    "conference-full",
    "idempotency-busy",
    "idempotency-mismatch",
    "cluster-failed",
    "no-cluster",
    "overloaded",
    "cluster-timeout",
)


class JoinRoutes:
    """Handlers of joins."""

    def __init__(
        self,
        store: Store,
        joining: Joining,
        kept: KeptAnswers,
        hints: Hints,
        events_of: Callable[[Request, str], str],
    ) -> None:
        """`events_of` gives the URL at which clients of a conference read its events."""
        self._store = store
        self._joining = joining
        self._kept = kept
        self._hints = hints
        self._events_of = events_of

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        conference = "/v1/conferences/{conference}"
        return [
            Entry(
                "POST",
                f"{conference}/join",
                APPLICATIONS,
                self.join,
                scope="join",
                tag="joining",
                summary="Say where a user shall connect, and with which token.",
                body=_JOIN,
                query=ExplainQuery,
                headers=(IDEMPOTENCY_KEY,),
                answers={200: JoinAnswer},
                problems=("conference-unknown", *_PROBLEMS),
            ),
            Entry(
                "POST",
                "/v1/join",
                APPLICATIONS,
                self.join_by_id,
                scope="join",
                tag="joining",
                summary="The same; the conference is made if there is none of that id.",
                body=_JOIN_BY_ID,
                query=ExplainQuery,
                headers=(IDEMPOTENCY_KEY,),
                answers={200: JoinAnswer},
                problems=("conference-unknown", "template-unknown", *_PROBLEMS),
            ),
            Entry(
                "GET",
                f"{conference}/decisions",
                APPLICATIONS,
                self.decisions,
                scope="conferences:read",
                tag="joining",
                summary="Say why clients went where they went, newest first.",
                answers={200: DecisionList},
                problems=("conference-unknown",),
            ),
        ]

    async def join(self, request: Request) -> Response:
        """POST /v1/conferences/{conference}/join."""
        conference = part(request, "conference")
        wish: JoinRequest = await _JOIN.read(request)
        return await self._answer(request, self._visit(request, conference, wish.user, wish))

    async def join_by_id(self, request: Request) -> Response:
        """POST /v1/join."""
        wish: JoinByIdRequest = await _JOIN_BY_ID.read(request)
        user = wish.user or f"guest-{secrets.token_hex(4)}"
        return await self._answer(request, self._visit(request, wish.id, user, wish), create=wish)

    async def decisions(self, request: Request) -> Response:
        """GET /v1/conferences/{conference}/decisions."""
        found = await self._joining.explain(part(request, "conference"), limit=_DECISIONS)
        return json(DecisionList(decisions=found))

    async def _answer(
        self, request: Request, visit: Visit, *, create: JoinByIdRequest | None = None
    ) -> Response:
        key = _key(request)
        if key is None:
            answer = await self._join(request, visit, create)
        else:
            asked = fingerprint_of(
                request.url.path.encode(), request.url.query.encode(), await request.body()
            )
            answer = await self._kept.once(
                caller_of(request).id, key, asked, lambda: self._join(request, visit, create)
            )
        # It carries a token.
        return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})

    async def _join(self, request: Request, visit: Visit, create: JoinByIdRequest | None) -> bytes:
        try:
            answer = await self._joining.join(visit)
        except ConferenceUnknownError:
            if create is None:
                raise
            new = ConferenceCreate(id=create.id, type=create.type)
            await self._store.write(conferences.create, create.id, new)
            answer = await self._joining.join(visit)
        events = self._events_of(request, visit.conference)
        return _ENCODER.encode(msgspec.structs.replace(answer, events=events))

    def _visit(
        self, request: Request, conference: str, user: str, wish: JoinRequest | JoinByIdRequest
    ) -> Visit:
        told = wish.region is not None or wish.location is not None or bool(wish.latencies)
        hint = None if told else self._hints.read(request)
        location = None if wish.location is None else (wish.location.lat, wish.location.lon)
        return Visit(
            conference=conference,
            user=user,
            role=wish.role,
            region=wish.region if hint is None else hint.region,
            location=location if hint is None else hint.location,
            latencies=tuple(sorted(wish.latencies.items())),
            everybody=query_of(request, ExplainQuery).explain,
        )


def _key(request: Request) -> str | None:
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequestError("Idempotency-Key: given twice")
    try:
        return str(msgspec.convert(values[0], _KEY))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"Idempotency-Key: {error}") from None
