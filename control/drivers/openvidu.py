"""OpenVidu 2 clusters: their REST API (2.32, base `{rest_url}/openvidu/api`) as a ClusterDriver.

Rooms are sessions and tokens are connections. A session's id is the conference's, so it may only have
letters, digits, `-` and `_`. OpenVidu cannot cascade. It sends no heartbeats: `health` and `list_sessions`
are there to be asked. The service id is OPENVIDUAPP, the service key is the server's OPENVIDU_SECRET.

Community and Pro editions differ: what only Pro has, others answer with 404, 405 or 501, which is read as
"not known". Refusals often have an empty body, and the same status means another thing in each call: the
tables below say what, where it is not the usual.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Unpack

from control.drivers.base import (
    BusyError,
    Health,
    MalformedAnswerError,
    NotSupportedError,
    RecordingNotFoundError,
    RequestRefusedError,
    RoomNotFoundError,
    RoomParticipant,
    Survey,
    UnreachableError,
)
from control.drivers.connections import ClusterConnections, refusal, segment
from control.drivers.kinds import OPENVIDU
from control.drivers.openvidu_answers import (
    read_connections,
    read_health,
    read_media_nodes,
    read_recording,
    read_recordings,
    read_session,
    read_sessions,
    read_token,
)
from control.drivers.openvidu_rest import OpenViduRest, accepted
from control.drivers.openvidu_rooms import session_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from causeway.api import RoomOptions
    from control.drivers.base import Bridges, Capabilities, RoomToken
    from control.drivers.connections import Limits
    from control.drivers.openvidu_answers import Connection, MediaNode, Recording, Session
    from control.drivers.openvidu_rest import Meanings

__all__ = ["ROLES", "SERVICE_ID", "OpenViduConnections", "OpenViduDriver", "OutputMode"]

SERVICE_ID: Final = "OPENVIDUAPP"
"""The one user that the REST API has."""

ROLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "presenter": "PUBLISHER",
        "publisher": "PUBLISHER",
        "viewer": "SUBSCRIBER",
        "subscriber": "SUBSCRIBER",
        "moderator": "MODERATOR",
        "administrator": "MODERATOR",
    }
)
"""Our roles as OpenVidu's. The first name of each is what participants are listed with. A role that is not
here is refused: guessing one could grant more than was meant."""

OutputMode = Literal["COMPOSED", "COMPOSED_QUICK_START", "INDIVIDUAL"]

_PRO_ONLY: Final = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
_MAX_USER: Final = 256
"""Longer ones are none of ours: whoever made such a connection did it past us."""
_RECORDING_NAME: Final = re.compile(r"[A-Za-z0-9_~-]+")


# --- what statuses mean ------------------------------------------------------------------------

_OF_LISTING: Final[Meanings] = {404: (UnreachableError, "there is no OpenVidu API")}
_OF_CREATING: Final[Meanings] = {
    404: (UnreachableError, "no master takes it"),  # from a balancer whose masters are changing over
}
_OF_DELETING: Final[Meanings] = {400: (BusyError, "the session is just being closed")}
_OF_STARTING: Final[Meanings] = {
    406: (BusyError, "nobody is connected to the session"),
    501: (NotSupportedError, "recording is switched off"),
}
_OF_RECORDING: Final[Meanings] = {
    404: (RecordingNotFoundError, "it does not know the recording"),
    406: (BusyError, "the recording is still starting"),
    501: (NotSupportedError, "recording is switched off"),
}


# --- the pool ---------------------------------------------------------------------------------


class OpenViduConnections(ClusterConnections):
    """The connections to all OpenVidu clusters; see ClusterConnections."""

    def __init__(
        self,
        *,
        session_timeout: float = 20.0,
        recording_timeout: float = 60.0,
        max_listing_bytes: int = 16 << 20,
        roles: Mapping[str, str] = ROLES,
        **limits: Unpack[Limits],
    ) -> None:
        """Set limits: these, and those of ClusterConnections; timeouts are in seconds.

        `session_timeout` is for creating and deleting a session: the server waits up to 15 s for one that is
        just closing. `recording_timeout` is for starting and stopping a recording: the server waits up to
        30 s for its file, after up to 15 s for the session. `max_listing_bytes` limits the answers that list
        a whole cluster, in place of `max_answer_bytes`.
        """
        super().__init__(**limits)
        self.session_timeout = session_timeout
        self.recording_timeout = recording_timeout
        self.max_listing_bytes = max_listing_bytes
        self.roles = dict(roles)
        self.names = {theirs: ours for ours, theirs in reversed([*roles.items()])}

    def driver(self, *, rest_url: str, service_id: str = SERVICE_ID, service_key: str) -> OpenViduDriver:
        """Return the driver of one cluster: cheap, no I/O, as long-lived as one likes."""
        return OpenViduDriver(self, rest_url=rest_url, service_id=service_id, service_key=service_key)


# --- the driver -------------------------------------------------------------------------------


class OpenViduDriver:
    """One OpenVidu cluster; fills control.drivers.base.ClusterDriver."""

    capabilities: ClassVar[Capabilities] = OPENVIDU

    def __init__(
        self, connections: OpenViduConnections, *, rest_url: str, service_id: str, service_key: str
    ) -> None:
        self._connections = connections
        self._rest = OpenViduRest(
            connections,
            rest_url=rest_url,
            service_id=service_id,
            service_key=service_key,
            max_listing_bytes=connections.max_listing_bytes,
        )

    # --- the cluster --------------------------------------------------------------------------

    async def health(self) -> Health:
        """See ClusterDriver. Pro says it, ill health with 409 or 503; others have to list their sessions."""
        status, answer = await self._rest.send("GET", "health")
        if status in _PRO_ONLY:
            await self.list_sessions()
            return Health()
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            try:
                return read_health(answer)
            except MalformedAnswerError:  # not the cluster speaks, but a proxy in front of it
                raise refusal(status) from None
        if status == HTTPStatus.CONFLICT:
            return read_health(answer)
        return read_health(accepted(status, answer))

    async def list_sessions(self) -> tuple[Session, ...]:
        """Return all sessions with their active connections, which is the cluster's load."""
        path = "sessions?pendingConnections=false&webRtcStats=false"
        return read_sessions(await self._rest.call("GET", path, listing=True, meanings=_OF_LISTING))

    async def list_media_nodes(self) -> tuple[MediaNode, ...] | None:
        """Return the media nodes, or None where the edition knows of none."""
        status, answer = await self._rest.send("GET", "media-nodes", listing=True)
        if status in _PRO_ONLY:
            return None
        return read_media_nodes(accepted(status, answer))

    async def survey(self) -> Survey:
        """See ClusterDriver: one call for everybody in every session, one for how busy the machines are."""
        nodes = [node for node in await self.list_media_nodes() or () if node.status == "running"]
        sessions = await self.list_sessions()
        return Survey(
            rooms={session.id: self._people(session.connections) for session in sessions},
            streams=sum(session.streams for session in sessions),
            cpu=min(1.0, sum(node.load for node in nodes) / len(nodes) / 100) if nodes else 0.0,
        )

    # --- rooms --------------------------------------------------------------------------------

    async def create_room(
        self,
        conference: str,
        options: RoomOptions,
        *,
        placement: int = 0,  # noqa: ARG002 - knows none
    ) -> str:
        """See ClusterDriver. Raises RequestRefusedError also for an id that no session can have."""
        body = {"customSessionId": _session(conference), **session_options(options)}
        status, answer = await self._rest.send(
            "POST", "sessions", body=body, timeout=self._connections.session_timeout
        )
        if status == HTTPStatus.CONFLICT:  # it exists
            return conference
        if read_session(accepted(status, answer, _OF_CREATING)).id != conference:
            raise MalformedAnswerError("the session has another id than it was given")
        return conference

    async def delete_room(self, room: str, *, placement: int | None = None) -> None:  # noqa: ARG002 - knows none
        """See ClusterDriver."""
        if not self.capabilities.accepts(room):
            return  # such a room cannot exist
        try:
            await self._rest.call(
                "DELETE",
                f"sessions/{_session(room)}",
                timeout=self._connections.session_timeout,
                meanings=_OF_DELETING,
            )
        except RoomNotFoundError:
            return

    async def create_token(
        self,
        room: str,
        *,
        user: str,
        role: str,
        region: str,  # noqa: ARG002 - a server has one address
        placement: int = 0,  # noqa: ARG002 - as in create_room
        timeout: float | None = None,
    ) -> RoomToken:
        """See ClusterDriver. The user is the connection's `data`.

        Raises RequestRefusedError also for a role that is not among those of OpenViduConnections.
        """
        theirs = self._connections.roles.get(role)
        if theirs is None:
            raise RequestRefusedError("the role is none that OpenVidu has")
        body = {"type": "WEBRTC", "role": theirs, "data": user}
        answer = await self._rest.call(
            "POST", f"sessions/{_session(room)}/connection", body=body, timeout=timeout
        )
        return read_token(answer, room)

    async def list_rooms(self, *, limit: int) -> Mapping[str, int]:  # noqa: ARG002 - it cannot be done at all
        """See ClusterDriver. Sessions do not say what they were made for."""
        raise NotSupportedError("its sessions do not say which placement they were made for")

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """See ClusterDriver. IP cameras are listed too, without a user."""
        path = f"sessions/{_session(room)}/connection?pendingConnections=false"
        return self._people(read_connections(await self._rest.call("GET", path, listing=True)))

    def _people(self, connections: Iterable[Connection]) -> tuple[RoomParticipant, ...]:
        names = self._connections.names
        return tuple(
            RoomParticipant(
                id=connection.id,
                user=(connection.server_data or "").replace("\0", "")[:_MAX_USER],
                role=names.get(connection.role or "", (connection.role or "").lower()),
            )
            for connection in connections
            if connection.active
        )

    # --- cascading ----------------------------------------------------------------------------

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:  # noqa: ARG002 - never looked at
        """Raise NotSupportedError: OpenVidu cannot cascade."""
        raise NotSupportedError("an OpenVidu cluster has no bridges")

    async def start_cascade(
        self,
        room: str,  # noqa: ARG002 - never looked at, as all that follow
        *,
        token: str,  # noqa: ARG002
        self_cluster: str,  # noqa: ARG002
        target_cluster: str,  # noqa: ARG002
        bridges: Bridges,  # noqa: ARG002
        with_fingerprints: bool,  # noqa: ARG002
    ) -> None:
        """Raise NotSupportedError: OpenVidu cannot cascade."""
        raise NotSupportedError("an OpenVidu cluster cannot cascade")

    async def stop_cascade(
        self,
        room: str,  # noqa: ARG002
        *,
        target_cluster: str,  # noqa: ARG002
    ) -> None:
        """Raise NotSupportedError: OpenVidu cannot cascade."""
        raise NotSupportedError("an OpenVidu cluster cannot cascade")

    # --- recordings ---------------------------------------------------------------------------

    async def start_recording(
        self,
        room: str,
        *,
        name: str | None = None,
        output_mode: OutputMode = "COMPOSED",
        has_audio: bool = True,
        has_video: bool = True,
    ) -> Recording:
        """Start recording the session, or return the recording of it that already runs, however it was made.

        `name`: letters, digits, `-`, `_` and `~`, by default the recording's id. Raises RoomNotFoundError,
        BusyError while nobody is connected, NotSupportedError where the server has recording switched off.
        """
        body: dict[str, Any] = {
            "session": _session(room),
            "outputMode": output_mode,
            "hasAudio": has_audio,
            "hasVideo": has_video,
        }
        if name is not None:
            if not _RECORDING_NAME.fullmatch(name):
                raise RequestRefusedError("not a recording's name")
            body["name"] = name
        timeout = self._connections.recording_timeout
        status, answer = await self._rest.send("POST", "recordings/start", body=body, timeout=timeout)
        if status == HTTPStatus.CONFLICT:
            running = [one for one in await self.list_recordings() if one.session_id == room and one.running]
            if running:
                return running[0]
        return read_recording(accepted(status, answer, _OF_STARTING))

    async def stop_recording(self, recording: str) -> Recording:
        """Stop it; one that is over already is returned as it is. Its status tells whether the file is ready.

        Raises RecordingNotFoundError, and BusyError while it is still starting. A server that fails in
        stopping (UnreachableError) may never say more about it: get_recording tells what became of it.
        """
        path = f"recordings/stop/{segment(recording, what='recording')}"
        timeout = self._connections.recording_timeout
        status, answer = await self._rest.send("POST", path, timeout=timeout)
        if status == HTTPStatus.CONFLICT:
            found = await self.get_recording(recording)
            if not found.running:
                return found
        return read_recording(accepted(status, answer, _OF_RECORDING))

    async def get_recording(self, recording: str) -> Recording:
        """Return it as it is now; raises RecordingNotFoundError."""
        path = f"recordings/{segment(recording, what='recording')}"
        return read_recording(await self._rest.call("GET", path, meanings=_OF_RECORDING))

    async def list_recordings(self) -> tuple[Recording, ...]:
        """Return all that the server knows: those that run, and those whose files it has."""
        meanings = _OF_LISTING | _OF_STARTING
        return read_recordings(await self._rest.call("GET", "recordings", listing=True, meanings=meanings))


def _session(room: str) -> str:
    """Return the room id, which is the session's; as it is, it is also one segment of a path."""
    if not OpenViduDriver.capabilities.accepts(room):
        raise RequestRefusedError("an OpenVidu session's id has only letters, digits, - and _")
    return room
