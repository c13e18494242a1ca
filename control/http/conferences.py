"""Routes for applications: conferences."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from causeway.api import (
    ConferenceCreate,
    ConferenceList,
    ConferencePatch,
    ConferenceQuery,
    ConferenceView,
)
from control.http.edge import Body, if_match, json, no_content, part, query_of
from control.http.entry import APPLICATIONS, IF_MATCH, Entry
from control.http.etag import tag_of
from control.registry import conference_pages, conferences

if TYPE_CHECKING:
    from starlette.requests import Request

    from control.bell import Bell
    from control.conference_settings import ConferenceSettings
    from control.registry.store import Store

__all__ = ["ConferenceRoutes"]

_CREATE: Final = Body(ConferenceCreate, empty=ConferenceCreate())
_PATCH: Final = Body(ConferencePatch)


class ConferenceRoutes:
    """Handlers under /v1/conferences."""

    def __init__(self, store: Store, bell: Bell, settings: ConferenceSettings) -> None:
        self._store = store
        self._bell = bell
        self._max_metadata_bytes = settings.max_metadata_bytes

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        conference = "/v1/conferences/{conference}"
        return [
            Entry(
                "GET",
                "/v1/conferences",
                APPLICATIONS,
                self.index,
                scope="conferences:read",
                tag="conferences",
                summary="List conferences, oldest first, a page at a time.",
                query=ConferenceQuery,
                answers={200: ConferenceList},
            ),
            Entry(
                "POST",
                "/v1/conferences",
                APPLICATIONS,
                self.create,
                scope="conferences:write",
                tag="conferences",
                summary="Create a conference; 200 for one that is there already, as it is asked for.",
                body=_CREATE,
                answers={201: ConferenceView, 200: ConferenceView},
                tagged=True,
                problems=("template-unknown", "conference-ending", "conference-exists", "conference-unknown"),
            ),
            Entry(
                "GET",
                conference,
                APPLICATIONS,
                self.show,
                scope="conferences:read",
                tag="conferences",
                summary="Show a conference with its placements, links and participants.",
                answers={200: ConferenceView},
                tagged=True,
                problems=("conference-unknown",),
            ),
            Entry(
                "PATCH",
                conference,
                APPLICATIONS,
                self.change,
                scope="conferences:write",
                tag="conferences",
                summary="Change metadata, lock, limit or time to live; a JSON merge patch.",
                headers=(IF_MATCH,),
                body=_PATCH,
                answers={200: ConferenceView},
                tagged=True,
                problems=("conference-unknown", "conference-ending", "precondition-failed"),
            ),
            Entry(
                "DELETE",
                conference,
                APPLICATIONS,
                self.end,
                scope="conferences:write",
                tag="conferences",
                summary="End a conference: 202 while its rooms are being removed, 204 once it is gone.",
                answers={202: None, 204: None},
            ),
        ]

    async def index(self, request: Request) -> Response:
        """GET /v1/conferences."""
        query = query_of(request, ConferenceQuery)
        return json(await self._store.read(conference_pages.page, query))

    async def create(self, request: Request) -> Response:
        """POST /v1/conferences: 201, or 200 for one that is there already."""
        wish: ConferenceCreate = await _CREATE.read(request)
        conference = wish.id or secrets.token_hex(8)
        made = await self._store.write(
            conferences.create, conference, wish, max_metadata_bytes=self._max_metadata_bytes
        )
        return _shown(await self._store.snapshot(conferences.show, conference), 201 if made else 200)

    async def show(self, request: Request) -> Response:
        """GET /v1/conferences/{conference}."""
        return _shown(await self._store.snapshot(conferences.show, part(request, "conference")))

    async def change(self, request: Request) -> Response:
        """PATCH /v1/conferences/{conference}."""
        conference, demanded = part(request, "conference"), if_match(request)
        patch: ConferencePatch = await _PATCH.read(request)
        view = await self._store.write(
            conferences.change,
            conference,
            patch,
            check=demanded.check,
            max_metadata_bytes=self._max_metadata_bytes,
        )
        return _shown(view)

    async def end(self, request: Request) -> Response:
        """DELETE /v1/conferences/{conference}: 202 while its rooms are being removed, 204 once it is gone."""
        conference = _conference(request)
        if not await self._store.write(conferences.end, conference):
            return no_content()
        self._bell.ring(conference)
        return Response(status_code=202)


def _conference(request: Request) -> str:
    return part(request, "conference")


def _shown(view: ConferenceView, status: int = 200) -> Response:
    return json(view, status, tag=tag_of(conferences.changeable(view)))
