"""A receiver of webhooks: a real HTTP server that keeps what it gets and answers as it is told."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import AsyncIterator, Callable


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes
    status: int
    """What it was answered."""

    @property
    def message(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    url: str = ""
    answer: Callable[[dict[str, Any]], int] = lambda _: 200
    """Gives the status for a message."""
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    hold: asyncio.Event | None = None
    """Set: answers wait for it."""
    under_way: int = 0
    most: int = 0
    """Requests that were under way at the same time."""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.under_way -= 1
        status = self.answer(json.loads(body))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, body, status))
        return web.Response(status=status, text="noted", headers=self.headers)

    def taken(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the messages that were answered with success, in the order in which they came."""
        found = [each.message for each in self.received if each.status == 200]
        return [each for each in found if kind is None or each["type"] == kind]


@asynccontextmanager
async def receiving(*, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    try:
        port = runner.addresses[0][1]
        receiver.url = f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{port}/hook"
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        await runner.cleanup()
