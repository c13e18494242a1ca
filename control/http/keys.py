"""Routes for operators: access keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import structlog
from msgspec import Meta, Struct

from causeway.api import KeyCreate, KeyCreated, KeyList, KeyView
from causeway.keys import KeyKind
from control.http.edge import Body, caller_of, json, no_content, part, query_of
from control.http.entry import OPERATORS, Entry
from control.registry import credentials
from control.registry.paging import Place
from control.security.credentials import make_key

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.registry.store import Store

__all__ = ["KeyQuery", "KeyRoutes"]

_log = structlog.get_logger(__name__)

_CREATE: Final = Body(KeyCreate)


class KeyQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `GET /v1/keys` is asked for."""

    kind: KeyKind | None = None
    revoked: bool = False
    """Revoked keys, too."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    """`next` of the page before."""


class KeyRoutes:
    """Handlers under /v1/keys."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/v1/keys",
                OPERATORS,
                self.index,
                tag="keys",
                summary="List access keys, oldest first.",
                query=KeyQuery,
                answers={200: KeyList},
            ),
            Entry(
                "POST",
                "/v1/keys",
                OPERATORS,
                self.create,
                tag="keys",
                summary="Make an access key; its text is in this answer and nowhere else.",
                body=_CREATE,
                answers={201: KeyCreated},
            ),
            Entry(
                "GET",
                "/v1/keys/{key}",
                OPERATORS,
                self.show,
                tag="keys",
                summary="Show an access key.",
                answers={200: KeyView},
                problems=("key-unknown",),
            ),
            Entry(
                "DELETE",
                "/v1/keys/{key}",
                OPERATORS,
                self.revoke,
                tag="keys",
                summary="Revoke an access key, in every replica at once.",
                answers={204: None},
                problems=("key-unknown",),
            ),
        ]

    async def index(self, request: Request) -> Response:
        """GET /v1/keys."""
        query = query_of(request, KeyQuery)
        page = await self._store.read(
            credentials.list_some,
            kind=query.kind,
            revoked=query.revoked,
            after=None if query.cursor is None else Place.read(query.cursor),
            limit=query.limit,
        )
        return json(page)

    async def create(self, request: Request) -> Response:
        """POST /v1/keys."""
        wish: KeyCreate = await _CREATE.read(request)
        made = await make_key(
            self._store, wish.kind, name=wish.name, scopes=wish.scopes, by=caller_of(request).id
        )
        view = made.view
        response = json(KeyCreated(key=made.text, **{name: getattr(view, name) for name in _VIEW}), 201)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def show(self, request: Request) -> Response:
        """GET /v1/keys/{key}."""
        return json(await self._store.read(credentials.show, part(request, "key")))

    async def revoke(self, request: Request) -> Response:
        """DELETE /v1/keys/{key}; the same for one that is revoked already."""
        key = part(request, "key")
        by = caller_of(request).id
        if await self._store.write(credentials.revoke, key, by=by):
            _log.info("key.revoked", key=key, by=by)
        return no_content()


_VIEW: Final = KeyView.__struct_fields__
