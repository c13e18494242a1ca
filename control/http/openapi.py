"""The API's document (OpenAPI 3.1), made of the route table and the types; and the page to try it.

Nothing is written down here that the table or the types know: a route that is served is in the document. The
page is three files of our own, served under a content security policy that lets it load nothing else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from causeway import __version__
from causeway.api import Problem
from control.http.edge import is_mapping
from control.http.entry import IF_MATCH, PARTS, Entry
from control.http.etag import tag_of
from control.http.problems import MEDIA_TYPE, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.requests import Request

__all__ = ["DocumentRoutes", "document", "problems_of"]

_REFERENCE: Final = "#/components/schemas/{name}"
_PART: Final = re.compile(r"\{(\w+)\}")
_RETRY: Final = {
    "Retry-After": {"description": "Seconds until another try may succeed.", "schema": {"type": "integer"}}
}
_ETAG: Final = {"ETag": {"description": "For If-Match.", "schema": {"type": "string"}}}
_MAY_RETRY: Final = frozenset({429, 502, 503, 504})

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = {
    "/docs": ("index.html", "text/html"),
    "/docs/page.js": ("page.js", "text/javascript"),
    "/docs/page.css": ("page.css", "text/css"),
}


class DocumentRoutes:
    """Handlers for /openapi.json and /docs. `describe` must be called once, with the whole table."""

    def __init__(self) -> None:
        self._document = b"{}"
        self._tag = tag_of(None)
        folder = files("control.http") / "page"
        self._page = {path: ((folder / name).read_bytes(), media) for path, (name, media) in _PAGE.items()}

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/openapi.json",
                None,
                self.document,
                tag="documentation",
                summary="This document.",
                answers={200: dict[str, Any]},
                tagged=True,
            ),
            *(
                Entry(
                    "GET",
                    path,
                    None,
                    self.page,
                    tag="documentation",
                    summary="The page to read and try the API." if path == "/docs" else f"Its {name}.",
                    answers={200: str},
                    media=media,
                )
                for path, (name, media) in _PAGE.items()
            ),
        ]

    def describe(self, entries: Sequence[Entry]) -> None:
        """Make the document of these routes."""
        made = document(entries)
        self._document = msgspec.json.encode(made)
        self._tag = tag_of(made)

    async def document(self, _request: Request) -> Response:
        """GET /openapi.json."""
        return Response(self._document, media_type="application/json", headers={"ETag": self._tag})

    async def page(self, request: Request) -> Response:
        """GET /docs and what it consists of."""
        content, media = self._page[request.url.path]
        headers = {
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return Response(content, media_type=media, headers=headers)


def document(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    schemas = _Schemas(_types(entries))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for entry in entries:
        paths[entry.path][entry.method.lower()] = _operation(entry, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Causeway",
            "version": __version__,
            "summary": "One conference, many regions: clusters, conferences, joins.",
            "description": "Every request but the open ones carries `Authorization: Bearer cw_…`. Unknown "
            "fields and query parameters are refused. Times are RFC 3339 in UTC, durations are seconds.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(entry.tag for entry in entries)],
        "paths": dict(paths),
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An access key, `cw_…`."}
            },
        },
    }


def problems_of(entry: Entry) -> list[str]:
    """Return the types of all problems that a request to this route can get."""
    names = {*entry.problems, "invalid-request", "overloaded", "head-too-large", "internal-error"}
    if entry.kinds is not None:
        names |= {"unauthenticated", "forbidden", "rate-limited", "database-unavailable"}
    if entry.body is not None:
        names |= {"malformed-json", "body-too-large", "unsupported-media-type"}
    for header in entry.headers:
        if header == IF_MATCH:
            names.add("precondition-failed")
        if header.name == "Causeway-Epoch" and header.required:
            names.add("epoch-missing")
    return sorted(names)


class _Schemas:
    """JSON schemas of types, those of structs as references."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        self._kinds = list(kinds)
        schemas, self.components = msgspec.json.schema_components(self._kinds, ref_template=_REFERENCE)
        self._schemas = list(schemas)

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of one of the types."""
        return self._schemas[self._kinds.index(kind)]


def _types(entries: Iterable[Entry]) -> Iterable[Any]:
    yield Problem
    yield from PARTS.values()
    for entry in entries:
        if entry.body is not None:
            yield entry.body.kind
        if entry.query is not None:
            yield from (field.type for field in msgspec.structs.fields(entry.query))
        yield from (header.kind for header in entry.headers)
        yield from (kind for kind in entry.answers.values() if kind is not None)


def _operation(entry: Entry, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{entry.method.lower()}{entry.path}".replace("/", "_").translate(_NO_BRACES),
        "summary": entry.summary,
        "tags": [entry.tag],
        "description": _who_may(entry),
        "parameters": [*_parts(entry, schemas), *_query(entry, schemas), *_headers(entry, schemas)],
        "responses": _answers(entry, schemas) | _refusals(entry, schemas),
        "security": [] if entry.kinds is None else [{"key": []}],
    }
    if entry.body is not None:
        operation["requestBody"] = {
            "required": not entry.body.optional,
            "content": {"application/json": {"schema": schemas.of(entry.body.kind)}},
        }
    return operation


_NO_BRACES: Final = str.maketrans("", "", "{}.")


def _who_may(entry: Entry) -> str:
    if entry.kinds is None:
        return "Needs no key."
    kinds = [
        f"{kind} (scope `{entry.scope}`)" if kind == "application" else kind for kind in sorted(entry.kinds)
    ]
    guests = ", or the token that a join answers for it" if entry.guest is not None else ""
    return f"Needs a key of kind {' or '.join(kinds)}{guests}."


def _parts(entry: Entry, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for name in _PART.findall(entry.path):
        yield {"name": name, "in": "path", "required": True, "schema": schemas.of(PARTS[name])}


def _query(entry: Entry, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for field in () if entry.query is None else msgspec.structs.fields(entry.query):
        if is_mapping(field.type):
            # `name.key=value`, any number of times: OpenAPI has no word for it.
            schema = {"type": "string"}
            yield {
                "name": f"{field.encode_name}.key",
                "in": "query",
                "description": f"`{field.encode_name}.<key>=<value>`, any number of times with other keys.",
                "schema": schema,
            }
            continue
        yield {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": _without_null(schemas.of(field.type)),
        }


def _headers(entry: Entry, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for header in entry.headers:
        yield {
            "name": header.name,
            "in": "header",
            "required": header.required,
            "description": header.description,
            "schema": schemas.of(header.kind),
        }


def _answers(entry: Entry, schemas: _Schemas) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, kind in entry.answers.items():
        answer: dict[str, Any] = {"description": "Done." if kind is None else "The answer."}
        if kind is not None:
            answer["content"] = {entry.media: {"schema": schemas.of(kind)}}
            if entry.stream:
                answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        if entry.tagged:
            answer["headers"] = _ETAG
        answers[str(status)] = answer
    return answers


def _refusals(entry: Entry, schemas: _Schemas) -> dict[str, Any]:
    by_status: dict[int, list[str]] = defaultdict(list)
    for name in problems_of(entry):
        by_status[PROBLEMS[name].status].append(name)
    refusals: dict[str, Any] = {}
    for status, names in sorted(by_status.items()):
        lines = [f"- `{name}`: {PROBLEMS[name].title}. {PROBLEMS[name].advice}" for name in names]
        schema = {"allOf": [schemas.of(Problem)], "properties": {"type": {"enum": names}}}
        refusals[str(status)] = {"description": "\n".join(lines), "content": {MEDIA_TYPE: {"schema": schema}}}
        if status in _MAY_RETRY:
            refusals[str(status)]["headers"] = _RETRY
    return refusals


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without null, which a query cannot say: a parameter may be left out instead."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if not choices:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return (rest | choices[0]) if len(choices) == 1 else rest | {"anyOf": choices}
