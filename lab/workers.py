"""The cluster manager's book of bridges: who has joined, for which purpose, and which one is the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import structlog
from msgspec import Struct

from causeway.api import BridgeAddress
from lab.rpc_socket import RpcFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.rpc_socket import RpcSocket

__all__ = ["BridgePurpose", "Worker", "Workers"]

_log: Final = structlog.get_logger(__name__)

BridgePurpose = Literal["eventbridge", "mediabridge"]


class _Info(Struct):
    """A bridge's answer to getInfo."""

    ip: str
    port: int
    fingerprint: str | None = None


class Worker:
    """A bridge that has joined over its socket."""

    def __init__(self, worker_id: str, purpose: BridgePurpose, info: Any, socket: RpcSocket) -> None:
        self.id = worker_id
        self.purpose: Final = purpose
        self.info = info
        self.load = 0.0
        self._socket = socket

    async def call(self, method: str, args: Sequence[Any] = (), *, timeout: float | None = None) -> Any:
        """See RpcSocket.call."""
        return await self._socket.call(self.id, method, args, timeout=timeout)

    def cast(self, method: str, args: Sequence[Any] = ()) -> None:
        """See RpcSocket.cast."""
        self._socket.cast(self.id, method, args)

    def order(self, method: str, args: Sequence[Any] = (), *, important: bool = False) -> None:
        """See RpcSocket.order."""
        self._socket.order(self.id, method, args, important=important)

    def drop(self, reason: str) -> None:
        """See RpcSocket.drop."""
        self._socket.drop(reason)

    async def address(self) -> BridgeAddress:
        """Ask the bridge where it listens. Raises RpcLostError, RpcFailedError."""
        answer = await self.call("getInfo")
        try:
            info = msgspec.convert(answer, _Info)
            address = {"host": info.ip, "port": info.port, "fingerprint": info.fingerprint}
            return msgspec.convert(address, BridgeAddress)
        except msgspec.ValidationError as error:
            raise RpcFailedError(f"getInfo: {error}") from None


class Workers:
    """Everybody who has joined. Losing one calls every watcher, with the book already without it."""

    def __init__(self) -> None:
        self._by_id: dict[str, Worker] = {}
        self._changed = asyncio.Event()
        self.on_joined: list[Callable[[Worker], None]] = []
        self.on_lost: list[Callable[[Worker], None]] = []

    @property
    def all(self) -> list[Worker]:
        """Every worker, the newest last."""
        return list(self._by_id.values())

    def get(self, worker_id: str) -> Worker | None:
        """Return a worker by id."""
        return self._by_id.get(worker_id)

    def newest(self, purpose: BridgePurpose) -> Worker | None:
        """Return the worker for `purpose` that joined last, None when there is none."""
        found = [worker for worker in self._by_id.values() if worker.purpose == purpose]
        return found[-1] if found else None

    async def wait_newest(self, purpose: BridgePurpose) -> Worker:
        """Wait until there is a worker for `purpose`, and return the newest."""
        while (worker := self.newest(purpose)) is None:
            changed = self._changed
            await changed.wait()
        return worker

    def join(self, worker: Worker) -> None:
        """Take in a worker. One of the same id is an older connection of the same bridge, and is lost."""
        former = self._by_id.get(worker.id)
        if former is not None:
            former.drop("the same bridge joined again")
            self.lose(former)
        self._by_id[worker.id] = worker
        _log.info("bridge.joined", worker=worker.id, purpose=worker.purpose)
        self._changed.set()
        self._changed = asyncio.Event()
        for watcher in self.on_joined:
            watcher(worker)

    def lose(self, worker: Worker) -> None:
        """Remove a worker, if it is still in the book."""
        if self._by_id.get(worker.id) is not worker:
            return
        del self._by_id[worker.id]
        _log.info("bridge.lost", worker=worker.id, purpose=worker.purpose)
        for watcher in self.on_lost:
            watcher(worker)
