"""What the tests of the laboratory cluster play against it: a bridge, a caller of its REST API, frames."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridges.wire import rpc
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from lab.cluster import Cluster, running_cluster
from lab.portal_client import PortalClient
from lab.settings import LabSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "a secret of node and bridges"
SERVICE = ("service", "key of the service")
TIMEOUT = 5.0


def lab_settings(**changes: Any) -> LabSettings:
    base: dict[str, Any] = {
        "cluster": "c1",
        "region": "eu-west",
        "service_id": SERVICE[0],
        "service_key": SERVICE[1],
        "node_secret": SECRET,
    }
    return LabSettings(**{**base, **changes})


@contextlib.asynccontextmanager
async def lab_cluster(**changes: Any) -> AsyncIterator[Cluster]:
    async with running_cluster(lab_settings(**changes)) as cluster:
        yield cluster


async def until(condition: Callable[[], object], *, timeout: float = TIMEOUT) -> None:
    """Wait for a condition of which nobody gives notice."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


def authorization(*, key: str = SERVICE[1], service: str = SERVICE[0], **changes: str) -> str:
    timestamp, cnonce = str(int(time.time() * 1000)), "00ff"
    signed = f"{changes.get('timestamp', timestamp)},{cnonce}"
    if "username" in changes:
        signed += f",{changes['username']},{changes['role']}"
    mac = hmac.new(key.encode(), signed.encode(), hashlib.sha256).hexdigest()
    header = (
        "MAuth realm=http://marte3.dit.upm.es,mauth_signature_method=HMAC_SHA256,"
        f"mauth_serviceid={service},mauth_cnonce={cnonce},"
        f"mauth_timestamp={changes.get('timestamp', timestamp)},"
        f"mauth_signature={b64encode(mac.encode()).decode()}"
    )
    if "username" in changes:
        header += f",mauth_username={changes['username']},mauth_role={changes['role']}"
    return header


class Rest:
    """Signed calls to the management API."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, header: str | None = None
    ) -> tuple[int, Any]:
        data = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        headers = {"Authorization": authorization() if header is None else header}
        async with self._http.request(
            method, f"{self._url}/v1/{path}", data=data, headers=headers
        ) as response:
            answer = await response.read()
            try:
                return response.status, msgspec.json.decode(answer)
            except msgspec.DecodeError:
                return response.status, answer.decode()


@contextlib.asynccontextmanager
async def rest(cluster: Cluster) -> AsyncIterator[Rest]:
    async with aiohttp.ClientSession() as http:
        yield Rest(http, cluster.url)


async def stats(cluster: Cluster, *, secret: str = SECRET) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{cluster.url}/lab/stats", headers={"Authorization": f"Bearer {secret}"}) as response,
    ):
        return response.status, await response.json() if response.ok else None


@contextlib.asynccontextmanager
async def member(cluster: Cluster, *, room: str = "room", **who: str) -> AsyncIterator[Member]:
    """A client that has joined through a token from the management API."""
    async with rest(cluster) as call:
        status, _ = await call("POST", "rooms", {"name": room, "options": {"_id": room}})
        assert status == 200
        body = {"preference": {}, "user": who.get("user", "u"), "role": who.get("role", "presenter")}
        status, token = await call("POST", f"rooms/{room}/tokens", body)
        assert status == 200, token
    async with await PortalClient.connect(f"ws://127.0.0.1:{cluster.port}/portal") as portal:
        joined = await portal.join(token)
        yield Member(portal, joined.participant, joined)


class Member:
    def __init__(self, portal: PortalClient, participant: str, joined: Any) -> None:
        self.portal = portal
        self.id = participant
        self.joined = joined

    async def event(self, name: str) -> Any:
        """Return the data of the next event of this name; others before it are skipped."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                event = await self.portal.next_event()
                if event.event == name:
                    return event.data


