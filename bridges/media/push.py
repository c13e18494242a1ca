"""A track that another cluster pulls from us: got inside our cluster, or pulled ourselves, and sent on.

What lives here is subscribed at our node and received over internal TCP; what we pass on for others comes
from a pull of ours (`pass_on`).

One task per track runs from the peer's wish to the stream's end. Frames never pass through the task: they go
from the internal connection through an Outlet straight to QUIC, or are dropped there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec
import structlog
from msgspec import Meta

from bridges.codes import CloseCode
from bridges.internal.receiver import InternalReceiver, InternalUnavailableError
from bridges.internal.wishes import RateWishes
from bridges.media.figures import Moved
from bridges.media.outlets import DatagramOutlet, StreamOutlet
from bridges.media.own.layers import Dependencies
from bridges.media.pieces import Piece, fresh
from bridges.media.session import PusherSession, TrackWanted
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.wire.errors import SequenceError, WireError
from bridges.wire.frame import Feedback, FeedbackCommand, MediaFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.media.connection import TrackStream
    from bridges.media.outlets import Outlet
    from bridges.media.settings import MediaSettings
    from bridges.node.port import ClusterNode

__all__ = ["LinkAddress", "PushedTrack", "Receiver"]

_log: Final = structlog.get_logger(__name__)


class Receiver(Protocol):
    """Where the frames come from: they go to whoever was named when it was made."""

    def send(self, feedback: Feedback) -> None:
        """Tell the source something."""

    def request_key_frame(self) -> None:
        """Ask the source for a key frame."""

    def close(self) -> None:
        """Take no more frames."""


class LinkAddress(msgspec.Struct, frozen=True):
    """Where a track is to be had inside the cluster, as `linkup` says it."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    ip: Annotated[str, Meta(min_length=1, max_length=256)]
    port: Annotated[int, Meta(ge=1, le=65535)]


