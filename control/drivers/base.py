"""How control talks to a cluster: the one interface that every driver fills.

A driver object speaks to one cluster. Every call is idempotent, has a timeout, and raises `DriverError` and
nothing else (cancellation aside). Messages of these errors name the cluster's answer in short and never
carry a secret. The driver knows no registry, and keeps no state about rooms.

Rooms are named by the conference: the same id is the room's id in every cluster.

Kinds of clusters differ in what they can do at all. A driver's class says so in `capabilities`, so that
placement can leave out a cluster that will not do, without asking it: a conference on a cluster that cannot
cascade stays within that one cluster, and a conference whose id the cluster cannot take never goes there.
Whoever asks all the same gets NotSupportedError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from causeway.api import BridgeAddress, RoomOptions

__all__ = [
    "Bridges",
    "BrokenDownError",
    "BusyError",
    "Capabilities",
    "ClusterDriver",
    "CredentialsRefusedError",
    "DriverError",
    "DriverTimeoutError",
    "Health",
    "MalformedAnswerError",
    "NotSupportedError",
    "RecordingNotFoundError",
    "RequestRefusedError",
    "RoomNotFoundError",
    "RoomParticipant",
    "RoomToken",
    "Survey",
    "UnreachableError",
]


# --- errors -----------------------------------------------------------------------------------
#
# DriverError
# ├── UnreachableError          no connection, or it broke, or the cluster answered 5xx     retryable
# │   └── BrokenDownError       of these: it answered 5xx                                   retryable
# ├── DriverTimeoutError        no answer in time; it may still have been done              retryable
# ├── MalformedAnswerError      an answer that cannot be understood, or is too large        retryable
# ├── BusyError                 the room or recording is not in the state for it            retryable
# ├── CredentialsRefusedError   the service id or key is wrong (401, 403)
# ├── RoomNotFoundError         the cluster does not know the room (404)
# ├── RecordingNotFoundError    the cluster does not know the recording (404)
# ├── RequestRefusedError       the cluster does not like the request (other 4xx)
# └── NotSupportedError         clusters of this kind, or this one as it is set up, cannot do that


class DriverError(CausewayError):
    """A cluster did not do what was asked. `retryable`: the same call may well succeed a little later."""

    code: ClassVar[str] = "cluster-call-failed"
    retryable: ClassVar[bool] = False


class UnreachableError(DriverError):
    """No connection, a broken one, or a 5xx answer."""

    code: ClassVar[str] = "cluster-unreachable"
    retryable: ClassVar[bool] = True


class BrokenDownError(UnreachableError):
    """A 5xx answer: the cluster was there, and could not do it. It may be a peer's fault."""


class DriverTimeoutError(DriverError):
    """No answer in time. The cluster may have done it all the same: calls are idempotent for this."""

    code: ClassVar[str] = "cluster-timeout"
    retryable: ClassVar[bool] = True


class MalformedAnswerError(DriverError):
    """The answer is not what this kind of cluster says, or is larger than the limit."""

    code: ClassVar[str] = "cluster-answer-malformed"
    retryable: ClassVar[bool] = True


class BusyError(DriverError):
    """The room or recording is not in the state for it: still starting, still closing, nobody there yet."""

    code: ClassVar[str] = "cluster-busy"
    retryable: ClassVar[bool] = True


class CredentialsRefusedError(DriverError):
    """The cluster refuses its own service id and key: it must register again with the right ones."""

    code: ClassVar[str] = "cluster-credentials-refused"


class RoomNotFoundError(DriverError):
    """The cluster does not know the room: create it again."""

    code: ClassVar[str] = "cluster-room-not-found"


class RecordingNotFoundError(DriverError):
    """The cluster does not know the recording."""

    code: ClassVar[str] = "cluster-recording-not-found"


class RequestRefusedError(DriverError):
    """The cluster understood and refused."""

    code: ClassVar[str] = "cluster-request-refused"


class NotSupportedError(DriverError):
    """Clusters of this kind cannot do that (see Capabilities), or this one has it switched off."""

    code: ClassVar[str] = "cluster-cannot"


