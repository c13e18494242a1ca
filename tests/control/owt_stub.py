"""The management API of an OWT cluster, as a real HTTP server in the test's own event loop.

It checks signatures the way owt-server 5.x does (timestampCheck on), keeps rooms, hands out tokens and bridge
addresses, and refuses cascading options that it does not know. Everything it was asked is in `calls`. It can
be told to misbehave: see `behave`.

    async with OwtStub(host="127.0.0.1") as stub:
        driver = owt.driver(rest_url=stub.url, service_id=stub.service_id, service_key=stub.service_key)
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

__all__ = ["Call", "OwtStub", "Trouble"]

REALM = "http://marte3.dit.upm.es"
CASCADING_OPTIONS = {
    "room": str,
    "token": str,
    "selfCluster": str,
    "targetCluster": str,
    "evIP": str,
    "evPort": int,
    "mediaIP": str,
    "mediaPort": int,
}
FINGERPRINT_OPTIONS = {"evFingerprint": str, "mediaFingerprint": str}

Kind = Literal["create_room", "get_room", "delete_room", "token", "participants", "bridges", "cascading"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that passed authentication."""

    kind: Kind
    room: str | None
    body: Any


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What to answer instead. `hang`: nothing, until the stub closes; `lose_answer`: obey, cut the line."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    lose_answer: bool = False


