"""Routes for templates: applications read them, operators save and retire them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from causeway.api import Template, TemplateList, TemplateView
from control.http.edge import Body, if_match, json, no_content, part, query_of
from control.http.entry import APPLICATIONS, IF_MATCH, OPERATORS, Entry
from control.http.etag import IfMatch, tag_of
from control.registry import templates

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from control.registry.store import Store

__all__ = ["TemplateRoutes"]

_SAVE: Final = Body(Template)


class _ListQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    retired: bool = False
    """Also those that take no new conferences."""


class _ShowQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """None: the newest."""


class TemplateRoutes:
    """Handlers under /v1/templates."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        template = "/v1/templates/{template}"
        return [
            Entry(
                "GET",
                "/v1/templates",
                APPLICATIONS,
                self.index,
                scope="conferences:read",
                tag="templates",
                summary="List the templates, each in its newest version.",
                query=_ListQuery,
                answers={200: TemplateList},
            ),
            Entry(
                "GET",
                template,
                APPLICATIONS,
                self.show,
                scope="conferences:read",
                tag="templates",
                summary="Show a template, in its newest or another version.",
                query=_ShowQuery,
                answers={200: TemplateView},
                tagged=True,
                problems=("template-unknown",),
            ),
            Entry(
                "PUT",
                template,
                OPERATORS,
                self.save,
                tag="templates",
                summary="Save a template: a new version, which new conferences get.",
                headers=(IF_MATCH,),
                body=_SAVE,
                answers={201: TemplateView, 200: TemplateView},
                tagged=True,
                problems=("precondition-failed",),
            ),
            Entry(
                "DELETE",
                template,
                OPERATORS,
                self.retire,
                tag="templates",
                summary="Retire a template: no new conferences; those that are there go on.",
                headers=(IF_MATCH,),
                answers={204: None},
                problems=("template-unknown", "template-default", "precondition-failed"),
            ),
        ]

    async def index(self, request: Request) -> Response:
        """GET /v1/templates."""
        retired = query_of(request, _ListQuery).retired
        return json(
            TemplateList(templates=await self._store.snapshot(templates.list_newest, retired=retired))
        )

    async def show(self, request: Request) -> Response:
        """GET /v1/templates/{template}."""
        version = query_of(request, _ShowQuery).version
        view = await self._store.snapshot(templates.show, part(request, "template"), version)
        return json(view, tag=tag_of(_tagged(view)))

    async def save(self, request: Request) -> Response:
        """PUT /v1/templates/{template}: 201 for a new name, else 200."""
        name, check = part(request, "template"), _check(if_match(request))
        template: Template = await _SAVE.read(request)
        view, new = await self._store.write(templates.save, name, template, check=check)
        return json(view, 201 if new else 200, tag=tag_of(_tagged(view)))

    async def retire(self, request: Request) -> Response:
        """DELETE /v1/templates/{template}."""
        name, check = part(request, "template"), _check(if_match(request))
        await self._store.write(templates.retire, name, check=check)
        return no_content()


def _check(demanded: IfMatch) -> Callable[[TemplateView | None], None]:
    return lambda view: demanded.check(None if view is None else _tagged(view))


def _tagged(view: TemplateView) -> object:
    """Return what the tag is made of; how many conferences there are is no part of the template."""
    return (view.name, view.version, view.retired_at)
