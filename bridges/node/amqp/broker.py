"""One connection to the broker, with what OWT declares there; aio-pika is known here only.

A thin shell: bytes in and out, by queue and routing key. What they mean, and when to connect again, is not
its business. The exchange `owtRpc` (direct, auto-delete) carries replies and casts, requests go to
the default exchange, and `owtMonitoring` (topic) tells who is gone, as owt-server 5.x has them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar, Final, Protocol
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.exceptions import AMQPException, ChannelInvalidStateError, PublishError

from bridges.node.amqp.tls import tls_context
from causeway import __version__
from causeway.errors import CausewayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

    from bridges.node.amqp.settings import AmqpSettings

__all__ = ["Broker", "BrokerLostError", "Inbox", "NobodyThereError", "connect"]

RPC_EXCHANGE: Final = "owtRpc"
MONITORING_EXCHANGE: Final = "owtMonitoring"
_EXITS: Final = "exit.#"
_NOTICES_KEPT: Final = 60_000
_CLOSE_TIMEOUT: Final = 1.0
_MAX_ERROR_CHARACTERS: Final = 200
_BROKEN: Final = (AMQPException, ChannelInvalidStateError, OSError, EOFError)
"""What aio-pika raises for a connection that does not come about, or breaks; TimeoutError is an OSError."""

# Its debug lines show whole frames, the one with the password among them.
logging.getLogger("aiormq").setLevel(logging.WARNING)
logging.getLogger("aio_pika").setLevel(logging.WARNING)


class BrokerLostError(CausewayError):
    """The broker cannot be reached, or the connection to it broke."""

    code: ClassVar[str] = "broker-lost"


class NobodyThereError(CausewayError):
    """Nobody at the broker has the id that was called."""

    code: ClassVar[str] = "nobody-there"


class Inbox(Protocol):
    """Who takes what comes. Must not block."""

    async def called(self, server: str, body: bytes) -> None:
        """Take a request for one of our servers; until this returns it counts as being served."""

    def replied(self, body: bytes) -> None:
        """Take a reply."""

    def announced(self, body: bytes) -> None:
        """Take a notice of who is gone."""


class Broker:
    """An open connection. Made by `connect`; every method raises BrokerLostError once it is broken."""

    def __init__(
        self, channel: AbstractChannel, exchange: AbstractExchange, reply_to: str, lost: asyncio.Event
    ) -> None:
        self.reply_to: Final = reply_to
        """Where replies reach us."""
        self._channel = channel
        self._exchange = exchange
        self._lost = lost

    @property
    def lost(self) -> bool:
        """Whether the connection is broken."""
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Wait until the connection is broken."""
        await self._lost.wait()

    async def request(self, server: str, body: bytes) -> None:
        """Call a server; raises NobodyThereError when there is none of that id."""
        await self._publish(self._channel.default_exchange, server, body, mandatory=True)

    async def tell(self, key: str, body: bytes) -> None:
        """Reply to a client, or cast to a server; nobody learns whether it is there."""
        await self._publish(self._exchange, key, body, mandatory=False)

    async def _publish(self, exchange: AbstractExchange, key: str, body: bytes, *, mandatory: bool) -> None:
        if self.lost:
            raise BrokerLostError("the connection to the broker is lost")
        message = aio_pika.Message(body, content_type="application/json")
        with _losses():
            try:
                await exchange.publish(message, routing_key=key, mandatory=mandatory)
            except PublishError:
                raise NobodyThereError(f"there is no {key}") from None


@asynccontextmanager
async def connect(
    settings: AmqpSettings,
    inbox: Inbox,
    *,
    servers: Sequence[str] = (),
) -> AsyncIterator[Broker]:
    """Connect, declare, be these servers, and take what comes.

    Requests are begun in the order in which they came, at most `max_concurrent` at once for each server; the
    broker keeps further ones until `called` has returned for one. Raises BrokerLostError, and ConfigError
    for settings that cannot be used. The caller's block is left as it is when the connection breaks: it waits
    for `wait_lost` itself.
    """
    lost = asyncio.Event()
    with _losses(settings):
        async with asyncio.timeout(settings.connect_timeout):
            connection = await _dial(settings)
    connection.close_callbacks.add(lambda *_: lost.set())
    try:
        with _losses(settings):
            async with asyncio.timeout(settings.connect_timeout):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                channel.close_callbacks.add(lambda *_: lost.set())
                await channel.set_qos(prefetch_count=settings.max_concurrent)
                broker = await _declare(channel, lost, servers, inbox)
        yield broker
    finally:
        lost.set()
        await _close(connection)


