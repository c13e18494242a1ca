"""One conference in the Janus server and in the cluster: what is lacking on either side is made.

A shell around edge.janus.plan. What the server and the cluster's room tell becomes `Seen`; the steps that
the plan names are taken one at a time. What the cluster has outlives a connection to the server; after a new
one it is found out what the server still has.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

import structlog

from causeway.backoff import Backoff
from causeway.errors import CausewayError
from edge.janus import plan as planning
from edge.janus.admissions import Admissions, Admitted
from edge.janus.client import JanusLostError, JanusRefusedError
from edge.janus.messages import (
    ALREADY_THERE,
    NOT_THERE,
    AddRemotePublisher,
    Allow,
    CreateRoom,
    Join,
    Kick,
    ListParticipants,
    PublishRemotely,
    RemoveRemotePublisher,
    UnpublishRemotely,
)
from edge.janus.names import new_id
from edge.janus.people import People
from edge.janus.plan import Done, FarStream, Seen, far_stream, note, person_of
from edge.janus.showing import Showing, offer
from edge.rtp.endpoint import PortsTakenError
from lab.room_outputs import ParticipantLeft, StreamAdded, StreamRemoved, StreamUpdated
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from bridges.wire.objects import Stream
    from edge.janus.client import JanusClient, Room
    from edge.janus.messages import Request, RoomId, RoomView
    from edge.janus.names import RoomNames
    from edge.janus.people import Place
    from edge.janus.plan import Action
    from lab.rooms import RoomNews, RunningRoom

__all__ = ["JanusRoom"]

_log: Final = structlog.get_logger(__name__)
_MONITOR: Final = "causeway"
"""What others in the server's room see of the connector."""
_REMOTE_ID: Final = "causeway"


class _RoomGoneError(CausewayError):
    """Somebody has removed the room from the server."""

    code: ClassVar[str] = "janus-room-gone"


