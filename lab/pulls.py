"""Tracks of other clusters, while somebody here wants them: asked of the media bridge, one session a track.

The media bridge is told to `publish` the track (OWT's word: it becomes a source inside the cluster); it pulls
it over the link and serves it on its internal address, where the hub fetches it. A session per track, not per
stream, so that a second track can come or go without interrupting the first.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
import structlog
from msgspec import Meta, Struct

from causeway.backoff import Backoff
from lab.hub import Hub, Origin, RoutedTrack
from lab.rpc_socket import RpcFailedError, RpcLostError
from lab.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from lab.rooms import Rooms
    from lab.workers import Worker, Workers

__all__ = ["RemotePulls"]

_log: Final = structlog.get_logger(__name__)


class _Address(Struct):
    """A media bridge's answer to getInternalAddress."""

    ip: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]


class RemotePulls:
    """One task for each remote track that is wanted. An async context manager."""

    def __init__(
        self, *, rooms: Rooms, workers: Workers, hub: Hub, retry_base: float = 0.1, retry_cap: float = 1.0
    ) -> None:
        """Retries are in seconds."""
        self._rooms = rooms
        self._workers = workers
        self._hub = hub
        self._retry = (retry_base, retry_cap)
        self._tasks = Tasks()
        self._pulls: dict[RoutedTrack, asyncio.Task[None]] = {}
        self._lost: dict[tuple[str, str], set[asyncio.Event]] = {}
        """By worker and room."""
        workers.on_lost.append(self._worker_lost)
        workers.on_moved.append(self._room_moved)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pull in self._pulls.values():
            pull.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def demand(self, track: RoutedTrack, *, wanted: bool) -> None:
        """Follow what the hub needs; tracks of this cluster need no bridge."""
        if track.key.cluster == self._rooms.cluster:
            return
        if wanted:
            self._pulls[track] = self._tasks.create_task(self._pull(track))
        elif (pull := self._pulls.pop(track, None)) is not None:
            pull.cancel()

    def _worker_lost(self, worker: Worker) -> None:
        for (who, _), events in self._lost.items():
            if who == worker.id:
                _set_all(events)

    def _room_moved(self, room: str, former: Worker) -> None:
        _set_all(self._lost.get((former.id, room), ()))

    async def _pull(self, track: RoutedTrack) -> None:
        base, cap = self._retry
        backoff = Backoff(base=base, cap=cap)
        loop = asyncio.get_running_loop()
        try:
            while True:
                worker = await self._workers.wait_of("mediabridge", track.room)
                place, ended = (worker.id, track.room), asyncio.Event()
                self._lost.setdefault(place, set()).add(ended)
                started = loop.time()
                try:
                    await self._pull_through(worker, track, ended)
                except (RpcFailedError, RpcLostError, msgspec.ValidationError) as error:
                    _log.info(
                        "pull.failed", stream=track.key.stream, peer=track.key.cluster, reason=str(error)
                    )
                finally:
                    self._hub.clear_origin(track)
                    self._lost[place].discard(ended)
                    if not self._lost[place]:
                        del self._lost[place]
                if loop.time() - started > 2 * cap:
                    backoff.reset()
                # A fault of the link heals by itself, and nothing says when: there is only time to wait for.
                await asyncio.sleep(backoff.next_delay())
        finally:
            _log.debug("pull.ended", stream=track.key.stream, kind=track.key.kind)

    async def _pull_through(self, worker: Worker, track: RoutedTrack, ended: asyncio.Event) -> None:
        """Have the track until `ended`, which the loss of the source or of the bridge sets."""
        session, track_id = secrets.token_hex(10), secrets.token_hex(10)
        running = self._rooms.get_running(track.room)
        wanted = {"id": track_id, "type": track.key.kind, "from": track.key.stream}
        options: dict[str, Any] = {
            "controller": running.node_id if running is not None else self._rooms.worker_id,
            "type": "mediabridge",
            "originType": "webrtc",
            "cluster": track.key.cluster,
            "room": track.room,
            "pubArgs": [wanted],
            "media": {"tracks": [wanted]},
        }
        try:
            answer = await worker.call("publish", [session, "mediabridge", options])
            if answer != "ok":
                raise RpcFailedError(f"publish: {str(answer)[:300]}")
            address = msgspec.convert(await worker.call("getInternalAddress"), _Address)
            self._hub.set_origin(track, Origin(address.ip, address.port, track_id), on_lost=ended.set)
            await ended.wait()
        finally:
            worker.cast("unpublish", [session])


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
