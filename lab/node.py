"""The cluster as its bridges see it: cluster manager, conference worker and one conference node per room.

OWT's calls, carried over the WebSocket `/node`: a bridge connects with the node secret, joins as a worker,
and from then on both sides call. This module turns calls into inputs of rooms, and what happens in rooms into
calls; sockets are lab.rpc_socket's, rooms are lab.rooms'.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import structlog
from msgspec import Meta, Struct
from starlette.websockets import WebSocketDisconnect

from bridges.wire.objects import Id, MediaOptions
from lab.closing import GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER, close
from lab.room_outputs import BridgeEvent, Subscribed, SubscriptionEnded, SubscriptionKey
from lab.room_rules import RoomError
from lab.rooms import RoomClosed
from lab.rpc_socket import Refusal, RpcSocket
from lab.workers import BridgePurpose, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.websockets import WebSocket

    from bridges.wire.rpc import Request
    from lab.rooms import RoomNews, Rooms, RunningRoom
    from lab.routing import Routing
    from lab.settings import NodeSettings
    from lab.workers import Workers

__all__ = ["CLUSTER_MANAGER", "ConferenceNode"]

_log: Final = structlog.get_logger(__name__)
_T = TypeVar("_T")

CLUSTER_MANAGER: Final = "owt-cluster"

_WorkerId = Annotated[str, Meta(min_length=1, max_length=256)]


class _Task(Struct):
    room: Id


class _Event(Struct):
    type: str
    data: Any = None


class _SubscribeOptions(Struct):
    """What of a media bridge's subscription matters here: which track of which stream."""

    media: MediaOptions


