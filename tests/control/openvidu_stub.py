"""The REST API of an OpenVidu 2 server (2.32), as a real HTTP server in the test's own event loop.

Basic authentication, sessions, connections, recordings; with `pro` also health and media nodes. Refusals have
the bodies that OpenVidu gives them: many are empty, the others are {timestamp, status, error, message, path}.

    async with OpenViduStub() as stub:
        driver = openvidu.driver(rest_url=stub.url, service_key=stub.service_key)
"""

from __future__ import annotations

import itertools
import re
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from tests.control.cluster_stub import Call, ClusterStub, Route, Trouble

if TYPE_CHECKING:
    import ssl

__all__ = ["Call", "OpenViduStub", "Trouble"]

ROLES = {"PUBLISHER", "SUBSCRIBER", "MODERATOR"}
OUTPUT_MODES = {"COMPOSED", "COMPOSED_QUICK_START", "INDIVIDUAL"}
NOW = 1_700_000_000_000


class OpenViduStub(ClusterStub):
    """One server. Attributes may be changed at any time."""

    def __init__(
        self,
        *,
        service_key: str = "a service key that must not leak",
        path: str = "",
        portal: str = "127.0.0.1:4443",
        pro: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(
            service_id="OPENVIDUAPP", service_key=service_key, path=path, ssl_context=ssl_context, host=host
        )
        self.portal = portal
        self.pro = pro
        self.recording_module = True
        self.closing: set[str] = set()
        """Sessions whose closing lock somebody holds."""
        self.rooms: dict[str, dict[str, Any]] = {}
        """Sessions, without their connections."""
        self.connections: dict[str, dict[str, dict[str, Any]]] = {}
        self.recordings: dict[str, dict[str, Any]] = {}
        self.media_nodes: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)

    def routes(self) -> list[Route]:
        api = "/openvidu/api"
        session, recording = f"{api}/sessions/{{room}}", f"{api}/recordings/{{room}}"
        always = [
            Route("create_room", "POST", f"{api}/sessions", self._create_session),
            Route("sessions", "GET", f"{api}/sessions", self._list_sessions),
            Route("get_room", "GET", session, self._get_session),
            Route("delete_room", "DELETE", session, self._delete_session),
            Route("token", "POST", f"{session}/connection", self._create_connection),
            Route("participants", "GET", f"{session}/connection", self._list_connections),
            Route("start_recording", "POST", f"{api}/recordings/start", self._start),
            Route("stop_recording", "POST", f"{api}/recordings/stop/{{room}}", self._stop),
            Route("recordings", "GET", f"{api}/recordings", self._list_recordings),
            Route("recording", "GET", recording, self._get_recording),
        ]
        pro_only = [
            Route("health", "GET", f"{api}/health", self._health),
            Route("media_nodes", "GET", f"{api}/media-nodes", self._list_media_nodes),
        ]
        return always + (pro_only if self.pro else [])

    def authentic(self, header: str) -> bool:
        pair = f"{self.service_id}:{self.service_key}"
        return header == "Basic " + b64encode(pair.encode()).decode()

    def error(self, request: web.Request, status: int) -> web.Response:
        return _error(status, "a message of the server", request.path)

    # --- for tests ----------------------------------------------------------------------------

    def join(self, room: str, connection: str, *, streams: int = 0) -> None:
        """Have the client of a pending connection arrive, and publish."""
        joined = self.connections[room][connection]
        joined |= {"status": "active", "activeAt": NOW, "token": None}
        joined["publishers"] = [{"streamId": f"str_{n}", "createdAt": NOW} for n in range(streams)]
        if self.pro:
            self.rooms[room] |= {"mediaNodeId": "media_1", "mediaNode": {"id": "media_1"}}

    def set_recording(self, recording: str, status: str) -> None:
        """Have a recording move on."""
        self.recordings[recording]["status"] = status

    # --- sessions -----------------------------------------------------------------------------

    def _create_session(self, _room: str, body: Any) -> web.Response:
        room = (body or {}).get("customSessionId") or f"ses_{next(self._numbers)}"
        if not isinstance(room, str) or not re.fullmatch(r"[a-zA-Z0-9_-]+", room):
            return _error(400, 'Parameter "customSessionId" is wrong', "/openvidu/api/sessions")
        if room in self.rooms:
            return web.Response(status=409)
        self.rooms[room] = {
            "id": room,
            "object": "session",
            "sessionId": room,
            "createdAt": NOW,
            "recording": False,
            "broadcasting": False,
            "mediaMode": "ROUTED",
            "recordingMode": "MANUAL",
            "customSessionId": room,
            "forcedVideoCodec": "MEDIA_SERVER_PREFERRED",
            "allowTranscoding": False,
        }
        self.connections[room] = {}
        return web.json_response(self._session(room))

    def _session(self, room: str) -> dict[str, Any]:
        return self.rooms[room] | {"connections": _content(self._active(room))}

    def _active(self, room: str) -> list[dict[str, Any]]:
        return [one for one in self.connections[room].values() if one["status"] == "active"]

    def _list_sessions(self, _room: str, _body: Any) -> web.Response:
        return web.json_response(_content([self._session(room) for room in self.rooms]))

    def _get_session(self, room: str, _body: Any) -> web.Response:
        return web.json_response(self._session(room)) if room in self.rooms else web.Response(status=404)

    def _delete_session(self, room: str, _body: Any) -> web.Response:
        if room in self.closing:
            return _error(400, "Timeout waiting for closing lock", "/openvidu/api/sessions")
        if self.rooms.pop(room, None) is None:
            return web.Response(status=404)
        del self.connections[room]
        return web.Response(status=204)

    # --- connections --------------------------------------------------------------------------

    def _create_connection(self, room: str, body: Any) -> web.Response:
        path = f"/openvidu/api/sessions/{room}/connection"
        if room not in self.rooms:
            return _error(404, f"Session {room} not found", path)
        if body.get("role", "PUBLISHER") not in ROLES or not isinstance(body.get("data", ""), str):
            return _error(400, f"Parameter role {body.get('role')} is not defined", path)
        connection = f"con_{next(self._numbers)}"
        query = urlencode({"sessionId": room, "token": f"tok_{next(self._numbers)}"})
        self.connections[room][connection] = made = {
            "id": connection,
            "object": "connection",
            "type": "WEBRTC",
            "status": "pending",
            "sessionId": room,
            "connectionId": connection,
            "createdAt": NOW,
            "activeAt": None,
            "location": None,
            "ip": None,
            "platform": None,
            "token": f"wss://{self.portal}?{query}",
            "record": True,
            "role": body.get("role", "PUBLISHER"),
            "serverData": body.get("data", ""),
            "clientData": None,
            "kurentoOptions": None,
            "publishers": None,
            "subscribers": None,
        }
        return web.json_response(made)

    def _list_connections(self, room: str, _body: Any) -> web.Response:
        if room not in self.rooms:
            return web.Response(status=404)
        pending = self.calls[-1].query.get("pendingConnections", "true") == "true"
        listed = list(self.connections[room].values()) if pending else self._active(room)
        return web.json_response(_content(listed))

    # --- recordings ---------------------------------------------------------------------------

    def _start(self, _room: str, body: Any) -> web.Response:
        room = body["session"]
        path = "/openvidu/api/recordings/start"
        if not self.recording_module:
            return web.Response(status=501)
        if body.get("outputMode", "COMPOSED") not in OUTPUT_MODES:
            return _error(400, "Parameter outputMode is not defined", path)
        if room not in self.rooms:
            return web.Response(status=404)
        if not self._active(room):
            return web.Response(status=406)
        if self.rooms[room]["recording"]:
            return web.Response(status=409)
        before = sum(one["sessionId"] == room for one in self.recordings.values())
        recording = f"{room}~{before}" if before else room
        self.recordings[recording] = {
            "id": recording,
            "object": "recording",
            "name": body.get("name", recording),
            "outputMode": body.get("outputMode", "COMPOSED"),
            "hasAudio": body.get("hasAudio", True),
            "hasVideo": body.get("hasVideo", True),
            "recordingLayout": "BEST_FIT",
            "resolution": "1280x720",
            "frameRate": 25,
            "sessionId": room,
            "createdAt": NOW,
            "size": 0,
            "duration": 0,
            "url": None,
            "status": "started",
        }
        self.rooms[room]["recording"] = True
        return web.json_response(self.recordings[recording])

    def _stop(self, recording: str, _body: Any) -> web.Response:
        if not self.recording_module:
            return web.Response(status=501)
        found = self.recordings.get(recording)
        if found is None:
            return web.Response(status=404)
        if found["status"] == "starting":
            return web.Response(status=406)
        if found["status"] != "started":
            return web.Response(status=409)
        if found["sessionId"] in self.rooms:
            self.rooms[found["sessionId"]]["recording"] = False
        found |= {"status": "stopped"} if self.pro else {"status": "ready", "size": 1234, "duration": 9.5}
        return web.json_response(found)

    def _get_recording(self, recording: str, _body: Any) -> web.Response:
        found = self.recordings.get(recording)
        return web.Response(status=404) if found is None else web.json_response(found)

    def _list_recordings(self, _room: str, _body: Any) -> web.Response:
        if not self.recording_module:
            return web.Response(status=501)
        items = list(self.recordings.values())
        return web.json_response({"count": len(items), "items": items})

    # --- Pro ----------------------------------------------------------------------------------

    def _health(self, _room: str, _body: Any) -> web.Response:
        lost = [node["id"] for node in self.media_nodes.values() if not node["connected"]]
        if not lost:
            return web.json_response({"status": "UP", "disconnectedMediaNodes": []})
        down = len(lost) == len(self.media_nodes)
        answer = {"status": "DOWN" if down else "UNSTABLE", "disconnectedMediaNodes": lost}
        return web.json_response(answer, status=503 if down else 409)

    def _list_media_nodes(self, _room: str, _body: Any) -> web.Response:
        return web.json_response(_content(list(self.media_nodes.values())))


def _content(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"numberOfElements": len(content), "content": content}


def _error(status: int, message: str, path: str) -> web.Response:
    body = {"timestamp": NOW, "status": status, "error": HTTPStatus(status).phrase}
    return web.json_response(body | {"message": message, "path": path}, status=status)
