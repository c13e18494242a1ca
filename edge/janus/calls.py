"""What is asked of the Janus server about one conference's room; every request can be made again.

An asyncio shell. It must not know why something is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from edge.janus.client import JanusRefusedError
from edge.janus.messages import (
    ALREADY_THERE,
    NOT_THERE,
    AddRemotePublisher,
    Allow,
    CreateRoom,
    DestroyRoom,
    Join,
    Kick,
    ListParticipants,
    PublishRemotely,
    RemoveRemotePublisher,
    RoomId,
    UnpublishRemotely,
)
from edge.janus.plan import Person, person_of
from edge.janus.showing import offer

if TYPE_CHECKING:
    from edge.janus.client import Room
    from edge.janus.messages import Request, RoomView, TokenAction
    from edge.janus.names import RoomNames
    from edge.janus.plan import FarStream
    from edge.janus.settings import JanusSettings
    from edge.rtp.endpoint import RtpEndpoint

__all__ = ["Entered", "RoomCalls"]

_MONITOR: Final = "causeway"
"""What others in the server's room see of the connector."""
_REMOTE_ID: Final = "causeway"


class Entered(Struct, frozen=True):
    """What was in the room."""

    people: dict[RoomId, Person]
    remote: set[RoomId]
    """Whom the server shows as remote publishers."""


class RoomCalls:
    """Asks through `room`. All methods raise JanusLostError, and JanusRefusedError for what is not said."""

    def __init__(self, room: Room, names: RoomNames, settings: JanusSettings) -> None:
        self._room = room
        self._names = names
        self._settings = settings

    async def enter(self, conference: str, *, tokens: list[str], publishers: int) -> Entered:
        """Have the room, with these tokens good to join, and be told from now on what happens in it."""
        names = self._names
        tokens = [names.token, *tokens]
        create = CreateRoom(
            room=names.room,
            description=conference,
            secret=names.secret,
            pin=names.pin,
            allowed=tokens,
            publishers=publishers,
            audiocodec=self._settings.audio_codecs,
            videocodec=self._settings.video_codecs,
            is_private=True,
            notify_joining=True,
            permanent=False,
            admin_key=self._settings.admin_key or None,
        )
        if not await self._unless(ALREADY_THERE, create):
            await self.allow(tokens)
        view = await self._join()
        listed = await self._room.ask(ListParticipants(room=names.room))
        remote = {one.id for one in listed.participants if one.remote}
        others = (one for one in [*view.publishers, *view.attendees] if one.id not in remote)
        return Entered({one.id: person_of(one) for one in others if one.id != names.monitor}, remote)

    async def destroy(self) -> None:
        """Have the room no more; none is fine."""
        await self._unless(NOT_THERE, DestroyRoom(room=self._names.room, secret=self._names.secret))

    async def allow(self, tokens: list[str]) -> None:
        """Let who has one of these tokens join."""
        await self._change_tokens("add", tokens)

    async def disallow(self, tokens: list[str]) -> None:
        """Let them no more; who has joined stays."""
        await self._change_tokens("remove", tokens)

    async def kick(self, person: RoomId) -> None:
        """Have somebody leave; one who is not there is fine."""
        kick = Kick(room=self._names.room, secret=self._names.secret, id=person)
        await self._unless(NOT_THERE, kick)

    async def forward(self, person: RoomId, *, host: str, endpoint: RtpEndpoint) -> None:
        """Have everything of a publisher sent to `endpoint`, at our address `host`."""
        ask = PublishRemotely(
            room=self._names.room,
            secret=self._names.secret,
            publisher_id=person,
            remote_id=_REMOTE_ID,
            host=host,
            port=endpoint.port,
            rtcp_port=endpoint.rtcp_port,
        )
        await self._room.ask(ask)

    async def stop_forwarding(self, person: RoomId) -> None:
        """Have it sent no more; not being sent is fine."""
        ask = UnpublishRemotely(
            room=self._names.room, secret=self._names.secret, publisher_id=person, remote_id=_REMOTE_ID
        )
        await self._unless(NOT_THERE, ask)

    async def add(self, feed: RoomId, shown: FarStream) -> RoomView:
        """Show a stream of another cluster as `feed`; the answer says to which ports it is to be sent."""
        ask = AddRemotePublisher(
            room=self._names.room,
            secret=self._names.secret,
            id=feed,
            display=shown.display,
            streams=offer(shown),
            iface=self._settings.remote_interface or None,
        )
        return await self._room.ask(ask)

    async def remove(self, feed: RoomId) -> None:
        """Show it no more; not being shown is fine."""
        ask = RemoveRemotePublisher(room=self._names.room, secret=self._names.secret, id=feed)
        await self._unless(NOT_THERE, ask)

    async def _join(self) -> RoomView:
        names = self._names
        join = Join(
            room=names.room,
            ptype="publisher",
            id=names.monitor,
            display=_MONITOR,
            pin=names.pin,
            token=names.token,
        )
        try:
            return await self._room.ask(join)
        except JanusRefusedError as error:
            if error.number not in ALREADY_THERE:
                raise
        # It is ourselves, on a connection that the server has not given up yet.
        await self.kick(names.monitor)
        return await self._room.ask(join)

    async def _change_tokens(self, action: TokenAction, tokens: list[str]) -> None:
        names = self._names
        await self._room.ask(Allow(room=names.room, secret=names.secret, action=action, allowed=tokens))

    async def _unless(self, codes: frozenset[int], request: Request) -> bool:
        """Ask for something; False when it is refused with one of `codes`."""
        try:
            await self._room.ask(request)
        except JanusRefusedError as error:
            if error.number not in codes:
                raise
            return False
        return True
