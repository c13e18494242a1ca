"""Routes for whoever watches the process: is it alive, is it of use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from causeway.api.base import Answer
from control.errors import DatabaseUnavailableError
from control.http.edge import json
from control.http.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Alive", "HealthRoutes", "Ready"]


class Alive(Answer, frozen=True, kw_only=True):
    """`GET /healthz`: the process answers."""

    status: Literal["alive"] = "alive"


class Ready(Answer, frozen=True, kw_only=True):
    """`GET /readyz`: requests can be served."""

    status: Literal["ready"] = "ready"


class HealthRoutes:
    """`ready` says whether the database is reachable and its schema fit for us; it gets `timeout` seconds."""

    def __init__(self, ready: Callable[[], Awaitable[bool]], *, timeout: float = 2.0) -> None:
        self._ready = ready
        self._timeout = timeout

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/healthz",
                None,
                self.alive,
                tag="health",
                summary="Answer while the process runs.",
                answers={200: Alive},
            ),
            Entry(
                "GET",
                "/readyz",
                None,
                self.ready,
                tag="health",
                summary="Answer while requests can be served: database reachable, its schema fit for us.",
                answers={200: Ready},
                problems=("database-unavailable",),
            ),
        ]

    async def alive(self, _request: Request) -> Response:
        """GET /healthz: the process answers."""
        return json(Alive())

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: requests can be served."""
        try:
            async with asyncio.timeout(self._timeout):
                current = await self._ready()
        except TimeoutError:
            raise DatabaseUnavailableError("the database does not answer", retry_after=1) from None
        if not current:
            raise DatabaseUnavailableError("the database's schema does not fit this release", retry_after=5)
        return json(Ready())
