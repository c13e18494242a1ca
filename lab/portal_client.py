"""A client of a laboratory cluster's portal: calls and events over one WebSocket.

JSON text messages: we send `{id, method, params}`; the portal answers `{id, ok, data}` or `{id, ok, error}`
and pushes `{event, data}`. One client is one connection: whether and where to connect again is for the owner
to decide. It must not know what streams are good for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

import msgspec
from msgspec import Meta, Struct, field
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from bridges.wire.objects import Participant, Stream, TrackKind
from causeway.errors import CausewayError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from websockets.asyncio.client import ClientConnection

__all__ = [
    "Address",
    "Event",
    "Joined",
    "PortalClient",
    "PortalClosedError",
    "PortalRefusedError",
    "Published",
    "Subscribed",
    "TrackGrant",
    "TrackOffer",
]

T = TypeVar("T")
MediaTrack = Literal["audio", "video", "av"]


class PortalClosedError(UnavailableError):
    """There is no connection to the portal, or no more."""

    code: ClassVar[str] = "portal-closed"


class PortalRefusedError(CausewayError):
    """The portal answered a call with an error."""

    code: ClassVar[str] = "portal-refused"


class Address(Struct, frozen=True):
    """Where internal TCP is spoken."""

    ip: str
    port: Annotated[int, Meta(ge=1, le=65535)]


class TrackOffer(Struct, frozen=True, kw_only=True):
    """A track that we publish; `format` is OWT's, such as `{"codec": "vp8"}`."""

    id: str
    type: TrackKind
    format: dict[str, Any]


class TrackGrant(Struct, frozen=True, kw_only=True):
    """A track as the cluster knows it: `id` is what to name on internal TCP, to serve or to receive it."""

    id: str
    type: TrackKind


class Joined(Struct, frozen=True, kw_only=True):
    """The answer to `join`: who we are, who and what is there, and where frames are received from."""

    participant: str
    room: str
    internal: Address
    participants: list[Participant] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)


class Published(Struct, frozen=True, kw_only=True):
    """The answer to `publish`."""

    stream: str
    tracks: list[TrackGrant]


class Subscribed(Struct, frozen=True, kw_only=True):
    """The answer to `subscribe`."""

    subscription: str
    tracks: list[TrackGrant]


class Event(Struct, frozen=True, kw_only=True):
    """What the portal tells unasked; `data` is of the event's shape."""

    event: str
    data: Any = None


class _Answer(Struct, frozen=True, kw_only=True):
    id: int | None = None
    ok: bool = False
    data: Any = None
    error: Any = None
    event: str | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


