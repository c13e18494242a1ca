"""Somebody at a Janus server, as a browser would be: joins with what a join's answer says, by real WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from base64 import b64decode
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lab.media.picture import MovingPicture, read_number
from tests.edge.janus_server import API_SECRET

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["JanusPerson"]

PLUGIN = "janus.plugin.videoroom"
WIDTH, HEIGHT, FPS = 320, 180, 10


class JanusPerson:
    """`async with JanusPerson(token, "ada") as ada`: in the room; publishes and watches when told."""

    def __init__(self, token: str, display: str) -> None:
        self.invitation: dict[str, Any] = json.loads(b64decode(token))["janus"]
        self.display = display
        self.others: dict[int, dict[str, Any]] = {}
        """Who publishes, by the server's id."""
        self.numbers: dict[int, list[int]] = {}
        """Of the pictures that were decoded, by publisher."""
        self.sounds: dict[int, int] = {}
        self.changed = asyncio.Event()
        self._transactions = itertools.count()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._session: int | None = None
        self._room = 0
        self._connections: list[RTCPeerConnection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._socket: ClientConnection = await connect(
            self.invitation["url"], subprotocols=[Subprotocol("janus-protocol")], compression=None
        )
        self._tasks.append(asyncio.create_task(self._read()))
        try:
            await self._join()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _join(self) -> None:
        self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        self._room = await self._attach()
        joined = await self._say(
            self._room,
            {
                "request": "join",
                "ptype": "publisher",
                "room": self.invitation["room"],
                "id": self.invitation["id"],
                "pin": self.invitation["pin"],
                "token": self.invitation["token"],
                "display": self.display,
            },
        )
        self._note(joined["plugindata"]["data"])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            await connection.close()
        await self._socket.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Any, *, seconds: float = 20.0) -> None:
        """Wait until something about others or their pictures is so."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def named(self, display: str) -> int | None:
        """Return the id of who publishes under this name."""
        return next((id_ for id_, one in self.others.items() if one["display"] == display), None)

    async def publish(self) -> None:
        """Publish pictures with burnt-in numbers, and sound."""
        connection = RTCPeerConnection()
        self._connections.append(connection)
        connection.addTrack(_Pictures())
        connection.addTrack(_Sound())
        await connection.setLocalDescription(await connection.createOffer())
        answer = await self._say(
            self._room,
            {"request": "publish"},
            {"type": "offer", "sdp": connection.localDescription.sdp},
        )
        await connection.setRemoteDescription(RTCSessionDescription(answer["jsep"]["sdp"], "answer"))

    async def leave(self) -> None:
        await self._say(self._room, {"request": "leave"})

    async def watch(self, feed: int) -> None:
        """Receive and decode what somebody publishes."""
        handle = await self._attach()
        offered = await self._say(
            handle,
            {
                "request": "join",
                "ptype": "subscriber",
                "room": self.invitation["room"],
                "pin": self.invitation["pin"],
                "streams": [{"feed": feed}],
            },
        )
        connection = RTCPeerConnection()
        self._connections.append(connection)

        @connection.on("track")
        def received(track: MediaStreamTrack) -> None:
            self._tasks.append(asyncio.create_task(self._decode(feed, track)))

        await connection.setRemoteDescription(RTCSessionDescription(offered["jsep"]["sdp"], "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        await self._say(
            handle, {"request": "start"}, {"type": "answer", "sdp": connection.localDescription.sdp}
        )

    async def _decode(self, feed: int, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    number = read_number(frame.to_ndarray(format="yuv420p").astype(np.uint8, copy=False))
                    if number is not None:
                        self.numbers.setdefault(feed, []).append(number)
                else:
                    self.sounds[feed] = self.sounds.get(feed, 0) + 1
                self.changed.set()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                waiting = self._waiting.get(message.get("transaction", ""))
                if waiting is not None and message["janus"] != "ack" and not waiting.done():
                    waiting.set_result(message)
                elif message["janus"] == "event":
                    self._note(message["plugindata"]["data"])

    def _note(self, data: dict[str, Any]) -> None:
        for one in data.get("publishers", []):
            self.others[one["id"]] = one
        for gone in ("unpublished", "leaving"):
            self.others.pop(data.get(gone, 0), None)
        self.changed.set()

    async def _attach(self) -> int:
        handle: int = (await self._ask({"janus": "attach", "plugin": PLUGIN}))["data"]["id"]
        return handle

    async def _say(self, handle: int, body: dict[str, Any], jsep: Any = None) -> dict[str, Any]:
        message = {"janus": "message", "handle_id": handle, "body": body} | ({"jsep": jsep} if jsep else {})
        answer = await self._ask(message)
        assert "error" not in answer["plugindata"]["data"], answer
        return answer

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        transaction = str(next(self._transactions))
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = answer
        more: dict[str, Any] = {"transaction": transaction, "apisecret": API_SECRET}
        if self._session is not None:
            more["session_id"] = self._session
        await self._socket.send(json.dumps(message | more))
        async with asyncio.timeout(10):
            return await answer


class _Pictures(MediaStreamTrack):
    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._drawn = MovingPicture(WIDTH, HEIGHT)
        self._number = 0
        self._began: float | None = None

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        self._number += 1
        await asyncio.sleep(max(0.0, self._began + self._number / FPS - loop.time()))
        frame = av.VideoFrame.from_ndarray(self._drawn.draw(self._number), format="yuv420p")
        frame.pts, frame.time_base = self._number * 90_000 // FPS, Fraction(1, 90_000)
        return frame


class _Sound(MediaStreamTrack):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        self._number += 1
        await asyncio.sleep(max(0.0, self._began + self._number * 0.02 - loop.time()))
        samples = np.zeros((1, 960), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._number * 960, Fraction(1, 48_000)
        return frame
