"""OWT clusters: their management API (owt-server 5.x, base `{rest_url}/v1`) as a ClusterDriver.

`OwtConnections` owns the connection pool (control.drivers.connections) and the clock for signatures and makes
one `OwtDriver` per cluster. control.drivers.owt_answers reads what is received.

Beyond OWT, used only between clusters whose bridges have fingerprints: `eventbridgefingerprint` and
`mediabridgefingerprint` in the answer to `bridges`, `evFingerprint` and `mediaFingerprint` in `cascading`.
"""

from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack
from urllib.parse import urlencode

import msgspec

from control.drivers.base import (
    DriverError,
    Health,
    NotSupportedError,
    RequestRefusedError,
    RoomNotFoundError,
    UnreachableError,
)
from control.drivers.connections import ClusterConnections, refusal, segment
from control.drivers.kinds import OWT
from control.drivers.mauth import MAuthClock, authorization
from control.drivers.owt_answers import (
    read_bridges,
    read_ok,
    read_participants,
    read_placed_rooms,
    read_room,
    read_rooms,
    read_token,
)
from control.drivers.owt_rooms import room_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causeway.api import RoomOptions
    from control.drivers.base import Bridges, Capabilities, RoomParticipant, RoomToken, Survey
    from control.drivers.connections import Limits

__all__ = ["OwtConnections", "OwtDriver"]

_PAGE: Final = 100
"""Rooms that are listed at a time."""
_SUCCESS: Final = frozenset({100, *range(200, 206)})


# --- the pool ---------------------------------------------------------------------------------


class OwtConnections(ClusterConnections):
    """The connections to all OWT clusters; see ClusterConnections."""

    def __init__(
        self, *, cascade_timeout: float = 200.0, max_refusals: int = 2, **limits: Unpack[Limits]
    ) -> None:
        """Set limits: these, and those of ClusterConnections.

        `cascade_timeout`, in seconds, is for `cascading` and `bridges`: a cluster schedules its bridges first
        and may take 90 s for each. `max_refusals`: how often a 401 is answered by signing anew with a later
        timestamp.
        """
        super().__init__(**limits)
        self.clock = MAuthClock()
        self.cascade_timeout = cascade_timeout
        self.max_refusals = max_refusals

    def driver(self, *, rest_url: str, service_id: str, service_key: str) -> OwtDriver:
        """Return the driver of one cluster: cheap, no I/O, as long-lived as one likes."""
        return OwtDriver(self, rest_url=rest_url, service_id=service_id, service_key=service_key)


# --- the driver -------------------------------------------------------------------------------


