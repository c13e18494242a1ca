"""`GET /lab/stats`: what this cluster and its bridges are doing, for the laboratory's live table."""

from __future__ import annotations

import asyncio
import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from lab.rpc_socket import RpcFailedError, RpcLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from lab.hub import Hub
    from lab.rooms import Rooms, RunningRoom
    from lab.settings import LabSettings
    from lab.workers import Worker, Workers

__all__ = ["Stats"]


class Stats:
    """Collects the answer. `registered` says whether control has us in its registry."""

    def __init__(
        self,
        *,
        settings: LabSettings,
        secret: str,
        rooms: Rooms,
        workers: Workers,
        hub: Hub,
        registered: Callable[[], bool],
        bridge_timeout: float = 1.0,
    ) -> None:
        """Take the parts; `bridge_timeout`: seconds that a bridge may take for its own figures."""
        self._settings = settings
        self._expected = b"Bearer " + secret.encode()
        self._rooms = rooms
        self._workers = workers
        self._hub = hub
        self._registered = registered
        self._bridge_timeout = bridge_timeout

    async def serve(self, request: Request) -> Response:
        """Answer `{cluster, region, registered, rooms, tracks, bridges}` to whoever knows the node secret."""
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, self._expected):
            return Response(status_code=HTTPStatus.UNAUTHORIZED.value, headers={"WWW-Authenticate": "Bearer"})
        answer = {
            "cluster": self._settings.cluster,
            "region": self._settings.region,
            "registered": self._registered(),
            "rooms": [_room(running) for running in self._rooms.running],
            "tracks": [
                {
                    "room": counters.track.room,
                    "cluster": counters.track.key.cluster,
                    "stream": counters.track.key.stream,
                    "kind": counters.track.key.kind,
                    "pulling": counters.pulling,
                    "sinks": counters.sinks,
                    "subscribers": counters.subscribers,
                    "frames": counters.frames,
                    "bytes": counters.bytes,
                    "dropped_frames": counters.dropped_frames,
                    "key_frame_requests": counters.key_frame_requests,
                }
                for counters in self._hub.counters
            ],
            "bridges": await asyncio.gather(*(self._bridge(worker) for worker in self._workers.all)),
        }
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _bridge(self, worker: Worker) -> dict[str, Any]:
        """Return a bridge with its own figures, None when it does not tell them in time."""
        try:
            stats = await worker.call("getStats", timeout=self._bridge_timeout)
        except (RpcFailedError, RpcLostError):
            stats = None
        return {"id": worker.id, "purpose": worker.purpose, "load": worker.load, "stats": stats}


def _room(running: RunningRoom) -> dict[str, Any]:
    room = running.room
    return {
        "room": room.id,
        "node": running.node_id,
        "links": room.links,
        "participants": [
            {"id": one.id, "user": one.user, "role": one.role, "cascading": bool(one.cascading)}
            for one in room.participants
        ],
        "streams": [
            {
                "id": one.id,
                "cluster": one.cluster,
                "owner": one.info.owner,
                "tracks": [track.type for track in one.media.tracks],
            }
            for one in room.streams
        ],
        "subscriptions": [
            {
                "id": one.key.id,
                "owner": one.key.owner,
                "by_bridge": one.key.by_bridge,
                "stream": one.stream,
                "tracks": [track.kind for track in one.tracks],
            }
            for one in room.subscriptions
        ],
    }