class OwtStub:
    """One cluster. Attributes may be changed at any time."""

    def __init__(
        self,
        *,
        service_id: str = "service-1",
        service_key: str = "a service key that must not leak",
        path: str = "",
        portal: str = "127.0.0.1:8080",
        fingerprints: bool = False,
        timestamp_check: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.service_id = service_id
        self.service_key = service_key
        self.portal = portal
        self.secure = False
        self.timestamp_check = timestamp_check
        self.fingerprints = fingerprints
        self.rooms: dict[str, dict[str, Any]] = {}
        self.participants: dict[str, list[dict[str, Any]]] = {}
        self.bridges: dict[str, Any] = {
            "eventbridgeip": "192.0.2.1",
            "eventbridgeport": 7700,
            "mediabridgeip": "192.0.2.2",
            "mediabridgeport": 7701,
        }
        if fingerprints:
            self.bridges |= {"eventbridgefingerprint": "e" * 64, "mediabridgefingerprint": "d" * 64}
        self.calls: list[Call] = []
        self.refused = 0
        """Requests answered 401."""
        self.stale = 0
        """Of these, the ones with a good signature and an old timestamp."""
        self.in_flight = 0
        self.url = ""
        self._path = path
        self._host = host
        self._ssl = ssl_context
        self._newest: tuple[int, str] | None = None
        self._tokens = 0
        self._troubles: dict[Kind, deque[Trouble]] = {}
        self._always: dict[Kind, Trouble] = {}
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- for tests ----------------------------------------------------------------------------

    def behave(self, kind: Kind, *troubles: Trouble, always: Trouble | None = None) -> None:
        """Have the next calls of a kind meet these troubles, one each; `always` goes on for good."""
        self._troubles[kind] = deque(troubles)
        if always is None:
            self._always.pop(kind, None)
        else:
            self._always[kind] = always

    def made(self, kind: Kind) -> list[Call]:
        """Return the calls of one kind, in order."""
        return [call for call in self.calls if call.kind == kind]

    async def wait_for(self, condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait until the condition holds; it is looked at after every call."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)

    # --- server -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 20)
        prefix = f"{self._path}/v1/rooms"
        app.router.add_post(prefix, self._route("create_room", self._create_room))
        app.router.add_get(prefix + "/{room}", self._route("get_room", self._get_room))
        app.router.add_delete(prefix + "/{room}", self._route("delete_room", self._delete_room))
        app.router.add_post(prefix + "/{room}/tokens", self._route("token", self._token))
        app.router.add_get(prefix + "/{room}/participants", self._route("participants", self._list))
        app.router.add_get(prefix + "/{room}/bridges", self._route("bridges", self._get_bridges))
        app.router.add_post(prefix + "/{room}/cascading", self._route("cascading", self._cascading))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0, ssl_context=self._ssl)
        await site.start()
        port = self._runner.addresses[0][1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._ssl else 'http'}://{name}:{port}{self._path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def _route(
        self, kind: Kind, handler: Callable[[str, Any], web.Response]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.in_flight += 1
            try:
                return await self._answer(kind, handler, request)
            finally:
                self.in_flight -= 1
                async with self._changed:
                    self._changed.notify_all()

        return answer

    async def _answer(
        self, kind: Kind, handler: Callable[[str, Any], web.Response], request: web.Request
    ) -> web.StreamResponse:
        if not self._authentic(request.headers.get("Authorization", "")):
            self.refused += 1
            return _error(401, 1102, "WWW-Authenticate: MAuth")
        body = await request.read()
        try:
            content = json.loads(body) if body else None
        except ValueError:
            return _error(400, 1201, "Invalid request body")
        room = request.match_info.get("room")
        self.calls.append(Call(kind=kind, room=room, body=content))
        async with self._changed:
            self._changed.notify_all()
        queued = self._troubles.get(kind)
        trouble = queued.popleft() if queued else self._always.get(kind)
        if trouble is None:
            return handler(room or "", content)
        if trouble.hang:
            await self._closing.wait()
        if trouble.lose_answer:
            handler(room or "", content)
            if request.transport is not None:
                request.transport.abort()
        return web.Response(status=trouble.status, body=trouble.body, headers=trouble.headers)

    def _authentic(self, header: str) -> bool:
        scheme, _, rest = header.partition(" ")
        fields = dict(part.partition("=")[::2] for part in rest.split(","))
        timestamp, cnonce = fields.get("mauth_timestamp", ""), fields.get("mauth_cnonce", "")
        mac = hmac.new(self.service_key.encode(), f"{timestamp},{cnonce}".encode(), hashlib.sha256)
        expected = b64encode(mac.hexdigest().encode()).decode()
        if not (
            scheme == "MAuth"
            and fields.get("realm") == REALM
            and fields.get("mauth_signature_method") == "HMAC_SHA256"
            and fields.get("mauth_serviceid") == self.service_id
            and timestamp.isdecimal()
            and cnonce
            and hmac.compare_digest(fields.get("mauth_signature", ""), expected)
        ):
            return False
        now = (int(timestamp), cnonce)
        if self.timestamp_check and self._newest is not None:
            older = now[0] < self._newest[0]
            if older or now == self._newest:
                self.stale += 1
                return False
        self._newest = now
        return True

    def saw_timestamp(self, timestamp: int) -> None:
        """Pretend that somebody else, say another replica, has used this timestamp."""
        self._newest = (timestamp, "somebody else")

    # --- the API ------------------------------------------------------------------------------

    def _create_room(self, _room: str, body: Any) -> web.Response:
        if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"]:
            return _error(400, 1201, "Invalid request body")
        options = body.get("options") or {}
        room = options.get("_id") or f"{len(self.rooms):024x}"
        if room in self.rooms:
            return _error(500, 2001, "E11000 duplicate key error")
        self.rooms[room] = {"_id": room, "id": room, "name": body["name"], "roles": [{"role": "presenter"}]}
        return web.json_response(self.rooms[room])

    def _get_room(self, room: str, _body: Any) -> web.Response:
        return web.json_response(self.rooms[room]) if room in self.rooms else _no_room()

    def _delete_room(self, room: str, _body: Any) -> web.Response:
        return _no_room() if self.rooms.pop(room, None) is None else web.Response(text="Room deleted")

    def _token(self, room: str, body: Any) -> web.Response:
        if room not in self.rooms:
            return _no_room()
        if not (body.get("user") and body.get("role") and set(body["preference"]) == {"isp", "region"}):
            return _error(400, 1301, "Name or role not valid")
        self._tokens += 1
        inside = {
            "tokenId": f"token-{self._tokens}",
            "host": self.portal,
            "secure": self.secure,
            "signature": "c2lnbmF0dXJl",
        }
        return web.Response(text=b64encode(json.dumps(inside).encode()).decode(), content_type="text/html")

    def _list(self, room: str, _body: Any) -> web.Response:
        return web.json_response(self.participants.get(room, [])) if room in self.rooms else _no_room()

    def _get_bridges(self, room: str, body: Any) -> web.Response:
        if room not in self.rooms:
            return _no_room()
        if not isinstance(body, dict) or not isinstance(body.get("targetCluster"), str):
            return _error(400, 1201, "Invalid request body")
        return web.json_response(self.bridges)

    def _cascading(self, room: str, body: Any) -> web.Response:
        if room not in self.rooms:
            return _no_room()
        options = body.get("options") if isinstance(body, dict) else None
        known = CASCADING_OPTIONS | (FINGERPRINT_OPTIONS if self.fingerprints else {})
        if not (
            isinstance(options, dict)
            and set(body) == {"options"}
            and set(options) <= set(known)
            and {"evIP", "evPort", "room", "token"} <= set(options)
            and all(type(value) is known[name] for name, value in options.items())
        ):
            return _error(400, 1201, "Invalid request body")
        return web.Response(text="ok", content_type="text/html")


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _no_room() -> web.Response:
    return _error(404, 1003, "Room not found")
