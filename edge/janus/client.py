"""A connection to a Janus server's WebSocket API: requests and their answers, and news of the rooms.

One client is one connection with one session. Whether and when there is another one is for the owner to
decide. It must not know what the rooms are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from causeway.errors import CausewayError, ConfigError, UnavailableError
from edge.janus.messages import (
    PLUGIN,
    Acknowledged,
    Ended,
    JanusMessageError,
    Message,
    News,
    Refusal,
    Reply,
    decode,
    encode,
)
from lab.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from websockets.asyncio.client import ClientConnection

    from edge.janus.messages import Request, RoomNews, RoomView, Verb
    from edge.janus.settings import JanusSettings

__all__ = ["JanusClient", "JanusLostError", "JanusRefusedError", "Room", "connected"]

_log: Final = structlog.get_logger(__name__)
_PROTOCOL: Final = Subprotocol("janus-protocol")


class JanusLostError(UnavailableError):
    """There is no connection to the Janus server, or it does not answer."""

    code: ClassVar[str] = "janus-lost"


class JanusRefusedError(CausewayError):
    """The Janus server does not do what was asked. `number` is its own code for why."""

    code: ClassVar[str] = "janus-refused"

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"the Janus server refused ({number}): {reason}")
        self.number = number


class Room:
    """A handle of the VideoRoom plugin: what is asked through it, and what it is told in return."""

    def __init__(self, client: JanusClient, handle: int, *, limit: int, on_news: Callable[[], None]) -> None:
        self._client = client
        self.handle = handle
        self._limit = limit
        self._on_news = on_news
        self._news: deque[RoomNews] = deque()

    async def ask(self, body: Request) -> RoomView:
        """Ask for something; returns what is answered. Raises JanusLostError, JanusRefusedError."""
        reply = await self._client.ask("message", handle=self.handle, body=body)
        return reply.view

    def drain(self) -> Iterator[RoomNews]:
        """Return what has happened in the room that was joined, since the last call."""
        while self._news:
            yield self._news.popleft()

    def take(self, news: RoomNews) -> bool:
        """Keep news until they are asked for; False when there is no room for them."""
        if len(self._news) >= self._limit:
            return False
        self._news.append(news)
        self._on_news()
        return True


class JanusClient:
    """See the module; `connected` makes one."""

    def __init__(self, socket: ClientConnection, settings: JanusSettings) -> None:
        self._socket = socket
        self._settings = settings
        self._numbers = itertools.count(1)
        self._session: int | None = None
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._signs: set[str] = set()
        """Transactions of signs of life."""
        self._rooms: dict[int, Room] = {}
        self._lost = asyncio.Event()
        self._reason = "the connection was closed"

    async def attach(self, *, on_news: Callable[[], None]) -> Room:
        """Return a new handle of the VideoRoom plugin; `on_news` is called when it has news.

        Raises JanusLostError, JanusRefusedError.
        """
        reply = await self.ask("attach", plugin=PLUGIN)
        if reply.id is None:
            raise JanusLostError("the Janus server has attached nothing")
        room = self._rooms[reply.id] = Room(self, reply.id, limit=self._settings.max_waiting, on_news=on_news)
        return room

    async def detach(self, room: Room) -> None:
        """Give a handle back. Raises JanusLostError, JanusRefusedError."""
        self._rooms.pop(room.handle, None)
        await self.ask("detach", handle=room.handle)

    async def wait_lost(self) -> str:
        """Wait until the connection is of no use any more; returns why."""
        await self._lost.wait()
        return self._reason

    async def ask(
        self,
        what: Verb,
        *,
        handle: int | None = None,
        plugin: str | None = None,
        body: Request | None = None,
    ) -> Reply:
        """Ask the server; returns the answer that follows. Raises JanusLostError, JanusRefusedError.

        A sign of life is only acknowledged; of anything else that comes first, and the answer later.
        """
        transaction = str(next(self._numbers))
        message = Message(
            janus=what,
            transaction=transaction,
            session_id=self._session,
            handle_id=handle,
            plugin=plugin,
            body=body,
            apisecret=self._settings.api_secret or None,
        )
        if self._lost.is_set():
            raise JanusLostError(self._reason)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = answer
        if what == "keepalive":
            self._signs.add(transaction)
        try:
            async with asyncio.timeout(self._settings.call_timeout):
                await self._socket.send(encode(message))
                return await answer
        except TimeoutError:
            self.lose("the Janus server does not answer")
            raise JanusLostError(self._reason) from None
        except ConnectionClosed:
            self.lose("the connection broke")
            raise JanusLostError(self._reason) from None
        finally:
            del self._waiting[transaction]
            self._signs.discard(transaction)

    def lose(self, reason: str) -> None:
        """Use the connection no more; whoever waits for an answer is told `reason`."""
        if self._lost.is_set():
            return
        self._reason = reason
        self._lost.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(JanusLostError(reason))

    async def open(self) -> None:
        """Begin the session. Raises JanusLostError, JanusRefusedError."""
        self._session = (await self.ask("create")).id

    async def read(self) -> None:
        """Read until the connection is lost."""
        try:
            async for text in self._socket:
                self._take(text)
                if self._lost.is_set():
                    return
        except WebSocketException as error:
            self.lose(f"the connection broke: {error}")
        except JanusMessageError as error:
            self.lose(str(error))
        else:
            self.lose("the Janus server closed the connection")

    async def keep_alive(self) -> None:
        """Give signs of life until the connection is lost."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.keepalive_interval):
                    await self._lost.wait()
                return
            try:
                await self.ask("keepalive")
            except JanusLostError:
                return
            except JanusRefusedError as error:
                self.lose(str(error))

    def _take(self, text: str | bytes) -> None:
        match decode(text):
            case Reply(transaction) as reply:
                self._answer(transaction, reply)
            case Refusal(transaction, code, reason):
                self._answer(transaction, JanusRefusedError(code, reason))
            case Acknowledged(transaction) if transaction in self._signs:
                self._answer(transaction, Reply(transaction))
            case News(sender, news):
                room = self._rooms.get(sender)
                if room is not None and not room.take(news):
                    self.lose("there is more news than can be dealt with")
            case Ended(None):
                self.lose("the Janus server has ended the session")
            case Ended(handle) if handle in self._rooms:
                self.lose("the Janus server has ended a handle")
            case _:
                pass

    def _answer(self, transaction: str, answer: Reply | JanusRefusedError) -> None:
        waiting = self._waiting.get(transaction)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, Reply):
            waiting.set_result(answer)
        else:
            waiting.set_exception(answer)


@contextlib.asynccontextmanager
async def connected(settings: JanusSettings) -> AsyncIterator[JanusClient]:
    """Connect to the server at `settings.url`, with a session.

    Raises JanusLostError, JanusRefusedError, ConfigError.
    """
    socket = await _connect(settings)
    client = JanusClient(socket, settings)
    async with Tasks() as tasks:
        reading = tasks.create_task(client.read())
        try:
            await client.open()
            tasks.create_task(client.keep_alive())
            yield client
        finally:
            client.lose("the connection was closed")
            reading.cancel()
            await socket.close()


async def _connect(settings: JanusSettings) -> ClientConnection:
    try:
        return await connect(
            settings.url,
            subprotocols=[_PROTOCOL],
            max_size=settings.max_message_bytes,
            open_timeout=settings.connect_timeout,
            close_timeout=settings.call_timeout,
            ping_interval=None,  # signs of life are the session's
            compression=None,
            proxy=None,
        )
    except InvalidURI as error:
        raise ConfigError(f"edge.janus.url: {error}") from None
    except (OSError, WebSocketException, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        raise JanusLostError(f"no connection to the Janus server: {reason}") from None
