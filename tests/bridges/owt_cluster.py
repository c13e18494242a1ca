"""An OWT cluster for tests, played over a real broker: cluster manager, conference agent, conference nodes.

It declares what owt-server 5.x declares, and says and takes exactly its messages: a request with other fields
than OWT's is an error that `close` raises. Nothing here uses the code under test.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

WAIT = 15.0
MANAGER = "owt-cluster"


class OwtError(Exception):
    """Raise it in a handler to answer `error`; raised by a call that was answered so."""


class Bus:
    """One process of the cluster at the broker: an RPC client, and RPC servers."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        """What was said that OWT does not say."""
        self.changed = asyncio.Event()
        self.clients: list[str] = []
        """Where each call was to be answered, one after the other."""
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0

    async def connect(self, url: str) -> None:
        self._connection = await aio_pika.connect(url)
        self._channel = await self._connection.channel(publisher_confirms=False)
        self._rpc = await self._channel.declare_exchange("owtRpc", "direct", auto_delete=True, durable=False)
        self._monitoring = await self._channel.declare_exchange(
            "owtMonitoring", "topic", auto_delete=False, durable=False
        )
        replies = await self._channel.declare_queue("", auto_delete=True, durable=False)
        await replies.bind(self._rpc, replies.name)
        await replies.consume(self._replied, no_ack=True)
        self.reply_to = replies.name

    async def close(self) -> None:
        await self._connection.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def serve(self, server: str, handler: Callable[[str, list[Any]], Awaitable[Any]]) -> None:
        queue = await self._channel.declare_queue(server, auto_delete=True, durable=False)
        await queue.bind(self._rpc, server)

        async def called(message: AbstractIncomingMessage) -> None:
            request = json.loads(message.body)
            if set(request) not in ({"method", "args"}, {"method", "args", "corrID", "replyTo"}):
                self.faults.append(f"{server} was called with {sorted(request)}")
            try:
                answer = {"data": await handler(request["method"], request["args"])}
            except OwtError as error:
                answer = {"data": "error", "err": str(error)}
            if "corrID" in request:
                self.clients.append(request["replyTo"])
                answer |= {"corrID": request["corrID"], "type": "callback"}
                await self.publish_raw(request["replyTo"], json.dumps(answer).encode(), exchange=True)
            self.changed.set()

        await queue.consume(called, no_ack=True)

    async def die(self, server: str) -> None:
        """Be that server no more."""
        await self._channel.queue_delete(server)

    async def call(self, server: str, method: str, *args: Any) -> Any:
        self._last_id += 1
        corr_id = self._last_id
        future = self._waiting[corr_id] = asyncio.get_running_loop().create_future()
        body = {"method": method, "args": list(args), "corrID": corr_id, "replyTo": self.reply_to}
        if method == "getInfo":
            del body["args"]  # OWT's management API asks so
        await self.publish_raw(server, json.dumps(body).encode())
        async with asyncio.timeout(WAIT):
            reply = await future
        if set(reply) - {"err"} != {"data", "corrID", "type"} or reply["type"] != "callback":
            self.faults.append(f"{server} answered {reply}")
        if reply["data"] == "error":
            raise OwtError(reply.get("err"))
        return reply["data"]

    async def cast(self, server: str, method: str, *args: Any) -> None:
        body = json.dumps({"method": method, "args": list(args)}).encode()
        await self.publish_raw(server, body, exchange=True)

    async def announce(self, reason: str, message: dict[str, Any]) -> None:
        body = json.dumps({"reason": reason, "message": message}).encode()
        await self._monitoring.publish(aio_pika.Message(body), f"exit.{reason}")

    async def publish_raw(self, key: str, body: bytes, *, exchange: bool = False) -> None:
        where = self._rpc if exchange else self._channel.default_exchange
        await where.publish(aio_pika.Message(body), key, mandatory=False)

    async def announce_raw(self, body: bytes) -> None:
        await self._monitoring.publish(aio_pika.Message(body), "exit.abnormal")

    async def _replied(self, message: AbstractIncomingMessage) -> None:
        reply = json.loads(message.body)
        future = self._waiting.pop(reply["corrID"], None)
        if future is not None and not future.done():
            future.set_result(reply)


class Node:
    """A conference node, running one room: its state as OWT keeps it, and what bridges said."""

    def __init__(self, cluster: OwtCluster, node_id: str, room: str) -> None:
        self.cluster = cluster
        self.id = node_id
        self.room = room
        self.token: str | None = secrets.token_hex(32)
        self.participants: dict[str, dict[str, Any]] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        self.remote: dict[str, dict[str, dict[str, Any]]] = {}
        """By cluster: the participants and streams (by id) that came from there."""
        self.events: list[tuple[str, dict[str, Any]]] = []
        """(cluster, event), as handed over."""
        self.bridges: list[str] = []
        """Event bridges that have announced a stream."""
        self.subscribed: dict[str, dict[str, Any]] = {}
        self.unsubscribed: list[str] = []
        self.sources: dict[tuple[str, str], dict[str, Any]] = {}
        """By (stream, kind): what `linkup` says, `{id, ip, port}`."""
        self._later: set[asyncio.Task[Any]] = set()

    async def handle(self, method: str, args: list[Any]) -> Any:
        match method, args:
            case "getRoomToken", []:
                return self.token
            case "onCascadingConnected", [str(bridge), str(session), str(stream)]:
                self.bridges.append(bridge)
                about = {"session": session, "stream": stream, "type": "initialize", "rpcId": self.id}
                data = {"participants": dict(self.participants), "streams": dict(self.streams)}
                # The node answers first, then calls the bridge.
                event = {"type": "initialize", "data": data}
                self._soon(self.cluster.bus.call(bridge, "notify", self.id, about, event))
                return "ok"
            case "handleCascadingEvents", [str(), str(cluster), event]:
                self.events.append((cluster, event))
                self._cascaded(cluster, event["type"], event.get("data"))
                return "ok"
            case "subscribe", ["admin", str(connection), options]:
                if connection in self.subscribed:
                    raise OwtError("Subscription exists")
                self.subscribed[connection] = options
                self._soon(self._linkup(connection, options))
                return "ok"
            case "unsubscribe", ["admin", str(connection)]:
                del self.subscribed[connection]
                self.unsubscribed.append(connection)
                return "ok"
        raise OwtError("Not support method")

    async def say(self, type_: str, data: Any) -> None:
        """Tell every event bridge what has happened here."""
        for bridge in dict.fromkeys(self.bridges):
            event = {"type": type_, "data": data}
            assert await self.cluster.bus.call(bridge, "notify", self.id, {"rpcId": self.id}, event) == "ok"

    def of(self, cluster: str) -> list[dict[str, Any]]:
        return [event for origin, event in self.events if origin == cluster]

    def _cascaded(self, cluster: str, type_: str, data: Any) -> None:
        known = self.remote.setdefault(cluster, {})
        match type_:
            case "initialize":
                known |= data["participants"] | data["streams"]
            case "addParticipant" | "addStream":
                known[data["id"]] = data
            case "removeParticipant" | "removeStream":
                known.pop(data, None)
            case "onCascadingDisconnected":
                del self.remote[cluster]
        self.cluster.bus.changed.set()

    async def _linkup(self, connection: str, options: dict[str, Any]) -> None:
        (track,) = options["media"]["tracks"]
        address = self.sources[track["from"], track["type"]]
        bridge_node = options["locality"]["node"]
        assert (
            await self.cluster.bus.call(bridge_node, "linkup", connection, {track["type"]: address}) == "ok"
        )

    def _soon(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)


class OwtCluster:
    """Cluster manager, one conference agent, and its nodes."""

    def __init__(self, cluster_id: str, url: str) -> None:
        self.id = cluster_id
        self.url = url
        self.bus = Bus()
        self.state = "in-service"
        self.workers: dict[str, tuple[str, dict[str, Any]]] = {}
        """By id: purpose and info of those that are known."""
        self.joins: list[tuple[str, str]] = []
        """(purpose, id) of every join."""
        self.alive: list[str] = []
        self.loads: list[float] = []
        self.tasks: list[tuple[str, Any]] = []
        self.quits: list[str] = []
        self.nodes: dict[str, Node] = {}
        """By room."""
        self.conference = f"conference-{secrets.token_hex(10)}@127.0.0.1"
        self._nodes_made = 0

    async def start(self) -> None:
        """Appear at the broker, or come back to it, with everything that runs."""
        await self.bus.connect(self.url)
        await self.bus.serve(MANAGER, self._manage)
        await self.bus.serve(self.conference, self._conference)
        for node in self.nodes.values():
            await self.bus.serve(node.id, node.handle)

    async def close(self) -> None:
        await self.bus.close()
        assert self.bus.faults == []

    async def room(self, name: str) -> Node:
        """Start a room, as its first participant does."""
        node = self.nodes[name] = self._new_node(name)
        await self.bus.serve(node.id, node.handle)
        return node

    async def joined(self, purpose: str) -> str:
        """Wait until a worker of this purpose is known; return its id."""
        await self.bus.until(lambda: self.worker(purpose))
        return self.worker(purpose) or ""

    def worker(self, purpose: str) -> str | None:
        return next((id_ for id_, (known, _) in self.workers.items() if known == purpose), None)

    async def drop(self, worker: str) -> None:
        """Forget a worker that has been silent, and say so."""
        purpose, _ = self.workers.pop(worker)
        await self.bus.announce("quit", {"purpose": purpose, "id": worker, "type": "worker"})

    async def kill(self, room: str) -> None:
        """Let the node of a room die; its agent announces it."""
        node = self.nodes.pop(room)
        await self.bus.die(node.id)
        await self.bus.announce("abnormal", {"purpose": "conference", "id": node.id, "type": "node"})

    async def media_node(self, session: str) -> str:
        """Do what a conference node does to find a node of the media bridge."""
        worker = (await self.bus.call(MANAGER, "schedule", "mediabridge", session, "preference", 30_000))[
            "id"
        ]
        node: str = await self.bus.call(worker, "getNode", {"room": session, "task": session})
        return node

    def _new_node(self, room: str) -> Node:
        self._nodes_made += 1
        return Node(self, f"{self.conference}_{self._nodes_made - 1}", room)

    async def _manage(self, method: str, args: list[Any]) -> Any:
        match method, args:
            case "join", [str(purpose), str(worker), dict(info)]:
                self.workers[worker] = (purpose, info)
                self.joins.append((purpose, worker))
                return self.state
            case "keepAlive", [str(worker)]:
                self.alive.append(worker)
                return "ok" if worker in self.workers else "whoareyou"
            case "reportLoad", [str(), float() | int() as load]:
                self.loads.append(load)
            case "pickUpTasks" | "layDownTask", [str(), task]:
                self.tasks.append((method, task))
            case "quit", [str(worker)]:
                self.quits.append(worker)
                self.workers.pop(worker, None)
            case "getClusterID", []:
                return self.id
            case "schedule", ["conference", _, _, _]:
                return {
                    "id": self.conference,
                    "info": {"ip": "127.0.0.1", "purpose": "conference", "state": 2},
                }
            case "schedule", [str(purpose), _, _, _] if found := self.worker(purpose):
                return {"id": found, "info": self.workers[found][1]}
            case _:
                raise OwtError(f"Failed in scheduling or serving {method}")
        return "ok"

    async def _conference(self, method: str, args: list[Any]) -> Any:
        """As OWT's, give a node to any room; one that nobody has initialised knows no token."""
        match method, args:
            case "getNode", [{"room": str(room), "task": str()}]:
                if room not in self.nodes:
                    (await self.room(room)).token = None
                return self.nodes[room].id
        raise OwtError("Not support method")


@asynccontextmanager
async def owt_cluster(cluster_id: str, url: str) -> AsyncIterator[OwtCluster]:
    cluster = OwtCluster(cluster_id, url)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.close()
