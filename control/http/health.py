"""Routes for whoever watches the process: is it alive, is it of use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from control.errors import DatabaseUnavailableError
from control.http.edge import json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["HealthRoutes"]


class HealthRoutes:
    """`ready` says whether the database is reachable and its schema current; it gets `timeout` seconds."""

    def __init__(self, ready: Callable[[], Awaitable[bool]], *, timeout: float = 2.0) -> None:
        self._ready = ready
        self._timeout = timeout

    async def alive(self, _request: Request) -> Response:
        """GET /healthz: the process answers."""
        return json({"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: requests can be served."""
        try:
            async with asyncio.timeout(self._timeout):
                current = await self._ready()
        except TimeoutError:
            raise DatabaseUnavailableError("the database does not answer", retry_after=1) from None
        if not current:
            raise DatabaseUnavailableError("the database's schema is not this release's", retry_after=5)
        return json({"status": "ready"})