async def _dial(settings: AmqpSettings) -> aio_pika.abc.AbstractConnection:
    # The scheme says whether it is TLS; only its parts are ours.
    settings.where  # noqa: B018 - raises ConfigError
    url = aio_pika.connection.make_url(settings.url, heartbeat=settings.heartbeat)
    url = url.update_query(heartbeat=str(settings.heartbeat))
    if settings.username:
        url = url.with_user(settings.username)
    if settings.password:
        url = url.with_password(settings.password)
    return await aio_pika.connect(
        url,
        ssl_context=tls_context(settings) if url.scheme == "amqps" else None,
        client_properties={"connection_name": "causeway bridge", "version": __version__},
    )


async def _declare(
    channel: AbstractChannel, lost: asyncio.Event, servers: Sequence[str], inbox: Inbox
) -> Broker:
    exchange = await channel.declare_exchange(
        RPC_EXCHANGE, aio_pika.ExchangeType.DIRECT, auto_delete=True, durable=False
    )
    replies = await channel.declare_queue("", auto_delete=True, durable=False)
    await replies.bind(exchange, replies.name)

    async def replied(message: AbstractIncomingMessage) -> None:
        inbox.replied(message.body)

    await replies.consume(replied, no_ack=True)
    if servers:
        await _watch_exits(channel, servers[0], inbox)
    for server in servers:
        await _serve(channel, exchange, server, inbox)
    return Broker(channel, exchange, replies.name, lost)


async def _watch_exits(channel: AbstractChannel, name: str, inbox: Inbox) -> None:
    """Hear who is gone; what is announced while we are away for a moment is kept for us."""
    monitoring = await channel.declare_exchange(
        MONITORING_EXCHANGE, aio_pika.ExchangeType.TOPIC, auto_delete=False, durable=False
    )
    notices = await channel.declare_queue(
        f"{name}.exits", auto_delete=False, durable=False, arguments={"x-expires": _NOTICES_KEPT}
    )
    await notices.bind(monitoring, _EXITS)

    async def announced(message: AbstractIncomingMessage) -> None:
        try:
            inbox.announced(message.body)
        finally:
            await _acknowledge(channel, message)

    await notices.consume(announced)


async def _serve(channel: AbstractChannel, exchange: AbstractExchange, server: str, inbox: Inbox) -> None:
    queue = await channel.declare_queue(server, auto_delete=True, durable=False)
    await queue.bind(exchange, server)

    async def called(message: AbstractIncomingMessage) -> None:
        try:
            await inbox.called(server, message.body)
        finally:
            await _acknowledge(channel, message)

    await queue.consume(called)


async def _acknowledge(channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
    """Have the broker forget a message; one that it gave us on a connection that broke, it gives again."""
    with suppress(BrokerLostError), _losses():
        if not channel.is_closed:
            await message.ack()


async def _close(connection: aio_pika.abc.AbstractConnection) -> None:
    # If the broker does not answer any more, the socket is gone either way.
    with suppress(BrokerLostError), _losses():
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await connection.close()


@contextmanager
def _losses(settings: AmqpSettings | None = None) -> Iterator[None]:
    """Make whatever says that the connection is gone a BrokerLostError.

    The library also cancels what waits for it then: that is told from a cancellation of the waiting task.
    """
    try:
        yield
    except _BROKEN as error:
        raise BrokerLostError(_reason(error, settings)) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerLostError("the connection to the broker broke") from None


def _reason(error: BaseException, settings: AmqpSettings | None) -> str:
    """Return why there is no connection, without the password that a library may have put into its words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if settings is None:
        return type(error).__name__
    text = " ".join(str(error).split())
    of_url = urlsplit(settings.url).password or ""
    for secret in (settings.url, settings.password, of_url, unquote(of_url)):
        if secret:
            text = text.replace(secret, "…")
    return text[:_MAX_ERROR_CHARACTERS] or type(error).__name__
