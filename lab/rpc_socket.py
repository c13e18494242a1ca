"""OWT's RPC with one bridge, on the cluster's end of its WebSocket.

Both sides may call. `call` waits for the reply; `order` gives a call that must be carried out after the
orders before it, and waits for nothing. Nothing here is unbounded: a bridge that does not take its messages,
or does not answer an important order in time, is dropped, and finds everything anew when it comes back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from msgspec import Struct
from starlette.websockets import WebSocketDisconnect

from bridges.wire import rpc
from bridges.wire.errors import WireError
from causeway.errors import CausewayError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.websockets import WebSocket

__all__ = ["Refusal", "RpcFailedError", "RpcLostError", "RpcSocket"]

_log: Final = structlog.get_logger(__name__)


class Refusal(Exception):  # noqa: N818 - the answer to a call, not an error of ours
    """A call is answered with this reason as its failure."""


class RpcFailedError(CausewayError):
    """The bridge answered that the call failed."""

    code: ClassVar[str] = "rpc-failed"


class RpcLostError(UnavailableError):
    """The bridge is gone, or does not answer in time."""

    code: ClassVar[str] = "rpc-lost"


class _Order(Struct, frozen=True):
    target: str
    method: str
    args: tuple[Any, ...]
    important: bool


class RpcSocket:
    """One bridge's connection. `run` serves it until it ends."""

    def __init__(self, websocket: WebSocket, *, max_unsent: int = 4096, call_timeout: float = 2.0) -> None:
        """`max_unsent`: messages, and likewise orders, that may wait; `call_timeout`: seconds."""
        self._websocket = websocket
        self._call_timeout = call_timeout
        self._max_unsent = max_unsent
        self._unsent: asyncio.Queue[str] = asyncio.Queue(max_unsent)
        self._orders: asyncio.Queue[_Order] = asyncio.Queue(max_unsent)
        self._waiting: dict[int, asyncio.Future[rpc.Reply]] = {}
        self._last_id = 0
        self._ended = asyncio.Event()
        self.reason = ""
        """Why the connection was dropped by us, empty when it was not."""

    async def run(self, handle: Callable[[rpc.Request], Any]) -> None:
        """Serve until the bridge is gone or dropped.

        `handle` answers a call with its data or by raising Refusal; what it sends meanwhile goes out after
        the answer.
        """
        parts: list[Awaitable[None]] = [
            self._read(handle),
            self._write(),
            self._carry_out_orders(),
            self._wait_dropped(),
        ]
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end("the connection to the bridge ended")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    def drop(self, reason: str) -> None:
        """End the connection: the bridge will come back and find everything anew."""
        if not self._ended.is_set():
            self.reason = reason
            _log.warning("bridge.dropped", reason=reason)
            self._end(reason)

    async def call(
        self, target: str, method: str, args: Sequence[Any] = (), *, timeout: float | None = None
    ) -> Any:
        """Return what the bridge answers. Raises RpcFailedError or RpcLostError; `timeout` is seconds."""
        if self._ended.is_set() or len(self._waiting) >= self._max_unsent:
            raise RpcLostError(f"{method}: the bridge is not there")
        self._last_id += 1
        id_ = self._last_id
        reply: asyncio.Future[rpc.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = reply
        try:
            self._send(
                rpc.Request(to=target, method=method, args=list(args), corr_id=id_, reply_to="owt-cluster")
            )
            async with asyncio.timeout(self._call_timeout if timeout is None else timeout):
                answer = await reply
        except TimeoutError:
            raise RpcLostError(f"{method}: the bridge does not answer") from None
        finally:
            del self._waiting[id_]
        if answer.data == rpc.FAILED or answer.err is not None:
            raise RpcFailedError(f"{method}: {str(answer.err)[:300]}")
        return answer.data

    def cast(self, target: str, method: str, args: Sequence[Any] = ()) -> None:
        """Call without waiting for an answer; nothing after the connection has ended."""
        if not self._ended.is_set():
            self._send(rpc.Request(to=target, method=method, args=list(args)))

    def order(self, target: str, method: str, args: Sequence[Any] = (), *, important: bool = False) -> None:
        """Have the bridge called after all orders before this one are carried out.

        The failure of an order is only logged; but a bridge that does not answer an important one is dropped,
        as its picture of the room would be wrong from then on.
        """
        if self._ended.is_set():
            return
        try:
            self._orders.put_nowait(_Order(target, method, tuple(args), important))
        except asyncio.QueueFull:
            self.drop("it does not keep up with its orders")

    def _send(self, message: rpc.Request | rpc.Reply) -> None:
        try:
            self._unsent.put_nowait(rpc.encode(message).decode())
        except asyncio.QueueFull:
            self.drop("it does not read its messages")

    def _end(self, reason: str) -> None:
        self._ended.set()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(RpcLostError(reason))
                # Whoever waits may be cancelled at this very moment and never look.
                reply.exception()

    async def _wait_dropped(self) -> None:
        await self._ended.wait()

    async def _write(self) -> None:
        try:
            while True:
                await self._websocket.send_text(await self._unsent.get())
        except (WebSocketDisconnect, RuntimeError) as error:
            # Starlette raises RuntimeError for sending after the other side has gone.
            _log.debug("bridge.gone", reason=str(error))

    async def _carry_out_orders(self) -> None:
        while True:
            order = await self._orders.get()
            try:
                await self.call(order.target, order.method, order.args)
            except RpcFailedError as error:
                _log.warning("bridge.order_failed", method=order.method, error=str(error))
            except RpcLostError as error:
                if order.important:
                    self.drop(str(error))
                    return
                _log.warning("bridge.order_lost", method=order.method, error=str(error))

    async def _read(self, handle: Callable[[rpc.Request], Any]) -> None:
        while True:
            try:
                text = await self._websocket.receive_text()
            except (WebSocketDisconnect, RuntimeError, KeyError):
                # RuntimeError: a send has just found out. KeyError: a binary message, which means nothing.
                return
            try:
                message = rpc.decode(text.encode())
            except WireError as error:
                self.drop(f"it does not speak RPC: {error}")
                return
            if isinstance(message, rpc.Reply):
                waiting = self._waiting.get(message.corr_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                continue
            data, failure = _outcome(handle, message)
            if message.corr_id is not None:
                self._send(rpc.Reply(corr_id=message.corr_id, data=data, err=failure))


def _outcome(handle: Callable[[rpc.Request], Any], request: rpc.Request) -> tuple[Any, str | None]:
    try:
        return handle(request), None
    except Refusal as refusal:
        _log.info("node.refused", method=request.method, reason=str(refusal))
        return rpc.FAILED, str(refusal)
