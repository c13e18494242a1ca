"""The cluster manager's book of bridges: who has joined, for which purpose, and which rooms each one has.

A room has one event bridge and one media bridge, the same ones for as long as they are there: of a cluster
with several, each carries a part of the rooms. Who has a room is decided when somebody asks first, unless
control has given it to somebody: then that one shows it, by having peers connected for the room. The two
bridges of one process go together, as their links do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
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
        self.process: Final = _text(info, "process")
        """What the bridges of one process have in common; empty: not known."""
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
        self._rooms: dict[str, dict[BridgePurpose, Worker]] = {}
        """Which bridges have a room."""
        self._changed = asyncio.Event()
        self.on_joined: list[Callable[[Worker], None]] = []
        self.on_lost: list[Callable[[Worker], None]] = []
        self.on_moved: list[Callable[[str, Worker], None]] = []
        """Called with a room and who had it: another one has it now."""

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

    def of(self, purpose: BridgePurpose, room: str) -> Worker | None:
        """Return the bridge that has a room, given to one now if it has none; None when there is no bridge.

        It is given to the one in the process that has it already, else to the one with the fewest rooms.
        """
        serving = self._rooms.get(room, {})
        if (known := serving.get(purpose)) is not None:
            return known
        able = [worker for worker in reversed(self._by_id.values()) if worker.purpose == purpose]
        if not able:
            return None
        mates = {worker.process for worker in serving.values() if worker.process}
        counts = Counter(each.id for bridges in self._rooms.values() for each in bridges.values())
        best = min(able, key=lambda worker: (worker.process not in mates, counts[worker.id]))
        self._rooms.setdefault(room, {})[purpose] = best
        return best

    async def wait_of(self, purpose: BridgePurpose, room: str) -> Worker:
        """Wait until there is a worker for `purpose`, and return the one that has the room."""
        while (worker := self.of(purpose, room)) is None:
            changed = self._changed
            await changed.wait()
        return worker

    def shown(self, worker: Worker, room: str) -> None:
        """Take note that peers are connected with a bridge for a room: it has it, with its whole process."""
        mates = [each for each in self._by_id.values() if each.process and each.process == worker.process]
        serving = self._rooms.setdefault(room, {})
        for each in [*mates, worker]:
            former = serving.get(each.purpose)
            serving[each.purpose] = each
            if former is not None and former is not each:
                _log.info("bridge.room_moved", room=room, worker=each.id, former=former.id)
                for watcher in self.on_moved:
                    watcher(room, former)

    def forget_room(self, room: str) -> None:
        """Take note that nobody has the room any more."""
        self._rooms.pop(room, None)

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
        for room, serving in list(self._rooms.items()):
            if serving.get(worker.purpose) is worker:
                del serving[worker.purpose]
            if not serving:
                del self._rooms[room]
        _log.info("bridge.lost", worker=worker.id, purpose=worker.purpose)
        for watcher in self.on_lost:
            watcher(worker)


def _text(info: Any, name: str) -> str:
    found = info.get(name) if isinstance(info, dict) else None
    return found if isinstance(found, str) else ""
