"""The central service behind a real HTTP server, whose answers can go on; and streams of events, read."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from causeway.client.sse import EventParser
from control.event_settings import EventSettings
from control.http.server import address_of, bind, make_server
from control.registry import events
from control.registry.store import Store
from control.settings import HttpSettings
from tests.control.service import Service, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.client.sse import Message

QUICK = EventSettings(poll_interval=0.2, heartbeat=0.2)


@dataclass
class Served:
    service: Service
    url: str
    http: httpx2.AsyncClient

    @property
    def key(self) -> str:
        return self.service.keys["application"]

    @asynccontextmanager
    async def stream(
        self, conference: str, *, after: int | None = None, **options: Any
    ) -> AsyncIterator[Stream]:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {self.key}"}
        headers |= options.pop("headers", {})
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        path = f"{self.url}/v1/conferences/{conference}/events"
        async with self.http.stream("GET", path, headers=headers, **options) as answer:
            yield Stream(answer)

    async def write(self, conference: str, n: int) -> None:
        await Store(self.service.engine).write(events.write, conference, "participant.moved", {"n": n})


class Stream:
    """A stream of events, message by message."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.comments = 0
        self._chunks = aiter(answer.aiter_bytes())
        self._parser = EventParser()
        self._waiting: list[Message] = []

    async def next(self) -> Message | None:
        """Return the next message, None at the end."""
        async with asyncio.timeout(15):
            while not self._waiting:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    return None
                self.comments += chunk.count(b":\n\n")
                self._waiting += self._parser.feed(chunk)
        return self._waiting.pop(0)

    async def take(self, count: int) -> list[dict[str, Any]]:
        found = []
        for _ in range(count):
            message = await self.next()
            assert message is not None
            body = json.loads(message.data)
            assert str(body["seq"]) == message.id
            found.append({"name": message.name, **body})
        return found


@asynccontextmanager
async def serving(database_url: str, **control: Any) -> AsyncIterator[Served]:
    http = control.pop("http", HttpSettings())
    control.setdefault("events", QUICK)
    async with running(database_url, **control) as service:
        with bind("127.0.0.1", 0) as listener:
            server = make_server(service.control.app, http, stop_timeout=1)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await server.wait_started()
            host, port = address_of(listener)
            try:
                async with httpx2.AsyncClient(timeout=20) as client:
                    yield Served(service, f"http://{host}:{port}", client)
            finally:
                service.control.stopping()
                server.should_exit = True
                await task
