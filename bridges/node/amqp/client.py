"""Our calls over the broker: each waits for its reply, and is repeated when the broker was away.

A call whose reply the broker lost is made again: whoever is called may hear it twice, and OWT's conference
nodes answer a repeated call as the first one, or refuse it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridges.node.amqp.broker import BrokerLostError, NobodyThereError
from bridges.node.amqp.messages import decode_reply, encode_request
from bridges.node.calls import RpcCalls, outcome
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.wire import rpc
from bridges.wire.errors import WireError
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.node.amqp.broker import Broker
    from bridges.node.amqp.settings import AmqpSettings

__all__ = ["RpcClient"]

_log: Final = structlog.get_logger(__name__)


class RpcClient:
    """Calls servers at whichever broker is there at the moment."""

    def __init__(self, settings: AmqpSettings) -> None:
        self._settings = settings
        self._calls: RpcCalls[asyncio.Future[rpc.Reply]] = RpcCalls(max_outstanding=settings.max_outstanding)
        self.rejected = 0
        """Replies that could not be read."""
        self._broker: Broker | None = None
        self._there = asyncio.Event()
        self._back = False
        self._settled_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a broker."""
        return self._broker is not None

    # --- what the connection says ---------------------------------------------------------------

    def attach(self, broker: Broker) -> None:
        """Take note that there is a broker (again)."""
        self._broker = broker
        self._there.set()
        if self._back:
            self._settled_at = asyncio.get_running_loop().time() + self._settings.settle

    def detach(self) -> None:
        """Take note that the broker is gone: what waits for a reply is asked again at the next one."""
        self._broker = None
        self._there.clear()
        self._back = True
        for future in self._calls.fail_all():
            if not future.done():
                future.set_exception(BrokerLostError("the connection to the broker broke"))

    def replied(self, body: bytes) -> None:
        """Take a reply; one that nobody waits for, or that cannot be read, is dropped."""
        try:
            reply = decode_reply(body, max_bytes=self._settings.max_message_bytes)
        except WireError as error:
            self.rejected += 1
            _log.warning("node.bad_reply", bytes=len(body), error=str(error))
            return
        future = self._calls.take(reply.corr_id)
        if future is not None and not future.done():
            future.set_result(reply)

    # --- calls ----------------------------------------------------------------------------------

    async def call(self, server: str, method: str, args: Sequence[Any], *, timeout: float) -> Any:
        """Call a server and return the reply's data, waiting for the broker if it is away.

        Raises RpcError when the call failed there, or when there is no such server; NodeUnreachableError when
        no reply came within `timeout` seconds of the broker's being there, or no broker within `hold`.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = Backoff(base=0.05, cap=0.5)
        while True:
            broker = await self._wait_broker(method, began + self._settings.hold)
            try:
                return outcome(await self._ask(broker, server, method, args, timeout))
            except BrokerLostError:
                if self._broker is broker:
                    self.detach()  # Nobody has said so yet; asking it again would come to the same.
            except NobodyThereError as error:
                # It may be on its way back to the broker as we were: it gets the time that a reply would.
                delay = pause.next_delay()
                if loop.time() + delay > max(began + timeout, self._settled_at):
                    raise RpcError(f"{method}: {error}") from None
                await asyncio.sleep(delay)
            except NodeUnreachableError as error:
                raise NodeUnreachableError(f"{method}: {error}") from None
            except RpcError as error:
                raise RpcError(f"{method}: {error}") from None

    async def call_once(self, server: str, method: str, args: Sequence[Any], *, timeout: float) -> Any:
        """Call a server once, now. Raises RpcError, or NodeUnreachableError for everything else."""
        if self._broker is None:
            raise NodeUnreachableError(f"{method}: there is no broker")
        try:
            return outcome(await self._ask(self._broker, server, method, args, timeout))
        except (BrokerLostError, NobodyThereError) as error:
            raise NodeUnreachableError(f"{method}: {error}") from None

    async def cast(self, server: str, method: str, args: Sequence[Any]) -> None:
        """Tell a server something; without a broker, or a server, nobody hears it."""
        if self._broker is None:
            return
        body = encode_request(rpc.Request(to=server, method=method, args=list(args)))
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._broker.tell(server, body)
        except (BrokerLostError, TimeoutError) as error:
            _log.debug("node.cast_lost", method=method, error=str(error))

    async def reply(self, client: str, body: bytes) -> None:
        """Answer a call; without a broker the answer is lost, as the call is that it belongs to."""
        if self._broker is None:
            return
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._broker.tell(client, body)
        except (BrokerLostError, TimeoutError) as error:
            _log.debug("node.reply_lost", error=str(error))

    async def _wait_broker(self, method: str, until: float) -> Broker:
        try:
            async with asyncio.timeout_at(until):
                while self._broker is None:
                    await self._there.wait()
        except TimeoutError:
            raise NodeUnreachableError(f"{method}: the broker is away") from None
        return self._broker

    async def _ask(
        self, broker: Broker, server: str, method: str, args: Sequence[Any], timeout: float
    ) -> rpc.Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[rpc.Reply] = loop.create_future()
        deadline = loop.time() + timeout
        request = self._calls.begin(future, server, method, args, deadline=deadline, reply_to=broker.reply_to)
        assert request.corr_id is not None
        try:
            async with asyncio.timeout_at(deadline):
                await broker.request(server, encode_request(request))
                return await future
        except TimeoutError:
            raise NodeUnreachableError("no reply in time") from None
        finally:
            self._calls.take(request.corr_id)
            future.cancel()
