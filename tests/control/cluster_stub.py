"""What the stubs of all kinds of clusters have in common: a real HTTP server in the test's own event loop.

Everything that it was asked is in `calls`. It can be told to misbehave: see `behave`. A subclass says how
requests authenticate and which routes there are.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

__all__ = ["Call", "ClusterStub", "Route", "Trouble"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that passed authentication. `room`: what is named in the path, a recording perhaps."""

    kind: str
    room: str | None
    body: Any
    query: Mapping[str, str] = field(default_factory=dict)
    peer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What to answer instead. `hang`: nothing, until the stub closes; `lose_answer`: obey, cut the line."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    lose_answer: bool = False


@dataclass(frozen=True)
class Route:
    """A call of the API. The path may have one `{room}`."""

    kind: str
    method: str
    path: str
    handler: Callable[[str, Any], web.Response]


class ClusterStub:
    """One cluster. Attributes may be changed at any time."""

    def __init__(
        self,
        *,
        service_id: str,
        service_key: str,
        path: str = "",
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.service_id = service_id
        self.service_key = service_key
        self.calls: list[Call] = []
        self.refused = 0
        """Requests answered 401."""
        self.in_flight = 0
        self.url = ""
        self.path = path
        self._host = host
        self._ssl = ssl_context
        self._troubles: dict[str, deque[Trouble]] = {}
        self._always: dict[str, Trouble] = {}
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- for subclasses -----------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return what is served."""
        raise NotImplementedError

    def authentic(self, header: str) -> bool:
        """Look at the header `Authorization`."""
        raise NotImplementedError

    def error(self, request: web.Request, status: int) -> web.Response:
        """Answer 401 or 400 (for a body that is no JSON) as this kind of cluster does."""
        raise NotImplementedError

    # --- for tests ----------------------------------------------------------------------------

    def behave(self, kind: str, *troubles: Trouble, always: Trouble | None = None) -> None:
        """Have the next calls of a kind meet these troubles, one each; `always` goes on for good."""
        self._troubles[kind] = deque(troubles)
        if always is None:
            self._always.pop(kind, None)
        else:
            self._always[kind] = always

    def made(self, kind: str) -> list[Call]:
        """Return the calls of one kind, in order."""
        return [call for call in self.calls if call.kind == kind]

    async def wait_for(self, condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait until the condition holds; it is looked at after every call."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)

    # --- server -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 20)
        for route in self.routes():
            app.router.add_route(route.method, self.path + route.path, self._served(route))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0, ssl_context=self._ssl)
        await site.start()
        port = self._runner.addresses[0][1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._ssl else 'http'}://{name}:{port}{self.path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def _served(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.in_flight += 1
            try:
                return await self._answer(route, request)
            finally:
                self.in_flight -= 1
                async with self._changed:
                    self._changed.notify_all()

        return answer

    async def _answer(self, route: Route, request: web.Request) -> web.StreamResponse:
        if not self.authentic(request.headers.get("Authorization", "")):
            self.refused += 1
            return self.error(request, 401)
        body = await request.read()
        try:
            content = json.loads(body) if body else None
        except ValueError:
            return self.error(request, 400)
        room = request.match_info.get("room")
        peer = request.match_info.get("peer")
        self.calls.append(
            Call(kind=route.kind, room=room, body=content, query=dict(request.query), peer=peer)
        )
        async with self._changed:
            self._changed.notify_all()
        queued = self._troubles.get(route.kind)
        trouble = queued.popleft() if queued else self._always.get(route.kind)
        if trouble is None:
            return route.handler(room or "", content)
        if trouble.hang:
            await self._closing.wait()
        if trouble.lose_answer:
            route.handler(room or "", content)
            if request.transport is not None:
                request.transport.abort()
        return web.Response(status=trouble.status, body=trouble.body, headers=trouble.headers)