class PushedTrack:
    """The stream's user from its first byte on.

    `on_wanted` is called when the peer has said what it wants: the time to start `run`, or to `refuse`.
    """

    def __init__(
        self,
        stream: TrackStream,
        *,
        node: ClusterNode,
        on_wanted: Callable[[PushedTrack], None],
        settings: MediaSettings,
    ) -> None:
        self._stream = stream
        self._node = node
        self._on_wanted = on_wanted
        self._settings = settings
        self._session = PusherSession()
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = self._loop.call_later(
            settings.hello_timeout, self._give_up, "nothing was asked for in time", CloseCode.TIMED_OUT
        )
        self._scope: asyncio.Timeout | None = None
        self._ended = False
        self._address: LinkAddress | None = None
        self._relinked = asyncio.Event()
        self._receiver: Receiver | None = None
        self._listen: Callable[[Callable[[Piece], None]], Receiver] | None = None
        self._outlet: Outlet | None = None
        self._dependencies = Dependencies()
        self._rates = RateWishes()
        self._subscribed = False
        self.peer: Final = stream.connection.peer
        self.room: Final = stream.connection.room
        self.node = ""
        """The conference node that the track is subscribed at, empty before."""
        self.wanted: TrackWanted | None = None
        """What the peer asked for, None before."""
        self.done = asyncio.Event()
        """Set when everything of this track, at the node too, has been undone."""
        self.frames = 0
        """Frames that were sent."""
        self.bytes = 0
        """Bytes of these frames, headers included."""
        self.key_frame_requests = 0
        """Requests that went to the source, the peer's and our gate's."""

    @property
    def connection_id(self) -> str:
        """The subscription's id at our node, empty before it was said; peers may choose the same ids."""
        return "" if self.wanted is None else f"{self.peer}:{self.wanted.options.connection_id}"

    @property
    def moved(self) -> Moved:
        """What was sent so far."""
        return Moved(
            incoming=False,
            frames=self.frames,
            bytes=self.bytes,
            dropped=self._dropped,
            slowed=self._rates.least(self._loop.time()) is not None,
        )

    @property
    def _dropped(self) -> int:
        return 0 if self._outlet is None else self._outlet.dropped

    def stats(self) -> dict[str, Any]:
        """Return the figures of this track, as getStats shows them."""
        assert self.wanted is not None
        return {
            "id": self.wanted.id,
            "room": self.room,
            "peer": self.peer,
            "direction": "out",
            "kind": self.wanted.kind,
            "frames": self.frames,
            "bytes": self.bytes,
            "dropped_frames": self._dropped,
            "key_frame_requests": self.key_frame_requests,
            "asked_kbps": self._rates.least(self._loop.time()),
        }

    def pass_on(self, listen: Callable[[Callable[[Piece], None]], Receiver]) -> None:
        """Take the track from a pull of ours, which `listen` begins, instead of asking our node for it."""
        self._listen = listen

    # What the cluster asks.

    def link(self, address: LinkAddress) -> None:
        """Take the track from `address`, from now on."""
        self._address = address
        self._relinked.set()

    def unlink(self) -> None:
        """Take the track from nowhere: its address is no longer right; another may be named."""
        self._address = None
        self._relinked.set()

    def end(self, reason: str, *, unsubscribe: bool = True) -> None:
        """End the track and its stream. Without `unsubscribe` the node has forgotten it already."""
        self._subscribed = self._subscribed and unsubscribe
        self._stop(reason)

    # What the stream says.

    def data(self, data: bytes, *, end: bool) -> None:
        """Take bytes of the stream."""
        session = self._session
        session.feed(data)
        try:
            while not self._ended and (event := session.next_event()) is not None:
                if isinstance(event, TrackWanted):
                    self._outlet = self._way_out(event)
                    self.wanted = event
                    self._cancel_deadline()
                    self._on_wanted(self)
                elif isinstance(event, Feedback):
                    self._feedback(event)
        except WireError as error:
            self._give_up(str(error), error.code)
            return
        self._stream.send(session.data_to_send())
        if end:
            self._stop("the peer ended the stream")

    def ended(self, reason: str) -> None:
        """Take note that the stream is gone."""
        self._stop(reason)

    def refuse(self, reason: str, code: int = SequenceError.code) -> None:
        """Reset the stream: the track will not be sent."""
        self._give_up(reason, code)

    def _way_out(self, wanted: TrackWanted) -> Outlet:
        """Return what the connection's wire asks for. Raises SequenceError."""
        carriage, is_sound = self._stream.connection.carriage, wanted.kind != "video"
        if carriage is None:
            return StreamOutlet(
                self._stream,
                sound=is_sound,
                ask=self._request_key_frame,
                slow=lambda kbps: self._ask_for(kbps, self._stream),
                settings=self._settings,
            )
        if wanted.options.alias is None:
            raise SequenceError("a track without an alias")
        try:
            return DatagramOutlet(
                carriage,
                wanted.options.alias,
                sound=is_sound,
                ask=self._request_key_frame,
                slow=lambda kbps: self._ask_for(kbps, carriage),
            )
        except ValueError as error:
            raise SequenceError(str(error)) from None

    def _feedback(self, feedback: Feedback) -> None:
        if self._receiver is None:
            return
        match feedback.command:
            case FeedbackCommand.SET_BITRATE:
                self._ask_for(feedback.kbps, self._session)
            case FeedbackCommand.REQUEST_KEY_FRAME if self._outlet is not None:
                self._outlet.wished()
            case _:
                self._receiver.send(feedback)

    def _give_up(self, reason: str, code: int) -> None:
        self._stream.reset(code)
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._cancel_deadline()
        if self._outlet is not None:
            self._outlet.close()
        self._stream.finish()
        _log.info("track.ended", connection_id=self.connection_id, peer=self.peer, reason=reason)
        if self.wanted is None:
            self.done.set()
        elif self._scope is not None:
            self._scope.reschedule(self._loop.time())

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # The task

    async def run(self, former: PushedTrack | None = None) -> None:
        """Subscribe at the node and forward until the track ends, then undo what was done.

        `former` is a track with the same connection id that has ended; what it did is undone first.
        """
        try:
            if former is not None:
                await former.done.wait()
            async with asyncio.timeout(0 if self._ended else None) as self._scope:
                await self._forward()
        except TimeoutError:
            assert self._ended  # That is how the scope above ends what is under way.
        except (RpcError, NodeUnreachableError, InternalUnavailableError) as error:
            self._scope = None
            self._stop(str(error))
        except asyncio.CancelledError:
            self._subscribed = False  # The worker leaves its cluster, which undoes everything at once.
            raise
        finally:
            self._scope = None
            self._close_receiver()
            self._stream.finish()
            try:
                await self._unsubscribe()
            finally:
                self.done.set()

    async def _forward(self) -> None:
        if self._listen is None:
            await self._forward_our_own()
            return
        self._receiver = self._listen(self._piece)
        self._request_key_frame()
        await asyncio.Event().wait()  # until the scope ends it

    async def _forward_our_own(self) -> None:
        assert self.wanted is not None
        self.node = node_id = await self._node.find_conference_node(self.room)
        self._subscribed = True  # Even if no reply comes: then the node may have done it or not.
        await self._node.call(node_id, "subscribe", ["admin", self.connection_id, self._subscription()])
        while True:
            address = await self._next_address()
            try:
                self._receiver = await InternalReceiver.connect(
                    address.ip,
                    address.port,
                    address.id,
                    on_frame=self._frame,
                    on_lost=self._source_lost,
                    settings=self._settings.internal,
                )
                self._request_key_frame()
                await self._relinked.wait()
            finally:
                self._close_receiver()

    async def _next_address(self) -> LinkAddress:
        """Return where to take the track from. Raises NodeUnreachableError when the node does not say."""
        deadline = self._loop.time() + self._settings.link_timeout
        while True:
            self._relinked.clear()
            if self._address is not None:
                return self._address
            try:
                async with asyncio.timeout_at(deadline):
                    await self._relinked.wait()
            except TimeoutError:
                raise NodeUnreachableError("the node did not say where the track is") from None

    async def _unsubscribe(self) -> None:
        if not self._subscribed:
            return
        try:
            node_id = await self._node.find_conference_node(self.room)
            await self._node.call(node_id, "unsubscribe", ["admin", self.connection_id])
        except (RpcError, NodeUnreachableError) as error:
            # The node is gone or has forgotten the subscription: either way there is nothing left to undo.
            _log.info("track.unsubscribe_failed", connection_id=self.connection_id, reason=str(error))

    def _subscription(self) -> dict[str, Any]:
        assert self.wanted is not None
        options = self.wanted.options
        return {
            "type": "mediabridge",
            "room": self.room,
            "cluster": self.peer,
            "connectionId": self.connection_id,
            "media": msgspec.to_builtins(options.media),
            "originType": options.origin_type,
            "locality": {"agent": self._node.worker_id, "node": self._node.node_id},
        }

    # Frames

    def _frame(self, frame: MediaFrame) -> None:
        self._piece(fresh(frame, self._loop.time(), self._dependencies))

    def _piece(self, piece: Piece) -> None:
        if self._ended:
            return
        assert self.wanted is not None
        assert self._outlet is not None
        frame = piece.frame
        if frame.is_video != (self.wanted.kind == "video"):
            self._stop(f"a frame of format {frame.format} on a track of {self.wanted.kind}")
        elif self._outlet.offer(piece):
            self.frames += 1
            self.bytes += len(frame.raw)

    def _request_key_frame(self) -> None:
        assert self.wanted is not None
        if self._receiver is not None and self.wanted.kind == "video":
            self.key_frame_requests += 1
            self._receiver.request_key_frame()

    def _ask_for(self, kbps: int, who: object) -> None:
        """Ask the source for a rate, in kilobits a second: for this link's sake, or for what is behind it."""
        least = self._rates.ask(self._loop.time(), who, kbps)
        if self._receiver is not None and least is not None:
            self._receiver.send(Feedback.set_bitrate(least))

    def _source_lost(self, reason: str) -> None:
        self._stop(f"the source is gone: {reason}")

    def _close_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()
        if self._outlet is not None:
            self._outlet.restart()
