"""Agents as control sees them: registered over HTTP, with a real WebSocket to a real server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
import websockets

from causeway.channel import (
    Ack,
    Delta,
    Desired,
    Goodbye,
    Hello,
    LeaseRenewed,
    decode_from_control,
    encode,
    subprotocol,
)
from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.channel import Assignment, FromAgent, FromControl
    from tests.control.service import Service

T = TypeVar("T", bound="FromControl")


@asynccontextmanager
async def listening(service: Service, settings: HttpSettings | None = None) -> AsyncIterator[str]:
    """Serve the service on a socket; yields `host:port`."""
    with bind("127.0.0.1", 0) as listener:
        server = make_server(service.control.app, settings or HttpSettings(), stop_timeout=1)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.wait_started()
        host, port = address_of(listener)
        try:
            yield f"{host}:{port}"
        finally:
            server.should_exit = True
            await task


@dataclass
class Agent:
    """An agent of one cluster; `at` is control's `host:port`."""

    id: str
    cluster: str
    at: str
    key: str
    kinds: tuple[str, ...] = ("event", "media")
    wires: tuple[str, ...] = ()
    instance: str = "i1"
    conferences: int = 10
    port: int = 7700
    epoch: int = 0

    def registration(self, **changes: Any) -> dict[str, Any]:
        bridges = {
            kind: {"host": "127.0.0.1", "port": self.port + number, "fingerprint": "a" * 64}
            for number, kind in enumerate(("event", "media"))
            if kind in self.kinds
        }
        body: dict[str, Any] = {
            "cluster": self.cluster,
            "region": "eu",
            "kinds": list(self.kinds),
            "addresses": bridges,
            "wires": list(self.wires),
            "capacity": {"conferences": self.conferences},
            "version": "1.0",
            "protocol": {"min": 1, "max": 1},
            "instance": self.instance,
        }
        return body | changes

    async def put(self, **changes: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx2.AsyncClient(base_url=f"http://{self.at}", headers=headers, timeout=20) as client:
            return await client.put(f"/v1/agents/{self.id}", json=self.registration(**changes))

    async def register(self, **changes: Any) -> dict[str, Any]:
        answer = await self.put(**changes)
        assert answer.status_code == 200, answer.text
        lease: dict[str, Any] = answer.json()
        self.epoch = lease["epoch"]
        return lease

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Channel]:
        """Register, open the channel and say hello."""
        await self.register()
        async with self.channel() as channel:
            await channel.say(Hello(epoch=self.epoch))
            yield channel

    @asynccontextmanager
    async def channel(self, **options: Any) -> AsyncIterator[Channel]:
        async with websockets.connect(
            f"ws://{self.at}/v1/agents/{self.id}/channel",
            additional_headers={"Authorization": f"Bearer {self.key}"},
            **({"subprotocols": [subprotocol()], "max_size": None} | options),
        ) as socket:
            yield Channel(socket)


@dataclass
class Channel:
    socket: Any
    state: dict[str, Assignment] = field(default_factory=dict)
    version: int | None = None

    async def say(self, message: FromAgent) -> None:
        await self.socket.send(encode(message))

    async def say_text(self, text: str | bytes) -> None:
        await self.socket.send(text)

    async def hear(self, kind: type[T], *, timeout: float = 15.0) -> T:
        """Return the next message of this kind, having taken the others."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self._next()
                if isinstance(message, kind):
                    return message

    async def until(self, condition: Any, *, timeout: float = 15.0) -> dict[str, Assignment]:
        """Take messages until the state that was told meets the condition; return it."""
        try:
            async with asyncio.timeout(timeout):
                while self.version is None or not condition(self.state):
                    await self._next()
        except TimeoutError:
            raise AssertionError(f"still: {self.state}") from None
        return self.state

    async def end(self, *, timeout: float = 15.0) -> Goodbye | None:
        """Take messages until control closes; return its good-bye, if it said one."""
        goodbye: Goodbye | None = None
        async with asyncio.timeout(timeout):
            try:
                while True:
                    message = await self._next()
                    goodbye = message if isinstance(message, Goodbye) else goodbye
            except websockets.ConnectionClosed:
                return goodbye

    async def _next(self) -> Any:
        message = decode_from_control(await self.socket.recv())
        match message:
            case Desired():
                self.version = message.version
                self.state = {each.conference: each for each in message.conferences}
                await self.say(Ack(version=message.version))
            case Delta():
                assert message.base == self.version
                self.version = message.version
                for conference in message.drop:
                    del self.state[conference]
                self.state |= {each.conference: each for each in message.set}
                await self.say(Ack(version=message.version))
            case LeaseRenewed() | Goodbye():
                pass
        return message
