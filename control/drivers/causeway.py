"""Our own kind of cluster as a ClusterDriver: OWT's management API, and tokens that control signs.

Rooms, bridges and cascading are those of control.drivers.owt, to which this delegates. A token takes no call
to the cluster: it is signed here and now, and the cluster checks it with control's public keys. What only a
call would have shown, that the room is gone, is found by other means: such clusters report their rooms, and
refuse tokens of an earlier life of a room (`placementEpoch` in the room's options).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Protocol

from control.drivers.base import CredentialsRefusedError, RoomToken
from control.drivers.kinds import CAUSEWAY
from control.security.signing import Grant, NoSigningKeyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causeway.api import PortalAddress, RoomOptions
    from causeway.api.tokens import JoinClaims
    from control.drivers.base import Bridges, Capabilities, Health, RoomParticipant, Survey
    from control.drivers.owt import OwtDriver

__all__ = ["CausewayDriver", "Signs"]


class Signs(Protocol):
    """What makes tokens: control.keyring."""

    def sign(self, grant: Grant) -> tuple[str, JoinClaims]:
        """Return a token and what it says; raises NoSigningKeyError."""
        ...


class CausewayDriver:
    """One cluster of our own; fills control.drivers.base.ClusterDriver."""

    capabilities: ClassVar[Capabilities] = CAUSEWAY

    def __init__(
        self, owt: OwtDriver, signer: Signs, *, cluster: str, incarnation: str, portal: PortalAddress | None
    ) -> None:
        """Take the driver of its management API, and how the cluster registered."""
        self._owt = owt
        self._signer = signer
        self._cluster = cluster
        self._incarnation = incarnation
        self._portal = portal

    async def create_token(
        self,
        room: str,
        *,
        user: str,
        role: str,
        region: str,  # noqa: ARG002 - the cluster has registered one portal
        placement: int = 0,
        timeout: float | None = None,  # noqa: ARG002 - nothing takes time
    ) -> RoomToken:
        """See ClusterDriver. No cluster is asked, nothing waited for."""
        return self.sign_token(room, user=user, role=role, placement=placement)

    def sign_token(self, room: str, *, user: str, role: str, placement: int) -> RoomToken:
        """Return a token, here and now. Raises CredentialsRefusedError while nothing can sign."""
        if self._portal is None:
            raise CredentialsRefusedError("the cluster has registered no portal")
        grant = Grant(
            cluster=self._cluster,
            incarnation=self._incarnation,
            conference=room,
            placement=placement,
            user=user,
            role=role,
        )
        try:
            text, claims = self._signer.sign(grant)
        except NoSigningKeyError as error:
            raise CredentialsRefusedError(str(error)) from None
        return RoomToken(
            ip=self._portal.host,
            port=self._portal.port,
            secure=self._portal.secure,
            text=text,
            expires_at=datetime.fromtimestamp(claims.exp, UTC),
        )

    # --- as OWT -------------------------------------------------------------------------------

    async def health(self) -> Health:
        """See ClusterDriver."""
        return await self._owt.health()

    async def create_room(self, conference: str, options: RoomOptions, *, placement: int = 0) -> str:
        """See ClusterDriver."""
        return await self._owt.make_room(conference, options, {"placementEpoch": placement})

    async def delete_room(self, room: str, *, placement: int | None = None) -> None:
        """See ClusterDriver."""
        await self._owt.drop_room(room, {} if placement is None else {"placementEpoch": placement})

    async def list_rooms(self, *, limit: int) -> Mapping[str, int]:
        """See ClusterDriver."""
        return await self._owt.placed_rooms(limit=limit)

    async def get_bridges(self, room: str, *, target_cluster: str) -> Bridges:
        """See ClusterDriver."""
        return await self._owt.get_bridges(room, target_cluster=target_cluster)

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
        """See ClusterDriver."""
        await self._owt.start_cascade(
            room,
            token=token,
            self_cluster=self_cluster,
            target_cluster=target_cluster,
            bridges=bridges,
            with_fingerprints=with_fingerprints,
        )

    async def stop_cascade(self, room: str, *, target_cluster: str) -> None:
        """See ClusterDriver."""
        await self._owt.unlink(room, target_cluster)

    async def survey(self) -> Survey | None:
        """See ClusterDriver."""
        return None

    async def list_participants(self, room: str) -> tuple[RoomParticipant, ...]:
        """See ClusterDriver."""
        return await self._owt.list_participants(room)