class OwtDriver:
    """One OWT cluster; fills control.drivers.base.ClusterDriver."""

    capabilities: ClassVar[Capabilities] = OWT

    def __init__(
        self, connections: OwtConnections, *, rest_url: str, service_id: str, service_key: str
    ) -> None:
        self._connections = connections
        self._base = rest_url.rstrip("/") + "/v1"
        self._service_id = service_id
        self._service_key = service_key

    async def health(self) -> Health:
        """See ClusterDriver. A cluster does not speak of its health: a signed request answered is enough."""
        read_rooms(await self._call("GET", "rooms?page=1&per_page=1"))
        return Health()

    async def create_room(self, conference: str, options: RoomOptions, *, placement: int = 0) -> str:  # noqa: ARG002 - OWT knows no placement
        """See ClusterDriver."""
        return await self.make_room(conference, options, {})

    async def make_room(self, conference: str, options: RoomOptions, more: Mapping[str, Any]) -> str:
        """Do what create_room does, with these options beside those of OWT.

        A cluster refuses an id that it has in various ways: so it is asked for it.
        """
        body = {"name": conference, "options": {"_id": conference, **room_options(options), **more}}
        try:
            answer = await self._call("POST", "rooms", body=body)
        except (RequestRefusedError, RoomNotFoundError, UnreachableError) as refused:
            try:
                answer = await self._call("GET", f"rooms/{segment(conference)}")
            except DriverError:
                raise refused from None
        read_room(answer, conference)
        return conference

    async def delete_room(self, room: str, *, placement: int | None = None) -> None:  # noqa: ARG002 - OWT knows no placement
        """See ClusterDriver."""
        await self.drop_room(room, {})

    async def drop_room(self, room: str, query: Mapping[str, Any]) -> None:
        """Do what delete_room does, with these parameters."""
        try:
            await self._call("DELETE", f"rooms/{segment(room)}{f'?{urlencode(query)}' if query else ''}")
        except RoomNotFoundError:
            return

    async def list_rooms(self, *, limit: int) -> Mapping[str, int]:  # noqa: ARG002 - it cannot be done at all
        """See ClusterDriver. OWT's rooms do not say what they were made for."""
        raise NotSupportedError("its rooms do not say which placement they were made for")

    async def placed_rooms(self, *, limit: int) -> Mapping[str, int]:
        """Return {room: epoch} of those that say which placement they were made for, of `limit` rooms."""
        found: dict[str, int] = {}
        seen = 0
        for page in itertools.count(1):
            rooms = read_placed_rooms(await self._call("GET", f"rooms?page={page}&per_page={_PAGE}"))
            found |= {room: epoch for room, epoch in rooms if epoch is not None}
            seen += len(rooms)
            if len(rooms) < _PAGE or seen >= limit:
                break
        return found

    async def create_token(
        self,
        room: str,
        *,
        user: str,
        role: str,
        region: str,
        placement: int = 0,  # noqa: ARG002 - OWT knows none
        timeout: float | None = None,
    ) -> RoomToken:
        """See ClusterDriver."""
        body = {"preference": {"isp": "isp", "region": region}, "user": user, "role": role}
        return read_token(
            await self._call("POST", f"rooms/{segment(room)}/tokens", body=body, timeout=timeout)
        )

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:
        """See ClusterDriver. A GET with a body, as the cluster wants it."""
        answer = await self._call(
            "GET",
            f"rooms/{segment(room)}/bridges",
            body={"targetCluster": target_cluster},
            timeout=self._connections.cascade_timeout,
        )
        return read_bridges(answer)

    async def start_cascade(
        self,
        room: str,
        *,
        token: str,
        self_cluster: str,
        target_cluster: str,
        bridges: Bridges,
        with_fingerprints: bool,
    ) -> None:
        """See ClusterDriver. The cluster refuses options that it does not know: exactly these are sent."""
        event, media = bridges.event, bridges.media
        options: dict[str, Any] = {
            "room": room,
            "token": token,
            "selfCluster": self_cluster,
            "targetCluster": target_cluster,
            "evIP": event.host,
            "evPort": event.port,
        }
        if media is not None:
            options |= {"mediaIP": media.host, "mediaPort": media.port}
        if with_fingerprints and event.fingerprint is not None:
            options["evFingerprint"] = event.fingerprint
        if with_fingerprints and media is not None and media.fingerprint is not None:
            options["mediaFingerprint"] = media.fingerprint
        answer = await self._call(
            "POST",
            f"rooms/{segment(room)}/cascading",
            body={"options": options},
            timeout=self._connections.cascade_timeout,
        )
        read_ok(answer)

    async def stop_cascade(self, room: str, *, target_cluster: str) -> None:
        """See ClusterDriver. OWT has no such call."""
        raise NotSupportedError(f"it cannot end the cascade of {room} to {target_cluster} by itself")

    async def unlink(self, room: str, target_cluster: str) -> None:
        """End the room's cascade, in a cluster of our own."""
        peer = segment(target_cluster, what="cluster")
        try:
            await self._call("DELETE", f"rooms/{segment(room)}/cascading/{peer}")
        except RoomNotFoundError:
            return

    async def survey(self) -> Survey | None:
        """See ClusterDriver."""
        return None

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """See ClusterDriver."""
        return read_participants(await self._call("GET", f"rooms/{segment(room)}/participants"))

    async def _call(self, method: str, path: str, *, body: Any = None, timeout: float | None = None) -> bytes:
        """Send a signed request and return the answer's body, or raise what its status means."""
        url = f"{self._base}/{path}"
        data = None if body is None else msgspec.json.encode(body)
        status, answer = await self._connections.within(timeout, self._signed(method, url, data))
        if status not in _SUCCESS:
            raise refusal(status)
        return answer

    async def _signed(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        """Sign and send; where the cluster refuses the signature, sign anew with a later timestamp.

        A refused request was not looked at, so repeating it is safe.
        """
        clock = self._connections.clock
        for _ in range(self._connections.max_refusals):
            stamp = clock.stamp()
            status, answer = await self._send(method, url, body, stamp)
            if status != HTTPStatus.UNAUTHORIZED:
                return status, answer
            clock.move_on(stamp)
        return await self._send(method, url, body, clock.stamp())

    async def _send(self, method: str, url: str, body: bytes | None, stamp: int) -> tuple[int, bytes]:
        header = authorization(self._service_id, self._service_key, timestamp=stamp)
        return await self._connections.send(method, url, body=body, authorization=header)