# --- what kinds of clusters can do -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a kind of cluster can do. One value per driver class: nothing here depends on the cluster."""

    cascade: bool
    """It can be joined with other clusters: `get_bridges` and `start_cascade` work. Where it is False, both
    raise NotSupportedError and a conference placed there must stay within that cluster."""
    recordings: bool
    """The driver has calls for recordings made by the cluster itself."""
    media_nodes: bool
    """The driver may know of the machines behind the cluster."""
    reports: bool
    """Clusters of this kind tell of their rooms and participants, in whatever form. Where it is False,
    control has to ask: `survey`."""
    stops_cascades: bool = False
    """It can be told to end a cascade: `stop_cascade` works. Else cascades end with their rooms."""
    lists_rooms: bool = False
    """Its rooms say which placement they were made for: `list_rooms` works."""
    room_ids: str = r"(?!\.{1,2}\Z).+"
    """Regular expression of the conference ids that can be a room's id there; see `accepts`."""

    def accepts(self, conference: str) -> bool:
        """Say whether a room of that name can exist there."""
        return re.fullmatch(self.room_ids, conference, re.DOTALL) is not None


# --- values -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomToken:
    """A client's way in: the portal's address, and the text that the client presents there, once."""

    ip: str
    port: int
    secure: bool
    text: str = field(repr=False)
    expires_at: datetime | None = None
    """Until when it is taken, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridges:
    """Where a cluster's bridges listen for one particular other cluster. Never cached: they may restart."""

    event: BridgeAddress
    media: BridgeAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomParticipant:
    """Somebody in a room, as the cluster lists it (cascaded ones included)."""

    id: str
    user: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Everybody in every room of a cluster that tells nothing by itself, and how busy it is."""

    rooms: Mapping[str, tuple[RoomParticipant, ...]]
    """By the room's id. A room that is not here does not exist."""
    streams: int
    cpu: float
    """0 to 1; 0 where it is not known."""

    @property
    def participants(self) -> int:
        """How many there are in all rooms, also in those that are none of ours."""
        return sum(len(people) for people in self.rooms.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a cluster that answers, and accepts its credentials, describes itself.

    `degraded`: it works, without some of its media nodes; `down`: it works not at all, having lost them all.
    A cluster that does not answer has no Health: the call raises.
    """

    state: Literal["up", "degraded", "down"] = "up"
    lost_nodes: tuple[str, ...] = ()
    """Ids of the media nodes it has lost, where it tells."""


# --- the interface ----------------------------------------------------------------------------


class ClusterDriver(Protocol):
    """One cluster. All calls raise DriverError; see its subclasses."""

    capabilities: ClassVar[Capabilities]
    """What clusters of this kind can do."""

    async def health(self) -> Health:
        """Ask the cluster how it is. An answer proves also that it takes our credentials."""
        ...

    async def create_room(self, conference: str, options: RoomOptions, *, placement: int = 0) -> str:
        """Create the room, or find it there already; return its id.

        `options`: what the conference's template says of its rooms.
        `placement`: epoch of the conference's placement there. A cluster whose tokens we sign takes only
        those of this epoch; other kinds of clusters are not told.
        """
        ...

    async def delete_room(self, room: str, *, placement: int | None = None) -> None:
        """Delete the room with everybody in it. A room that is not there is done.

        `placement`: the newest placement whose room is meant, at a cluster whose tokens we sign: a room that
        was made for a later one stays, as this order comes too late for it. None, and at other kinds of
        clusters: whichever room it is.
        """
        ...

    async def create_token(
        self,
        room: str,
        *,
        user: str,
        role: str,
        region: str,
        placement: int = 0,
        timeout: float | None = None,
    ) -> RoomToken:
        """Return a token for one client to join the room; `region` is a preference among portals.

        `placement`: as in create_room. `timeout`: seconds for the call, in place of the driver's own limit.
        """
        ...

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:
        """Return where this cluster's bridges listen for `target_cluster` to connect.

        Raises NotSupportedError unless `capabilities.cascade`.
        """
        ...

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
        """Tell this cluster (`self_cluster`) to connect to the bridges of `target_cluster` for the room.

        `token` is the room token at the target. With `with_fingerprints` the bridges' fingerprints go along,
        which only a cluster that itself has fingerprints understands.
        Raises NotSupportedError unless `capabilities.cascade`.
        """
        ...

    async def stop_cascade(self, room: str, *, target_cluster: str) -> None:
        """Tell this cluster to end the cascade of the room that it dialled to `target_cluster`.

        One that there is not has ended. Raises NotSupportedError unless `capabilities.stops_cascades`.
        """
        ...

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """Return everybody in the room."""
        ...

    async def list_rooms(self, *, limit: int) -> Mapping[str, int]:
        """Return {room: epoch of its placement} of the rooms that we had made, of at most `limit` rooms.

        Raises NotSupportedError unless `capabilities.lists_rooms`.
        """
        ...

    async def survey(self) -> Survey | None:
        """Return what is in all rooms at once; None where `capabilities.reports`: the cluster tells it."""
        ...
