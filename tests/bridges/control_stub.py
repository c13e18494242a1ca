"""A scripted control for agents: registrations over HTTP, and one WebSocket after the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings
from tests.bridges import frozen_channel as frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.websockets import WebSocket

KEY = "cw_enrolment_of-the-tests"
WAIT = 15.0
_KNOWN = {"hello", "heartbeat", "ack", "refuse", "report", "resync"}


class ControlStub:
    """Speaks release 0.1. What it was told is in `registrations` and `heard`; tests say what it answers."""

    def __init__(self) -> None:
        self.registrations: list[dict[str, Any]] = []
        self.taken_back: list[str | None] = []
        self.heard: list[Any] = []
        self.hellos: list[frozen.Hello] = []
        self.passed_over: list[str] = []
        """Types of messages that release 0.1 does not know."""
        self.ttl = 30.0
        self.beat = 10.0
        self.refuse: int | None = None
        """HTTP status to answer registrations with."""
        self.renews = True
        self.redirect = ""
        """Where channels are sent instead."""
        self.url = ""
        self._sockets: list[WebSocket] = []
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def up(self, port: int = 0) -> AsyncIterator[Self]:
        """Be there, at the same port as before if that is given."""
        app = Starlette(
            routes=[
                Route("/v1/agents/{agent}", self._register, methods=["PUT", "DELETE"]),
                WebSocketRoute("/v1/agents/{agent}/channel", self._channel),
            ]
        )
        with bind("127.0.0.1", port) as listener:
            server = make_server(app, HttpSettings(), stop_timeout=1)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await server.wait_started()
            host, own = address_of(listener)
            self.url = f"http://{host}:{own}"
            try:
                yield self
            finally:
                server.should_exit = True
                await task

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _register(self, request: Request) -> Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if request.method == "DELETE":
            self.taken_back.append(request.headers.get("Causeway-Epoch"))
            self._changed.set()
            return Response(status_code=204)
        self.registrations.append(await request.json())
        self._changed.set()
        if self.refuse is not None:
            problem = {"type": "unauthorized", "title": "no", "status": self.refuse, "detail": "not yet"}
            return JSONResponse(problem, status_code=self.refuse)
        agent = request.path_params["agent"]
        return JSONResponse(
            {
                "agent": agent,
                "epoch": 4,
                "ttl": self.ttl,
                "heartbeat_interval": self.beat,
                "protocol": 1,
                "channel": f"/v1/agents/{agent}/channel",
                "of_a_later_release": True,
            }
        )

    async def _channel(self, socket: WebSocket) -> None:
        assert socket.headers["Authorization"] == f"Bearer {KEY}"
        assert socket.scope["subprotocols"] == [frozen.SUBPROTOCOL]
        if self.redirect:
            await socket.send_denial_response(Response(status_code=307, headers={"Location": self.redirect}))
            return
        await socket.accept(subprotocol=frozen.SUBPROTOCOL)
        self._sockets.append(socket)
        try:
            while True:
                frame = await socket.receive_text()
                kind = json.loads(frame)["type"]
                if kind not in _KNOWN:
                    self.passed_over.append(kind)  # as that release does
                    self._changed.set()
                    continue
                message = frozen.from_agent(frame)
                if isinstance(message, frozen.Hello):
                    self.hellos.append(message)
                if isinstance(message, frozen.Heartbeat) and self.renews:
                    await self.say(frozen.Lease(ttl=self.ttl))
                self.heard.append(message)
                self._changed.set()
        except WebSocketDisconnect:
            self._changed.set()

    async def say(self, message: Any) -> None:
        await self.say_text(frozen.encode(message))

    async def say_text(self, text: str) -> None:
        await self._sockets[-1].send_text(text)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition on this stub, or on what tells it, holds."""
        async with asyncio.timeout(WAIT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def note(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()

    async def said_hello(self, times: int = 1) -> frozen.Hello:
        await self.until(lambda: len(self.hellos) >= times)
        return self.hellos[-1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]
