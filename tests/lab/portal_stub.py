"""A cluster of one room for tests: a real portal, real frames over internal TCP, and trouble on demand.

Every stream is said to live in the cluster `far`, whoever published it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Self

from websockets.asyncio.server import ServerConnection, serve

from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from causeway.api import JoinAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.internal.listener import Source
    from bridges.wire.frame import Feedback

TOKEN = "token-of-the-join"


class PortalStub:
    """`async with PortalStub() as portal`: listens on 127.0.0.1, `portal.port`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.streams: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.subscriptions: dict[str, tuple[ServerConnection, list[Source], list[InternalReceiver]]] = {}
        self.connections: dict[ServerConnection, str] = {}
        self.refuse: dict[str, Any] = {}
        """Method → the error that it is answered with."""
        self.mute: set[str] = set()
        """Methods that are never answered."""
        self.answers: dict[str, Any] = {}
        """Method → data that is answered instead of the right one."""
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self.listener = await InternalListener.start()
        self._server = await serve(self._serve, "127.0.0.1", 0, compression=None)
        self.port: int = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/portal"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for subscription in list(self.subscriptions):
            self._end(subscription)
        await self.listener.close()

    async def until(self, condition: Callable[[], object], *, timeout: float = 10.0) -> None:
        """Wait until `condition` holds; it is looked at after every call and every connection's end."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: bool(condition()))

    def called(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == method]

    async def push(self, event: str, data: Any) -> None:
        for connection in list(self.connections):
            await connection.send(json.dumps({"event": event, "data": data}))

    async def send_raw(self, data: str | bytes) -> None:
        for connection in list(self.connections):
            await connection.send(data)

    async def drop_connections(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()

    async def remove_stream(self, stream_id: str) -> None:
        """As if the link to the stream's cluster dropped; its source is remembered."""
        del self.streams[stream_id]
        await self.push("streamRemoved", {"id": stream_id})

    async def add_stream(self, stream_id: str) -> None:
        self.streams[stream_id] = self.sources[stream_id][0]
        await self.push("streamAdded", self.streams[stream_id])

    async def end_subscriptions(self) -> None:
        for subscription, (connection, _sources, _receivers) in list(self.subscriptions.items()):
            self._end(subscription)
            event = {"event": "subscriptionEnded", "data": {"subscription": subscription, "reason": "test"}}
            await connection.send(json.dumps(event))

    def break_frames(self) -> None:
        """Close the internal connections of every subscription, and say nothing."""
        for _connection, sources, _receivers in self.subscriptions.values():
            for source in sources:
                source.close()

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections[connection] = ""
        try:
            async for text in connection:
                request = json.loads(text)
                method, params = request["method"], request["params"]
                if method not in self.mute:
                    await connection.send(
                        json.dumps({"id": request["id"], **await self._answer(connection, method, params)})
                    )
                self.calls.append((method, params))
                await self._notify()
        finally:
            participant = self.connections.pop(connection)
            for subscription, (owner, _sources, _receivers) in list(self.subscriptions.items()):
                if owner is connection:
                    self._end(subscription)
            for stream_id, stream in list(self.streams.items()):
                if stream["info"]["owner"] == participant:
                    await self.remove_stream(stream_id)
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _answer(
        self, connection: ServerConnection, method: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        if method in self.refuse:
            return {"ok": False, "error": self.refuse[method]}
        data: Any = None
        match method:
            case _ if method in self.answers:
                data = self.answers[method]
            case "join":
                return self._join(connection, params)
            case "publish":
                data = await self._publish(connection, params)
            case "subscribe" if params["stream"] in self.streams:
                data = await self._subscribe(connection, params)
            case "unsubscribe" if params["subscription"] in self.subscriptions:
                self._end(params["subscription"])
            case "unpublish" if params["stream"] in self.streams:
                await self.remove_stream(params["stream"])
            case "leave":
                pass
            case _:
                return {"ok": False, "error": {"code": "unknown", "message": f"no {method} of that"}}
        return {"ok": True, "data": data}

    def _join(self, connection: ServerConnection, params: dict[str, Any]) -> dict[str, Any]:
        if params["token"] != TOKEN:
            return {"ok": False, "error": {"code": "bad-token", "message": "no such token"}}
        participant = self.connections[connection] = f"participant-{secrets.token_hex(4)}"
        data = {
            "participant": participant,
            "room": "room-1",
            "participants": [{"id": participant, "user": "somebody"}],
            "streams": list(self.streams.values()),
            "internal": {"ip": "127.0.0.1", "port": self.listener.port},
        }
        return {"ok": True, "data": data}

    async def _publish(self, connection: ServerConnection, params: dict[str, Any]) -> dict[str, Any]:
        stream_id = f"stream-{secrets.token_hex(4)}"
        tracks = [{**track, "source": "mic", "status": "active"} for track in params["tracks"]]
        stream = {
            "id": stream_id,
            "type": "forward",
            "media": {"tracks": tracks},
            "info": {"owner": self.connections[connection], "type": "webrtc", "inViews": []},
            "cluster": "far",
        }
        self.sources[stream_id] = (stream, params["source"])
        await self.add_stream(stream_id)
        return {"stream": stream_id, "tracks": [{"id": one["id"], "type": one["type"]} for one in tracks]}

    async def _subscribe(self, connection: ServerConnection, params: dict[str, Any]) -> dict[str, Any]:
        stream, address = self.sources[params["stream"]]
        subscription, granted = f"subscription-{secrets.token_hex(4)}", []
        sources: list[Source] = []
        receivers: list[InternalReceiver] = []
        self.subscriptions[subscription] = (connection, sources, receivers)
        for track in stream["media"]["tracks"]:
            if track["type"] in params["tracks"]:
                id_ = f"sink-{secrets.token_hex(8)}"
                upstream: list[InternalReceiver] = []

                def ask(feedback: Feedback, upstream: list[InternalReceiver] = upstream) -> None:
                    for receiver in upstream:
                        receiver.send(feedback)

                source = self.listener.add_source(id_, on_feedback=ask)
                receiver = await InternalReceiver.connect(
                    address["ip"], address["port"], track["id"], on_frame=source.write, on_lost=lambda _: None
                )
                upstream.append(receiver)
                sources.append(source)
                receivers.append(receiver)
                granted.append({"id": id_, "type": track["type"]})
        return {"subscription": subscription, "tracks": granted}

    def _end(self, subscription: str) -> None:
        _connection, sources, receivers = self.subscriptions.pop(subscription)
        for source in sources:
            source.close()
        for receiver in receivers:
            receiver.close()


def place(portal: PortalStub, *, token: str = TOKEN, region: str = "eu-west") -> JoinAnswer:
    """Control's answer to a join that leads to this portal."""
    return JoinAnswer(
        conference="c-1",
        cluster=f"cluster-{region}",
        region=region,
        placed="region",
        ip="127.0.0.1",
        port=portal.port,
        secure=False,
        room="room-1",
        token=token,
    )
