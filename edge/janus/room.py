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
from edge.janus.calls import RoomCalls
from edge.janus.client import JanusLostError, JanusRefusedError
from edge.janus.names import new_id
from edge.janus.people import People
from edge.janus.plan import Done, FarStream, Seen, far_stream, note
from edge.janus.showing import Showing
from edge.rtp.endpoint import PortsTakenError
from lab.room_outputs import ParticipantLeft, StreamAdded, StreamRemoved, StreamUpdated
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from bridges.wire.objects import Stream
    from edge.janus.client import JanusClient, Room
    from edge.janus.messages import RoomId
    from edge.janus.names import RoomNames
    from edge.janus.people import Place
    from edge.janus.plan import Action
    from lab.rooms import RoomNews, RunningRoom

__all__ = ["JanusRoom"]

_log: Final = structlog.get_logger(__name__)


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
        self._calls: RoomCalls | None = None
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
        if self._calls is None:
            raise JanusLostError("there is no connection to the Janus server")
        id_, token = self._new_id(), secrets.token_urlsafe(24)
        self._admissions.add(_now(), id_, who, token)
        await self._calls.allow([token])
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
        if self._calls is not None:
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
        calls = RoomCalls(room, self.names, self._settings)
        try:
            await self._enter(calls)
            backoff.reset()
            self._calls = calls
            self._refused.clear()
            self._ready.set()
            while True:
                self._changed.clear()
                self._listen(room)
                await self._step(calls)
        finally:
            self._calls = None
            self._ready.clear()

    async def _enter(self, calls: RoomCalls) -> None:
        """Have the room in the server, and find out what is in it."""
        limit = self._place.cluster.rooms.record(self.conference).options.input_limit
        entered = await calls.enter(
            self.conference,
            tokens=self._admissions.tokens,
            publishers=limit if limit > 0 else self._settings.max_publishers,
        )
        self._seen.people = entered.people
        for stream, showing in list(self._showings.items()):
            if showing.feed not in entered.remote:
                self._close_showing(stream)
        self._feeds = {showing.feed for showing in self._showings.values()}
        for feed in entered.remote - self._feeds:  # of a former start, or asked for when the connection broke
            await calls.remove(feed)
        for person in list(self._done.forwarded):
            await self._stop_forwarding(calls, person)

    def _listen(self, room: Room) -> None:
        """Take in what has happened. Raises _RoomGoneError."""
        for news in room.drain():
            note(self._seen, news, ours={self.names.monitor, *self._feeds})
            if news.destroyed:
                raise _RoomGoneError("the room is gone from the Janus server")
        self._seen.pulled = self._people.pulled()

    async def _step(self, calls: RoomCalls) -> None:
        """Do one thing that is lacking; or wait until there is one."""
        now = _now()
        if void := self._admissions.void(now):
            await calls.disallow(void)
        if self._dropped:
            person = self._dropped.pop()
            self._seen.people.pop(person, None)
            await calls.kick(person)
            return
        for action in planning.plan(self._seen, self._done):
            if self._refused.get(action, now) <= now:
                await self._try(calls, action)
                return
        dues = [due for due in self._refused.values() if due > now]
        if (due := self._admissions.due()) is not None:
            dues.append(due)
        self._settled.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(dues, default=None)):
                await self._changed.wait()

    async def _try(self, calls: RoomCalls, action: Action) -> None:
        try:
            await self._do(calls, action)
        except (JanusRefusedError, RoomError, PortsTakenError) as error:
            now = _now()
            self._refused = {one: until for one, until in self._refused.items() if until > now}
            self._refused[action] = now + self._settings.refusal_pause
            _log.warning(
                "janus.refused", conference=self.conference, step=type(action).__name__, error=str(error)
            )

    async def _do(self, calls: RoomCalls, action: Action) -> None:
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
                await self._forward(calls, person)
            case planning.StopForwarding(person):
                await self._stop_forwarding(calls, person)
            case planning.Add(stream, shown):
                await self._add(calls, stream, shown)
            case planning.Remove(stream):
                await self._remove(calls, stream)

    # --- single steps -----------------------------------------------------------------------------------

    async def _forward(self, calls: RoomCalls, person: RoomId) -> None:
        reception = await self._people.receive(person, peer=self._peer)
        try:
            await calls.forward(person, host=self._place.rtp_host, endpoint=reception.endpoint)
        except BaseException:
            self._people.stop_receiving(person)
            raise
        self._done.forwarded.add(person)

    async def _stop_forwarding(self, calls: RoomCalls, person: RoomId) -> None:
        self._people.stop_receiving(person)
        self._done.forwarded.discard(person)
        await calls.stop_forwarding(person)

    async def _add(self, calls: RoomCalls, stream: str, shown: FarStream) -> None:
        feed = self._new_id()
        self._feeds.add(feed)  # before it is asked for: the news of it may come first
        try:
            view = await calls.add(feed, shown)
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
            await self._remove_feed(calls, feed)
            raise
        self._done.added[stream] = shown

    async def _remove(self, calls: RoomCalls, stream: str) -> None:
        feed = self._showings[stream].feed
        self._close_showing(stream)
        await self._remove_feed(calls, feed)

    async def _remove_feed(self, calls: RoomCalls, feed: RoomId) -> None:
        await calls.remove(feed)
        self._feeds.discard(feed)

    def _close_showing(self, stream: str) -> None:
        self._done.added.pop(stream, None)
        if (showing := self._showings.pop(stream, None)) is not None:
            showing.close()

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
