"""The management API of an OWT cluster, as a real HTTP server in the test's own event loop.

It checks signatures the way owt-server 5.x does (timestampCheck on), keeps rooms, hands out tokens and bridge
addresses, and refuses cascading options that it does not know. Everything it was asked is in `calls`. It can
be told to misbehave: see `behave`.

    async with OwtStub(host="127.0.0.1") as stub:
        driver = owt.driver(rest_url=stub.url, service_id=stub.service_id, service_key=stub.service_key)
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.control.cluster_stub import Call, ClusterStub, Route, Trouble

if TYPE_CHECKING:
    import ssl

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


class OwtStub(ClusterStub):
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
        super().__init__(
            service_id=service_id, service_key=service_key, path=path, ssl_context=ssl_context, host=host
        )
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
        self.stale = 0
        """Of the refused requests, the ones with a good signature and an old timestamp."""
        self._newest: tuple[int, str] | None = None
        self._tokens = 0

    def routes(self) -> list[Route]:
        rooms = "/v1/rooms"
        return [
            Route("list_rooms", "GET", rooms, self._list_rooms),
            Route("create_room", "POST", rooms, self._create_room),
            Route("get_room", "GET", rooms + "/{room}", self._get_room),
            Route("delete_room", "DELETE", rooms + "/{room}", self._delete_room),
            Route("token", "POST", rooms + "/{room}/tokens", self._token),
            Route("participants", "GET", rooms + "/{room}/participants", self._list),
            Route("bridges", "GET", rooms + "/{room}/bridges", self._get_bridges),
            Route("cascading", "POST", rooms + "/{room}/cascading", self._cascading),
            Route("stop_cascading", "DELETE", rooms + "/{room}/cascading/{peer}", self._stop_cascading),
        ]

    def error(self, request: web.Request, status: int) -> web.Response:
        if status == 401:
            return _error(401, 1102, "WWW-Authenticate: MAuth")
        return _error(status, 1201, "Invalid request body")

    def authentic(self, header: str) -> bool:
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

    def _list_rooms(self, _room: str, _body: Any) -> web.Response:
        return web.json_response(list(self.rooms.values()))

    def _create_room(self, _room: str, body: Any) -> web.Response:
        if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"]:
            return _error(400, 1201, "Invalid request body")
        options = body.get("options") or {}
        room = options.get("_id") or f"{len(self.rooms):024x}"
        if room in self.rooms:
            return _error(500, 2001, "E11000 duplicate key error")
        self.rooms[room] = {"_id": room, "id": room, "name": body["name"], "roles": [{"role": "presenter"}]}
        if "placementEpoch" in options:  # clusters of our own keep it, and show it
            self.rooms[room]["placementEpoch"] = options["placementEpoch"]
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

    def _stop_cascading(self, room: str, _body: Any) -> web.Response:
        """What clusters of our own have, and OWT has not."""
        return web.Response(text="ok", content_type="text/html") if room in self.rooms else _no_room()


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _no_room() -> web.Response:
    return _error(404, 1003, "Room not found")