class ConferenceNode:
    """Serves bridges. A listener of Rooms, too: what happens there is told to the bridges it concerns."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        workers: Workers,
        routing: Routing,
        secret: str,
        internal: Callable[[], tuple[str, int]],
        settings: NodeSettings,
    ) -> None:
        """Take the parts; `internal` gives host and port of the hub, where bridges fetch local tracks."""
        self.rooms = rooms
        self.workers = workers
        self._routing = routing
        self._secret = secret.encode()
        self._internal = internal
        self._settings = settings
        self._connections = 0
        # Which event bridges have links for a room: room id → worker ids.
        self._linked: dict[str, set[str]] = {}
        workers.on_lost.append(self._worker_lost)
        rooms.on_deleted.append(workers.forget_room)

    # --- the socket -------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one bridge's WebSocket until it ends."""
        given = websocket.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, b"Bearer " + self._secret):
            _log.warning("node.unauthorized", remote=websocket.client.host if websocket.client else None)
            await close(websocket, POLICY_VIOLATION, "")
            return
        if self._connections >= self._settings.max_workers:
            await close(websocket, TRY_AGAIN_LATER, "")
            return
        self._connections += 1
        try:
            await websocket.accept()
            socket = RpcSocket(
                websocket,
                max_unsent=self._settings.max_unsent,
                call_timeout=self._settings.call_timeout,
            )
            bridge = _Bridge(self, socket)
            try:
                await socket.run(bridge.handle)
            finally:
                bridge.gone()
            await close(websocket, GOING_AWAY, socket.reason)
        except WebSocketDisconnect:
            return  # It went before it was accepted.
        finally:
            self._connections -= 1

    # --- calls of bridges: the cluster manager --------------------------------------------------------

    def join(self, socket: RpcSocket, args: list[Any]) -> Worker:
        """`join [purpose, id, info]`."""
        purpose, worker_id, info = _args(args, tuple[BridgePurpose, _WorkerId, dict[str, Any]])
        worker = Worker(worker_id, purpose, info, socket)
        self.workers.join(worker)
        return worker

    def manage(self, worker: Worker | None, method: str, args: list[Any]) -> Any:
        """Every other call to the cluster manager."""
        if method == "keepAlive":
            (worker_id,) = _args(args, tuple[_WorkerId])
            return "ok" if self.workers.get(worker_id) is not None else "whoareyou"
        if worker is None:
            raise Refusal("join first")
        match method:
            case "reportLoad":
                _, worker.load = _args(args, tuple[_WorkerId, float])
                return "ok"
            case "quit":
                self.workers.lose(worker)
                return "ok"
            case "schedule":
                purpose, task, *_ = _args(args, tuple[str, str, Any, Any])
                return self._schedule(purpose, task)
            case _:
                raise Refusal(f"no such method: {method}")

    def _schedule(self, purpose: str, task: str) -> dict[str, Any]:
        if purpose == "conference":
            return {"id": self.rooms.worker_id, "info": {"purpose": "conference", "state": 2}}
        for known in ("eventbridge", "mediabridge"):
            if purpose == known and (worker := self.workers.of(known, task)) is not None:
                return {"id": worker.id, "info": worker.info}
        raise Refusal(f"no worker for {purpose}")

    def conference_worker(self, method: str, args: list[Any]) -> str:
        """`getNode [{room, task}]` → the RPC id of the room's node; the room must be running."""
        if method != "getNode":
            raise Refusal(f"no such method: {method}")
        (task,) = _args(args, tuple[_Task])
        running = self.rooms.get_running(task.room)
        if running is None:
            raise Refusal("the room is not running")
        return running.node_id

    # --- calls of bridges: a room's node --------------------------------------------------------------

    def room_node(self, worker: Worker, running: RunningRoom, method: str, args: list[Any]) -> Any:
        """Every call to a conference node."""
        try:
            match method:
                case "getRoomToken":
                    return running.room.token
                case "onCascadingConnected":
                    return self._connected(worker, running, args)
                case "handleCascadingEvents":
                    return self._cascading(worker, running, args)
                case "subscribe":
                    return self._subscribe(worker, running, args)
                case "unsubscribe":
                    _, connection = _args(args, tuple[str, Id])
                    self.rooms.act(
                        running.room.id, lambda room: room.bridge_unsubscribe(worker.id, connection)
                    )
                    return "ok"
                case _:
                    raise Refusal(f"no such method: {method}")
        except RoomError as error:
            raise Refusal(f"{error.reason}: {error}") from None

    def _connected(self, worker: Worker, running: RunningRoom, args: list[Any]) -> str:
        """`onCascadingConnected [bridgeId, sessionId, streamId]`: tell that stream what there is."""
        _, session, stream = _args(args, tuple[str, Id, str | int])
        self._linked.setdefault(running.room.id, set()).add(worker.id)
        self.workers.shown(worker, running.room.id)
        about = {"session": session, "stream": stream, "type": "initialize", "rpcId": running.node_id}
        event = {"type": "initialize", "data": running.room.snapshot()}
        worker.order("notify", [running.node_id, about, msgspec.to_builtins(event)], important=True)
        return "ok"

    def _cascading(self, worker: Worker, running: RunningRoom, args: list[Any]) -> str:
        """`handleCascadingEvents [bridgeId, clusterId, event]`."""
        _, cluster, event = _args(args, tuple[str, Id, _Event])
        self.rooms.act(
            running.room.id, lambda room: room.cascading_event(worker.id, cluster, event.type, event.data)
        )
        return "ok"

    def _subscribe(self, worker: Worker, running: RunningRoom, args: list[Any]) -> str:
        """`subscribe ["admin", connectionId, options]`; the linkup follows (hear, Subscribed)."""
        _, connection, options = _args(args, tuple[str, Id, _SubscribeOptions])
        streams = {track.from_ for track in options.media.tracks}
        if len(streams) != 1:
            raise Refusal("a connection carries tracks of one stream")
        kinds = [track.type for track in options.media.tracks]
        self.rooms.act(
            running.room.id,
            lambda room: room.bridge_subscribe(worker.id, connection, streams.pop(), kinds),
        )
        return "ok"

    # --- what bridges are told ------------------------------------------------------------------------

    def hear(self, running: RunningRoom, news: RoomNews) -> None:
        """Follow what happens in a room; see Rooms.listeners."""
        room_id = running.room.id
        match news:
            case BridgeEvent(type_, data):
                event = msgspec.to_builtins({"type": type_, "data": data})
                for worker_id in self._linked.get(room_id, ()):
                    if (worker := self.workers.get(worker_id)) is not None:
                        args = [running.node_id, {"rpcId": running.node_id}, event]
                        worker.order("notify", args, important=True)
            case Subscribed(SubscriptionKey(owner, connection, by_bridge=True) as key):
                if (worker := self.workers.get(owner)) is not None:
                    host, port = self._internal()
                    sinks = self._routing.sinks(room_id, key)
                    source = {kind: {"id": id_, "ip": host, "port": port} for kind, id_ in sinks.items()}
                    worker.order("linkup", [connection, source])
            case SubscriptionEnded(SubscriptionKey(owner, connection, by_bridge=True)) if not news.asked:
                if (worker := self.workers.get(owner)) is not None:
                    worker.order("cutoff", [connection])
            case RoomClosed():
                self._linked.pop(room_id, None)
                self.workers.forget_room(room_id)
                for worker in self.workers.all:
                    worker.order("destroyRoom", [room_id])
            case _:
                pass

    def _worker_lost(self, worker: Worker) -> None:
        for linked in self._linked.values():
            linked.discard(worker.id)
        self.rooms.bridge_lost(worker.id)


class _Bridge:
    """One connection: before and after its worker has joined."""

    def __init__(self, node: ConferenceNode, socket: RpcSocket) -> None:
        self._node = node
        self._socket = socket
        self._worker: Worker | None = None

    def handle(self, request: Request) -> Any:
        """Answer a call, or raise Refusal."""
        node, worker = self._node, self._worker
        if request.to == CLUSTER_MANAGER and request.method == "join":
            self.gone()
            self._worker = node.join(self._socket, request.args)
            return "in-service"
        if request.to == CLUSTER_MANAGER:
            return node.manage(worker, request.method, request.args)
        if worker is None or node.workers.get(worker.id) is not worker:
            raise Refusal("join first")
        if request.to == node.rooms.worker_id:
            return node.conference_worker(request.method, request.args)
        running = node.rooms.by_node(request.to)
        if running is None:
            raise Refusal("no such server")
        return node.room_node(worker, running, request.method, request.args)

    def gone(self) -> None:
        """Take note that there is no worker behind this connection any more."""
        if self._worker is not None:
            self._node.workers.lose(self._worker)
            self._worker = None


def _args(args: list[Any], shape: type[_T]) -> _T:
    """Read a call's arguments; further ones are ignored, as JavaScript would."""
    count = len(getattr(shape, "__args__", ()))
    try:
        return msgspec.convert(args[:count], shape)
    except msgspec.ValidationError as error:
        raise Refusal(f"arguments: {error}") from None
