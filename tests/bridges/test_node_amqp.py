"""The AMQP carrier at a real broker, with a cluster that is played as OWT's."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from bridges.node.amqp.cluster_id import ask_cluster_id
from bridges.node.amqp.node import AmqpNode
from bridges.node.amqp.settings import AmqpSettings
from bridges.node.port import NodeUnreachableError, RpcError
from tests.bridges.node_service import Service
from tests.bridges.owt_cluster import MANAGER, WAIT, OwtCluster, OwtError, owt_cluster
from tests.rabbitmq import PASSWORD, RABBITMQ, VHOST, RabbitMq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

pytestmark = RABBITMQ


@asynccontextmanager
async def cluster_of(rabbitmq: RabbitMq) -> AsyncIterator[OwtCluster]:
    async with owt_cluster("c-east", rabbitmq.url()) as cluster:
        yield cluster


@asynccontextmanager
async def worker(
    rabbitmq: RabbitMq, *, purpose: str = "eventbridge", has_node: bool = False, **changes: Any
) -> AsyncIterator[tuple[AmqpNode, Service]]:
    settings = AmqpSettings(**{"url": rabbitmq.url(), **changes})
    node = AmqpNode(settings, purpose=purpose, host="192.0.2.9", has_node=has_node, load=lambda: 0.5)
    service = Service()
    running = asyncio.create_task(node.run(service, info={"port": 7700}))
    try:
        yield node, service
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_worker_joins_lives_reports_and_quits(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster:
        cluster.state = "initializing"
        async with worker(rabbitmq, keep_alive_interval=0.1) as (node, service):
            id_ = await cluster.joined("eventbridge")
            await node.wait_joined()
            assert id_ == node.worker_id == node.node_id
            assert id_.startswith("eventbridge-")
            assert id_.endswith("@192.0.2.9")
            assert cluster.workers[id_][1] == {
                "ip": "192.0.2.9",
                "port": 7700,
                "purpose": "eventbridge",
                "state": 2,
                "maxLoad": 0.85,
                "max_load": 0.85,
                "capacity": {"isps": [], "regions": []},
            }
            await cluster.bus.until(lambda: cluster.alive.count(id_) >= 3 and cluster.loads == [0.5])
            assert (service.connected, service.lost) == (1, 0)
        await cluster.bus.until(lambda: cluster.quits == [id_])
        assert service.lost == 1


async def test_calls_are_served_in_order_and_answered_as_owt_answers(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq) as (node, service):
        id_ = await cluster.joined("eventbridge")
        assert await cluster.bus.call(id_, "echo", 1, {"a": [None]}) == [1, {"a": [None]}]
        for method, reason in (
            ("fail", "as you wish"),
            ("unreachable", "node-unreachable: nobody there"),
            ("crash", "internal error"),
            ("unserialisable", "internal error"),
            ("nope", "no such method"),
        ):
            with pytest.raises(OwtError, match=f"^{reason}$"):
                await cluster.bus.call(id_, method)
        service.begun.clear()
        for number in range(300):
            await cluster.bus.cast(id_, "echo", number)
        await service.until(lambda: len(service.begun) == 300)
        assert service.begun == list(range(300))
        assert node.rejected == 0


async def test_calls_beyond_the_limit_wait_at_the_broker(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq, max_concurrent=8) as (_, service):
        id_ = await cluster.joined("eventbridge")
        calls = [asyncio.create_task(cluster.bus.call(id_, "wait")) for _ in range(20)]
        await service.until(lambda: len(service.begun) == 8)
        service.release.set()
        assert await asyncio.gather(*calls) == ["ok"] * 20


async def test_what_cannot_be_read_is_dropped_and_counted(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq, max_message_bytes=4096) as (node, service):
        id_ = await cluster.joined("eventbridge")
        bad = [
            b"",
            b"\xff\x00",
            b"[1, 2]",
            b'{"args": []}',
            b'{"method": 7, "args": []}',
            b'{"method": "echo", "args": "no list"}',
            json.dumps({"method": "echo", "args": list(range(17))}).encode(),
            json.dumps({"method": "echo", "args": ["x" * 5000]}).encode(),
            b"[" * 4000,
        ]
        for body in bad:
            await cluster.bus.publish_raw(id_, body)
            await cluster.bus.announce_raw(body)
            await cluster.bus.publish_raw(id_, body, exchange=True)
        assert await cluster.bus.call(id_, "echo", "fine") == ["fine"]
        assert service.begun == ["fine"]
        async with asyncio.timeout(WAIT):
            while node.rejected < 3 * len(bad):
                await cluster.bus.call(id_, "echo")
        assert (service.connected, service.lost, service.gone) == (1, 0, [])
        assert node.counters == {"node_losses": 0, "node_bad_messages": node.rejected}


async def test_replies_that_cannot_be_read_hurt_nobody_else(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq) as (node, _):
        await node.wait_joined()

        async def answer(method: str, args: list[Any]) -> Any:
            reply_to = args[0]
            for body in (b"", b"{}", b'{"type": "callback"}', b'{"type":"callback","corrID":99,"data":1}'):
                await cluster.bus.publish_raw(reply_to, body, exchange=True)
            return "right"

        await cluster.bus.serve("odd", answer)
        broker = node._client._broker
        assert broker is not None
        assert await node.call("odd", "x", [broker.reply_to]) == "right"


async def test_the_conference_node_is_found_as_owt_finds_it(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq) as (node, _):
        with pytest.raises(NodeUnreachableError, match="not a member"):
            await node.find_conference_node("room-1")
        await node.wait_joined()
        room = await cluster.room("room-1")
        assert await node.find_conference_node("room-1") == room.id
        assert await node.call(room.id, "getRoomToken", []) == room.token
        with pytest.raises(RpcError, match="not running"):
            await node.find_conference_node("nobody-is-there")
        with pytest.raises(RpcError, match="Not support method"):
            await node.call(room.id, "nope", [])
        with pytest.raises(RpcError, match="there is no nobody"):
            await node.call("nobody", "x", [], timeout=0.1)


async def test_a_silent_server_is_not_waited_for_longer_than_asked(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq, max_outstanding=2) as (node, _):
        await node.wait_joined()
        never = asyncio.Event()

        async def silent(method: str, args: list[Any]) -> None:
            await never.wait()

        await cluster.bus.serve("silent", silent)
        with pytest.raises(NodeUnreachableError, match="no reply in time"):
            await node.call("silent", "x", [], timeout=0.1)
        waiting = [asyncio.create_task(node.call("silent", "x", [], timeout=5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NodeUnreachableError, match="wait for a reply already"):
            await node.call("silent", "x", [], timeout=0.1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(node._client._calls) == 0
        never.set()


async def test_forgotten_without_a_word_it_joins_again_and_keeps_what_runs(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq, keep_alive_interval=0.1) as (node, service):
        await node.wait_joined()
        cluster.workers.clear()  # a manager that was restarted
        cluster.state = "initializing"
        await cluster.bus.until(lambda: len(cluster.joins) == 2)
        await cluster.bus.until(lambda: cluster.worker("eventbridge"))
        assert (service.connected, service.lost) == (1, 0)
        assert await cluster.bus.call(node.worker_id, "echo") == []


async def test_removed_for_all_to_hear_it_begins_anew(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq, keep_alive_interval=0.1) as (node, service):
        await node.wait_joined()
        await cluster.drop(node.worker_id)
        await service.until(lambda: service.connected == 2)
        assert service.lost == 1
        assert set(cluster.joins) == {("eventbridge", node.worker_id)}


async def test_dead_conference_nodes_are_heard_of_and_others_passed_over(rabbitmq: RabbitMq) -> None:
    async with cluster_of(rabbitmq) as cluster, worker(rabbitmq) as (node, service):
        await node.wait_joined()
        for purpose in ("webrtc", "portal"):
            await cluster.bus.announce("error", {"purpose": purpose, "id": "someone", "type": "node"})
        await cluster.bus.announce("abnormal", {"purpose": "conference", "id": "c_1", "type": "node"})
        await cluster.bus.announce("quit", {"purpose": "conference", "id": "c", "type": "worker"})
        await cluster.bus.announce("strange", {"purpose": "conference", "id": "x", "type": "worker"})
        await service.until(lambda: len(service.gone) == 2)
        assert service.gone == ["c_1", "c"]
        assert service.lost == 0


async def test_a_media_bridges_worker_says_which_node_serves(rabbitmq: RabbitMq) -> None:
    async with (
        cluster_of(rabbitmq) as cluster,
        worker(rabbitmq, purpose="mediabridge", has_node=True, keep_alive_interval=0.1) as (node, service),
    ):
        await node.wait_joined()
        assert node.node_id == f"{node.worker_id}_0"
        assert await cluster.media_node("session-1") == node.node_id
        assert await cluster.media_node("session-1") == node.node_id
        call = cluster.bus.call
        assert await call(node.worker_id, "queryNode", "session-1") == node.node_id
        assert await call(node.node_id, "echo", 5) == [5]
        for method, args in (
            ("echo", ()),
            ("queryNode", ("other",)),
            ("getNode", ("x",)),
            ("recycleNode", ("other", {})),
        ):
            with pytest.raises(OwtError):
                await call(node.worker_id, method, *args)
        cluster.workers.clear()
        await cluster.bus.until(lambda: ("pickUpTasks", ["session-1"]) in cluster.tasks[1:])
        about = {"room": "session-1", "task": "session-1"}
        assert await call(node.worker_id, "recycleNode", node.node_id, about) == "ok"
        await cluster.bus.until(lambda: cluster.tasks[-1] == ("layDownTask", "session-1"))
        assert service.begun == [5]


class Way:
    """The way to the broker, which can be cut, or fall silent."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._clear = asyncio.Event()
        self._clear.set()

    @classmethod
    @asynccontextmanager
    async def to(cls, rabbitmq: RabbitMq) -> AsyncIterator[tuple[Way, str]]:
        way = cls(rabbitmq.port)
        server = await asyncio.start_server(way._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield way, rabbitmq.url().replace(f":{rabbitmq.port}/", f":{port}/")
        finally:
            server.close()
            way._clear.set()
            way.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        self._clear.clear()

    def mend(self) -> None:
        self._clear.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except OSError:
            return
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._clear.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_a_connection_that_breaks_costs_no_call_and_no_notice(rabbitmq: RabbitMq, how: str) -> None:
    async with (
        cluster_of(rabbitmq) as cluster,
        Way.to(rabbitmq) as (way, url),
        worker(rabbitmq, url=url, heartbeat=1, keep_alive_interval=0.1, retry_cap=0.2) as (node, service),
    ):
        await node.wait_joined()
        heard: list[int] = []
        stuck, go = asyncio.Event(), asyncio.Event()

        async def take(method: str, args: list[Any]) -> int:
            heard.append(args[0])
            stuck.set()
            await go.wait()
            return int(args[0])

        await cluster.bus.serve("counter", take)
        first = asyncio.create_task(node.call("counter", "take", [1], timeout=20))
        await stuck.wait()
        getattr(way, how)()
        later = [asyncio.create_task(node.call("counter", "take", [n], timeout=20)) for n in range(2, 5)]
        await cluster.bus.announce("error", {"purpose": "conference", "id": "c_9", "type": "node"})
        go.set()
        if how == "silence":
            broker = node._client._broker
            assert broker is not None
            await broker.wait_lost()
            way.mend()
        assert await first == 1
        assert await asyncio.gather(*later) == [2, 3, 4]
        assert heard.count(1) == 2  # the answer was lost, so it was asked again
        await service.until(lambda: service.gone == ["c_9"])
        assert await cluster.bus.call(node.worker_id, "echo", "back") == ["back"]
        assert node.connects == 2
        assert node.counters == {"node_losses": 1, "node_bad_messages": 0}
        assert (service.connected, service.lost) == (1, 0)


async def test_without_a_broker_calls_wait_no_longer_than_they_may(rabbitmq: RabbitMq) -> None:
    async with worker(rabbitmq, url="amqp://127.0.0.1:1/east", hold=0.2, retry_cap=0.1) as (node, service):
        with pytest.raises(NodeUnreachableError, match="not a member"):
            await node.call(MANAGER, "x", [])
        node._entered.set()
        with pytest.raises(NodeUnreachableError, match="the broker is away"):
            await node.call(MANAGER, "x", [])
        node._entered.clear()
    assert service.connected == 0


async def test_tls_with_a_clients_certificate(rabbitmq: RabbitMq) -> None:
    tls: dict[str, Any] = {"ca_file": rabbitmq.file("ca.pem"), "cert_file": rabbitmq.file("client.pem")}
    async with (
        cluster_of(rabbitmq) as cluster,
        worker(rabbitmq, url=rabbitmq.url(tls=True), **tls) as (node, _),
    ):
        await node.wait_joined()
        assert cluster.worker("eventbridge") == node.worker_id


@pytest.mark.parametrize("broken", ["password", "vhost", "ca", "no client certificate"])
async def test_a_refusal_says_no_secret(rabbitmq: RabbitMq, broken: str) -> None:
    changes: dict[str, Any] = {
        "password": {"password": "wröng-secret"},
        "vhost": {"url": rabbitmq.url().removesuffix(VHOST) + "north"},
        "ca": {"url": rabbitmq.url(tls=True)},
        "no client certificate": {
            "url": rabbitmq.url(tls=True),
            "ca_file": rabbitmq.file("ca.pem"),
        },
    }[broken]
    failed = asyncio.Event()

    def notice(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if entry["event"] == "node.lost":
            failed.set()
        return entry

    with structlog.testing.capture_logs(processors=[notice]) as logs:
        async with worker(rabbitmq, retry_cap=0.1, **changes) as (node, _), asyncio.timeout(WAIT):
            await failed.wait()
            assert node.connects == 0
    said = json.dumps(logs, default=str, ensure_ascii=False)
    for secret in ("wröng", "bröker", PASSWORD, "br%C3%B6ker", "secret@"):
        assert secret not in said
    assert "127.0.0.1" in said


async def test_the_cluster_manager_is_asked_for_the_clusters_id(rabbitmq: RabbitMq) -> None:
    settings = AmqpSettings(url=rabbitmq.url(), retry_cap=0.1)
    asking = asyncio.create_task(ask_cluster_id(settings))
    async with owt_cluster("", rabbitmq.url()) as cluster:
        await cluster.bus.until(lambda: len(cluster.bus.clients) >= 3)
        cluster.id = "c-east"
        async with asyncio.timeout(WAIT):
            assert await asking == "c-east"
        # On one connection: OWT's exchange would come and go with each, under a manager that is starting.
        assert len(set(cluster.bus.clients)) == 1
