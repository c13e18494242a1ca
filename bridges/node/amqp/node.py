"""A cluster reached over AMQP, as a ClusterNode: this process is one of its workers, as OWT's own agents are.

Connected for ever: a broker that goes is dialled again with backoff, and calls wait for it. As long as the
cluster manager does not announce that this worker is gone, nothing that runs is given up (see
bridges.node.amqp.membership). This module knows the conversation, not what a bridge does.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from bridges.load import machine_load
from bridges.node.amqp.broker import BrokerLostError, connect
from bridges.node.amqp.client import RpcClient
from bridges.node.amqp.membership import Call, Cast, Entered, Heard, Left, Membership
from bridges.node.amqp.messages import decode_exit, decode_request, encode_refusal, encode_reply
from bridges.node.port import RPC_TIMEOUT, NodeUnreachableError, RpcError
from bridges.wire.errors import WireError
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridges.node.amqp.broker import Broker
    from bridges.node.amqp.membership import Order
    from bridges.node.amqp.settings import AmqpSettings
    from bridges.node.port import RpcService
    from bridges.wire import rpc

__all__ = ["AmqpNode"]

log = structlog.get_logger(__name__)

_RESERVE_MS: Final = 30_000
_QUIT_TIMEOUT: Final = 0.5
_ANSWERS: Final = {
    ("join", "in-service"): Heard.TAKEN_IN,
    ("join", "initializing"): Heard.TAKEN_IN,
    ("keepAlive", "ok"): Heard.KNOWN,
    ("keepAlive", "whoareyou"): Heard.UNKNOWN,
}


class _Scheduled(msgspec.Struct):
    id: str


class _Task(msgspec.Struct):
    """What a node is wanted for: `{room, task}`."""

    room: str = ""
    task: str = ""


class AmqpNode:
    """The cluster behind a broker. `host` is where this worker runs, as others see it.

    With `has_node` calls are served by a node of the worker, as OWT's media agents do it: the worker only
    says which one (`getNode`). Without, by the worker itself. Raises ConfigError for a URL that is none.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        *,
        purpose: str,
        host: str,
        has_node: bool,
        load: Callable[[], float] = machine_load,
    ) -> None:
        self._settings = settings
        self._where = settings.where
        self._purpose = purpose
        self._host = host
        self._load = load
        self._worker_id = f"{purpose}-{secrets.token_hex(10)}@{host}"
        self._node_id = f"{self._worker_id}_0" if has_node else self._worker_id
        self._client = RpcClient(settings)
        self._entered = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._service: RpcService | None = None
        self._membership: Membership | None = None
        self._news = asyncio.Event()
        self.connects = 0
        """Times that the broker was reached."""
        self.rejected = 0
        """Messages that were dropped because they could not be read."""

    @property
    def worker_id(self) -> str:
        """This bridge's id in its cluster: `<purpose>-<20 hex>@<host>`."""
        return self._worker_id

    @property
    def node_id(self) -> str:
        """Where the cluster calls this bridge: the worker's id, or its node's."""
        return self._node_id

    @property
    def counters(self) -> dict[str, int]:
        """How often the broker was lost, and messages that could not be read, since the start."""
        return {
            "node_losses": self.connects - self._client.connected,
            "node_bad_messages": self.rejected + self._client.rejected,
        }

    async def wait_joined(self) -> None:
        """Wait until the worker is a member of its cluster."""
        await self._entered.wait()

    # --- calls to the cluster -------------------------------------------------------------------

    async def find_conference_node(self, room: str) -> str:
        """Return the RPC id of the conference node that runs `room`.

        OWT gives a node to any room that is asked for, so the node is asked for the room's token, too: one
        that has none does not run it. Raises RpcError when the room is not running, NodeUnreachableError when
        the cluster does not answer or has no conference agent at the moment.
        """
        try:
            scheduled = await self.call(
                self._settings.manager, "schedule", ["conference", room, "preference", _RESERVE_MS]
            )
            worker = msgspec.convert(scheduled, _Scheduled)
            node = msgspec.convert(await self.call(worker.id, "getNode", [{"room": room, "task": room}]), str)
        except RpcError as error:
            raise NodeUnreachableError(str(error)) from None
        except msgspec.ValidationError as error:
            raise NodeUnreachableError(f"the answer is not of the expected shape: {error}") from None
        token = await self.call(node, "getRoomToken", [])
        if not isinstance(token, str) or not token:
            raise RpcError("the room is not running")
        return node

    async def call(
        self, target: str, method: str, args: Sequence[Any], *, timeout: float = RPC_TIMEOUT
    ) -> Any:
        """Call `method` of `target` and return the reply's data.

        While the broker is away the call waits, up to `bridge.amqp.hold` seconds; a call whose reply was lost
        with the broker is made again. Raises RpcError when the call failed there or nobody has that id any
        more, NodeUnreachableError when no reply came in `timeout` seconds.
        """
        if not self._entered.is_set():
            raise NodeUnreachableError(f"{method}: not a member of the cluster")
        return await self._client.call(target, method, args, timeout=timeout)

    # --- the connection -------------------------------------------------------------------------

    async def run(self, service: RpcService, *, info: dict[str, Any]) -> None:
        """Be a worker and let the cluster call `service`; ends only by being cancelled.

        `info` is added to what the worker says of itself when joining, for example `{"port": 7700}`.
        """
        settings = self._settings
        about = {
            "ip": self._host,
            "port": 0,
            "purpose": self._purpose,
            "state": 2,
            # By both of its names: older cluster managers read the second one.
            "maxLoad": settings.max_load,
            "max_load": settings.max_load,
            "capacity": {"isps": list(settings.isps), "regions": list(settings.regions)},
        }
        membership = self._membership = Membership(
            purpose=self._purpose,
            worker_id=self._worker_id,
            info={**about, **info},
            keep_alive_interval=settings.keep_alive_interval,
            report_load_interval=settings.report_load_interval,
        )
        self._service = service
        backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
        try:
            while True:
                try:
                    async with connect(
                        settings, self, servers=list(dict.fromkeys((self._worker_id, self._node_id)))
                    ) as broker:
                        backoff.reset()
                        await self._attend(broker, membership)
                except BrokerLostError as error:
                    log.warning("node.lost", broker=self._where, error=str(error))
                await asyncio.sleep(backoff.next_delay())
        finally:
            self._membership = None
            self._leave()

    async def _attend(self, broker: Broker, membership: Membership) -> None:
        """Be at the broker until the connection breaks."""
        loop = asyncio.get_running_loop()
        self._client.attach(broker)
        self.connects += 1
        log.info("node.connected", broker=self._where, worker=self._worker_id)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._perform(membership.hear(Heard.CONNECTED, loop.time()))
                pacing = self._tasks.create_task(self._pace(membership))
                await broker.wait_lost()
                pacing.cancel()
                self._client.detach()
            log.warning("node.lost", broker=self._where, error="the connection broke")
        except asyncio.CancelledError:
            await self._say_goodbye(membership)
            raise
        finally:
            self._tasks = None
            self._client.detach()
            self._perform(membership.hear(Heard.DISCONNECTED, loop.time()))

    async def _say_goodbye(self, membership: Membership) -> None:
        """Tell the manager, so that it need not wait for signs of life that will not come."""
        try:
            async with asyncio.timeout(_QUIT_TIMEOUT):
                for order in membership.quit():
                    assert isinstance(order, Cast)
                    await self._client.cast(self._settings.manager, order.method, order.args)
        except TimeoutError:
            return

    async def _pace(self, membership: Membership) -> None:
        """Do what is due when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            try:
                async with asyncio.timeout_at(membership.next_at):
                    await self._news.wait()
            except TimeoutError:
                self._perform(membership.tick(loop.time(), self._load))

    def _perform(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Call():
                    self._spawn(self._ask_manager(order))
                case Cast(method, args):
                    self._spawn(self._client.cast(self._settings.manager, method, args))
                case Entered():
                    self._enter()
                case Left():
                    log.warning("node.removed", worker=self._worker_id)
                    self._leave()
        self._news.set()

    def _spawn(self, work: Any) -> None:
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work)

    async def _ask_manager(self, order: Call) -> None:
        try:
            answer = await self._client.call_once(
                self._settings.manager, order.method, order.args, timeout=RPC_TIMEOUT
            )
        except (RpcError, NodeUnreachableError) as error:
            log.info("node.manager_silent", method=order.method, error=str(error))
            return
        news = _ANSWERS.get((order.method, str(answer)))
        if news is None:
            log.warning("node.manager_unclear", method=order.method, answer=str(answer)[:40])
        elif self._membership is not None:
            self._perform(self._membership.hear(news, asyncio.get_running_loop().time()))

    def _enter(self) -> None:
        log.info("node.joined", broker=self._where, worker=self._worker_id)
        self._entered.set()
        assert self._service is not None
        self._service.node_connected()

    def _leave(self) -> None:
        if self._entered.is_set():
            self._entered.clear()
            assert self._service is not None
            self._service.node_lost()

    # --- Inbox: what comes ----------------------------------------------------------------------

    def replied(self, body: bytes) -> None:
        """Take a reply to one of our calls."""
        self._client.replied(body)

    def announced(self, body: bytes) -> None:
        """Hear who is gone: this worker, in the manager's eyes, or a conference node."""
        try:
            gone = decode_exit(body, max_bytes=self._settings.max_message_bytes)
        except WireError as error:
            self._reject("a notice", body, error)
            return
        if self._membership is None or self._service is None:
            return
        if gone.id == self._worker_id:
            self._perform(self._membership.hear(Heard.REMOVED, asyncio.get_running_loop().time()))
        elif gone.purpose == "conference" and self._entered.is_set():
            log.warning("node.conference_lost", id=gone.id, type=gone.type)
            self._service.conference_lost(gone.id)

    async def called(self, server: str, body: bytes) -> None:
        """Serve one call to `server`."""
        try:
            request = decode_request(body, to=server, max_bytes=self._settings.max_message_bytes)
        except WireError as error:
            self._reject("a call", body, error)
            return
        if self._service is None:
            return
        answer = await self._answer(request, self._service)
        if request.reply_to is not None:
            await self._client.reply(request.reply_to, answer)

    async def _answer(self, request: rpc.Request, service: RpcService) -> bytes:
        """Serve a call and return the reply's body; that of a cast nobody gets."""
        corr_id = request.corr_id or 0
        try:
            if request.to == self._worker_id != self._node_id:
                return encode_reply(corr_id, self._serve_as_worker(request))
            return encode_reply(corr_id, await service.handle(request.method, request.args))
        except RpcError as error:
            return encode_refusal(corr_id, request.method, str(error))
        except NodeUnreachableError as error:
            return encode_refusal(corr_id, request.method, f"{error.code}: {error}")
        except Exception:
            log.exception("node.call_failed", method=request.method)
            return encode_refusal(corr_id, request.method, "internal error")

    def _serve_as_worker(self, request: rpc.Request) -> str:
        """Say which node does the work; the manager keeps count of what it is wanted for."""
        assert self._membership is not None
        try:
            match request.method, request.args:
                case "getNode", [task]:
                    self._perform(self._membership.take_task(msgspec.convert(task, _Task).task))
                    return self._node_id
                case "recycleNode", [self._node_id, task]:
                    self._perform(self._membership.drop_task(msgspec.convert(task, _Task).task))
                    return "ok"
                case "queryNode", [str(task)] if task in self._membership.tasks:
                    return self._node_id
        except msgspec.ValidationError as error:
            raise RpcError(f"{request.method}: {error}") from None
        raise RpcError(f"no such method, or not with these arguments: {request.method!r}")

    def _reject(self, what: str, body: bytes, error: WireError) -> None:
        self.rejected += 1
        log.warning("node.bad_message", what=what, bytes=len(body), error=str(error))

    def __repr__(self) -> str:
        return f"AmqpNode(worker_id={self._worker_id!r}, entered={self._entered.is_set()})"
