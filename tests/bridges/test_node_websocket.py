"""The WebSocket carrier against a real server that plays the cluster, and against ones that misbehave."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridges.node.port import NodeUnreachableError, RpcError
from bridges.node.websocket import NodeSettings, WebSocketNode
from bridges.wire import rpc
from causeway.errors import ConfigError
from tests.bridges.node_service import Service
from tests.bridges.node_stub import CONFERENCE_WORKER, SECRET, NodeStub, StubRpcError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WAIT = 10.0
FAST = NodeSettings(retry_base=0.02, retry_cap=0.1, ping_interval=0.1, ping_timeout=0.3, connect_timeout=1.0)


@asynccontextmanager
async def connected(
    url: str, *, settings: NodeSettings = FAST, join: bool = True
) -> AsyncIterator[tuple[WebSocketNode, Service]]:
    node = WebSocketNode(url, secret=SECRET, purpose="eventbridge", host="127.0.0.1", settings=settings)
    service = Service()
    task = asyncio.create_task(node.run(service, info={"port": 7}))
    try:
        if join:
            async with asyncio.timeout(WAIT):
                await node.wait_joined()
        yield node, service
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_joins_with_what_a_worker_says_of_itself() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, service):
        purpose, worker, info = stub.joins[0]
        assert purpose == "eventbridge"
        assert worker == node.worker_id
        assert worker.startswith("eventbridge-")
        assert worker.endswith("@127.0.0.1")
        assert len(worker) == len("eventbridge-") + 20 + len("@127.0.0.1")
        assert info == {
            "ip": "127.0.0.1",
            "port": 7,
            "purpose": "eventbridge",
            "state": 2,
            "maxLoad": 0.85,
            "capacity": {},
        }
        assert service.connected == 1


async def test_finds_the_conference_node() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):
        stub.room("room-1")
        assert await node.find_conference_node("room-1") == f"{CONFERENCE_WORKER}_0"
        assert ("owt-cluster", "schedule", ["conference", "room-1", "preference", 30000]) in stub.calls
        with pytest.raises(RpcError, match="no such room"):
            await node.find_conference_node("nowhere")


async def test_no_conference_agent_is_not_the_rooms_end() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):

        async def none_left(_to: str, _args: list[Any]) -> Any:
            raise StubRpcError("no worker matched")

        stub.handlers["schedule"] = none_left
        with pytest.raises(NodeUnreachableError, match="no worker"):
            await node.find_conference_node("room-1")


@pytest.mark.parametrize("answer", [None, 5, {}, {"id": 5}, []])
async def test_answers_of_the_wrong_shape(answer: Any) -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):

        async def odd(_to: str, _args: list[Any]) -> Any:
            return answer

        stub.handlers["schedule"] = odd
        with pytest.raises(RpcError, match="shape"):
            await node.find_conference_node("room-1")


async def test_call_that_is_not_answered_in_time() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):
        stub.room("r")
        stub.deliver.clear()
        with pytest.raises(NodeUnreachableError, match="handleCascadingEvents: no reply in time"):
            await node.call(f"{CONFERENCE_WORKER}_0", "handleCascadingEvents", ["b", "c", {}], timeout=0.05)
        stub.deliver.set()
        assert await node.call(f"{CONFERENCE_WORKER}_0", "getRoomToken", []) == "room-token"


async def test_cancelled_call_leaves_nothing() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):
        stub.room("r")
        stub.deliver.clear()
        call = asyncio.create_task(
            node.call(f"{CONFERENCE_WORKER}_0", "handleCascadingEvents", ["b", "c", {}])
        )
        await stub.until(lambda: any(method == "handleCascadingEvents" for _, method, _ in stub.calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(node._calls) == 0


async def test_calls_fail_at_once_without_a_connection() -> None:
    node = WebSocketNode("ws://127.0.0.1:1/node", secret=SECRET, purpose="p", host="h")
    with pytest.raises(NodeUnreachableError, match="not connected"):
        await node.call("x", "y", [])


async def test_too_many_calls_at_once() -> None:
    settings = msgspec.structs.replace(FAST, max_outstanding=2)
    async with NodeStub() as stub, connected(stub.url, settings=settings) as (node, _):
        stub.room("r")
        stub.deliver.clear()
        target = f"{CONFERENCE_WORKER}_0"
        calls = [
            asyncio.create_task(node.call(target, "handleCascadingEvents", ["b", "c", {}])) for _ in range(2)
        ]
        await stub.until(lambda: sum(method == "handleCascadingEvents" for _, method, _ in stub.calls) == 2)
        with pytest.raises(NodeUnreachableError, match="wait for a reply already"):
            await node.call(target, "getRoomToken", [])
        stub.deliver.set()
        assert await asyncio.gather(*calls) == ["ok", "ok"]


async def test_serves_the_clusters_calls() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, _):
        assert await stub.call(node.worker_id, "echo", 1, {"a": [None]}) == [1, {"a": [None]}]
        for method, reason in (
            ("fail", "as you wish"),
            ("unreachable", "node-unreachable: nobody there"),
            ("crash", "internal error"),
            ("unserialisable", "internal error"),
            ("nonsense", "no such method"),
        ):
            with pytest.raises(StubRpcError) as failed:
                await stub.call(node.worker_id, method)
            assert str(failed.value) == reason


async def test_calls_for_somebody_else_are_refused() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, service):
        stub.workers["other"] = stub.workers[node.worker_id]
        with pytest.raises(StubRpcError, match="no such server"):
            await stub.call("other", "echo")
        del stub.workers["other"]
        assert service.begun == []


async def test_calls_are_begun_in_order_and_bounded() -> None:
    settings = msgspec.structs.replace(FAST, max_concurrent=50)
    async with NodeStub() as stub, connected(stub.url, settings=settings) as (node, service):
        waiting = [asyncio.create_task(stub.call(node.worker_id, "wait", n)) for n in range(50)]
        await service.until(lambda: len(service.begun) == 50)
        with pytest.raises(StubRpcError, match="busy"):
            await stub.call(node.worker_id, "echo", "more")
        assert service.begun == list(range(50))
        service.release.set()
        assert await asyncio.gather(*waiting) == ["ok"] * 50
        assert await stub.call(node.worker_id, "echo", "fits") == ["fits"]


async def test_lost_connection_fails_calls_and_is_dialled_again() -> None:
    async with NodeStub() as stub, connected(stub.url) as (node, service):
        stub.room("r")
        stub.deliver.clear()
        call = asyncio.create_task(
            node.call(f"{CONFERENCE_WORKER}_0", "handleCascadingEvents", ["b", "c", {}], timeout=60)
        )
        await stub.until(lambda: any(method == "handleCascadingEvents" for _, method, _ in stub.calls))
        await stub.stop()
        with pytest.raises(NodeUnreachableError, match="broke"):
            await call
        await service.until(lambda: service.lost == 1)
        assert not node.joined
        stub.deliver.set()
        await stub.start()
        await service.until(lambda: service.connected == 2)
        assert node.connects == 2
        assert len({join[1] for join in stub.joins}) == 1  # the same worker


async def test_cluster_that_is_not_in_service_yet_is_asked_again() -> None:
    async with NodeStub() as stub:
        stub.join_state = "initializing"
        async with connected(stub.url, join=False) as (node, service):
            await stub.until(lambda: len(stub.joins) >= 2)
            assert service.connected == 0
            stub.join_state = "in-service"
            async with asyncio.timeout(WAIT):
                await node.wait_joined()


async def test_wrong_secret_never_joins() -> None:
    async with NodeStub() as stub:
        node = WebSocketNode(stub.url, secret="wrong", purpose="p", host="h", settings=FAST)
        task = asyncio.create_task(node.run(Service(), info={}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await node.wait_joined()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stub.joins == []


@asynccontextmanager
async def misbehaving(behave: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async def handler(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await behave(connection)

    async with serve(handler, "127.0.0.1", 0, ping_interval=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def answer_join(connection: ServerConnection) -> None:
    request = rpc.decode(await connection.recv(decode=False))
    assert isinstance(request, rpc.Request)
    await connection.send(rpc.encode(rpc.Reply(corr_id=request.corr_id or 0, data="in-service")), text=True)


@pytest.mark.parametrize("junk", ["{", "[]", '{"to":5}', '{"type":"callback"}', "\u0000"])
async def test_junk_costs_the_connection_and_nothing_else(junk: str) -> None:
    sent = 0

    async def behave(connection: ServerConnection) -> None:
        nonlocal sent
        await answer_join(connection)
        sent += 1
        if sent <= 2:
            await connection.send(junk)
        await connection.wait_closed()

    async with misbehaving(behave) as url, connected(url) as (node, service):
        await service.until(lambda: service.connected == 3)
        assert service.lost == 2
        assert node.joined


async def test_oversized_message_costs_the_connection() -> None:
    sent = 0

    async def behave(connection: ServerConnection) -> None:
        nonlocal sent
        await answer_join(connection)
        sent += 1
        if sent == 1:
            await connection.send("x" * (rpc.MAX_RPC_BYTES + 1))
        await connection.wait_closed()

    async with misbehaving(behave) as url, connected(url) as (_, service):
        await service.until(lambda: service.connected == 2)


async def test_unknown_replies_are_ignored() -> None:
    async def behave(connection: ServerConnection) -> None:
        await answer_join(connection)
        await connection.send(rpc.encode(rpc.Reply(corr_id=77, data=1)), text=True)
        await connection.send(
            rpc.encode(rpc.Request(to=worker[0], method="echo", args=[1], corr_id=5)), text=True
        )
        reply = rpc.decode(await connection.recv(decode=False))
        assert reply == rpc.Reply(corr_id=5, data=[1])
        answered.set()
        await connection.wait_closed()

    worker: list[str] = []
    answered = asyncio.Event()
    async with misbehaving(behave) as url:
        node = WebSocketNode(url, secret=SECRET, purpose="p", host="h", settings=FAST)
        worker.append(node.worker_id)
        task = asyncio.create_task(node.run(Service(), info={}))
        async with asyncio.timeout(WAIT):
            await answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_calls_before_the_join_is_answered_are_served_after_it() -> None:
    answered = asyncio.Event()

    async def behave(connection: ServerConnection) -> None:
        join = rpc.decode(await connection.recv(decode=False))
        assert isinstance(join, rpc.Request)
        early = rpc.Request(to=join.args[1], method="echo", args=["early"], corr_id=9)
        await connection.send(rpc.encode(early), text=True)
        await connection.send(rpc.encode(rpc.Reply(corr_id=join.corr_id or 0, data="in-service")), text=True)
        assert rpc.decode(await connection.recv(decode=False)) == rpc.Reply(corr_id=9, data=["early"])
        answered.set()
        await connection.wait_closed()

    async with misbehaving(behave) as url, connected(url):
        async with asyncio.timeout(WAIT):
            await answered.wait()


async def test_silent_cluster_is_noticed() -> None:
    """A cluster whose process is stopped: the socket stays, but no pong comes."""
    silent = asyncio.Event()

    async def behave(connection: ServerConnection) -> None:
        await answer_join(connection)
        if not silent.is_set():
            silent.set()
            connection.transport.pause_reading()
        await connection.wait_closed()

    async with misbehaving(behave) as url, connected(url) as (_, service):
        await service.until(lambda: service.lost >= 1)
        await service.until(lambda: service.connected >= 2)


@pytest.mark.parametrize(
    "url", ["http://h/node", "h:1", "ws://", "", "ws://h:99999/", "ws://h:0/", "ws://user:pw@h/node"]
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        WebSocketNode(url, secret=SECRET, purpose="p", host="h")
    assert "pw" not in str(wrong.value)


def test_secret_does_not_show() -> None:
    node = WebSocketNode("ws://h", secret="hush-hush", purpose="p", host="h")
    assert "hush-hush" not in repr(node)
