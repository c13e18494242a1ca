"""How control talks to a cluster: the one interface that every driver fills.

A driver object speaks to one cluster. Every call is idempotent, has a timeout, and raises `DriverError` and
nothing else (cancellation aside). Messages of these errors name the cluster's answer in short and never
carry a secret. The driver knows no registry, and keeps no state about rooms.

Rooms are named by the conference: the same id is the room's id in every cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from causeway.errors import CausewayError

if TYPE_CHECKING:
    from causeway.api import BridgeAddress

__all__ = [
    "Bridges",
    "ClusterDriver",
    "CredentialsRefusedError",
    "DriverError",
    "DriverTimeoutError",
    "MalformedAnswerError",
    "RequestRefusedError",
    "RoomNotFoundError",
    "RoomParticipant",
    "RoomToken",
    "UnreachableError",
]


# --- errors -----------------------------------------------------------------------------------
#
# DriverError
# ├── UnreachableError          no connection, or it broke, or the cluster answered 5xx     retryable
# ├── DriverTimeoutError        no answer in time; it may still have been done              retryable
# ├── MalformedAnswerError      an answer that cannot be understood, or is too large        retryable
# ├── CredentialsRefusedError   the service id or key is wrong (401, 403)
# ├── RoomNotFoundError         the cluster does not know the room (404)
# └── RequestRefusedError       the cluster does not like the request (other 4xx)


class DriverError(CausewayError):
    """A cluster did not do what was asked. `retryable`: the same call may well succeed a little later."""

    code: ClassVar[str] = "cluster-call-failed"
    retryable: ClassVar[bool] = False


class UnreachableError(DriverError):
    """No connection, a broken one, or a 5xx answer."""

    code: ClassVar[str] = "cluster-unreachable"
    retryable: ClassVar[bool] = True


class DriverTimeoutError(DriverError):
    """No answer in time. The cluster may have done it all the same: calls are idempotent for this."""

    code: ClassVar[str] = "cluster-timeout"
    retryable: ClassVar[bool] = True


class MalformedAnswerError(DriverError):
    """The answer is not what this kind of cluster says, or is larger than the limit."""

    code: ClassVar[str] = "cluster-answer-malformed"
    retryable: ClassVar[bool] = True


class CredentialsRefusedError(DriverError):
    """The cluster refuses its own service id and key: it must register again with the right ones."""

    code: ClassVar[str] = "cluster-credentials-refused"


class RoomNotFoundError(DriverError):
    """The cluster does not know the room: create it again."""

    code: ClassVar[str] = "cluster-room-not-found"


class RequestRefusedError(DriverError):
    """The cluster understood and refused."""

    code: ClassVar[str] = "cluster-request-refused"


# --- values -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomToken:
    """A client's way in: the portal's address, and the text that the client presents there, once."""

    ip: str
    port: int
    secure: bool
    text: str = field(repr=False)


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


# --- the interface ----------------------------------------------------------------------------


class ClusterDriver(Protocol):
    """One cluster. All calls raise DriverError; see its subclasses."""

    async def create_room(self, conference: str) -> str:
        """Create the room, or find it there already; return its id."""
        ...

    async def delete_room(self, room: str) -> None:
        """Delete the room with everybody in it. A room that is not there is done."""
        ...

    async def create_token(self, room: str, *, user: str, role: str, region: str) -> RoomToken:
        """Return a token for one client to join the room; `region` is a preference among portals."""
        ...

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:
        """Return where this cluster's bridges listen for `target_cluster` to connect."""
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
        """
        ...

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """Return everybody in the room."""
        ...
