"""A cluster reached over a WebSocket: OWT's RPC as JSON text messages, the bridge being the client.

One socket per worker, connected for ever: what breaks is dialled again with backoff, and the worker joins
anew. While there is no connection every call fails at once. Calls of the cluster are begun in the order in
which they came. This module knows the conversation's form, not what a bridge does.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
import structlog
from msgspec import Meta
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from bridges.node.calls import RpcCalls, outcome
from bridges.node.port import RPC_TIMEOUT, NodeUnreachableError, RpcError
from bridges.wire import rpc
from bridges.wire.errors import WireError
from causeway.backoff import Backoff
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.node.port import RpcService

__all__ = ["CLUSTER_MANAGER", "NodeSettings", "WebSocketNode"]

log = structlog.get_logger(__name__)

CLUSTER_MANAGER: Final = "owt-cluster"
"""The server that workers join at and that schedules conference agents."""

_IN_SERVICE: Final = "in-service"
_RESERVE_MS: Final = 30_000
_PATH: Final = "/node"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and timing of the conversation with the cluster: the table `[bridge.node]`."""

    connect_timeout: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """Seconds that connecting and joining may take, each."""
    ping_interval: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Seconds between pings."""
    ping_timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0
    """Seconds without a pong after which the cluster counts as lost."""
    retry_base: Annotated[float, Meta(gt=0, le=60)] = 0.1
    """Seconds that the first delay before reconnecting may take; doubled with every failure."""
    retry_cap: Annotated[float, Meta(gt=0, le=600)] = 2.0
    """Seconds that the delay before reconnecting grows to at most."""
    max_outstanding: Annotated[int, Meta(ge=1)] = 1024
    """Our calls that may wait for a reply at once."""
    max_concurrent: Annotated[int, Meta(ge=1)] = 256
    """Calls of the cluster that are served at once; further ones fail."""
    max_unsent: Annotated[int, Meta(ge=1)] = 1024
    """Messages that may wait to be written."""


class _Scheduled(msgspec.Struct):
    id: str


class WebSocketNode:
    """The cluster behind `url` (ws:// or wss://; without a path, `/node` is meant), as a ClusterNode.

    `secret` is shared with the cluster; `host` is where this worker runs, as others see it. Raises
    ConfigError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        purpose: str,
        host: str,
        settings: NodeSettings = NodeSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._url = _with_path(url)
        self._secret = secret
        self._purpose = purpose
        self._host = host
        self._settings = settings
        self._worker_id = f"{purpose}-{secrets.token_hex(10)}@{host}"
        self._calls: RpcCalls[asyncio.Future[rpc.Reply]] = RpcCalls(max_outstanding=settings.max_outstanding)
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue(settings.max_unsent)
        self._serving = 0
        self._joined = asyncio.Event()
        self.connects = 0
        """Times that the worker has joined."""

    @property
    def worker_id(self) -> str:
        """This bridge's id in its cluster: `<purpose>-<20 hex>@<host>`."""
        return self._worker_id

    @property
    def node_id(self) -> str:
        """The same: over a WebSocket a worker has no nodes."""
        return self._worker_id

    @property
    def joined(self) -> bool:
        """Whether the worker is a member of its cluster now."""
        return self._joined.is_set()

    @property
    def counters(self) -> dict[str, int]:
        """How often the cluster was lost, since the start."""
        return {"node_losses": self.connects - self.joined}

    async def wait_joined(self) -> None:
        """Wait until the worker is a member of its cluster."""
        await self._joined.wait()

    # --- calls to the cluster -------------------------------------------------------------------

    async def find_conference_node(self, room: str) -> str:
        """Return the RPC id of the conference node that runs `room`.

        Raises RpcError when the conference agent says that there is no such room, NodeUnreachableError when
        the cluster does not answer or has no conference agent at the moment.
        """
        args = ["conference", room, "preference", _RESERVE_MS]
        try:
            scheduled = await self.call(CLUSTER_MANAGER, "schedule", args)
        except RpcError as error:
            raise NodeUnreachableError(str(error)) from None
        try:
            worker = msgspec.convert(scheduled, _Scheduled)
            node = await self.call(worker.id, "getNode", [{"room": room, "task": room}])
            return msgspec.convert(node, str)
        except msgspec.ValidationError as error:
            raise RpcError(f"the answer is not of the expected shape: {error}") from None

    async def call(
        self, target: str, method: str, args: Sequence[Any], *, timeout: float = RPC_TIMEOUT
    ) -> Any:
        """Call `method` of `target` and return the reply's data.

        Raises RpcError when the call failed there, NodeUnreachableError when no reply came in `timeout`
        seconds or the connection is down.
        """
        if not self.joined:
            raise NodeUnreachableError(f"{method}: not connected to the cluster")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[rpc.Reply] = loop.create_future()
        deadline = loop.time() + timeout
        request = self._calls.begin(future, target, method, args, deadline=deadline, reply_to=self._worker_id)
        assert request.corr_id is not None
        timer = loop.call_at(deadline, self._expire, deadline)
        try:
            self._send(request)
            return outcome(await future)
        except NodeUnreachableError as error:
            raise NodeUnreachableError(f"{method}: {error}") from None
        except RpcError as error:
            raise RpcError(f"{method}: {error}") from None
        finally:
            timer.cancel()
            self._calls.take(request.corr_id)

    def _expire(self, deadline: float) -> None:
        for future in self._calls.expire(deadline):
            if not future.done():
                future.set_exception(NodeUnreachableError("no reply in time"))

    def _send(self, message: rpc.Request | rpc.Reply) -> None:
        """Queue a message for the writer; raises NodeUnreachableError when the cluster does not read."""
        try:
            self._unsent.put_nowait(rpc.encode(message))
        except asyncio.QueueFull:
            raise NodeUnreachableError("too many messages wait to be written") from None

    # --- the connection -------------------------------------------------------------------------

    async def run(self, service: RpcService, *, info: dict[str, Any]) -> None:
        """Stay connected and let the cluster call `service`; ends only by being cancelled.

        `info` is added to what the worker says of itself when joining, for example `{"port": 7000}`.
        """
        backoff = Backoff(base=self._settings.retry_base, cap=self._settings.retry_cap)
        while True:
            try:
                async with self._connect() as websocket:
                    early = await self._join(websocket, info)
                    backoff.reset()
                    await self._serve(websocket, service, early)
            except (OSError, WebSocketException, NodeUnreachableError, RpcError) as error:
                log.warning("node.lost", url=self._url, error=str(error) or type(error).__name__)
            await asyncio.sleep(backoff.next_delay())

    def _connect(self) -> connect:
        return connect(
            self._url,
            additional_headers={"Authorization": f"Bearer {self._secret}"},
            compression=None,
            proxy=None,
            open_timeout=self._settings.connect_timeout,
            ping_interval=self._settings.ping_interval,
            ping_timeout=self._settings.ping_timeout,
            close_timeout=1.0,
            max_size=rpc.MAX_RPC_BYTES,
        )

    async def _join(self, websocket: ClientConnection, info: dict[str, Any]) -> list[rpc.Request]:
        """Become a member and return the calls that came before the reply, to be served after it.

        Raises RpcError or NodeUnreachableError.
        """
        about = {
            "ip": self._host,
            "port": 0,
            "purpose": self._purpose,
            "state": 2,
            "maxLoad": 0.85,
            "capacity": {},
        }
        args = [self._purpose, self._worker_id, {**about, **info}]
        request = rpc.Request(
            to=CLUSTER_MANAGER, method="join", args=args, corr_id=0, reply_to=self._worker_id
        )
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await websocket.send(rpc.encode(request), text=True)
                early, reply = await self._join_reply(websocket)
        except TimeoutError:
            raise NodeUnreachableError("join: no reply in time") from None
        except WireError as error:
            raise NodeUnreachableError(f"join: {error}") from None
        state = outcome(reply)
        if state != _IN_SERVICE:
            raise NodeUnreachableError(f"join: the cluster is not in service yet ({str(state)[:40]!r})")
        return early

    async def _join_reply(self, websocket: ClientConnection) -> tuple[list[rpc.Request], rpc.Reply]:
        early: list[rpc.Request] = []
        while len(early) <= self._settings.max_concurrent:
            message = rpc.decode(await websocket.recv(decode=False))
            if isinstance(message, rpc.Request):
                early.append(message)
            elif message.corr_id == 0:
                return early, message
        raise NodeUnreachableError("join: too many calls before the reply")

    async def _serve(
        self, websocket: ClientConnection, service: RpcService, early: list[rpc.Request]
    ) -> None:
        """Be a member until the connection breaks. Raises NodeUnreachableError or a WebSocketException."""
        self._joined.set()
        self.connects += 1
        log.info("node.joined", url=self._url, worker=self._worker_id)
        try:
            service.node_connected()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(websocket))
                for request in early:
                    self._begin_serving(request, service, tasks)
                await self._read(websocket, service, tasks)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._joined.clear()
            self._unsent = asyncio.Queue(self._settings.max_unsent)
            for future in self._calls.fail_all():
                if not future.done():
                    future.set_exception(NodeUnreachableError("the connection to the cluster broke"))
            service.node_lost()

    async def _write(self, websocket: ClientConnection) -> None:
        while True:
            await websocket.send(await self._unsent.get(), text=True)

    async def _read(self, websocket: ClientConnection, service: RpcService, tasks: asyncio.TaskGroup) -> None:
        """Take messages until the connection breaks; raises NodeUnreachableError then."""
        while True:
            try:
                message = rpc.decode(await websocket.recv(decode=False))
            except ConnectionClosed as closed:
                raise NodeUnreachableError(f"connection closed: {closed}") from None
            except WireError as error:
                raise NodeUnreachableError(f"the cluster does not speak RPC: {error}") from None
            match message:
                case rpc.Reply():
                    future = self._calls.take(message.corr_id)
                    if future is not None and not future.done():
                        future.set_result(message)
                case rpc.Request():
                    self._begin_serving(message, service, tasks)

    def _begin_serving(self, request: rpc.Request, service: RpcService, tasks: asyncio.TaskGroup) -> None:
        if request.to != self._worker_id:
            self._fail(request, "no such server here")
        elif self._serving >= self._settings.max_concurrent:
            self._fail(request, "busy")
        else:
            self._serving += 1
            # Tasks are begun in the order of their making, so calls reach the service as they came.
            tasks.create_task(self._serve_call(request, service))

    async def _serve_call(self, request: rpc.Request, service: RpcService) -> None:
        try:
            data = await service.handle(request.method, request.args)
            if request.corr_id is not None:
                self._send(rpc.Reply(corr_id=request.corr_id, data=data))
        except RpcError as error:
            self._fail(request, str(error))
        except NodeUnreachableError as error:
            self._fail(request, f"{error.code}: {error}")
        except Exception:
            log.exception("node.call_failed", method=request.method)
            self._fail(request, "internal error")
        finally:
            self._serving -= 1

    def _fail(self, request: rpc.Request, reason: str) -> None:
        if request.corr_id is not None:
            self._send(rpc.Reply(corr_id=request.corr_id, data=rpc.FAILED, err=reason))

    def __repr__(self) -> str:
        return f"WebSocketNode(worker_id={self._worker_id!r}, joined={self.joined})"


def _first(group: BaseExceptionGroup) -> BaseException:
    """Return the first single exception of a group: the one that ended the others."""
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _with_path(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, valid = None, False
    if parts is None or not valid:
        raise ConfigError(f"not a ws:// or wss:// URL: {url!r}")
    if parts.username is not None:
        raise ConfigError("the URL of the cluster must not contain credentials")
    return urlunsplit(parts._replace(path=parts.path if parts.path not in {"", "/"} else _PATH))
