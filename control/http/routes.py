"""The Starlette application made of the table of routes, whose rows each *Routes class lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute

from control.errors import RefusedError
from control.http.edge import Edge, admitted, admitted_socket
from control.http.problems import refusal, status_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from control.http.entry import Entry
    from control.http.gate import Gate
    from control.settings import HttpSettings

__all__ = ["application"]


def application(entries: list[Entry], gate: Gate, settings: HttpSettings) -> Starlette:
    """Return the ASGI application."""
    paths: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for entry in entries:
        paths.setdefault(entry.path, {})[entry.method] = admitted(entry, gate)
    routes: list[BaseRoute] = [
        Route(path, _Endpoint(handlers), methods=list(handlers)) for path, handlers in paths.items()
    ]
    routes += [
        WebSocketRoute(entry.path, admitted_socket(entry, gate))
        for entry in entries
        if entry.socket is not None
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Edge, max_requests=settings.max_requests, max_body_bytes=settings.max_body_bytes)
        ],
        exception_handlers={HTTPException: _refused_by_framework},
    )
    app.router.redirect_slashes = False
    app.router.default = _nothing
    return app


class _Endpoint:
    """All methods of a path: with a route for each method, a 405 would name only the first one.

    Plain ASGI, as Starlette's own wrapping of functions costs a heartbeat more than its handler does.
    """

    def __init__(self, handlers: dict[str, Callable[[Request], Awaitable[Response]]]) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method = scope["method"]
        try:
            response = await self._handlers["GET" if method == "HEAD" else method](Request(scope, receive))
        except RefusedError as error:
            response = refusal(error)
        await response(scope, receive, send)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no route takes; the framework would close WebSockets without a word."""
    if scope["type"] != "websocket":
        raise HTTPException(404)
    await status_problem(404, None)(scope, receive, send)


# Starlette runs handlers that are no coroutines in a thread.


async def _refused_by_framework(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return status_problem(error.status_code, error.headers)
