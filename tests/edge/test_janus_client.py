"""The client of a Janus server's API, against servers that behave badly, and a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from causeway.errors import ConfigError
from edge.janus.client import JanusLostError, JanusRefusedError, connected
from edge.janus.messages import ListRooms
from edge.janus.settings import JanusSettings
from tests.edge.janus_server import ADMIN_KEY, API_SECRET, janus_server
from tests.lab.cluster_kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

QUICK: dict[str, Any] = {"call_timeout": 0.3, "connect_timeout": 0.3, "keepalive_interval": 0.1}
Answer = str | list[str] | None
PLUGIN = "janus.plugin.videoroom"


class Stub:
    """Answers what a session needs, and to the rest what `answer` gives; None: nothing at all."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self.answer = answer
        self.signs = 0
        self.quiet = False
        self.url = ""

    async def serve(self, connection: ServerConnection) -> None:
        async for text in connection:
            asked = json.loads(text)
            answer: Answer
            match asked["janus"]:
                case "create" | "attach":
                    answer = self.say(asked, janus="success", data={"id": 7})
                case "keepalive":
                    self.signs += 1
                    answer = None if self.quiet else self.say(asked, janus="ack")
                case _:
                    answer = self.answer(asked)
            for one in [answer] if isinstance(answer, str) else answer or ():
                await connection.send(one)

    @staticmethod
    def say(asked: dict[str, Any], **said: Any) -> str:
        return json.dumps({"transaction": asked["transaction"], "session_id": 7} | said)


@contextlib.asynccontextmanager
async def stub(answer: Callable[[dict[str, Any]], Answer]) -> AsyncIterator[Stub]:
    there = Stub(answer)
    async with serve(there.serve, "127.0.0.1", 0) as server:
        there.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield there


def settings(url: str, **changes: Any) -> JanusSettings:
    return msgspec.structs.replace(JanusSettings(url=url, **QUICK), **changes)


async def test_signs_of_life_keep_a_connection_and_their_lack_ends_it() -> None:
    async with stub(lambda _: None) as server, connected(settings(server.url)) as client:
        await until(lambda: server.signs >= 3)
        server.quiet = True
        async with asyncio.timeout(5):
            assert "does not answer" in await client.wait_lost()
        with pytest.raises(JanusLostError):
            await client.attach(on_news=lambda: None)


def news(count: int) -> str:
    told = {"videoroom": "event", "room": 1, "leaving": count}
    return json.dumps({"janus": "event", "sender": 7, "plugindata": {"plugin": PLUGIN, "data": told}})


@pytest.mark.parametrize(
    "answer",
    [
        lambda _asked: None,
        lambda _asked: "no JSON",
        lambda _asked: '{"janus":"timeout","session_id":7}',
        lambda _asked: '{"janus":"detached","session_id":7,"sender":7}',
        lambda _asked: "x" * 5000,
    ],
    ids=["silence", "nonsense", "session over", "handle over", "too much"],
)
async def test_bad_servers_are_lost_and_whoever_waits_is_told(
    answer: Callable[[dict[str, Any]], str | None],
) -> None:
    async with (
        stub(answer) as server,
        connected(settings(server.url, max_message_bytes=4096, keepalive_interval=30.0)) as client,
    ):
        room = await client.attach(on_news=lambda: None)
        with pytest.raises(JanusLostError):
            await room.ask(ListRooms())
        async with asyncio.timeout(5):
            await client.wait_lost()


def answered(asked: dict[str, Any]) -> str:
    return Stub.say(asked, janus="success", plugindata={"plugin": PLUGIN, "data": {}})


async def test_news_is_kept_up_to_a_limit() -> None:
    told: list[bool] = []
    async with (
        stub(lambda asked: [*map(news, range(3)), answered(asked)]) as server,
        connected(settings(server.url, max_waiting=3)) as client,
    ):
        room = await client.attach(on_news=lambda: told.append(True))
        await room.ask(ListRooms())
        assert len(told) == 3
        assert [one.leaving for one in room.drain()] == [0, 1, 2]
        assert [*room.drain()] == []
        await room.ask(ListRooms())
        with pytest.raises(JanusLostError, match="more news"):
            await room.ask(ListRooms())
        async with asyncio.timeout(5):
            await client.wait_lost()


async def test_where_there_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # takes connections, and says nothing
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(JanusLostError):
            async with connected(settings(url)):
                pass
    with pytest.raises(JanusLostError):
        async with connected(settings(url)):
            pass
    with pytest.raises(ConfigError):
        async with connected(settings("ws://")):
            pass


async def test_a_real_server_and_its_secrets() -> None:
    with janus_server() as server:
        with pytest.raises(JanusRefusedError) as refused:
            async with connected(settings(server.url, api_secret="guessed")):
                pass
        assert refused.value.number == 403
        async with connected(settings(server.url, api_secret=API_SECRET, call_timeout=5.0)) as client:
            room = await client.attach(on_news=lambda: None)
            assert (await room.ask(ListRooms(admin_key=ADMIN_KEY))).rooms == []
            await client.detach(room)
            server.kill()
            async with asyncio.timeout(5):
                await client.wait_lost()