class JanusRoom:
    """One conference. `serve` keeps both sides the same while there is a connection to the server."""

    def __init__(self, conference: str, *, names: RoomNames, place: Place) -> None:
        self.conference = conference
        self.names = names
        self._place = place
        self._settings = place.settings
        self._seen = Seen(max_shown=place.settings.max_shown)
        self._done = Done()
        self._people = People(place, conference, on_pulled=self._wake)
        self._admissions = Admissions(ttl=place.settings.token_ttl, limit=place.settings.max_tokens)
        self._showings: dict[str, Showing] = {}
        self._feeds: set[RoomId] = set()
        """Whom the server shows for us."""
        self._dropped: list[RoomId] = []
        """Whom the cluster has sent away."""
        self._refused: dict[Action, float] = {}
        """What could not be done, and until when it is not tried again."""
        self._room: Room | None = None
        self._peer = ""
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._settled = asyncio.Event()
        """Set while there is nothing to be done."""

    # --- what the cluster wants -----------------------------------------------------------------------

    def hear(self, running: RunningRoom, news: RoomNews) -> None:
        """Follow the cluster's room; see Rooms.listeners."""
        match news:
            case StreamAdded(stream) | StreamUpdated(stream) if stream.cluster != running.room.cluster:
                self._show(running, stream)
            case StreamRemoved(id_):
                self._seen.far.pop(id_, None)
            case ParticipantLeft(id_, local=True) if (person := self._people.who_is(id_)) is not None:
                self._dropped.append(person)
            case _:
                return
        self._wake()

    async def admit(self, who: Admitted) -> tuple[RoomId, str]:
        """Let somebody join the server's room; returns as whom, and with which token.

        Raises JanusLostError, JanusRefusedError.
        """
        try:
            async with asyncio.timeout(self._settings.call_timeout):
                await self._ready.wait()
        except TimeoutError:
            raise JanusLostError("the room in the Janus server is not ready") from None
        if self._room is None:
            raise JanusLostError("there is no connection to the Janus server")
        id_, token = self._new_id(), secrets.token_urlsafe(24)
        self._admissions.add(_now(), id_, who, token)
        await self._allow(self._room, "add", [token])
        self._wake()
        return id_, token

    def abandon(self) -> None:
        """Count everybody in the server's room as gone, and what it showed: it was out of reach too long."""
        for showing in self._showings.values():
            showing.close()
        self._showings.clear()
        self._feeds.clear()
        self._people.clear()
        self._seen.people.clear()
        self._done = Done()

    async def withdraw(self) -> None:
        """Have the server show nothing of other clusters any more, as long as there is a connection."""
        if self._room is not None:
            self._seen.far.clear()
            self._wake()
            await self._settled.wait()

    # --- with the server ------------------------------------------------------------------------------

    async def serve(self, client: JanusClient, *, peer: str) -> None:
        """Keep both sides the same until the connection is lost; `peer` is the server's IP address."""
        self._peer = peer
        backoff = Backoff(base=self._settings.retry_base, cap=self._settings.retry_cap)
        try:
            while True:
                room = await client.attach(on_news=self._wake)
                try:
                    await self._stay(room, backoff)
                except (JanusRefusedError, _RoomGoneError) as error:
                    _log.warning("janus.room", conference=self.conference, error=str(error))
                with contextlib.suppress(JanusRefusedError):
                    await client.detach(room)
                await asyncio.sleep(backoff.next_delay())
        except JanusLostError as error:
            _log.debug("janus.room_lost", conference=self.conference, error=str(error))
        except JanusRefusedError as error:
            _log.warning("janus.room_refused", conference=self.conference, error=str(error))
            client.lose(str(error))

    async def _stay(self, room: Room, backoff: Backoff) -> NoReturn:
        try:
            await self._enter(room)
            backoff.reset()
            self._room = room
            self._refused.clear()
            self._ready.set()
            while True:
                self._changed.clear()
                await self._step(room)
        finally:
            self._room = None
            self._ready.clear()

    async def _enter(self, room: Room) -> None:
        """Have the room in the server, and find out what is in it."""
        view = await self._open(room)
        listed = await room.ask(ListParticipants(room=self.names.room))
        remote = {one.id for one in listed.participants if one.remote}
        people = (one for one in [*view.publishers, *view.attendees] if one.id not in remote)
        self._seen.people = {one.id: person_of(one) for one in people if one.id != self.names.monitor}
        for stream, showing in list(self._showings.items()):
            if showing.feed not in remote:
                self._close_showing(stream)
        self._feeds = {showing.feed for showing in self._showings.values()}
        for feed in remote - self._feeds:  # of a former start, or asked for when the connection broke
            await self._remove_feed(room, feed)
        for person in list(self._done.forwarded):
            await self._stop_forwarding(room, person)

    async def _open(self, room: Room) -> RoomView:
        names, tokens = self.names, [self.names.token, *self._admissions.tokens]
        record = self._place.cluster.rooms.record(self.conference)
        limit = record.options.input_limit
        create = CreateRoom(
            room=names.room,
            description=self.conference,
            secret=names.secret,
            pin=names.pin,
            allowed=tokens,
            publishers=limit if limit > 0 else self._settings.max_publishers,
            audiocodec=self._settings.audio_codecs,
            videocodec=self._settings.video_codecs,
            is_private=True,
            notify_joining=True,
            permanent=False,
            admin_key=self._settings.admin_key or None,
        )
        if not await _unless(ALREADY_THERE, room, create):
            await self._allow(room, "add", tokens)
        join = Join(
            room=names.room,
            ptype="publisher",
            id=names.monitor,
            display=_MONITOR,
            pin=names.pin,
            token=names.token,
        )
        try:
            return await room.ask(join)
        except JanusRefusedError as error:
            if error.number not in ALREADY_THERE:
                raise
            # Ourselves, on a connection that the server has not given up yet.
            await room.ask(Kick(room=names.room, secret=names.secret, id=names.monitor))
            return await room.ask(join)

    async def _step(self, room: Room) -> None:
        """Take in what has happened, and do one thing that is lacking; or wait until there is one."""
        for news in room.drain():
            note(self._seen, news, ours={self.names.monitor, *self._feeds})
            if news.destroyed:
                raise _RoomGoneError("the room is gone from the Janus server")
        self._seen.pulled = self._people.pulled()
        now = _now()
        if void := self._admissions.void(now):
            await self._allow(room, "remove", void)
        if self._dropped:
            await self._kick(room, self._dropped.pop())
            return
        for action in planning.plan(self._seen, self._done):
            if self._refused.get(action, now) <= now:
                await self._try(room, action)
                return
        dues = [due for due in self._refused.values() if due > now]
        if (due := self._admissions.due()) is not None:
            dues.append(due)
        self._settled.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(dues, default=None)):
                await self._changed.wait()

    async def _try(self, room: Room, action: Action) -> None:
        try:
            await self._do(room, action)
        except (JanusRefusedError, RoomError, PortsTakenError) as error:
            now = _now()
            self._refused = {one: until for one, until in self._refused.items() if until > now}
            self._refused[action] = now + self._settings.refusal_pause
            _log.warning(
                "janus.refused", conference=self.conference, step=type(action).__name__, error=str(error)
            )

    async def _do(self, room: Room, action: Action) -> None:
        done = self._done
        match action:
            case planning.Join(person):
                self._people.join(person, self._identity(person))
                done.joined.add(person)
            case planning.Leave(person):
                self._people.leave(person)
                self._admissions.left(person)
                done.joined.discard(person)
            case planning.Publish(person, tracks):
                self._people.publish(person, tracks)
                done.published[person] = tracks
            case planning.Unpublish(person):
                self._people.unpublish(person)
                del done.published[person]
            case planning.Forward(person):
                await self._forward(room, person)
            case planning.StopForwarding(person):
                await self._stop_forwarding(room, person)
            case planning.Add(stream, shown):
                await self._add(room, stream, shown)
            case planning.Remove(stream):
                await self._remove(room, stream)

    # --- single steps -----------------------------------------------------------------------------------

    async def _forward(self, room: Room, person: RoomId) -> None:
        reception = await self._people.receive(person, peer=self._peer)
        ask = PublishRemotely(
            room=self.names.room,
            secret=self.names.secret,
            publisher_id=person,
            remote_id=_REMOTE_ID,
            host=self._place.rtp_host,
            port=reception.endpoint.port,
            rtcp_port=reception.endpoint.rtcp_port,
        )
        try:
            await room.ask(ask)
        except BaseException:
            self._people.stop_receiving(person)
            raise
        self._done.forwarded.add(person)

    async def _stop_forwarding(self, room: Room, person: RoomId) -> None:
        self._people.stop_receiving(person)
        self._done.forwarded.discard(person)
        names = self.names
        ask = UnpublishRemotely(
            room=names.room, secret=names.secret, publisher_id=person, remote_id=_REMOTE_ID
        )
        await _unless(NOT_THERE, room, ask)

    async def _add(self, room: Room, stream: str, shown: FarStream) -> None:
        feed = self._new_id()
        self._feeds.add(feed)  # before it is asked for: the news of it may come first
        ask = AddRemotePublisher(
            room=self.names.room,
            secret=self.names.secret,
            id=feed,
            display=shown.display,
            streams=offer(shown),
            iface=self._settings.remote_interface or None,
        )
        try:
            view = await room.ask(ask)
        except JanusRefusedError:
            self._feeds.discard(feed)
            raise
        try:
            showing = await Showing.open(
                shown,
                feed=feed,
                host=self._place.rtp_host,
                ports=self._settings.rtp_ports,
                peer=self._peer,
                port=view.port,
                rtcp_port=view.rtcp_port,
                settings=self._place.rtp,
            )
            self._showings[stream] = showing
            showing.begin(self._place.cluster, self._place.tasks, room=self.conference, stream=stream)
        except (RoomError, PortsTakenError):
            self._close_showing(stream)
            await self._remove_feed(room, feed)
            raise
        self._done.added[stream] = shown

    async def _remove(self, room: Room, stream: str) -> None:
        feed = self._showings[stream].feed
        self._close_showing(stream)
        await self._remove_feed(room, feed)

    def _close_showing(self, stream: str) -> None:
        self._done.added.pop(stream, None)
        if (showing := self._showings.pop(stream, None)) is not None:
            showing.close()

    async def _remove_feed(self, room: Room, feed: RoomId) -> None:
        await _unless(
            NOT_THERE,
            room,
            RemoveRemotePublisher(room=self.names.room, secret=self.names.secret, id=feed),
        )
        self._feeds.discard(feed)

    async def _kick(self, room: Room, person: RoomId) -> None:
        self._seen.people.pop(person, None)
        await _unless(NOT_THERE, room, Kick(room=self.names.room, secret=self.names.secret, id=person))

    async def _allow(self, room: Room, action: str, tokens: list[str]) -> None:
        await room.ask(
            Allow(
                room=self.names.room,
                secret=self.names.secret,
                action="add" if action == "add" else "remove",
                allowed=tokens,
            )
        )

    # --- what is there ------------------------------------------------------------------------------------

    def _show(self, running: RunningRoom, stream: Stream) -> None:
        owner = next((one for one in running.room.participants if one.id == stream.info.owner), None)
        shown = far_stream(stream, display=owner.user if owner is not None else "")
        if shown is None:
            self._seen.far.pop(stream.id, None)
        else:
            self._seen.far[stream.id] = shown

    def _identity(self, person: RoomId) -> Admitted:
        display = self._seen.people[person].display
        return self._admissions.arrived(person) or Admitted(display or str(person), self._settings.role)

    def _new_id(self) -> RoomId:
        return new_id(secrets.token_bytes(8), string_ids=self._settings.string_ids)

    def _wake(self) -> None:
        self._settled.clear()
        self._changed.set()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _unless(codes: frozenset[int], room: Room, request: Request) -> bool:
    """Ask for something; False when it is refused with one of `codes`.

    Raises JanusLostError, JanusRefusedError.
    """
    try:
        await room.ask(request)
    except JanusRefusedError as error:
        if error.number not in codes:
            raise
        return False
    return True