class PortalClient:
    """One connection; `async with await PortalClient.connect(…) as portal`.

    Every call raises PortalRefusedError when the portal says no, and PortalClosedError when the connection is
    gone or the answer does not come in time (then the connection is closed: what the portal has done is not
    known any more).
    """

    def __init__(self, socket: ClientConnection, *, call_timeout: float, max_events: int) -> None:
        self._socket = socket
        self._call_timeout = call_timeout
        self._max_events = max_events
        self._last_id = 0
        self._calls: dict[int, asyncio.Future[_Answer]] = {}
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._closed: str | None = None
        self._reader = asyncio.create_task(self._read(), name="portal-reader")

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        open_timeout: float = 3.0,
        call_timeout: float = 5.0,
        ping_interval: float = 1.0,
        ping_timeout: float = 2.0,
        max_message_bytes: int = 4 << 20,
        max_events: int = 1000,
    ) -> Self:
        """Connect to `ws://host:port/portal`. Times are seconds.

        More than `max_events` events that nobody takes close the connection: an event left out would leave a
        wrong picture of the room. Raises PortalClosedError when there is nobody.
        """
        try:
            socket = await connect(
                url,
                proxy=None,
                compression=None,
                open_timeout=open_timeout,
                close_timeout=0.5,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                max_size=max_message_bytes,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise PortalClosedError(f"portal {url}: {_reason(error)}") from None
        return cls(socket, call_timeout=call_timeout, max_events=max_events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def join(self, token: str) -> Joined:
        """Show the token that control's join answer carries."""
        return await self._call("join", {"token": token}, Joined)

    async def publish(self, tracks: Sequence[TrackOffer], source: Address) -> Published:
        """Offer tracks, which the cluster pulls from `source` while somebody wants them."""
        return await self._call("publish", {"tracks": tracks, "source": source}, Published)

    async def unpublish(self, stream: str) -> None:
        """Take a stream of ours back."""
        await self._call("unpublish", {"stream": stream}, Any)

    async def subscribe(self, stream: str, tracks: Sequence[TrackKind]) -> Subscribed:
        """Ask for tracks of a stream; the answer's track ids are to be named at Joined.internal."""
        return await self._call("subscribe", {"stream": stream, "tracks": tracks}, Subscribed)

    async def unsubscribe(self, subscription: str) -> None:
        """End a subscription."""
        await self._call("unsubscribe", {"subscription": subscription}, Any)

    async def mute(self, stream: str, track: MediaTrack, *, muted: bool) -> None:
        """Send nothing of a stream of ours, or again: nobody gets it, and the cluster does not pull it."""
        await self._call("mute", {"stream": stream, "track": track, "muted": muted}, Any)

    async def pause(self, subscription: str, track: MediaTrack, *, paused: bool) -> None:
        """Receive nothing of a subscription, or again."""
        await self._call("pause", {"subscription": subscription, "track": track, "paused": paused}, Any)

    async def leave(self) -> None:
        """Leave the room."""
        await self._call("leave", {}, Any)

    async def next_event(self) -> Event:
        """Return the next event, in the order of the portal. Raises PortalClosedError after the last."""
        event = await self._events.get() if self._closed is None or not self._events.empty() else None
        if event is None:
            raise PortalClosedError(self._closed or "the portal connection ended")
        return event

    async def close(self) -> None:
        """Close the connection; waits at most about half a second for the portal."""
        try:
            await self._socket.close()
        finally:
            self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _call(self, method: str, params: dict[str, Any], type_: type[T]) -> T:
        if self._closed is not None:
            raise PortalClosedError(self._closed)
        self._last_id += 1
        id_ = self._last_id
        answered: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._calls[id_] = answered
        try:
            async with asyncio.timeout(self._call_timeout):
                request = msgspec.json.encode({"id": id_, "method": method, "params": params})
                await self._socket.send(request, text=True)
                answer = await answered
        except TimeoutError:
            reason = f"the portal did not answer {method} within {self._call_timeout:g} s"
            self._end(reason)
            await self._socket.close()
            raise PortalClosedError(reason) from None
        except ConnectionClosed as error:
            raise PortalClosedError(_reason(error)) from None
        finally:
            del self._calls[id_]
        if not answer.ok:
            raise PortalRefusedError(f"{method}: {_text(answer.error)}")
        try:
            return msgspec.convert(answer.data, type_)
        except msgspec.ValidationError as error:
            raise PortalRefusedError(f"{method}: an answer of another shape: {error}") from None

    async def _read(self) -> None:
        reason = "the portal closed the connection"
        try:
            async for text in self._socket:
                self._take(text)
        except (ConnectionClosed, msgspec.DecodeError, asyncio.QueueFull, UnicodeDecodeError) as error:
            reason = _reason(error)
        finally:
            self._end(reason)
        await self._socket.close()

    def _take(self, text: str | bytes) -> None:
        answer = _DECODER.decode(text)
        if answer.event is not None:
            if self._events.qsize() >= self._max_events:
                raise asyncio.QueueFull("too many events that nobody takes")
            self._events.put_nowait(Event(event=answer.event, data=answer.data))
        elif answer.id in self._calls and not self._calls[answer.id].done():
            self._calls[answer.id].set_result(answer)
        # An answer that nobody waits for any more goes to nobody.

    def _end(self, reason: str) -> None:
        """Say once, to everybody who waits, that it is over."""
        if self._closed is not None:
            return
        self._closed = reason
        for call in self._calls.values():
            if not call.done():
                call.set_exception(PortalClosedError(reason))
        self._events.put_nowait(None)


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed):
        return "the portal connection broke"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return f"the portal sent what is no message: {error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _text(error: Any) -> str:
    if isinstance(error, dict):
        return (
            ": ".join(str(error[key]) for key in ("code", "message", "detail") if key in error) or "refused"
        )
    return str(error) if error else "refused"
