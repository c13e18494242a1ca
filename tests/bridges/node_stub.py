"""A small scripted cluster for bridges: a real WebSocket server that speaks bridges.wire.rpc.

It plays the cluster manager, one conference worker and one conference node per room. Tests read what it was
told (`events`, `disconnected`, `calls`) and script what it answers (`rooms`, `handlers`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridges.wire import rpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response

SECRET = "node-secret"
CLUSTER_MANAGER = "owt-cluster"
CONFERENCE_WORKER = "conference-0@stub"
WAIT = 10.0


class StubRpcError(Exception):
    """Raise it in a handler to answer that the call failed."""


class Room:
    """A room of the stub: its token, what it tells a new peer, and what it heard."""

    def __init__(self, token: str, node_id: str) -> None:
        self.token = token
        self.node_id = node_id
        self.initialize: dict[str, Any] = {"participants": {}, "streams": {}}
        self.events: list[tuple[str, dict[str, Any]]] = []
        """(peer cluster, event) in the order of handleCascadingEvents."""

    def of(self, peer: str) -> list[dict[str, Any]]:
        """Return the events that came from `peer`."""
        return [event for cluster, event in self.events if cluster == peer]

    def types(self, peer: str) -> list[str]:
        """Return the types of the events that came from `peer`."""
        return [event["type"] for event in self.of(peer)]


class NodeStub:
    """The scripted cluster. `async with NodeStub() as node` listens on a free port of loopback."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.calls: list[tuple[str, str, list[Any]]] = []
        """(to, method, args) of every request that came."""
        self.workers: dict[str, ServerConnection] = {}
        self.joins: list[list[Any]] = []
        self.join_state = "in-service"
        self.deliver = asyncio.Event()
        """Cleared: handleCascadingEvents is not answered, as by a node that is stuck."""
        self.deliver.set()
        self.handlers: dict[str, Callable[[str, list[Any]], Awaitable[Any]]] = {}
        """Further methods, called with (to, args)."""
        self.changed = asyncio.Event()
        self._server: Server | None = None
        self._port = 0
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[rpc.Reply]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where bridges connect."""
        return f"ws://127.0.0.1:{self._port}/node"

    def room(self, name: str, *, token: str = "room-token") -> Room:
        """Add a room, as its first participant's join does."""
        self.rooms[name] = Room(token, f"{CONFERENCE_WORKER}_{len(self.rooms)}")
        return self.rooms[name]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self._port,
            process_request=self._authorise,
            max_size=rpc.MAX_RPC_BYTES,
            ping_interval=None,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            for connection in list(self.workers.values()):
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _authorise(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {SECRET}" or request.path != "/node":
            return connection.respond(401, "no")
        return None

    # --- calls to the bridge --------------------------------------------------------------------

    def worker(self, purpose: str) -> str:
        """Return the id of the worker that joined for `purpose`."""
        return next(worker for worker in self.workers if worker.startswith(f"{purpose}-"))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition on this stub holds."""
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def joined(self, purpose: str) -> str:
        """Wait for a worker and return its id."""
        await self.until(lambda: any(worker.startswith(f"{purpose}-") for worker in self.workers))
        return self.worker(purpose)

    async def call(self, to: str, method: str, *args: Any) -> Any:
        """Call a worker; raises StubRpcError when it answers that the call failed."""
        self._last_id += 1
        future: asyncio.Future[rpc.Reply] = asyncio.get_running_loop().create_future()
        corr_id = self._last_id
        self._waiting[corr_id] = future
        await self.workers[to].send(
            rpc.encode(rpc.Request(to=to, method=method, args=list(args), corr_id=corr_id)), text=True
        )
        async with asyncio.timeout(WAIT):
            reply = await future
        if reply.data == rpc.FAILED:
            raise StubRpcError(reply.err)
        return reply.data

    async def emit(self, room: str, event: dict[str, Any]) -> None:
        """Let a room's node tell every cascaded cluster something."""
        node = self.rooms[room].node_id
        await self.call(self.worker("eventbridge"), "notify", node, {"rpcId": node}, event)

    # --- calls of the bridge --------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        worker: str | None = None
        try:
            while True:
                message = rpc.decode(await connection.recv(decode=False))
                if isinstance(message, rpc.Reply):
                    future = self._waiting.pop(message.corr_id, None)
                    if future is not None and not future.done():
                        future.set_result(message)
                    continue
                if message.method == "join":
                    self.joins.append(message.args)
                    worker = str(message.args[1])
                    self.workers[worker] = connection
                self.calls.append((message.to, message.method, message.args))
                self.changed.set()
                task = asyncio.create_task(self._answer(connection, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except ConnectionClosed:
            pass
        finally:
            if worker is not None and self.workers.get(worker) is connection:
                del self.workers[worker]
            self.changed.set()

    async def _answer(self, connection: ServerConnection, request: rpc.Request) -> None:
        try:
            data = await self._perform(request.to, request.method, request.args)
            reply = rpc.Reply(corr_id=request.corr_id or 0, data=data)
        except StubRpcError as error:
            reply = rpc.Reply(corr_id=request.corr_id or 0, data=rpc.FAILED, err=str(error))
        with suppress(ConnectionClosed):
            await connection.send(rpc.encode(reply), text=True)
        if request.method == "onCascadingConnected":
            await self._initialize(request)
        self.changed.set()

    async def _perform(self, to: str, method: str, args: list[Any]) -> Any:
        if method in self.handlers:
            return await self.handlers[method](to, args)
        if to == CLUSTER_MANAGER:
            return self._manage(method)
        if method == "getNode":
            if args[0]["room"] not in self.rooms:
                raise StubRpcError("no such room")
            return self.rooms[args[0]["room"]].node_id
        room = next((room for room in self.rooms.values() if room.node_id == to), None)
        if room is None:
            raise StubRpcError(f"no such node: {to}")
        return await self._play_node(room, method, args)

    def _manage(self, method: str) -> Any:
        match method:
            case "join":
                return self.join_state
            case "schedule":
                return {"id": CONFERENCE_WORKER, "info": {"ip": "127.0.0.1", "purpose": "conference"}}
        raise StubRpcError(f"no such method: {method}")

    async def _play_node(self, room: Room, method: str, args: list[Any]) -> Any:
        match method:
            case "getRoomToken":
                return room.token
            case "onCascadingConnected":
                return "ok"
            case "handleCascadingEvents":
                await self.deliver.wait()
                _bridge, cluster, event = args
                room.events.append((cluster, event))
                return "ok"
        raise StubRpcError(f"no such method: {method}")

    async def _initialize(self, request: rpc.Request) -> None:
        """Tell the new peer what there is, as a conference node does after onCascadingConnected."""
        room = next((room for room in self.rooms.values() if room.node_id == request.to), None)
        bridge, session, stream = request.args
        if room is None or bridge not in self.workers:
            return
        message = {"session": session, "stream": stream, "type": "initialize", "rpcId": room.node_id}
        data = {"type": "initialize", "data": room.initialize}
        with suppress(ConnectionClosed):
            await self.call(bridge, "notify", room.node_id, message, data)
