"""A Janus server as one of the clusters: its VideoRooms are the rooms that control wants here.

An asyncio shell over the cluster (lab.cluster), which keeps its bridges, its reports and its management API:
only its clients are the server's. Rooms come and go with the cluster's; the connection to the server is made
anew whenever it is lost. It must not know what is said with the server about one room.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn
from urllib.parse import urlsplit

import structlog
from msgspec import structs

from bridges.internal.listener import InternalListener
from causeway.backoff import Backoff
from causeway.errors import ConfigError, UnavailableError
from edge.janus.admissions import Admitted
from edge.janus.calls import RoomCalls
from edge.janus.client import JanusLostError, JanusRefusedError, connected
from edge.janus.messages import ListRooms
from edge.janus.names import Portal, RoomNames, invitation
from edge.janus.people import Place
from edge.janus.room import JanusRoom
from lab.cluster import running_cluster
from lab.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge.janus.client import JanusClient
    from edge.settings import Settings
    from lab.rooms import RoomNews, RunningRoom
    from lab.settings import LabSettings
    from lab.tokens import Admission

__all__ = ["Connector", "running_connector"]

_log: Final = structlog.get_logger(__name__)
_STOP_TIMEOUT: Final = 1.0
_MAX_DOOMED: Final = 1000
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what is refused


class JanusUnavailableError(UnavailableError):
    """The Janus server does not let anybody in at the moment."""

    code: ClassVar[str] = "janus-unavailable"


class Connector:
    """Serves every room of `place.cluster` with the server while `run` runs."""

    def __init__(self, place: Place) -> None:
        """Raise ConfigError when the server's URLs are none."""
        settings = place.settings
        self.cluster = place.cluster
        self._place = place
        self._settings = settings
        self._portal = Portal.of(settings.public_url or settings.url)
        if place.rtp_host in _ANY:
            raise ConfigError("edge.janus.rtp_host must be an address to which the Janus server can send")
        self._key = settings.room_key or place.cluster.settings.service_key
        self._rooms: dict[str, JanusRoom] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._doomed: dict[str, RoomNames] = {}
        """Rooms that the server shall not have any more."""
        self.client: JanusClient | None = None
        """The present connection; None while there is none."""
        self._tasks: asyncio.TaskGroup | None = None
        """Of the present connection."""
        self._peer = ""
        self._grace: asyncio.TimerHandle | None = None
        """Since the connection was lost: when those in the server's rooms count as gone."""
        self._burying = asyncio.Lock()
        self._tidied = False
        rooms = place.cluster.rooms
        rooms.on_created.append(self._created)
        rooms.on_deleted.append(self._deleted)
        rooms.listeners.append(self._hear)
        place.cluster.management.issue = self._invite
        for record in rooms.records:
            self._created(record.id)

    async def run(self) -> NoReturn:
        """Hold a connection to the server, for ever."""
        settings = self._settings
        backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._peer = await self._resolve()
                async with connected(settings) as client:
                    began = loop.time()
                    await self._serve(client)
                if loop.time() - began > settings.retry_cap:  # else it takes us in and throws us out again
                    backoff.reset()
            except (JanusLostError, JanusRefusedError) as error:
                _log.warning("janus.unreachable", url=settings.url, error=str(error))
            await asyncio.sleep(backoff.next_delay())

    async def stop(self) -> None:
        """Have the server show nothing of other clusters any more, if it can be reached in time."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await asyncio.gather(*(room.withdraw() for room in self._rooms.values()))
        except TimeoutError:
            _log.warning("janus.not_withdrawn", url=self._settings.url)

    def close(self) -> None:
        """Let everybody leave the cluster's rooms, and send and receive nothing any more."""
        if self._grace is not None:
            self._grace.cancel()
        for room in self._rooms.values():
            room.abandon()

    # --- the connection -------------------------------------------------------------------------------

    async def _serve(self, client: JanusClient) -> None:
        """Serve every room until the connection is lost."""
        _log.info("janus.up", url=self._settings.url)
        if self._grace is not None:
            self._grace.cancel()
        try:
            async with asyncio.TaskGroup() as tasks:
                self.client, self._tasks = client, tasks
                for conference in {**self._rooms, **self._doomed}:
                    self._begin(conference)
                tidying = tasks.create_task(self._tidy(client))
                reason = await client.wait_lost()
                tidying.cancel()
                _log.warning("janus.lost", url=self._settings.url, reason=reason)
                for task in self._serving.values():
                    task.cancel()
        finally:
            self.client = self._tasks = None
            self._serving.clear()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self._settings.grace, self._abandon)

    def _begin(self, conference: str) -> None:
        if self.client is None or self._tasks is None:
            return  # with the next connection
        if (former := self._serving.get(conference)) is not None:
            former.cancel()
        serving = self._tend(conference, self.client)
        self._serving[conference] = self._tasks.create_task(serving, name=f"janus-{conference}")

    async def _tend(self, conference: str, client: JanusClient) -> None:
        """Have the server forget a conference's former room, and serve the one that there is."""
        try:
            await self._bury(conference, client)
        except (JanusLostError, JanusRefusedError) as error:
            _log.warning("janus.room_left", conference=conference, error=str(error))
        if (room := self._rooms.get(conference)) is not None:
            await room.serve(client, peer=self._peer)
        elif self._serving.get(conference) is asyncio.current_task():
            del self._serving[conference]

    async def _tidy(self, client: JanusClient) -> None:
        """Have the server forget rooms of former starts for which control had no use any more.

        They are told by their description, which is the conference's id: only ours have these numbers.
        """
        settings = self._settings
        if self._tidied:
            return
        await asyncio.sleep(settings.leftover_after)  # control makes those again that it wants
        try:
            handle = await client.attach(on_news=lambda: None)
            view = await handle.ask(ListRooms(admin_key=settings.admin_key or None))
            await client.detach(handle)
        except (JanusLostError, JanusRefusedError) as error:
            _log.info("janus.not_tidied", error=str(error))
            return
        self._tidied = True
        for one in view.rooms:
            names = self._names(one.description)
            if one.description not in self._rooms and names.room == one.room:
                self._doomed[one.description] = names
                self._begin(one.description)

    def _names(self, conference: str) -> RoomNames:
        return RoomNames.of(conference, key=self._key, string_ids=self._settings.string_ids)

    async def _bury(self, conference: str, client: JanusClient) -> None:
        """Remove a doomed room from the server. Raises JanusLostError, JanusRefusedError."""
        async with self._burying:
            if (names := self._doomed.get(conference)) is None:
                return
            room = await client.attach(on_news=lambda: None)
            await RoomCalls(room, names, self._settings).destroy()
            await client.detach(room)
            del self._doomed[conference]

    def _abandon(self) -> None:
        _log.warning("janus.given_up", url=self._settings.url, rooms=len(self._rooms))
        for room in self._rooms.values():
            room.abandon()

    async def _resolve(self) -> str:
        """Return the server's IP address, where RTP comes from and goes to. Raises JanusLostError."""
        name = self._settings.remote_host or urlsplit(self._settings.url).hostname or ""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
        except (OSError, TimeoutError):
            raise JanusLostError(f"there is no address of {name!r}") from None
        return str(found[0][4][0])

    # --- what the cluster wants -----------------------------------------------------------------------

    def _created(self, conference: str) -> None:
        names = self._names(conference)
        self._rooms[conference] = JanusRoom(conference, names=names, place=self._place)
        self._begin(conference)

    def _deleted(self, conference: str) -> None:
        if (room := self._rooms.pop(conference, None)) is None:
            return
        room.abandon()
        while len(self._doomed) >= _MAX_DOOMED:
            del self._doomed[next(iter(self._doomed))]
        self._doomed[conference] = room.names
        self._begin(conference)

    def _hear(self, running: RunningRoom, news: RoomNews) -> None:
        if (room := self._rooms.get(running.room.id)) is not None:
            room.hear(running, news)

    async def _invite(self, admission: Admission) -> str:
        """Return what a client needs to join the server's room. Raises JanusUnavailableError."""
        room = self._rooms.get(admission.room)
        if room is None:
            raise JanusUnavailableError("the room is not in the Janus server")
        try:
            id_, token = await room.admit(Admitted(admission.user, admission.role))
        except (JanusLostError, JanusRefusedError) as error:
            raise JanusUnavailableError(str(error)) from None
        return invitation(self._portal, room.names, id_=id_, token=token)


@contextlib.asynccontextmanager
async def running_connector(settings: Settings) -> AsyncIterator[Connector]:
    """Run a cluster whose media server is a Janus. Raises UnavailableError, ConfigError.

    It registers as of the kind `owt`, whatever the settings say: such clusters are asked for each token.
    """
    async with contextlib.AsyncExitStack() as stack:
        listener = await _listen(settings.lab)
        stack.push_async_callback(listener.close)
        tasks = await stack.enter_async_context(Tasks())
        cluster = await stack.enter_async_context(
            running_cluster(structs.replace(settings.lab, driver="owt"))
        )
        # Without a pause since: control has not had time to ask for anything.
        connector = Connector(Place(cluster, listener, settings.edge.janus, settings.edge.rtp, tasks))
        running = tasks.create_task(connector.run())
        try:
            yield connector
        finally:
            await connector.stop()
            running.cancel()
            connector.close()


async def _listen(settings: LabSettings) -> InternalListener:
    try:
        return await InternalListener.start(settings.host, settings=settings.internal)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {settings.host}: {error.strerror}") from None
