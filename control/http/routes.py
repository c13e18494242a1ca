"""The table of routes, with who may use each, and the Starlette application made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from control.errors import RefusedError
from control.http.edge import Edge, protected
from control.http.problems import refusal, status_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from causeway.keys import KeyKind
    from control.http.conferences import ConferenceRoutes
    from control.http.edge import Authenticates
    from control.http.health import HealthRoutes
    from control.http.registration import ClusterRoutes
    from control.settings import HttpSettings

__all__ = ["APPLICATIONS", "CLUSTERS", "OPERATORS", "Entry", "application", "table"]

CLUSTERS: Final[frozenset[KeyKind]] = frozenset({"enrolment", "operator"})
APPLICATIONS: Final[frozenset[KeyKind]] = frozenset({"application", "operator"})
OPERATORS: Final[frozenset[KeyKind]] = frozenset({"operator"})


class Entry(NamedTuple):
    """One method of one path; `kinds` None: open to everybody."""

    method: str
    path: str
    kinds: frozenset[KeyKind] | None
    handler: Callable[[Request], Awaitable[Response]]


def table(clusters: ClusterRoutes, conferences: ConferenceRoutes, health: HealthRoutes) -> list[Entry]:
    """Return every route that there is."""
    cluster, conference = "/v1/clusters/{cluster}", "/v1/conferences/{conference}"
    room = f"{cluster}/rooms/{{room}}"
    return [
        Entry("GET", "/healthz", None, health.alive),
        Entry("GET", "/readyz", None, health.ready),
        Entry("GET", "/v1/clusters", OPERATORS, clusters.index),
        Entry("GET", cluster, CLUSTERS, clusters.show),
        Entry("PUT", cluster, CLUSTERS, clusters.register),
        Entry("DELETE", cluster, CLUSTERS, clusters.unregister),
        Entry("POST", f"{cluster}/heartbeat", CLUSTERS, clusters.heartbeat),
        Entry("PUT", f"{cluster}/capacity/{{module}}", CLUSTERS, clusters.add_capacity),
        Entry("DELETE", f"{cluster}/capacity/{{module}}", CLUSTERS, clusters.remove_capacity),
        Entry("PUT", room, CLUSTERS, clusters.open_room),
        Entry("DELETE", room, CLUSTERS, clusters.close_room),
        Entry("PUT", f"{room}/participants/{{participant}}", CLUSTERS, clusters.join),
        Entry("DELETE", f"{room}/participants/{{participant}}", CLUSTERS, clusters.leave),
        Entry("PUT", f"{room}/links/{{peer}}", CLUSTERS, clusters.link),
        Entry("GET", "/v1/conferences", APPLICATIONS, conferences.index),
        Entry("POST", "/v1/conferences", APPLICATIONS, conferences.create),
        Entry("GET", conference, APPLICATIONS, conferences.show),
        Entry("DELETE", conference, APPLICATIONS, conferences.end),
        Entry("POST", f"{conference}/join", APPLICATIONS, conferences.join),
    ]


def application(entries: list[Entry], authenticator: Authenticates, settings: HttpSettings) -> Starlette:
    """Return the ASGI application."""
    paths: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for entry in entries:
        handler = entry.handler
        if entry.kinds is not None:
            handler = protected(handler, entry.kinds, authenticator)
        paths.setdefault(entry.path, {})[entry.method] = handler
    app = Starlette(
        routes=[
            Route(path, _by_method(handlers), methods=list(handlers)) for path, handlers in paths.items()
        ],
        middleware=[
            Middleware(Edge, max_requests=settings.max_requests, max_body_bytes=settings.max_body_bytes)
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _refused_by_framework},
    )
    app.router.redirect_slashes = False
    return app


def _by_method(
    handlers: dict[str, Callable[[Request], Awaitable[Response]]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return one handler for a path: with a route for each method, a 405 would name only the first one."""

    async def dispatch(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


# Starlette runs handlers that are no coroutines in a thread.


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):
        raise error
    return refusal(error)


async def _refused_by_framework(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return status_problem(error.status_code, error.headers)