class FakeBridge:
    """A bridge's end of the node WebSocket: answers what it is asked, and remembers it."""

    def __init__(self, socket: ClientConnection, purpose: str, worker: str) -> None:
        self.purpose = purpose
        self.worker = worker
        self.asked: list[rpc.Request] = []
        self.answers: dict[str, Any] = {
            "getInfo": {"id": worker, "ip": "192.0.2.7", "port": 7000, "fingerprint": "ab" * 32},
            "getStats": {"links": []},
        }
        """By method: data, an exception to answer as failure, or None for no answer at all."""
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[rpc.Reply]] = {}
        self._changed = asyncio.Condition()
        self.closed = asyncio.Event()

    async def run(self) -> None:
        try:
            async for text in self._socket:
                message = rpc.decode(text.encode() if isinstance(text, str) else text)
                if isinstance(message, rpc.Reply):
                    self._waiting.pop(message.corr_id).set_result(message)
                    continue
                async with self._changed:
                    self.asked.append(message)
                    self._changed.notify_all()
                await self._answer(message)
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()

    async def _answer(self, request: rpc.Request) -> None:
        answer = self.answers.get(request.method, "ok")
        if request.corr_id is None or answer is None:
            return
        if isinstance(answer, Exception):
            reply = rpc.Reply(corr_id=request.corr_id, data=rpc.FAILED, err=str(answer))
        else:
            reply = rpc.Reply(corr_id=request.corr_id, data=answer)
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(rpc.encode(reply), text=True)

    async def call(self, to: str, method: str, *args: Any) -> Any:
        """Return the reply's data, or `("error", reason)`."""
        id_ = next(self._ids)
        reply: asyncio.Future[rpc.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = reply
        request = rpc.Request(to=to, method=method, args=list(args), corr_id=id_, reply_to=self.worker)
        await self._socket.send(rpc.encode(request), text=True)
        answer = await asyncio.wait_for(reply, TIMEOUT)
        return ("error", answer.err) if answer.data == rpc.FAILED else answer.data

    async def send(self, data: str | bytes) -> None:
        await self._socket.send(data)

    async def was_asked(self, method: str, count: int = 1) -> list[rpc.Request]:
        """Wait until `method` has been called `count` times; return these calls."""

        def found() -> list[rpc.Request]:
            return [request for request in self.asked if request.method == method]

        async with asyncio.timeout(TIMEOUT), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count)
            return found()

    async def node(self, room: str = "room") -> str:
        """Find a room's node as bridges do."""
        worker = await self.call("owt-cluster", "schedule", "conference", room, "preference", 30000)
        found = await self.call(worker["id"], "getNode", {"room": room, "task": room})
        assert isinstance(found, str), found
        return found

    async def hang_up(self) -> None:
        await self._socket.close()


@contextlib.asynccontextmanager
async def bridge(
    cluster: Cluster,
    purpose: str = "eventbridge",
    *,
    join: bool = True,
    name: str = "",
    process: str = "",
    secret: str = SECRET,
) -> AsyncIterator[FakeBridge]:
    worker = name or f"{purpose}-{'0' * 20}@127.0.0.1"
    async with connect(
        f"ws://127.0.0.1:{cluster.port}/node",
        additional_headers={"Authorization": f"Bearer {secret}"},
        compression=None,
        proxy=None,
    ) as socket:
        fake = FakeBridge(socket, purpose, worker)
        running = asyncio.create_task(fake.run())
        try:
            if join:
                info = {"ip": "127.0.0.1", "port": 0, "purpose": purpose, "state": 2, "process": process}
                assert await fake.call("owt-cluster", "join", purpose, worker, info) == "in-service"
            yield fake
        finally:
            await socket.close()
            await asyncio.wait([running])


def picture(number: int = 0, *, key_frame: bool = True, payload: bytes = b"picture") -> MediaFrame:
    info = VideoInfo(width=64, height=48, key_frame=key_frame)
    return MediaFrame.build(FrameFormat.VP8, timestamp=number * 3000, info=info, payload=payload)


def sound(number: int = 0) -> MediaFrame:
    info = AudioInfo(samples=960, sample_rate=48000, channels=2)
    return MediaFrame.build(FrameFormat.OPUS, timestamp=number * 960, info=info, payload=b"sound")
